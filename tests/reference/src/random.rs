//! Random numbers: deterministic, the same on every machine and however many threads make them.

use fulgurite::Dtype;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

use crate::tensor::encode;

/// Elements that one generator makes: blocks are independent, so they are made in parallel.
const BLOCK: usize = 1 << 16;

/// `count` numbers of a distribution; `stream` tells tensors of one seed apart.
pub fn draw(
    seed: u64,
    stream: u64,
    count: usize,
    one: impl Fn(&mut ChaCha8Rng) -> f32 + Sync,
) -> Vec<f32> {
    let mut numbers = vec![0.0; count];
    numbers.par_chunks_mut(BLOCK).enumerate().for_each(|(block, numbers)| {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream((stream << 32) | block as u64);
        numbers.iter_mut().for_each(|number| *number = one(&mut random));
    });
    numbers
}

/// N(0, 1).
pub fn normal(random: &mut ChaCha8Rng) -> f32 {
    StandardNormal.sample(random)
}

/// Uniform from 0.5 to 1.5.
pub fn about_1(random: &mut ChaCha8Rng) -> f32 {
    0.5 + random.random::<f32>()
}

/// N(0, 1) + N(0, 100) · Bernoulli(0.001), as in the FlashAttention-3 paper.
pub fn outlier(random: &mut ChaCha8Rng) -> f32 {
    let base = normal(random);
    if random.random_bool(0.001) { base + 10.0 * normal(random) } else { base }
}

/// N(0, 1) numbers, rounded to `dtype`.
pub fn normal_bits(seed: u64, stream: u64, count: usize, dtype: Dtype) -> Vec<u16> {
    let numbers = draw(seed, stream, count, normal);
    numbers.par_iter().map(|&x| encode(dtype, f64::from(x))).collect()
}

/// Even in [1, 1.99).
pub fn uniform(random: &mut ChaCha8Rng) -> f32 {
    random.random_range(1.0..1.99)
}
