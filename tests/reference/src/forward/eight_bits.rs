//! Attention on quantised tensors: what is exact of it, and what a good kernel makes of it.
//!
//! Both compute on the numbers that 8-bit elements stand for, with keys and values less their
//! means; what that took from the log-sum-exp and the output is added at the end.

mod quantised;

use fulgurite::{Dtype, Layout, Mask};

use super::lowprec::{self, Arithmetic, LowPrecision};
use super::oracle::{self, Problem, Reference};
use super::quantise::rows;
use crate::e4m3;
use crate::tensor::{Elements, RowId, View, encode};

pub use quantised::{Integers, Quantised, Shape};

/// A call on quantised tensors.
#[derive(Clone, Debug)]
pub struct EightBits {
    quantised: Quantised,
    /// Columns of the call's own tensors, and their type.
    own: (usize, Dtype),
    layouts: [Layout; 3],
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// By how much each element of q and of k would be another if it were rounded the other way.
    q_doubt: Vec<f32>,
    k_doubt: Vec<f32>,
    mask: Mask,
    scale: f64,
}

/// Numbers of rows that share scales: `scale_of` gives the place of a row's.
fn numbers<T: Copy>(
    elements: &[T],
    head_dim: usize,
    scales: &[f32],
    scale_of: impl Fn(usize) -> usize,
    number: impl Fn(T) -> f32,
) -> Vec<f32> {
    let rows = elements.chunks(head_dim).enumerate();
    rows.flat_map(|(row, elements)| {
        let scale = scales[scale_of(row)];
        elements.iter().map(|&x| number(x) * scale).collect::<Vec<_>>()
    })
    .collect()
}

/// V as it is, with zeros up to `head_dim` columns.
fn own_values(problem: &Problem, head_dim: usize) -> Vec<f32> {
    let [batches, heads, ..] = problem.v.layout.shape;
    let entries = (0..batches).flat_map(|batch| (0..heads).map(move |head| (batch, head)));
    let rows = entries.flat_map(|(batch, head)| rows(&problem.v, batch, head, head_dim));
    rows.flatten().map(|x| x as f32).collect()
}

impl EightBits {
    /// A call on its quantised tensors.
    pub fn of(problem: &Problem, quantised: Quantised) -> EightBits {
        let head_dim = quantised.shape.head_dim;
        let layout = |view: View| {
            let [batch, heads, rows, _] = view.layout.shape;
            // What probabilities are rounded to is the type of the values.
            Layout::bhsd(quantised.shape.values, batch, heads, rows, head_dim)
        };
        let kv_len = problem.k.layout.shape[2];
        let (kv_rows, tiles) = (quantised.shape.kv_rows, kv_len.div_ceil(quantised.shape.kv_rows));
        let tile_of = |row: usize| row / kv_len * tiles + row % kv_len / kv_rows;
        let Quantised { q, k, v8, v_scale, .. } = &quantised;
        let doubt = |is_doubtful: bool| f32::from(u8::from(is_doubtful));
        EightBits {
            own: (problem.q.layout.shape[3], problem.q.layout.dtype),
            layouts: [problem.q, problem.k, problem.v].map(layout),
            q: numbers(&q.elements, head_dim, &q.scales, |row| row, f32::from),
            k: numbers(&k.elements, head_dim, &k.scales, tile_of, f32::from),
            q_doubt: numbers(&q.doubtful, head_dim, &q.scales, |row| row, doubt),
            k_doubt: numbers(&k.doubtful, head_dim, &k.scales, tile_of, doubt),
            v: match quantised.shape.values {
                Dtype::E4m3 => numbers(v8, head_dim, v_scale, |row| row / kv_len, e4m3::decode),
                _ => own_values(problem, head_dim),
            },
            mask: problem.mask,
            scale: problem.scale,
            quantised,
        }
    }

    /// The same with something changed in what is stored: what a quantiser that errs would leave.
    pub fn altered(
        problem: &Problem,
        quantised: &Quantised,
        by: impl FnOnce(&mut Quantised),
    ) -> EightBits {
        let mut quantised = quantised.clone();
        by(&mut quantised);
        EightBits::of(problem, quantised)
    }

    fn problem(&self) -> Problem<'_> {
        let [q, k, v] = &self.layouts;
        Problem {
            q: View { layout: q, elements: Elements::Numbers(&self.q) },
            k: View { layout: k, elements: Elements::Numbers(&self.k) },
            v: View { layout: v, elements: Elements::Numbers(&self.v) },
            mask: self.mask,
            scale: self.scale,
        }
    }

    /// What a row's log-sum-exp gets back.
    fn q_shift(&self, id: &RowId) -> f32 {
        let [_, heads, rows, _] = self.layouts[0].shape;
        self.quantised.q_shift[(id.batch * heads + id.head) * rows + id.row]
    }

    /// What the columns of a row's output get back.
    fn v_shift(&self, id: &RowId) -> impl Iterator<Item = f32> {
        let [_, heads, ..] = self.layouts[2].shape;
        let entry = id.batch * heads + self.problem().kv_head(id.head);
        let first = entry * self.quantised.shape.head_dim;
        let shift = move |column| self.quantised.v_shift.get(first + column).copied();
        (0..self.own.0).map(move |column| shift(column).unwrap_or(0.0))
    }

    /// The exact answer on the quantised tensors; `magnitude` is that of values less their means.
    /// With it, how far each row's log-sum-exp may lie from it because integers are rounded the
    /// other way where float32 does not tell: what that turns scores by, in the mean over the
    /// weights.
    pub fn reference(&self, rows: &[RowId]) -> (Reference, Vec<f64>) {
        // Keys and their doubts are weighed as if they were columns of V.
        let head_dim = self.quantised.shape.head_dim;
        let [value, key, doubt] = [&self.v, &self.k, &self.k_doubt].map(|it| it.chunks(head_dim));
        let wide: Vec<f32> =
            value.zip(key).zip(doubt).flat_map(|((v, k), doubt)| [v, k, doubt].concat()).collect();
        let [batch, heads, keys, _] = self.layouts[2].shape;
        let values = self.quantised.shape.values;
        let layout = Layout::bhsd(values, batch, heads, keys, 3 * head_dim);
        let v = View { layout: &layout, elements: Elements::Numbers(&wide) };
        let mut reference = oracle::attention(&Problem { v, ..self.problem() }, rows);
        let weighed = reference.magnitude.chunks(3 * head_dim);
        let doubts =
            rows.iter().zip(weighed).map(|(id, weighed)| self.doubt(id, weighed)).collect();
        let own = self.own.0;
        let crop = |numbers: &[f64]| -> Vec<f64> {
            numbers.chunks(3 * head_dim).flat_map(|row| &row[..own]).copied().collect()
        };
        reference.out = crop(&reference.out);
        reference.magnitude = crop(&reference.magnitude);
        reference.faint = crop(&reference.faint);
        reference.head_dim = own;
        for (index, id) in
            rows.iter().enumerate().filter(|(index, _)| !reference.kept[*index].is_empty())
        {
            let out = &mut reference.out[index * own..(index + 1) * own];
            out.iter_mut().zip(self.v_shift(id)).for_each(|(x, shift)| *x += f64::from(shift));
            let shift = f64::from(self.q_shift(id));
            reference.lse[index] += shift;
            // The larger of two that are added decides what the sum's rounding is.
            reference.peak[index] = reference.peak[index].max(shift.abs());
        }
        (reference, doubts)
    }

    /// What doubtful integers may turn a row's scores by; `weighed`: sizes of values, of keys and
    /// of keys' doubts, weighed as the row does.
    fn doubt(&self, id: &RowId, weighed: &[f64]) -> f64 {
        let [_, heads, rows, _] = self.layouts[0].shape;
        let head_dim = self.quantised.shape.head_dim;
        let first = ((id.batch * heads + id.head) * rows + id.row) * head_dim;
        let of_row = first..first + head_dim;
        let (keys, doubts) = weighed[head_dim..].split_at(head_dim);
        let product = |a: &[f32], b: &[f64]| -> f64 {
            a.iter().zip(b).map(|(a, b)| f64::from(a.abs()) * b).sum()
        };
        let q_doubt = product(&self.q_doubt[of_row.clone()], keys);
        self.scale * (q_doubt + product(&self.q[of_row], doubts))
    }

    /// A good kernel's answer.
    pub fn model(&self, rows: &[RowId], arithmetic: Arithmetic) -> LowPrecision {
        let (own, dtype) = self.own;
        let finish = |id: &RowId, out: Vec<f32>, lse: f32| {
            let has_keys = lse != f32::NEG_INFINITY;
            let shifted = out[..own].iter().zip(self.v_shift(id));
            let shifted = shifted.map(|(x, shift)| if has_keys { x + shift } else { *x });
            let out = shifted.map(|x| encode(dtype, f64::from(x))).collect();
            (out, lse + self.q_shift(id))
        };
        lowprec::attention_then(&self.problem(), rows, arithmetic, |_| self.scale, finish)
    }

    /// The largest size of a value of each row's KV head.
    pub fn largest_values(&self, rows: &[RowId]) -> Vec<f64> {
        let [batch, heads, keys, head_dim] = self.layouts[2].shape;
        let largest = |entry: usize| {
            let values = &self.v[entry * keys * head_dim..(entry + 1) * keys * head_dim];
            let sizes = values.iter().map(|x| f64::from(x.abs()));
            sizes.filter(|size| size.is_finite()).fold(0.0, f64::max)
        };
        let of_entries: Vec<f64> = (0..batch * heads).map(largest).collect();
        let entry = |id: &RowId| id.batch * heads + self.problem().kv_head(id.head);
        rows.iter().map(|id| of_entries[entry(id)]).collect()
    }
}
