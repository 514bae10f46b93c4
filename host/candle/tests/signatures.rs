//! The functions have the types of those of candle-flash-attn 0.11 and candle-flash-attn-v3 0.11.

#![expect(clippy::type_complexity, reason = "the types are what is tested")]

use candle_core::{Result, Tensor};
use fulgurite_candle as ours;

type T<'a> = &'a Tensor;
type Window = Option<usize>;

#[test]
fn dense_functions_have_the_types_of_candle_flash_attn() {
    let _: fn(T, T, T, f32, bool) -> Result<Tensor> = ours::flash_attn;
    let _: fn(T, T, T, f32, Window, Window) -> Result<Tensor> = ours::flash_attn_windowed;
    let _: fn(T, T, T, T, f32, bool) -> Result<Tensor> = ours::flash_attn_alibi;
    let _: fn(T, T, T, T, f32, Window, Window) -> Result<Tensor> = ours::flash_attn_alibi_windowed;
    let _: fn(T, T, T, Option<T>, f32, Window, Window, f32) -> Result<Tensor> =
        ours::flash_attn_alibi_windowed_softcap;
}

#[test]
fn varlen_functions_have_the_types_of_candle_flash_attn() {
    let _: fn(T, T, T, T, T, usize, usize, f32, bool) -> Result<Tensor> = ours::flash_attn_varlen;
    let _: fn(T, T, T, T, T, usize, usize, f32, Window, Window) -> Result<Tensor> =
        ours::flash_attn_varlen_windowed;
    let _: fn(T, T, T, T, T, T, usize, usize, f32, bool) -> Result<Tensor> =
        ours::flash_attn_varlen_alibi;
    let _: fn(T, T, T, T, T, T, usize, usize, f32, Window, Window) -> Result<Tensor> =
        ours::flash_attn_varlen_alibi_windowed;
    let _: fn(T, T, T, Option<T>, T, T, usize, usize, f32, Window, Window, f32) -> Result<Tensor> =
        ours::flash_attn_varlen_alibi_windowed_softcap;
    type Paged = fn(
        T,
        T,
        T,
        T,
        T,
        T,
        Option<T>,
        usize,
        usize,
        f32,
        Window,
        Window,
        usize,
        Option<f32>,
    ) -> Result<Tensor>;
    let _: Paged = ours::flash_attn_varlen_paged_windowed;
}

#[test]
fn functions_of_v3_have_the_types_of_candle_flash_attn_v3() {
    use ours::v3;
    let _: fn(T, T, T, f32, bool, bool) -> Result<Tensor> = v3::flash_attn;
    let _: fn(T, T, T, f32, Window, Window, bool) -> Result<Tensor> = v3::flash_attn_windowed;
    let _: fn(T, T, T, T, f32, bool, bool) -> Result<Tensor> = v3::flash_attn_alibi;
    let _: fn(T, T, T, T, f32, Window, Window, bool) -> Result<Tensor> =
        v3::flash_attn_alibi_windowed;
    let _: fn(T, T, T, T, T, usize, usize, f32, bool, bool) -> Result<Tensor> =
        v3::flash_attn_varlen;
    let _: fn(T, T, T, T, T, usize, usize, f32, Window, Window, bool) -> Result<Tensor> =
        v3::flash_attn_varlen_windowed;
    let _: fn(T, T, T, T, T, T, usize, usize, f32, bool, bool) -> Result<Tensor> =
        v3::flash_attn_varlen_alibi;
    let _: fn(T, T, T, T, T, T, usize, usize, f32, Window, Window, bool) -> Result<Tensor> =
        v3::flash_attn_varlen_alibi_windowed;
}
