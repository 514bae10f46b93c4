//! What is refused, and what is said of it.

mod common;

use candle_core::{DType, Device, Error, Result, Tensor};
use common::tensor;
use fulgurite_candle as ours;
use ours::v3;

fn text(result: Result<Tensor>) -> String {
    bare(result.expect_err("it has to be refused")).to_string()
}

/// The error without the backtrace that candle adds where `RUST_BACKTRACE` is set.
fn bare(error: Error) -> Error {
    match error {
        Error::WithBacktrace { inner, .. } => *inner,
        other => other,
    }
}

fn zeros(shape: &[usize], dtype: DType) -> Tensor {
    Tensor::zeros(shape, dtype, &Device::Cpu).unwrap()
}

/// The library's error inside of candle's.
fn library(result: Result<Tensor>) -> fulgurite::Error {
    match bare(result.expect_err("it has to be refused")) {
        Error::Cuda(inner) => *inner.downcast().expect("an error of the library"),
        other => panic!("unexpected: {other:?}"),
    }
}

#[test]
fn softcap_and_slopes_are_refused_by_name() {
    let q = tensor((1, 5, 2, 8), DType::BF16, 1);
    let slopes = zeros(&[2], DType::F32);
    let soft = ours::flash_attn_alibi_windowed_softcap;
    for cap in [50.0, -1.0, f32::NAN] {
        let got = text(soft(&q, &q, &q, None, 1.0, None, None, cap));
        assert!(got.contains(&format!("`softcap` {cap} is not supported yet: only 0")), "{got}");
    }
    for got in [
        soft(&q, &q, &q, Some(&slopes), 1.0, None, None, 0.0),
        ours::flash_attn_alibi(&q, &q, &q, &slopes, 1.0, true),
        ours::flash_attn_alibi_windowed(&q, &q, &q, &slopes, 1.0, None, None),
        v3::flash_attn_alibi(&q, &q, &q, &slopes, 1.0, true, false),
        v3::flash_attn_alibi_windowed(&q, &q, &q, &slopes, 1.0, None, None, true),
    ] {
        let got = text(got);
        assert!(got.contains("`alibi_slopes` are not supported yet"), "{got}");
    }
}

#[test]
fn sequences_of_different_lengths_are_refused_by_name() {
    let q = zeros(&[5, 2, 8], DType::BF16);
    let (slopes, ends) = (zeros(&[2], DType::F32), zeros(&[2], DType::U32));
    let (q, s, e) = (&q, &slopes, &ends);
    for (name, got) in [
        ("flash_attn_varlen", ours::flash_attn_varlen(q, q, q, e, e, 5, 5, 1.0, true)),
        (
            "flash_attn_varlen_windowed",
            ours::flash_attn_varlen_windowed(q, q, q, e, e, 5, 5, 1.0, None, None),
        ),
        (
            "flash_attn_varlen_alibi",
            ours::flash_attn_varlen_alibi(q, q, q, s, e, e, 5, 5, 1.0, true),
        ),
        ("v3::flash_attn_varlen", v3::flash_attn_varlen(q, q, q, e, e, 5, 5, 1.0, true, true)),
    ] {
        let got = text(got);
        let name = name.trim_start_matches("v3::");
        assert!(got.contains(&format!("::{name}: `seqlens_q` and `seqlens_k` are not")), "{got}");
    }
}

#[test]
fn shapes_are_refused_as_on_a_gpu() {
    let call = |q: &Tensor, k: &Tensor, v: &Tensor| ours::flash_attn(q, k, v, 1.0, false);
    for dtype in [DType::BF16, DType::F16, DType::F32] {
        let shaped = |rows, heads, head_dim| tensor((1, rows, heads, head_dim), dtype, 1);
        let good = shaped(4, 4, 16);
        let odd = shaped(4, 4, 12);
        let error = library(call(&odd, &odd, &odd));
        assert!(matches!(error, fulgurite::Error::Unsupported { .. }), "{error:?}");
        let error = library(call(&good, &shaped(4, 3, 16), &shaped(4, 3, 16)));
        assert!(matches!(error, fulgurite::Error::HeadGroups { .. }), "{error:?}");
        let error = library(call(&good, &shaped(4, 2, 16), &shaped(5, 2, 16)));
        assert!(matches!(error, fulgurite::Error::Shape { .. }), "{error:?}");
        for scale in [f32::NAN, 0.0, -1.0] {
            let error = library(ours::flash_attn(&good, &good, &good, scale, false));
            assert!(matches!(error, fulgurite::Error::Scale { .. }), "{error:?}");
        }
        let flat = good.flatten_all().unwrap();
        assert!(call(&flat, &good, &good).is_err());
        assert!(call(&good, &flat, &good).is_err());
    }
}

#[test]
fn types_are_refused() {
    let q = |dtype| tensor((1, 4, 2, 8), dtype, 1);
    let (bf16, f32, f64) = (q(DType::BF16), q(DType::F32), q(DType::F64));
    let got = text(ours::flash_attn(&f64, &f64, &f64, 1.0, false));
    assert!(got.contains("on a CPU they have to be BF16, F16 or F32"), "{got}");
    let got = text(ours::flash_attn(&bf16, &f32, &f32, 1.0, false));
    assert!(got.contains("[BF16, F32, F32], they have to be of one type"), "{got}");
    let mixed = library(ours::flash_attn(&bf16, &q(DType::F16), &bf16, 1.0, false));
    assert!(mixed.to_string().contains("f16"), "{mixed}");
}

#[test]
fn large_calls_are_not_for_a_cpu() {
    let q = tensor((1, 1024, 4, 128), DType::BF16, 1);
    let got = text(ours::flash_attn(&q, &q, &q, 1.0, true));
    assert!(got.contains("a call of 536870912 products (batch 1, heads 4, rows 1024"), "{got}");
    assert!(got.contains("calls of 67108864 at most serve tests; move the tensors to a GPU"));
}
