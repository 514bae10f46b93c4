//! The table of forward kernels of 8-bit elements: as
//! [`for_each_forward!`](crate::for_each_forward).

/// Calls the macro `$with` once with every row: `entry: row;`.
#[macro_export]
macro_rules! for_each_forward8 {
    ($with:ident) => {
$with! {
    fwd_sm90_s8e4m3_d64_full: sm90(E4m3, 64, Full, Anchors).scores(I8).tile(192, 128, 6, 3);
    fwd_sm90_s8e4m3_d64_causal: sm90(E4m3, 64, Causal, Anchors).scores(I8).tile(192, 128, 6, 3);
    fwd_sm90_s8e4m3_d96_full: sm90(E4m3, 96, Full, Anchors).scores(I8).tile(192, 128, 6, 2);
    fwd_sm90_s8e4m3_d96_causal: sm90(E4m3, 96, Causal, Anchors).scores(I8).tile(128, 128, 4, 3);
    fwd_sm90_s8e4m3_d128_full: sm90(E4m3, 128, Full, Anchors).scores(I8).tile(128, 128, 4, 4);
    fwd_sm90_s8e4m3_d128_causal: sm90(E4m3, 128, Causal, Anchors).scores(I8).tile(128, 128, 4, 4);
    fwd_sm90_s8e4m3_d192_full: sm90(E4m3, 192, Full, Anchors).scores(I8).tile(128, 128, 4, 2);
    fwd_sm90_s8e4m3_d192_causal: sm90(E4m3, 192, Causal, Anchors).scores(I8).tile(128, 96, 4, 3);
    fwd_sm90_s8e4m3_d256_full: sm90(E4m3, 256, Full, Anchors).scores(I8).tile(128, 64, 2, 4);
    fwd_sm90_s8e4m3_d256_causal: sm90(E4m3, 256, Causal, Anchors).scores(I8).tile(128, 64, 2, 4);
    fwd_sm90_e4m3_d64_full: sm90(E4m3, 64, Full, Parked).tile(192, 128, 6, 3);
    fwd_sm90_e4m3_d64_causal: sm90(E4m3, 64, Causal, Parked).tile(192, 96, 6, 4);
    fwd_sm90_e4m3_d96_full: sm90(E4m3, 96, Full, Parked).tile(192, 128, 6, 2);
    fwd_sm90_e4m3_d96_causal: sm90(E4m3, 96, Causal, Parked).tile(128, 128, 4, 3);
    fwd_sm90_e4m3_d128_full: sm90(E4m3, 128, Full, Parked).tile(128, 128, 4, 4);
    fwd_sm90_e4m3_d128_causal: sm90(E4m3, 128, Causal, Parked).tile(128, 128, 4, 4);
    fwd_sm90_e4m3_d192_full: sm90(E4m3, 192, Full, Parked).tile(128, 128, 4, 2);
    fwd_sm90_e4m3_d192_causal: sm90(E4m3, 192, Causal, ParkedMax).tile(128, 128, 4, 2);
    fwd_sm90_e4m3_d256_full: sm90(E4m3, 256, Full, Parked).tile(128, 64, 2, 4);
    fwd_sm90_e4m3_d256_causal: sm90(E4m3, 256, Causal, Parked).tile(128, 64, 2, 4);
    fwd_sm90_s8bf16_d64_full: sm90(Bf16, 64, Full, Anchors).scores(I8).tile(192, 128, 6, 3);
    fwd_sm90_s8bf16_d64_causal: sm90(Bf16, 64, Causal, Anchors).scores(I8).tile(192, 128, 6, 3);
    fwd_sm90_s8bf16_d128_full: sm90(Bf16, 128, Full, Anchors).scores(I8).tile(128, 128, 4, 3);
    fwd_sm90_s8bf16_d128_causal: sm90(Bf16, 128, Causal, Anchors).scores(I8).tile(128, 128, 4, 3);
    fwd_sm90_s8bf16_d256_full: sm90(Bf16, 256, Full, Anchors).scores(I8).tile(128, 80, 2, 3);
    fwd_sm90_s8bf16_d256_causal: sm90(Bf16, 256, Causal, Anchors).scores(I8).tile(128, 64, 2, 3);
    fwd_sm90_s8f16_d64_full: sm90(F16, 64, Full, Anchors).scores(I8).tile(192, 128, 6, 3);
    fwd_sm90_s8f16_d64_causal: sm90(F16, 64, Causal, Anchors).scores(I8).tile(192, 128, 6, 3);
    fwd_sm90_s8f16_d128_full: sm90(F16, 128, Full, Anchors).scores(I8).tile(128, 128, 4, 3);
    fwd_sm90_s8f16_d128_causal: sm90(F16, 128, Causal, Anchors).scores(I8).tile(128, 128, 4, 3);
    fwd_sm90_s8f16_d256_full: sm90(F16, 256, Full, Anchors).scores(I8).tile(128, 80, 2, 3);
    fwd_sm90_s8f16_d256_causal: sm90(F16, 256, Causal, Anchors).scores(I8).tile(128, 64, 2, 3);
}
    };
}
