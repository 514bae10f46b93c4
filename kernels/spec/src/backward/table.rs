//! The tables of the backward's kernels, and nothing else. What a row says:
//! [`BackwardRow`](super::BackwardRow).

/// Calls the macro `$with` once with every kernel of the first launch: `entry: dtype;`.
#[macro_export]
macro_rules! for_each_delta {
    ($with:ident) => {
        $with! {
            bwd_delta_bf16: Bf16;
            bwd_delta_f16: F16;
        }
    };
}

/// Calls the macro `$with` once with every kernel of the others: `entry: row;`, the row being an
/// expression made where [`BackwardRow`](crate::backward::BackwardRow) is. Its last numbers: rows
/// of a step, buffers of both rings.
#[macro_export]
macro_rules! for_each_backward {
    ($with:ident) => {
        $with! {
            bwd_dkdv_sm90_bf16_d64_full: sm90(DkDv, Bf16, 64, Full, [64, 3, 3]);
            bwd_dq_sm90_bf16_d64_full: sm90(Dq, Bf16, 64, Full, [64, 3, 3]);
            bwd_dkdv_sm90_bf16_d64_causal: sm90(DkDv, Bf16, 64, Causal, [64, 3, 3]);
            bwd_dq_sm90_bf16_d64_causal: sm90(Dq, Bf16, 64, Causal, [64, 3, 3]);
            bwd_dkdv_sm90_bf16_d64_window: sm90(DkDv, Bf16, 64, Window, [64, 3, 3]);
            bwd_dq_sm90_bf16_d64_window: sm90(Dq, Bf16, 64, Window, [64, 3, 3]);
            bwd_dkdv_sm90_bf16_d96_full: sm90(DkDv, Bf16, 96, Full, [64, 2, 2]);
            bwd_dq_sm90_bf16_d96_full: sm90(Dq, Bf16, 96, Full, [64, 3, 3]);
            bwd_dkdv_sm90_bf16_d96_causal: sm90(DkDv, Bf16, 96, Causal, [64, 2, 2]);
            bwd_dq_sm90_bf16_d96_causal: sm90(Dq, Bf16, 96, Causal, [64, 3, 3]);
            bwd_dkdv_sm90_bf16_d96_window: sm90(DkDv, Bf16, 96, Window, [64, 2, 2]);
            bwd_dq_sm90_bf16_d96_window: sm90(Dq, Bf16, 96, Window, [64, 3, 3]);
            bwd_dkdv_sm90_bf16_d128_full: sm90(DkDv, Bf16, 128, Full, [48, 2, 2]);
            bwd_dq_sm90_bf16_d128_full: sm90(Dq, Bf16, 128, Full, [64, 3, 3]);
            bwd_dkdv_sm90_bf16_d128_causal: sm90(DkDv, Bf16, 128, Causal, [48, 2, 2]);
            bwd_dq_sm90_bf16_d128_causal: sm90(Dq, Bf16, 128, Causal, [64, 3, 3]);
            bwd_dkdv_sm90_bf16_d128_window: sm90(DkDv, Bf16, 128, Window, [48, 2, 2]);
            bwd_dq_sm90_bf16_d128_window: sm90(Dq, Bf16, 128, Window, [64, 3, 3]);
            bwd_dkdv_sm90_bf16_d192_full: sm90(DkDv, Bf16, 192, Full, [64, 2, 2]);
            bwd_dq_sm90_bf16_d192_full: sm90(Dq, Bf16, 192, Full, [64, 2, 2]);
            bwd_dkdv_sm90_bf16_d192_causal: sm90(DkDv, Bf16, 192, Causal, [64, 2, 2]);
            bwd_dq_sm90_bf16_d192_causal: sm90(Dq, Bf16, 192, Causal, [64, 2, 2]);
            bwd_dkdv_sm90_bf16_d192_window: sm90(DkDv, Bf16, 192, Window, [64, 2, 2]);
            bwd_dq_sm90_bf16_d192_window: sm90(Dq, Bf16, 192, Window, [64, 2, 2]);
            bwd_dkdv_sm90_bf16_d256_full: sm90(DkDv, Bf16, 256, Full, [48, 2, 2]);
            bwd_dq_sm90_bf16_d256_full: sm90(Dq, Bf16, 256, Full, [64, 2, 1]);
            bwd_dkdv_sm90_bf16_d256_causal: sm90(DkDv, Bf16, 256, Causal, [48, 2, 2]);
            bwd_dq_sm90_bf16_d256_causal: sm90(Dq, Bf16, 256, Causal, [64, 2, 1]);
            bwd_dkdv_sm90_bf16_d256_window: sm90(DkDv, Bf16, 256, Window, [48, 2, 2]);
            bwd_dq_sm90_bf16_d256_window: sm90(Dq, Bf16, 256, Window, [64, 2, 1]);
            bwd_dkdv_sm90_f16_d64_full: sm90(DkDv, F16, 64, Full, [64, 3, 3]);
            bwd_dq_sm90_f16_d64_full: sm90(Dq, F16, 64, Full, [64, 3, 3]);
            bwd_dkdv_sm90_f16_d64_causal: sm90(DkDv, F16, 64, Causal, [64, 3, 3]);
            bwd_dq_sm90_f16_d64_causal: sm90(Dq, F16, 64, Causal, [64, 3, 3]);
            bwd_dkdv_sm90_f16_d64_window: sm90(DkDv, F16, 64, Window, [64, 3, 3]);
            bwd_dq_sm90_f16_d64_window: sm90(Dq, F16, 64, Window, [64, 3, 3]);
            bwd_dkdv_sm90_f16_d96_full: sm90(DkDv, F16, 96, Full, [64, 2, 2]);
            bwd_dq_sm90_f16_d96_full: sm90(Dq, F16, 96, Full, [64, 3, 3]);
            bwd_dkdv_sm90_f16_d96_causal: sm90(DkDv, F16, 96, Causal, [64, 2, 2]);
            bwd_dq_sm90_f16_d96_causal: sm90(Dq, F16, 96, Causal, [64, 3, 3]);
            bwd_dkdv_sm90_f16_d96_window: sm90(DkDv, F16, 96, Window, [64, 2, 2]);
            bwd_dq_sm90_f16_d96_window: sm90(Dq, F16, 96, Window, [64, 3, 3]);
            bwd_dkdv_sm90_f16_d128_full: sm90(DkDv, F16, 128, Full, [48, 2, 2]);
            bwd_dq_sm90_f16_d128_full: sm90(Dq, F16, 128, Full, [64, 3, 3]);
            bwd_dkdv_sm90_f16_d128_causal: sm90(DkDv, F16, 128, Causal, [48, 2, 2]);
            bwd_dq_sm90_f16_d128_causal: sm90(Dq, F16, 128, Causal, [64, 3, 3]);
            bwd_dkdv_sm90_f16_d128_window: sm90(DkDv, F16, 128, Window, [48, 2, 2]);
            bwd_dq_sm90_f16_d128_window: sm90(Dq, F16, 128, Window, [64, 3, 3]);
            bwd_dkdv_sm90_f16_d192_full: sm90(DkDv, F16, 192, Full, [64, 2, 2]);
            bwd_dq_sm90_f16_d192_full: sm90(Dq, F16, 192, Full, [64, 2, 2]);
            bwd_dkdv_sm90_f16_d192_causal: sm90(DkDv, F16, 192, Causal, [64, 2, 2]);
            bwd_dq_sm90_f16_d192_causal: sm90(Dq, F16, 192, Causal, [64, 2, 2]);
            bwd_dkdv_sm90_f16_d192_window: sm90(DkDv, F16, 192, Window, [64, 2, 2]);
            bwd_dq_sm90_f16_d192_window: sm90(Dq, F16, 192, Window, [64, 2, 2]);
            bwd_dkdv_sm90_f16_d256_full: sm90(DkDv, F16, 256, Full, [48, 2, 2]);
            bwd_dq_sm90_f16_d256_full: sm90(Dq, F16, 256, Full, [64, 2, 1]);
            bwd_dkdv_sm90_f16_d256_causal: sm90(DkDv, F16, 256, Causal, [48, 2, 2]);
            bwd_dq_sm90_f16_d256_causal: sm90(Dq, F16, 256, Causal, [64, 2, 1]);
            bwd_dkdv_sm90_f16_d256_window: sm90(DkDv, F16, 256, Window, [48, 2, 2]);
            bwd_dq_sm90_f16_d256_window: sm90(Dq, F16, 256, Window, [64, 2, 1]);
        }
    };
}
