//! Attention whose answer is known without computing attention: what the reference must give.

use approx::relative_eq;
use fulgurite::{Dtype, Mask};

use crate::forward::oracle::{Problem, Reference, attention};
use crate::forward::values::{Inputs, Values};
use crate::tensor::Tensor;

/// A name and a check that says what is wrong.
pub type ClosedForm = (&'static str, fn() -> Result<(), String>);

/// Every closed form.
pub const ALL: &[ClosedForm] = &[
    ("equal scores give the mean of V", equal_scores),
    ("one key gives its value", one_key),
    ("two keys give a logistic function", two_keys),
    ("a dominant key gives its value", dominant_key),
    ("the first causal row is the first value", causal_first_row),
    ("rows without keys are zero", rows_without_keys),
    ("the order of the keys does not matter", permuted_keys),
    ("grouped heads are repeated heads", grouped_heads),
    ("excluded keys are not read", excluded_keys),
    ("a shift of all scores moves only the log-sum-exp", shifted_scores),
];

fn solve(inputs: &Inputs, mask: Mask, scale: f64) -> Reference {
    let problem =
        Problem { q: inputs.q.view(), k: inputs.k.view(), v: inputs.v.view(), mask, scale };
    attention(&problem, &problem.rows())
}

fn random(q_len: usize, kv_len: usize, heads: (usize, usize)) -> Inputs {
    let (q_shape, kv_shape) = ([2, heads.0, q_len, 16], [2, heads.1, kv_len, 16]);
    Values::Normal.inputs(Dtype::Bf16, q_shape, kv_shape, 7)
}

fn near(what: &str, got: f64, want: f64) -> Result<(), String> {
    let close = relative_eq!(got, want, epsilon = 1e-12, max_relative = 1e-12);
    if close { Ok(()) } else { Err(format!("{what}: got {got}, want {want}")) }
}

fn all_near(what: &str, got: &[f64], want: &[f64]) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{what}: got {} numbers, want {}", got.len(), want.len()));
    }
    got.iter().zip(want).try_for_each(|(&got, &want)| near(what, got, want))
}

fn row(tensor: &Tensor, index: [usize; 3]) -> Vec<f64> {
    tensor.view().row(index).map(f64::from).collect()
}

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn equal_scores() -> Result<(), String> {
    let mut inputs = random(3, 5, (1, 1));
    inputs.q.bits.fill(0);
    let got = solve(&inputs, Mask::Full, 0.25);
    let mut mean = vec![0.0; 16];
    for key in 0..5 {
        mean.iter_mut().zip(row(&inputs.v, [0, 0, key])).for_each(|(sum, x)| *sum += x / 5.0);
    }
    all_near("out", &got.out[..16], &mean)?;
    near("lse", got.lse[0], 5f64.ln())
}

fn one_key() -> Result<(), String> {
    let inputs = random(1, 1, (1, 1));
    let got = solve(&inputs, Mask::Causal, 0.5);
    all_near("out", &got.out[..16], &row(&inputs.v, [0, 0, 0]))?;
    let score = 0.5 * product(&row(&inputs.q, [0, 0, 0]), &row(&inputs.k, [0, 0, 0]));
    near("lse", got.lse[0], score)
}

fn two_keys() -> Result<(), String> {
    let inputs = random(1, 2, (1, 1));
    let got = solve(&inputs, Mask::Full, 0.5);
    let q = row(&inputs.q, [1, 0, 0]);
    let [first, second] = [0, 1].map(|key| 0.5 * product(&q, &row(&inputs.k, [1, 0, key])));
    let weight = 1.0 / (1.0 + (first - second).exp());
    let values = [row(&inputs.v, [1, 0, 0]), row(&inputs.v, [1, 0, 1])];
    let want: Vec<f64> =
        values[0].iter().zip(&values[1]).map(|(a, b)| a + weight * (b - a)).collect();
    all_near("out", &got.out[16..32], &want)?;
    near("lse", got.lse[1], (first.exp() + second.exp()).ln())
}

fn dominant_key() -> Result<(), String> {
    let mut inputs = random(1, 9, (1, 1));
    let q = inputs.q.row_mut([0, 0, 0]).to_vec();
    inputs.k.row_mut([0, 0, 6]).copy_from_slice(&q);
    let got = solve(&inputs, Mask::Full, 1000.0);
    all_near("out", &got.out[..16], &row(&inputs.v, [0, 0, 6]))
}

fn causal_first_row() -> Result<(), String> {
    let inputs = random(7, 7, (1, 1));
    let got = solve(&inputs, Mask::Causal, 0.25);
    all_near("out", &got.out[..16], &row(&inputs.v, [0, 0, 0]))?;
    let full = solve(&inputs, Mask::Full, 0.25);
    all_near("last row", &got.out[6 * 16..7 * 16], &full.out[6 * 16..7 * 16])
}

fn rows_without_keys() -> Result<(), String> {
    let inputs = random(5, 3, (1, 1));
    let got = solve(&inputs, Mask::Causal, 0.25);
    all_near("out", &got.out[..32], &[0.0; 32])?;
    near("lse", got.lse[0], f64::NEG_INFINITY)?;
    near("lse", got.lse[1], f64::NEG_INFINITY)?;
    all_near("first row with a key", &got.out[32..48], &row(&inputs.v, [0, 0, 0]))
}

fn permuted_keys() -> Result<(), String> {
    let inputs = random(4, 11, (2, 2));
    let mut permuted = inputs.clone();
    for key in 0..11 {
        for head in [[0, 0], [0, 1], [1, 0], [1, 1]] {
            let (from, to) = ([head[0], head[1], key], [head[0], head[1], key * 4 % 11]);
            for (source, target) in [(&inputs.k, &mut permuted.k), (&inputs.v, &mut permuted.v)] {
                let start = source.row_start(from);
                target.row_mut(to).copy_from_slice(&source.bits[start..start + 16]);
            }
        }
    }
    let (got, want) = (solve(&permuted, Mask::Full, 0.25), solve(&inputs, Mask::Full, 0.25));
    all_near("out", &got.out, &want.out)?;
    all_near("lse", &got.lse, &want.lse)
}

fn grouped_heads() -> Result<(), String> {
    let inputs = random(3, 6, (4, 2));
    let repeat = |tensor: &Tensor| {
        let heads = tensor.bits.chunks(6 * 16);
        let bits = heads.flat_map(|head| [head, head].concat()).collect();
        Tensor::from_bits(Dtype::Bf16, [2, 4, 6, 16], bits)
    };
    let repeated = Inputs { q: inputs.q.clone(), k: repeat(&inputs.k), v: repeat(&inputs.v) };
    let (got, want) = (solve(&inputs, Mask::Full, 0.25), solve(&repeated, Mask::Full, 0.25));
    all_near("out", &got.out, &want.out)
}

fn excluded_keys() -> Result<(), String> {
    let clean = random(6, 6, (1, 1));
    let mut planted = clean.clone();
    planted.k.row_mut([0, 0, 5]).fill(0x7fc0);
    planted.v.row_mut([0, 0, 5]).fill(0x7f80);
    let (got, want) = (solve(&planted, Mask::Causal, 0.25), solve(&clean, Mask::Causal, 0.25));
    all_near("rows before the key", &got.out[..5 * 16], &want.out[..5 * 16])?;
    let last = &got.out[5 * 16..6 * 16];
    if last.iter().all(|x| x.is_nan()) { Ok(()) } else { Err(format!("last row: got {last:?}")) }
}

fn shifted_scores() -> Result<(), String> {
    // With q of ones and a last element of 1, adding 8 to every key's last element adds 8 · scale.
    let one = 0x3f80;
    let mut inputs = random(1, 9, (1, 1));
    inputs.q.bits.fill(one);
    for key in 0..9 {
        inputs.k.row_mut([0, 0, key])[15] = 0;
    }
    let mut shifted = inputs.clone();
    for key in 0..9 {
        shifted.k.row_mut([0, 0, key])[15] = 0x4100;
    }
    let (got, want) = (solve(&shifted, Mask::Full, 0.25), solve(&inputs, Mask::Full, 0.25));
    all_near("out", &got.out[..16], &want.out[..16])?;
    near("lse", got.lse[0], want.lse[0] + 2.0)
}
