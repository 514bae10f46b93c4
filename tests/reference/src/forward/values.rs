//! The numbers that fill a case's tensors: deterministic, of the kinds that attention trips over.

use fulgurite::Dtype;

use crate::random::{draw, normal, outlier};
use crate::tensor::{Tensor, decode, encode};

pub mod exact;

pub use exact::{Climb, Exact};

/// What q, k and v hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Values {
    /// N(0, 1).
    Normal,
    /// Scaled scores of standard deviation 20, so that they reach ±80.
    LargeLogits,
    /// N(0, 1), and every 16th row has one key that outweighs all others.
    DominantKey,
    /// Every element of V is this; the output must be exactly it.
    ConstantV(f32),
    /// Q is zero: every key weighs the same.
    ZeroQ,
    /// N(0, 1), and keys 0 and 5, which a block comes to last, outweigh all others: their scores
    /// lie up to this far (at the default scale) above the rest, by row, from nothing on.
    Sinks(f32),
    /// The same for one row alone: row 7 of head 0 of each batch entry.
    LoneSink(f32),
    /// The same for that row, but with the last key that it may see under a causal mask and the
    /// fifth before it: a block comes to them early, and what follows is nothing beside them.
    LoneStart(f32),
    /// N(0, 1), but V is N(1, 1): sums of it grow with the number of keys.
    MeanOne,
    /// N(0, 1), and NaN in column 0 of a value that every row sees, of KV head 0 of batch entry 0.
    NanValue,
    /// Every element of q, k and v is this.
    Equal(f32),
    /// Scores that are known, for a scale of [`exact::SCALE`].
    Exact(Exact),
    /// Scores that climb, for a scale of ln 2.
    Climb(Climb),
    /// N(0, 1) + N(0, 100) · Bernoulli(0.001), as in the FlashAttention-3 paper.
    Outliers,
    /// N(0, 1), and each column of K and V has a mean of its own, up to 6.
    Biased,
    /// N(0, 1), but every element of a column of V is the same, another for each column and head.
    ConstantColumns,
    /// N(0, 1), every head of Q, K and V times a factor of its own, which is no power of two.
    HeadSizes,
    /// Subnormal numbers of f16, and of bf16 numbers as small: scores are next to 0.
    Tiny,
}

/// Something that other results must not notice, planted in batch entry 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poison {
    /// NaN in every seventh query row of head 0.
    QueryNan,
    /// +∞ in every seventh query row of head 0.
    QueryInf,
    /// NaN in one key, two thirds along, of KV head 0.
    KeyNan,
    /// +∞ in one key, two thirds along, of KV head 0.
    KeyInf,
    /// NaN in query row [`LONE_ROW`] of head 0. Here and in what follows rows may have settled, so
    /// that what their group of 64 does decides how they are computed.
    RowNan,
    /// +∞ in that row.
    RowInf,
    /// That row times 40, so that its scores are peaked.
    RowPeak,
    /// That row times 10⁴.
    RowHuge,
    /// NaN in the same key as `KeyNan`, and nothing claimed of rows of that KV head.
    HeadNan,
    /// NaN in this column of a value that every row sees, of KV head 0.
    ValueNan(usize),
}

/// The query row that is planted in alone.
pub const LONE_ROW: usize = 9;

/// The value that is planted in: every row of a call with no more queries than keys sees it.
const VALUE_ROW: usize = 0;

/// Q, K and V.
#[derive(Clone, Debug, PartialEq)]
pub struct Inputs {
    /// Queries.
    pub q: Tensor,
    /// Keys.
    pub k: Tensor,
    /// Values.
    pub v: Tensor,
}

impl Values {
    /// Fills tensors of the given shapes (batch, head, row, head dim).
    pub fn inputs(
        self,
        dtype: Dtype,
        q_shape: [usize; 4],
        kv_shape: [usize; 4],
        seed: u64,
    ) -> Inputs {
        let one = if self == Values::Outliers { outlier } else { normal };
        let tensor = |stream, shape: [usize; 4], factor: f32| {
            let numbers = draw(seed, stream, shape.iter().product(), one);
            Tensor::new(dtype, shape, numbers.into_iter().map(|x| x * factor))
        };
        let factor = match self {
            Values::LargeLogits => 20f32.sqrt(),
            Values::Tiny => 2f32.powi(-20),
            _ => 1.0,
        };
        let v_factor = if self == Values::Tiny { factor } else { 1.0 };
        let q_factor = if self == Values::ZeroQ { 0.0 } else { factor };
        let mut inputs = Inputs {
            q: tensor(0, q_shape, q_factor),
            k: tensor(1, kv_shape, factor),
            v: tensor(2, kv_shape, v_factor),
        };
        match self {
            Values::MeanOne => {
                let shifted = draw(seed, 2, inputs.v.bits.len(), |random| 1.0 + normal(random));
                inputs.v = Tensor::new(dtype, kv_shape, shifted.into_iter());
            }
            Values::NanValue => Poison::ValueNan(0).plant(&mut inputs),
            Values::Equal(value) => {
                for tensor in [&mut inputs.q, &mut inputs.k, &mut inputs.v] {
                    tensor.bits.fill(encode(dtype, f64::from(value)));
                }
            }
            Values::Biased => {
                for tensor in [&mut inputs.k, &mut inputs.v] {
                    by_column(tensor, |x, head, column| x + offset(head, column));
                }
            }
            Values::ConstantColumns => {
                by_column(&mut inputs.v, |_, head, column| offset(head, column));
            }
            Values::HeadSizes => {
                for (tensor, step) in
                    [(&mut inputs.q, 1.3), (&mut inputs.k, 0.6), (&mut inputs.v, 3.7)]
                {
                    by_column(tensor, |x, head, _| x * f32::powi(step, head as i32));
                }
            }
            Values::Exact(exact) => exact.fill(&mut inputs, seed),
            Values::Climb(climb) => climb.fill(&mut inputs, seed),
            Values::ConstantV(value) => inputs.v.bits.fill(encode(dtype, f64::from(value))),
            Values::DominantKey => dominate(&mut inputs),
            Values::Sinks(height) => sink(&mut inputs, f64::from(height), [0, 5], |_, row| row % 8),
            Values::LoneSink(height) => sink(&mut inputs, f64::from(height), [0, 5], lone),
            Values::LoneStart(height) => {
                let last = kv_shape[2] + 7 - q_shape[2];
                sink(&mut inputs, f64::from(height), [last, last - 5], lone);
            }
            _ => {}
        }
        inputs
    }
}

/// Changes every element, by its head and column.
fn by_column(tensor: &mut Tensor, change: impl Fn(f32, usize, usize) -> f32) {
    let (dtype, [_, heads, rows, head_dim]) = (tensor.layout.dtype, tensor.layout.shape);
    for (index, bits) in tensor.bits.iter_mut().enumerate() {
        let (head, column) = (index / (rows * head_dim) % heads, index % head_dim);
        *bits = encode(dtype, f64::from(change(decode(dtype, *bits), head, column)));
    }
}

/// The mean of a column: some large, of both signs, most of no short number.
fn offset(head: usize, column: usize) -> f32 {
    0.37 * ((column * 7 + head * 5) % 33) as f32 - 6.0
}

/// Makes the last key that every 16th row may see six times that row.
fn dominate(inputs: &mut Inputs) {
    let dtype = inputs.q.layout.dtype;
    let [batches, heads, q_len, _] = inputs.q.layout.shape;
    let [_, kv_heads, kv_len, _] = inputs.k.layout.shape;
    for batch in 0..batches {
        for kv_head in 0..kv_heads {
            for row in (0..q_len).step_by(16).filter(|row| row + kv_len >= q_len) {
                let head = kv_head * (heads / kv_heads);
                let q_row: Vec<f32> = inputs.q.view().row([batch, head, row]).collect();
                let key = inputs.k.row_mut([batch, kv_head, row + kv_len - q_len]);
                for (x, q) in key.iter_mut().zip(q_row) {
                    *x = encode(dtype, f64::from(6.0 * q));
                }
            }
        }
    }
}

/// The highest level for row 7 of head 0, the lowest for all others.
fn lone(head: usize, row: usize) -> usize {
    if (head, row) == (0, 7) { 7 } else { 0 }
}

/// Rows have `level(head, row)`, from 0 to 7, in their first column; two keys weigh it, the others
/// do not.
fn sink(inputs: &mut Inputs, height: f64, keys: [usize; 2], level: impl Fn(usize, usize) -> usize) {
    let dtype = inputs.q.layout.dtype;
    let [batches, heads, q_len, head_dim] = inputs.q.layout.shape;
    let [_, kv_heads, kv_len, _] = inputs.k.layout.shape;
    let weight = height * (head_dim as f64).sqrt() / 7.0;
    for batch in 0..batches {
        for (head, row) in (0..heads).flat_map(|head| (0..q_len).map(move |row| (head, row))) {
            inputs.q.row_mut([batch, head, row])[0] = encode(dtype, level(head, row) as f64);
        }
        for (head, key) in (0..kv_heads).flat_map(|head| (0..kv_len).map(move |key| (head, key))) {
            let share = match keys.iter().position(|sink| *sink == key) {
                Some(0) => 1.0,
                Some(_) => 0.995,
                None => 0.0,
            };
            inputs.k.row_mut([batch, head, key])[0] = encode(dtype, share * weight);
        }
    }
}

impl Poison {
    /// The query rows that are planted in.
    pub fn query_rows(q_len: usize) -> impl Iterator<Item = usize> {
        (3..q_len).step_by(7)
    }

    /// The key that is planted in.
    pub fn key_row(kv_len: usize) -> usize {
        kv_len * 2 / 3
    }

    /// Plants it.
    pub fn plant(self, inputs: &mut Inputs) {
        let dtype = inputs.q.layout.dtype;
        let [nan, infinity] = [f64::NAN, f64::INFINITY].map(|value| encode(dtype, value));
        let q_rows = Poison::query_rows(inputs.q.layout.shape[2]);
        let key = Poison::key_row(inputs.k.layout.shape[2]);
        match self {
            Poison::QueryNan => q_rows.for_each(|row| inputs.q.row_mut([0, 0, row])[1] = nan),
            Poison::QueryInf => q_rows.for_each(|row| inputs.q.row_mut([0, 0, row])[1] = infinity),
            Poison::KeyNan | Poison::HeadNan => inputs.k.row_mut([0, 0, key])[1] = nan,
            Poison::KeyInf => inputs.k.row_mut([0, 0, key])[1] = infinity,
            Poison::RowNan => inputs.q.row_mut([0, 0, LONE_ROW])[1] = nan,
            Poison::RowInf => inputs.q.row_mut([0, 0, LONE_ROW])[1] = infinity,
            Poison::RowPeak => times(inputs.q.row_mut([0, 0, LONE_ROW]), dtype, 40.0),
            Poison::RowHuge => times(inputs.q.row_mut([0, 0, LONE_ROW]), dtype, 1e4),
            Poison::ValueNan(column) => inputs.v.row_mut([0, 0, VALUE_ROW])[column] = nan,
        }
    }
}

/// Multiplies elements.
fn times(row: &mut [u16], dtype: Dtype, factor: f64) {
    row.iter_mut().for_each(|x| *x = encode(dtype, f64::from(decode(dtype, *x)) * factor));
}
