//! Inputs whose scores are known: exact in float32 in whatever order their products are added, and
//! at most in the last place of float32 off for climbs. The softmax scale of climbs is ln 2, so
//! that a score counts in powers of two; that of the others is [`SCALE`].

use fulgurite::Dtype;

use super::Inputs;
use crate::random::{draw, normal, uniform};
use crate::tensor::{Tensor, decode, encode};

/// Nearly ln 2, so that scores count in powers of two, and scaled ones do not fit float32: what is
/// lost of a large one must not show.
pub const SCALE: f32 = 1.00008 * std::f32::consts::LN_2;

/// Scores that are sums of few products of short numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Exact {
    /// Of every [`TILE`] keys from the last on the first three are near -2³⁰, the rest near 0.
    FarThenNear,
    /// The first three near 0, the rest near -2³⁰.
    NearThenFar,
    /// Each 100 above the one before, from 2²² on.
    FarClimb,
    /// The last key at `top`, all others this much below it.
    Border {
        /// The largest score.
        top: f32,
        /// How far the other keys are below it.
        below: f32,
    },
    /// All keys at this score, but for every row one that has all but 2⁻¹⁴ of it; V in [1, 2).
    Dominant(f32),
}

/// Keys of one level: those of the largest KV tile.
const TILE: usize = 128;

/// Rows have one of so many dominant keys, each with a column of its own behind the first two.
const LEADERS: usize = 6;

/// A climb: in each KV tile as many keys as a row has threads outweigh what came before, nearly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Climb {
    /// Tiles that climb.
    pub tiles: usize,
    /// What each weighs, over all before.
    pub ratio: f64,
    /// Keys of a tile.
    pub kv_rows: usize,
    /// Whether all probabilities are rounded down, by nearly as much as can be.
    pub aligned: bool,
}

/// Tiles in front of a climb: in them rows settle, whatever a mask does to the first.
const SETTLING: usize = 6;

/// The one of them whose keys are the first that count.
const FIRST: usize = 2;

/// Where all keys that do not count are, in powers of two.
const NOTHING: f64 = -40.0;

impl Exact {
    /// Fills the tensors; V is N(0, 1) before.
    pub fn fill(self, inputs: &mut Inputs, seed: u64) {
        if let Exact::Dominant(_) = self {
            // Half of the distance of all 16-bit numbers from 1 to 2, at most.
            let numbers = draw(seed, 3, inputs.v.bits.len(), uniform);
            inputs.v =
                Tensor::new(inputs.v.layout.dtype, inputs.v.layout.shape, numbers.into_iter());
        }
        let kv_len = inputs.k.layout.shape[2];
        let noise = |salt: usize, index: usize, column: usize| -> f32 {
            let mixed = (index * 16 + column + salt) as u64;
            let mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            (mixed % 3) as f32 - 1.0
        };
        let noisy = !matches!(self, Exact::Border { .. } | Exact::Dominant(_));
        rows(&mut inputs.q, |row, columns| {
            columns[0] = self.level_factor();
            columns[1] = if self == Exact::FarClimb { 100.0 } else { 1.0 };
            match noisy {
                true => (2..8).for_each(|column| columns[column] = noise(0, row, column)),
                false => columns[2 + row % LEADERS] = 1.0,
            }
        });
        rows(&mut inputs.k, |key, columns| {
            let tile = (kv_len - 1 - key) / TILE;
            let far = -2f32.powi(30) / self.level_factor();
            let near = match self {
                Exact::FarThenNear => tile >= 3,
                Exact::NearThenFar => tile < 3,
                _ => true,
            };
            if noisy && near {
                (2..8).for_each(|column| columns[column] = noise(7, key, column));
            }
            match self {
                Exact::FarThenNear | Exact::NearThenFar => {
                    columns[0] = if near { 0.0 } else { far };
                }
                Exact::FarClimb => (columns[0], columns[1]) = (2f32.powi(11), tile as f32),
                Exact::Border { top, below } => {
                    let coarse = nearest_power(top);
                    columns[0] = coarse / self.level_factor();
                    columns[1] = top - coarse - if key + 1 == kv_len { 0.0 } else { below };
                }
                Exact::Dominant(top) => {
                    let coarse = nearest_power(top);
                    columns[0] = coarse / self.level_factor();
                    columns[1] = top - coarse;
                    let leader = (0..LEADERS).find(|n| n * kv_len / LEADERS == key);
                    let lead = 14.0 + (kv_len as f32).log2().ceil();
                    leader.into_iter().for_each(|n| columns[2 + n] = lead);
                }
            }
        });
    }

    /// What the level's column of K is multiplied by: f16 ends at 2¹⁶.
    fn level_factor(self) -> f32 {
        match self {
            Exact::FarThenNear | Exact::NearThenFar => 32768.0,
            Exact::FarClimb => 2048.0,
            Exact::Border { .. } | Exact::Dominant(_) => 64.0,
        }
    }
}

/// The power of two next to a number, with its sign; 0 of 0.
fn nearest_power(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { x.abs().log2().round().exp2() * x.signum() }
}

/// Fills every row of a tensor: its first eight columns by `fill` from the row's number, the others
/// with 0.
fn rows(tensor: &mut Tensor, fill: impl Fn(usize, &mut [f32; 8])) {
    let (dtype, [.., rows, head_dim]) = (tensor.layout.dtype, tensor.layout.shape);
    for (index, row) in tensor.bits.chunks_mut(head_dim).enumerate() {
        let mut columns = [0.0; 8];
        fill(index % rows, &mut columns);
        row.fill(0);
        for (element, value) in row.iter_mut().zip(columns) {
            *element = encode(dtype, f64::from(value));
        }
    }
}

impl Climb {
    /// Keys that it takes.
    pub fn kv_len(&self) -> usize {
        (SETTLING + self.tiles) * self.kv_rows
    }

    /// Fills q and k; V moves by 1 if the climb is aligned, for its errors then add up.
    pub fn fill(&self, inputs: &mut Inputs, seed: u64) {
        let dtype = inputs.q.layout.dtype;
        if self.aligned {
            let numbers = draw(seed, 3, inputs.v.bits.len(), normal).into_iter();
            inputs.v = Tensor::new(dtype, inputs.v.layout.shape, numbers.map(|x| 1.0 + 0.25 * x));
        }
        let exponents = self.exponents(dtype);
        rows(&mut inputs.q, |row, columns| {
            // Rows climb at paces of their own, none faster than the steepest.
            let pace = if self.aligned { 1.0 } else { (96 + row % 33).min(128) as f32 / 128.0 };
            columns[..3].fill(pace);
        });
        let kv_len = inputs.k.layout.shape[2];
        rows(&mut inputs.k, |key, columns| {
            let tile = (kv_len - 1 - key) / self.kv_rows;
            // One column pair of a tile's first eight for each of the four threads of a row.
            let counts = matches!(key % self.kv_rows, 0 | 2 | 4 | 6);
            let mut rest = if counts { exponents[tile] } else { NOTHING };
            for column in &mut columns[..3] {
                *column = decode(dtype, encode(dtype, rest));
                rest -= f64::from(*column);
            }
        });
    }

    /// Where the keys that count are in each tile, in the order in which a kernel takes them.
    fn exponents(&self, dtype: Dtype) -> Vec<f64> {
        let mut exponents = vec![NOTHING; SETTLING];
        exponents[FIRST] = 0.0;
        let mut total = 1.0;
        for _ in 0..self.tiles {
            let weight = match self.aligned {
                true => rounded_down(dtype, self.ratio * total),
                false => self.ratio * total,
            };
            exponents.push(weight.log2());
            total += weight;
        }
        exponents
    }
}

/// The largest number up to `most` that lies just below the middle of two elements.
fn rounded_down(dtype: Dtype, most: f64) -> f64 {
    let step = match dtype {
        Dtype::Bf16 => 2f64.powi(-7),
        Dtype::F16 => 2f64.powi(-10),
        _ => panic!("no reference for elements of {}", dtype.name()),
    };
    let power = most.log2().floor().exp2();
    let place = ((most / power - 1.0) / step - 0.48).floor();
    power * (1.0 + (place + 0.48) * step)
}
