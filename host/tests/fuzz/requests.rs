//! Where the random requests come from.

use fulgurite::{Descale, DeviceFacts, Dtype, Forward, Layout, Mask, Precision};
use proptest::prelude::*;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

const PRIMES: [usize; 6] = [2, 3, 7, 131, 7919, 2_147_483_647];

/// A size or stride without any sense.
fn any_size(rng: &mut ChaCha8Rng) -> usize {
    match rng.random_range(0..10) {
        0 => 0,
        1 => 1,
        2 => PRIMES[rng.random_range(0..PRIMES.len())],
        3 => rng.random_range(0..300),
        4 => 8 * rng.random_range(0..300_usize),
        5 => (1_usize << rng.random_range(0..64)).wrapping_add(rng.random_range(0..3)) - 1,
        6 => rng.random_range(0..1 << 33),
        7 => usize::MAX - rng.random_range(0..20_usize),
        // As a negative stride of another language arrives.
        8 => (-8 * rng.random_range(0..10_000_i64)) as usize,
        _ => rng.random::<u64>() as usize,
    }
}

/// A size that a call may have: mostly small, sometimes none, sometimes very large.
fn sane_size(rng: &mut ChaCha8Rng) -> usize {
    match rng.random_range(0..12) {
        0 => 0,
        1 => rng.random_range(1000..100_000),
        2 => 1 << rng.random_range(0..32),
        3..6 => 1,
        _ => rng.random_range(1..200),
    }
}

fn dtype(rng: &mut ChaCha8Rng) -> Dtype {
    [Dtype::Bf16, Dtype::F16, Dtype::Bf16, Dtype::F16, Dtype::E4m3][rng.random_range(0..5)]
}

/// What numbers are multiplied with, of every kind, sometimes where it makes no sense.
fn descale(rng: &mut ChaCha8Rng) -> Descale {
    match rng.random_range(0..8) {
        0 => Descale::PerRow,
        1 | 2 => Descale::PerTensor,
        3 | 4 => Descale::PerHead { strides: [any_size(rng), any_size(rng)] },
        5 => Descale::PerHead { strides: [0, 0] },
        _ => Descale::One,
    }
}

/// A tensor of this shape in one of the usual orders, sometimes with room, overlap or broadcasts.
fn layout(rng: &mut ChaCha8Rng, dtype: Dtype, shape: [usize; 4]) -> Layout {
    let [batch, heads, rows, head_dim] = shape;
    let mut layout = match rng.random_range(0..4) {
        0 => Layout::bhsd(dtype, batch, heads, rows, head_dim),
        1 => {
            let row = head_dim.saturating_add(8 * rng.random_range(0..9_usize));
            let mut order = [0, 1, 2];
            order.swap(0, rng.random_range(0..3));
            order.swap(1, rng.random_range(1..3));
            let (mut strides, mut stride) = ([1; 4], row);
            for axis in order {
                strides[axis] = stride;
                stride = stride.saturating_mul(shape[axis]);
            }
            Layout::strided(dtype, shape, strides)
        }
        _ => Layout::bshd(dtype, batch, rows, heads, head_dim),
    };
    if rng.random_range(0..16) == 0 {
        layout.strides[rng.random_range(0..3)] = 8 * rng.random_range(0..400_usize);
    }
    if rng.random_range(0..16) == 0 {
        layout.strides[rng.random_range(0..3)] = 0;
    }
    layout
}

fn scale(rng: &mut ChaCha8Rng) -> Option<f32> {
    match rng.random_range(0..8) {
        0 => Some(f32::from_bits(rng.random())),
        1 => {
            let special =
                [0.0, -0.0, 1e-40, f32::MIN_POSITIVE, f32::MAX, f32::INFINITY, f32::NAN, -1.0];
            Some(special[rng.random_range(0..special.len())])
        }
        2 => Some(rng.random()),
        _ => None,
    }
}

fn mask(rng: &mut ChaCha8Rng) -> Mask {
    match rng.random_range(0..4) {
        0 => Mask::Full,
        1 => Mask::Causal,
        _ => Mask::Window { left: window_end(rng), right: window_end(rng) },
    }
}

fn window_end(rng: &mut ChaCha8Rng) -> Option<i32> {
    match rng.random_range(0..6) {
        0 => None,
        1 => Some(rng.random()),
        2 => Some([0, 1, -1, i32::MAX, i32::MIN][rng.random_range(0..5)]),
        _ => Some(rng.random_range(-300..5000)),
    }
}

/// A request whose tensors fit each other, but for some that had one number replaced.
pub fn request(rng: &mut ChaCha8Rng) -> Forward {
    let head_dim = match rng.random_range(0..8) {
        0 => any_size(rng),
        _ => 8 * rng.random_range(1..33),
    };
    let (batch, kv_heads, group) = (sane_size(rng), sane_size(rng), sane_size(rng));
    let heads = kv_heads.saturating_mul(group.min(64));
    let q_shape = [batch, heads, sane_size(rng), head_dim];
    let kv_shape = [batch, kv_heads, sane_size(rng), head_dim];
    let one = dtype(rng);
    // Results have 16 bits.
    let of_out = if one == Dtype::E4m3 { Dtype::F16 } else { one };
    let mut request = Forward::new(
        layout(rng, one, q_shape),
        layout(rng, one, kv_shape),
        layout(rng, one, kv_shape),
        layout(rng, of_out, q_shape),
        mask(rng),
    );
    request.scale = scale(rng);
    request.lse = rng.random();
    let is_usual = rng.random_range(0..16) > 0;
    if (one == Dtype::E4m3) == is_usual {
        request.descale = Some([descale(rng), descale(rng), descale(rng)]);
    }
    let of_16_bits = one != Dtype::E4m3 || !is_usual;
    if of_16_bits && rng.random_range(0..3) == 0 {
        const QUANTISED: [Precision; 3] = [Precision::S8E4m3, Precision::S8x16, Precision::Bits8];
        request.precision = QUANTISED[rng.random_range(0..QUANTISED.len())];
    }
    if rng.random_range(0..16) == 0 {
        let axis = rng.random_range(0..3);
        request.k.strides[axis] = 0;
        request.v.strides[axis] = 0;
    }
    for _ in 0..rng.random_range(0..3_u32).saturating_sub(1) {
        spoil(rng, &mut request);
    }
    if rng.random_range(0..10) == 0 {
        for _ in 0..20 {
            spoil(rng, &mut request);
        }
    }
    request
}

/// Replaces one number, of one tensor or of all at the same place.
fn spoil(rng: &mut ChaCha8Rng, request: &mut Forward) {
    let (size, axis) = (any_size(rng), rng.random_range(0..4));
    let (of_shape, everywhere, only) = (rng.random(), rng.random(), rng.random_range(0..4));
    let other_type = rng.random_range(0..8) == 0;
    let tensors = [&mut request.q, &mut request.k, &mut request.v, &mut request.out];
    for (index, tensor) in tensors.into_iter().enumerate() {
        if everywhere || index == only {
            let numbers = if of_shape { &mut tensor.shape } else { &mut tensor.strides };
            numbers[axis] = size;
            if other_type {
                tensor.dtype = dtype(rng);
            }
        }
    }
}

/// A device: mostly one that runs the kernels, with any number of multiprocessors.
pub fn facts(rng: &mut ChaCha8Rng) -> DeviceFacts {
    let sm_count = match rng.random_range(0..8) {
        0 => 0,
        1 => 1,
        2 => rng.random(),
        3 => u32::MAX,
        _ => rng.random_range(2..300),
    };
    let mut facts = DeviceFacts::h200();
    facts.sm_count = sm_count;
    match rng.random_range(0..40) {
        0 => facts.smem_optin_bytes = rng.random(),
        1 => facts.smem_optin_bytes = 0,
        2 => facts.compute_capability = (rng.random_range(0..13), rng.random()),
        _ => (),
    }
    facts
}

/// Requests of small numbers, for `proptest` to shrink.
pub fn small() -> impl Strategy<Value = Forward> {
    let shape = (0_usize..4, 0_usize..4, 1_usize..4, 0_usize..300, 0_usize..300, 1_usize..33);
    let strides = || [0_usize..40, 0..40, 0..40].prop_map(|s| s.map(|stride| 8 * stride));
    let own = || (any::<bool>(), strides());
    let scale = prop::option::of(any::<f32>());
    let end = || prop::option::of(-300_i32..300);
    let mask = prop_oneof![
        Just(Mask::Full),
        Just(Mask::Causal),
        (end(), end()).prop_map(|(left, right)| Mask::Window { left, right }),
    ];
    let options = (any::<bool>(), mask, any::<bool>(), any::<bool>(), scale);
    (shape, [own(), own(), own(), own()], options).prop_map(
        |(
            (batch, kv_heads, group, q_len, kv_len, unit),
            own,
            (half, mask, lse, quantised, scale),
        )| {
            let dtype = if half { Dtype::F16 } else { Dtype::Bf16 };
            let head_dim = 8 * unit;
            let layout = |index: usize, rows, heads| match own[index] {
                (true, [b, h, r]) => {
                    Layout::strided(dtype, [batch, heads, rows, head_dim], [b, h, r, 1])
                }
                (false, _) => Layout::bshd(dtype, batch, rows, heads, head_dim),
            };
            let mut forward = Forward::new(
                layout(0, q_len, kv_heads * group),
                layout(1, kv_len, kv_heads),
                layout(2, kv_len, kv_heads),
                layout(3, q_len, kv_heads * group),
                mask,
            );
            forward.scale = scale;
            forward.lse = lse;
            if quantised {
                forward.precision = Precision::S8E4m3;
            }
            forward
        },
    )
}
