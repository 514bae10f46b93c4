//! The body on the CPU against attention in f64.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{assert_near, elements, reference, tensor};
use fulgurite_candle::{flash_attn, flash_attn_windowed, flash_attn_with_lse, v3};

/// Batch, rows, keys, heads, heads of k and v, head dim.
const SIZES: [[usize; 6]; 6] = [
    [1, 1, 1, 1, 1, 8],
    [2, 17, 17, 3, 3, 16],
    [2, 9, 33, 6, 2, 40],
    [1, 33, 9, 4, 1, 64],
    [1, 5, 0, 2, 1, 8],
    [2, 0, 5, 2, 2, 8],
];

/// Half a unit in the last place of numbers below 2, besides what f32 adds: scores of 60 at most,
/// exact to 2^-24 of that for each of their sums.
fn tolerance(dtype: DType) -> f64 {
    let rounding = match dtype {
        DType::BF16 => 2f64.powi(-8),
        DType::F16 => 2f64.powi(-11),
        _ => 0.0,
    };
    rounding + 1e-5
}

fn inputs([batch, rows, keys, heads, kv_heads, head_dim]: [usize; 6], dtype: DType) -> [Tensor; 3] {
    let kv = (batch, keys, kv_heads, head_dim);
    [tensor((batch, rows, heads, head_dim), dtype, 1), tensor(kv, dtype, 2), tensor(kv, dtype, 3)]
}

#[test]
fn output_and_lse_are_those_of_the_definition() {
    for (size, dtype) in SIZES
        .into_iter()
        .flat_map(|size| [DType::BF16, DType::F16, DType::F32].map(|it| (size, it)))
    {
        for (scale, causal) in [(0.3, false), (0.3, true), (1.1, true), (1e-3, false)] {
            let [q, k, v] = inputs(size, dtype);
            let (want, want_lse) = reference(&q, &k, &v, scale, causal).unwrap();
            let (out, lse) = flash_attn_with_lse(&q, &k, &v, scale, causal).unwrap();
            assert_eq!((out.dims(), out.dtype()), (q.dims(), dtype));
            assert_near(&elements(&out), &want, tolerance(dtype));
            let [batch, rows, _, heads, ..] = size;
            assert_eq!((lse.dims(), lse.dtype()), (&[batch, heads, rows][..], DType::F32));
            assert_near(&elements(&lse), &want_lse, 1e-5);
            let alone = flash_attn(&q, &k, &v, scale, causal).unwrap();
            assert_eq!(elements(&alone), elements(&out));
        }
    }
}

#[test]
fn rows_that_see_no_key_are_0_and_their_lse_is_minus_infinity() {
    let [q, k, v] = inputs([1, 4, 2, 1, 1, 8], DType::BF16);
    let (out, lse) = flash_attn_with_lse(&q, &k, &v, 0.5, true).unwrap();
    assert_eq!(elements(&out)[..16], [0.0; 16]);
    assert!(elements(&out)[16..].iter().all(|element| *element != 0.0));
    assert_eq!(elements(&lse)[..2], [f64::NEG_INFINITY; 2]);
    assert!(elements(&lse)[2..].iter().all(|lse| lse.is_finite()));
}

#[test]
fn strides_change_nothing() {
    let [q, k, v] = inputs([2, 9, 12, 4, 2, 16], DType::F16);
    let want = elements(&flash_attn(&q, &k, &v, 0.25, true).unwrap());
    let turned = |tensor: &Tensor| {
        tensor.transpose(1, 2).unwrap().contiguous().unwrap().transpose(1, 2).unwrap()
    };
    let last = |tensor: &Tensor| {
        tensor.transpose(2, 3).unwrap().contiguous().unwrap().transpose(2, 3).unwrap()
    };
    let padded =
        |tensor: &Tensor| Tensor::cat(&[tensor, tensor], 3).unwrap().narrow(3, 16, 16).unwrap();
    for change in [&turned as &dyn Fn(&Tensor) -> Tensor, &last, &padded] {
        let out = flash_attn(&change(&q), &change(&k), &change(&v), 0.25, true).unwrap();
        assert_eq!(elements(&out), want);
    }
    let one = k.narrow(0, 0, 1).unwrap();
    let expanded = one.expand(k.shape()).unwrap();
    let copied = expanded.contiguous().unwrap();
    assert_eq!(
        elements(&flash_attn(&q, &expanded, &v, 0.25, false).unwrap()),
        elements(&flash_attn(&q, &copied, &v, 0.25, false).unwrap()),
    );
}

#[test]
fn windows_and_v3_are_the_same_calls() {
    let [q, k, v] = inputs([1, 7, 11, 2, 2, 8], DType::F32);
    let full = elements(&flash_attn(&q, &k, &v, 0.5, false).unwrap());
    let causal = elements(&flash_attn(&q, &k, &v, 0.5, true).unwrap());
    assert_ne!(full, causal);
    let windowed = |left, right| {
        let ours = elements(&flash_attn_windowed(&q, &k, &v, 0.5, left, right).unwrap());
        for packing in [false, true] {
            let third = v3::flash_attn_windowed(&q, &k, &v, 0.5, left, right, packing).unwrap();
            assert_eq!(elements(&third), ours);
        }
        ours
    };
    assert_eq!(windowed(None, None), full);
    assert_eq!(windowed(Some(10), Some(6)), full);
    assert_eq!(windowed(None, Some(0)), causal);
    assert_eq!(windowed(Some(11), Some(0)), causal);
    for (is_causal, want) in [(false, &full), (true, &causal)] {
        let out = v3::flash_attn(&q, &k, &v, 0.5, is_causal, true).unwrap();
        assert_eq!(&elements(&out), want);
    }
    let with = fulgurite_candle::flash_attn_alibi_windowed_softcap;
    assert_eq!(elements(&with(&q, &k, &v, None, 0.5, None, Some(0), 0.0).unwrap()), causal);
}

#[test]
fn large_scores_are_no_overflow() {
    let q = Tensor::full(200f32, (1, 2, 1, 8), &Device::Cpu).unwrap();
    let k = tensor((1, 3, 1, 8), DType::F32, 5);
    let (out, lse) = flash_attn_with_lse(&q, &k, &k, 10.0, false).unwrap();
    assert!(elements(&out).iter().chain(&elements(&lse)).all(|it| it.is_finite()));
}
