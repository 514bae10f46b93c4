//! The quantiser's kernels on the emulator, against float64.

use check::quantise::{Case, check, check_transpose};
use fulgurite::Dtype;
use rayon::prelude::*;

/// A small case of each kind; the tests change what they are about.
const CASE: Case = Case {
    dtype: Dtype::Bf16,
    columns: 64,
    head_dim: 64,
    rows: [15, 127],
    batch: [1, 1, 1],
    heads: [2, 1],
    kv_rows: 128,
    gap: 0,
    seed: 1,
    zero_row: false,
    nan_row: false,
};

fn check_all(cases: &[Case]) {
    cases.par_iter().for_each(|case| {
        check(case).unwrap_or_else(|wrong| panic!("{case:?}: {wrong}"));
    });
}

#[test]
fn every_head_dim_and_type() {
    let mut cases = Vec::new();
    for dtype in [Dtype::Bf16, Dtype::F16] {
        for (columns, head_dim, kv_rows) in
            [(64, 64, 128), (96, 80, 128), (128, 128, 128), (192, 160, 160), (256, 256, 96)]
        {
            cases.push(Case { dtype, columns, head_dim, kv_rows, rows: [65, 129], ..CASE });
        }
    }
    check_all(&cases);
}

#[test]
fn lengths_heads_and_strides() {
    let lengths = [1, 15, 127, 129, 513, 1100];
    let mut cases: Vec<Case> = lengths.map(|rows| Case { rows: [rows, rows], ..CASE }).into();
    cases.push(Case { heads: [6, 2], batch: [2, 2, 2], kv_rows: 96, gap: 16, ..CASE });
    cases.push(Case { heads: [2, 2], batch: [3, 1, 3], kv_rows: 256, gap: 8, ..CASE });
    cases.push(Case { heads: [2, 2], batch: [3, 3, 1], rows: [3, 300], kv_rows: 64, ..CASE });
    check_all(&cases);
}

#[test]
fn rows_of_zeros_and_of_nan() {
    let zero = Case { zero_row: true, ..CASE };
    let nan = Case { nan_row: true, ..CASE };
    check_all(&[zero, nan, Case { rows: [1, 1], ..zero }, Case { rows: [1, 1], ..nan }]);
}

#[test]
fn bytes_are_transposed() {
    for (columns, head_dim) in [(64, 64), (96, 80), (128, 128), (192, 192), (256, 240)] {
        for keys in [1, 127, 129] {
            let (rows, batch, heads) = ([1, keys], [2, 2, 2], [2, 2]);
            let case = Case { columns, head_dim, rows, batch, heads, gap: 16, ..CASE };
            check_transpose(&case).unwrap_or_else(|wrong| panic!("{case:?}: {wrong}"));
        }
    }
}
