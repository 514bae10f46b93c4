//! The table of forward kernels for all GPUs from Ampere on: as
//! [`for_each_forward!`](crate::for_each_forward).

/// Calls the macro `$with` once with every row: `entry: row;`.
///
/// Those without a suffix want two blocks of four warps on a multiprocessor, which has 164 KB of
/// shared memory (head dim 256: 228); those that end in `_100k` one block of eight warps, or at
/// head dim 64 two of four, on one with 100 KB.
#[macro_export]
macro_rules! for_each_forward_sm80 {
    ($with:ident) => {
        $with! {
            fwd_sm80_bf16_d64_full: sm80(Bf16, 64, Full, Anchors).mma(128, 96, 4, 2);
            fwd_sm80_bf16_d64_causal: sm80(Bf16, 64, Causal, Anchors).mma(128, 96, 4, 2);
            fwd_sm80_bf16_d64_full_100k: sm80(Bf16, 64, Full, Anchors).mma(128, 64, 4, 2);
            fwd_sm80_bf16_d64_causal_100k: sm80(Bf16, 64, Causal, Anchors).mma(128, 64, 4, 2);
            fwd_sm80_bf16_d96_full: sm80(Bf16, 96, Full, Anchors).mma(128, 48, 4, 2);
            fwd_sm80_bf16_d96_causal: sm80(Bf16, 96, Causal, Anchors).mma(128, 48, 4, 2);
            fwd_sm80_bf16_d96_full_100k: sm80(Bf16, 96, Full, Anchors).mma(128, 64, 8, 2);
            fwd_sm80_bf16_d96_causal_100k: sm80(Bf16, 96, Causal, Anchors).mma(128, 64, 8, 2);
            fwd_sm80_bf16_d128_full: sm80(Bf16, 128, Full, Anchors).mma(128, 48, 4, 2);
            fwd_sm80_bf16_d128_causal: sm80(Bf16, 128, Causal, Anchors).mma(128, 48, 4, 2);
            fwd_sm80_bf16_d128_full_100k: sm80(Bf16, 128, Full, Anchors).mma(128, 64, 8, 2);
            fwd_sm80_bf16_d128_causal_100k: sm80(Bf16, 128, Causal, Anchors).mma(128, 64, 8, 2);
            fwd_sm80_bf16_d192_full: sm80(Bf16, 192, Full, Anchors).mma(64, 64, 4, 1);
            fwd_sm80_bf16_d192_causal: sm80(Bf16, 192, Causal, Anchors).mma(64, 64, 4, 1);
            fwd_sm80_bf16_d192_full_100k: sm80(Bf16, 192, Full, Anchors).mma(128, 64, 8, 1);
            fwd_sm80_bf16_d192_causal_100k: sm80(Bf16, 192, Causal, Anchors).mma(128, 64, 8, 1);
            fwd_sm80_bf16_d256_full: sm80(Bf16, 256, Full, Anchors).mma(64, 64, 4, 1);
            fwd_sm80_bf16_d256_causal: sm80(Bf16, 256, Causal, Anchors).mma(64, 64, 4, 1);
            fwd_sm80_bf16_d256_full_100k: sm80(Bf16, 256, Full, Anchors).mma(128, 32, 8, 1);
            fwd_sm80_bf16_d256_causal_100k: sm80(Bf16, 256, Causal, Anchors).mma(128, 32, 8, 1);
            fwd_sm80_f16_d64_full: sm80(F16, 64, Full, Anchors).mma(128, 96, 4, 2);
            fwd_sm80_f16_d64_causal: sm80(F16, 64, Causal, Anchors).mma(128, 96, 4, 2);
            fwd_sm80_f16_d64_full_100k: sm80(F16, 64, Full, Anchors).mma(128, 64, 4, 2);
            fwd_sm80_f16_d64_causal_100k: sm80(F16, 64, Causal, Anchors).mma(128, 64, 4, 2);
            fwd_sm80_f16_d96_full: sm80(F16, 96, Full, Anchors).mma(128, 48, 4, 2);
            fwd_sm80_f16_d96_causal: sm80(F16, 96, Causal, Anchors).mma(128, 48, 4, 2);
            fwd_sm80_f16_d96_full_100k: sm80(F16, 96, Full, Anchors).mma(128, 64, 8, 2);
            fwd_sm80_f16_d96_causal_100k: sm80(F16, 96, Causal, Anchors).mma(128, 64, 8, 2);
            fwd_sm80_f16_d128_full: sm80(F16, 128, Full, Anchors).mma(128, 48, 4, 2);
            fwd_sm80_f16_d128_causal: sm80(F16, 128, Causal, Anchors).mma(128, 48, 4, 2);
            fwd_sm80_f16_d128_full_100k: sm80(F16, 128, Full, Anchors).mma(128, 64, 8, 2);
            fwd_sm80_f16_d128_causal_100k: sm80(F16, 128, Causal, Anchors).mma(128, 64, 8, 2);
            fwd_sm80_f16_d192_full: sm80(F16, 192, Full, Anchors).mma(64, 64, 4, 1);
            fwd_sm80_f16_d192_causal: sm80(F16, 192, Causal, Anchors).mma(64, 64, 4, 1);
            fwd_sm80_f16_d192_full_100k: sm80(F16, 192, Full, Anchors).mma(128, 64, 8, 1);
            fwd_sm80_f16_d192_causal_100k: sm80(F16, 192, Causal, Anchors).mma(128, 64, 8, 1);
            fwd_sm80_f16_d256_full: sm80(F16, 256, Full, Anchors).mma(64, 64, 4, 1);
            fwd_sm80_f16_d256_causal: sm80(F16, 256, Causal, Anchors).mma(64, 64, 4, 1);
            fwd_sm80_f16_d256_full_100k: sm80(F16, 256, Full, Anchors).mma(128, 32, 8, 1);
            fwd_sm80_f16_d256_causal_100k: sm80(F16, 256, Causal, Anchors).mma(128, 32, 8, 1);
        }
    };
}
