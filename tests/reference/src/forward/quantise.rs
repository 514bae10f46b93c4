//! The quantiser in float64: what the kernels that make 8-bit elements must come to.

use fulgurite_spec::quantise::{E4M3_MAX, KEY_ORDER, S8_MAX, rotation};

use crate::tensor::View;

/// A head's rows as floats.
pub type Rows = Vec<Vec<f64>>;

/// The rows of one head, with zeros up to `columns`.
pub fn rows(view: &View<'_>, batch: usize, head: usize, columns: usize) -> Rows {
    let padded = |row| {
        let mut values: Vec<f64> = view.row([batch, head, row]).map(f64::from).collect();
        values.resize(columns, 0.0);
        values
    };
    (0..view.layout.shape[2]).map(padded).collect()
}

/// The mean of each column, as float32 has it. One that is no number would spread to all keys:
/// nothing is subtracted there.
pub fn means(rows: &Rows) -> Vec<f64> {
    let mean = |column| {
        let mean = rows.iter().map(|row| row[column]).sum::<f64>() / rows.len() as f64;
        if mean.is_finite() { f64::from(mean as f32) } else { 0.0 }
    };
    (0..rows[0].len()).map(mean).collect()
}

/// The rows less what each column has.
pub fn less(rows: &Rows, means: &[f64]) -> Rows {
    let less = |row: &Vec<f64>| row.iter().zip(means).map(|(value, mean)| value - mean).collect();
    rows.iter().map(less).collect()
}

/// The product of two rows.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A row times the orthogonal matrix of [`rotation`], column by column as it is defined: the sign
/// of an entry of a Hadamard matrix is the parity of the bits that its indices share.
pub fn rotated(row: &[f64]) -> Vec<f64> {
    let block = rotation::block(row.len() as u32) as usize;
    let one = |to: usize| {
        let first = to / block * block;
        let term = |from: usize| {
            let shared = (to - first) & (from - first);
            let negated = rotation::is_negated(from as u32) != (shared.count_ones() % 2 == 1);
            if negated { -row[from] } else { row[from] }
        };
        (first..first + block).map(term).sum::<f64>() / (block as f64).sqrt()
    };
    (0..row.len()).map(one).collect()
}

/// The largest size; NaN if there is one.
pub fn largest<'a>(values: impl IntoIterator<Item = &'a f64>) -> f64 {
    let larger = |a: f64, b: f64| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) };
    values.into_iter().fold(0.0, |largest, value| larger(largest, value.abs()))
}

/// The scale of integers whose largest number has this size.
pub fn s8_scale(largest: f64) -> f64 {
    if largest.is_nan() {
        return largest;
    }
    (largest / f64::from(S8_MAX)).max(f64::from(f32::MIN_POSITIVE))
}

/// The nearest integer to a number over its scale.
pub fn s8(value: f64, scale: f64) -> i8 {
    (value / scale).round_ties_even() as i8
}

/// The scale of V, less the means of its columns: that of its numbers. What is none stays in its
/// column.
pub fn e4m3_scale(rows: &Rows, means: &[f64]) -> f64 {
    let numbers = rows.iter().flatten().filter(|value| value.is_finite());
    let bound = largest(numbers) + largest(means);
    (bound / f64::from(E4M3_MAX)).max(f64::from(f32::MIN_POSITIVE))
}

/// The keys of one column of V in the order in which they are stored, `None` from the last on.
pub fn permuted(keys: usize, padded: usize) -> impl Iterator<Item = Option<usize>> {
    (0..padded).map(move |place| {
        let key = place / 16 * 16 + usize::from(KEY_ORDER[place % 16]);
        (key < keys).then_some(key)
    })
}
