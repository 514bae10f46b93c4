//! `verify --long`: the error must not grow with the number of keys.
//!
//! A tensor core adds with truncation, which pulls a sum toward zero with every few keys: unless
//! sums are taken apart in time, rows of a million keys have four times the error of short ones,
//! and sixteen times where V has a mean. Only a GPU shows it: the emulator adds exactly.

use std::time::Instant;

use fulgurite::{Dtype, Mask};
use output::Pulse;
use reference::forward::oracle;
use reference::forward::values::Values;
use reference::tensor::decode;

use super::cases::ForwardCase;
use super::judge;
use crate::case::{Needs, Summary};
use crate::device::Device;
use crate::gpu::Gpu;
use crate::report::Tally;

/// Keys of the rows that others are compared with.
const SHORT: usize = 1 << 14;

/// The most that the error may grow.
const GROWTH: f64 = 1.2;

/// Rows that are compared with the reference: with 64 columns and more their error is known to 2%.
const ROWS: usize = 32;

/// Head dims, masks, queries and keys: few queries with very many keys, many with many.
const CALLS: &[(usize, Mask, usize, usize)] = &[
    (128, Mask::Full, 130, 1 << 20),
    (64, Mask::Full, 4096, 1 << 17),
    (128, Mask::Full, 4096, 1 << 17),
    (128, Mask::Causal, 4096, 1 << 17),
    (192, Mask::Full, 4096, 1 << 17),
    (192, Mask::Causal, 4096, 1 << 17),
];

/// Compares long rows with short ones.
pub fn verify(gpu: &Gpu, tally: &mut Tally) {
    println!("On {}, errors relative to float64, at most {GROWTH} times as large:", gpu.name());
    for &(head_dim, mask, q_len, kv_len) in CALLS {
        for dtype in [Dtype::F16, Dtype::Bf16] {
            for (values, mean) in [(Values::Normal, 0), (Values::MeanOne, 1)] {
                let start = Instant::now();
                let _pulse = Pulse::text("a long call and its reference");
                let error =
                    |kv_len| error(&case(dtype, head_dim, mask, (q_len, kv_len), values), gpu);
                let errors = error(SHORT).and_then(|short| Ok((short, error(kv_len)?)));
                let (said, result) = match errors {
                    Ok((short, long)) => {
                        let growth = long / short;
                        let said = format!("{short:.2e} to {long:.2e}, {growth:.2} times");
                        let fault = || format!("more than {GROWTH} times");
                        (said, if growth <= GROWTH { Ok(()) } else { Err(fault()) })
                    }
                    Err(reason) => ("not measured".to_owned(), Err(reason)),
                };
                let name = dtype.name();
                let seconds = start.elapsed().as_secs_f64();
                let call =
                    format!("{name} d{head_dim} {mask:?} {q_len}x{kv_len}, V of mean {mean}");
                tally.add_check(&format!("{call}: {said} ({seconds:.0} s)"), &result);
            }
        }
    }
}

fn case(
    dtype: Dtype,
    head_dim: usize,
    mask: Mask,
    lengths: (usize, usize),
    values: Values,
) -> ForwardCase {
    let (name, needs) = (format!("long {}x{} d{head_dim}", lengths.0, lengths.1), Needs::Gpu);
    let chosen = ForwardCase::chosen("long", (dtype, mask), 1, (1, 1), lengths, head_dim);
    ForwardCase { name, values, needs, ..chosen }
}

/// The root-mean-square error of some rows, relative to theirs.
fn error(case: &ForwardCase, gpu: &Gpu) -> Result<f64, String> {
    let inputs = case.clean_inputs();
    let (out, _) = judge::run(case, &inputs, gpu).map_err(Summary::reason)?;
    let problem = judge::problem(case, &inputs);
    let rows: Vec<_> = problem.rows().into_iter().step_by(case.q_len.div_ceil(ROWS)).collect();
    let reference = oracle::attention(&problem, &rows);
    let (mut square, mut norm) = (0.0, 0.0);
    for (id, want) in rows.iter().zip(reference.out.chunks(case.head_dim)) {
        let start = out.row_start([id.batch, id.head, id.row]);
        let got = out.bits[start..start + case.head_dim].iter();
        for (want, &got) in want.iter().zip(got) {
            square += (want - f64::from(decode(case.dtype, got))).powi(2);
            norm += want * want;
        }
    }
    Ok(f64::sqrt(square / norm))
}
