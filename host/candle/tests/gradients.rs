//! Gradients through candle on a CPU, against finite differences; windows, against the definition.

mod common;

use candle_core::{DType, Device, Tensor, Var};
use common::{elements, tensor};
use fulgurite_candle::{flash_attn_windowed, flash_attn_with_lse};

/// Ends of a window.
type Window = (Option<usize>, Option<usize>);

const WINDOWS: [Window; 5] =
    [(None, None), (None, Some(0)), (Some(2), Some(1)), (Some(0), None), (Some(1), Some(0))];

fn attention([q, k, v]: [&Tensor; 3], (left, right): Window) -> Tensor {
    flash_attn_windowed(q, k, v, 0.4, left, right).unwrap()
}

/// The sum of the output's elements, each times its factor.
fn loss(inputs: [&Tensor; 3], window: Window, factors: &Tensor) -> Tensor {
    (attention(inputs, window) * factors).unwrap().sum_all().unwrap()
}

#[test]
fn gradients_are_those_of_finite_differences() {
    for (window, [rows, keys]) in
        WINDOWS.into_iter().flat_map(|it| [[4, 6], [6, 4]].map(|lengths| (it, lengths)))
    {
        let own = [
            tensor((2, rows, 4, 8), DType::F32, 1),
            tensor((2, keys, 2, 8), DType::F32, 2),
            tensor((2, keys, 2, 8), DType::F32, 3),
        ];
        let factors = tensor((2, rows, 4, 8), DType::F32, 4);
        let vars = own.each_ref().map(|tensor| Var::from_tensor(tensor).unwrap());
        let gradients =
            loss(vars.each_ref().map(|var| var.as_tensor()), window, &factors).backward().unwrap();
        for (which, var) in vars.iter().enumerate() {
            let gradient = elements(gradients.get(var).unwrap());
            let step = 1.0 / 64.0;
            for place in (0..gradient.len()).step_by(7) {
                let moved = |by: f64| {
                    let mut all = elements(&own[which]);
                    all[place] += by;
                    let all: Vec<f32> = all.into_iter().map(|it| it as f32).collect();
                    let moved = Tensor::from_vec(all, own[which].shape(), &Device::Cpu).unwrap();
                    let mut inputs = own.each_ref();
                    inputs[which] = &moved;
                    f64::from(loss(inputs, window, &factors).to_scalar::<f32>().unwrap())
                };
                let numeric = (moved(step) - moved(-step)) / (2.0 * step);
                let off = (numeric - gradient[place]).abs();
                assert!(off < 5e-3, "{window:?} {which} {place}: {numeric}, {}", gradient[place]);
            }
        }
    }
}

#[test]
fn gradients_have_the_types_of_their_tensors() {
    for dtype in [DType::BF16, DType::F16] {
        let var = Var::from_tensor(&tensor((1, 5, 2, 16), dtype, 1)).unwrap();
        let turned = var.transpose(1, 2).unwrap().transpose(1, 2).unwrap();
        let out = attention([&turned, &turned, &turned], (None, Some(0)));
        let gradients = out.sum_all().unwrap().backward().unwrap();
        let gradient = gradients.get(&var).unwrap();
        assert_eq!((gradient.dtype(), gradient.dims()), (dtype, var.dims()));
        // The sum of a row's gradients of values is that of its weights: all of d_out.
        assert!(elements(gradient).iter().all(|it| it.is_finite()));
    }
}

#[test]
fn calls_without_keys_or_rows_have_gradients_of_0() {
    for [rows, keys] in [[3, 0], [0, 3]] {
        let q = Var::from_tensor(&tensor((1, rows, 1, 8), DType::F32, 1)).unwrap();
        let k = Var::from_tensor(&tensor((1, keys, 1, 8), DType::F32, 2)).unwrap();
        let out = attention([&q, &k, &k], (None, None));
        let gradients = out.sum_all().unwrap().backward().unwrap();
        for var in [&q, &k] {
            let gradient = gradients.get(var).unwrap();
            assert_eq!(gradient.dims(), var.dims());
            assert!(elements(gradient).iter().all(|it| *it == 0.0));
        }
    }
}

#[test]
fn windows_see_the_keys_of_their_definition() {
    // Queries of 0 weigh all keys alike, and each key has a value of its own.
    let [rows, keys] = [5, 7];
    let q = Tensor::zeros((1, rows, 1, 8), DType::F32, &Device::Cpu).unwrap();
    let v = (0..keys).flat_map(|key| [key as f32; 8]).collect::<Vec<f32>>();
    let v = Tensor::from_vec(v, (1, keys, 1, 8), &Device::Cpu).unwrap();
    for (left, right) in WINDOWS {
        let out = elements(&attention([&q, &v, &v], (left, right)));
        for row in 0..rows {
            let middle = row + keys - rows;
            let first = left.map_or(0, |left| middle.saturating_sub(left));
            let last = right.map_or(keys - 1, |right| (middle + right).min(keys - 1));
            let mean = (first + last) as f64 / 2.0;
            assert!((out[row * 8] - mean).abs() < 1e-5, "{left:?} {right:?} {row}");
        }
    }
}

#[test]
fn a_log_sum_exp_is_handed_out_also_where_gradients_flow() {
    let var = Var::from_tensor(&tensor((1, 4, 2, 8), DType::F32, 1)).unwrap();
    let (out, lse) = flash_attn_with_lse(&var, &var, &var, 0.5, false).unwrap();
    assert_eq!(lse.dims(), [1, 2, 4]);
    assert!(out.sum_all().unwrap().backward().unwrap().get(&var).is_some());
}
