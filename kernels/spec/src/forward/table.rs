//! The table of forward kernels, and nothing else: `cargo xtask tiles` replaces this file in a copy
//! of the sources. What a row says: [`ForwardRow`](crate::ForwardRow).

/// Calls the macro `$with` once with every row: `entry: row;`, the row being an expression made
/// where [`ForwardRow`](crate::ForwardRow) is. Who needs names alone takes `$row:expr` and leaves
/// it out; so a new column changes nobody who expands this.
///
/// ```
/// macro_rules! count {
///     ($($entry:ident: $row:expr;)*) => { [$(stringify!($entry)),*].len() };
/// }
/// assert_eq!(fulgurite_spec::for_each_forward!(count), fulgurite_spec::FORWARD.len());
/// ```
#[macro_export]
macro_rules! for_each_forward {
    ($with:ident) => {
$with! {
    fwd_sm90_bf16_d64_full_short: sm90(Bf16, 64, Full, Maxima).tile(128, 128, 4, 3).to(512);
    fwd_sm90_bf16_d64_causal_short: sm90(Bf16, 64, Causal, Apart).tile(128, 128, 4, 3).to(512);
    fwd_sm90_bf16_d64_full: sm90(Bf16, 64, Full, Anchors).tile(192, 128, 6, 2).to(SOONER);
    fwd_sm90_bf16_d64_full_long: sm90(Bf16, 64, Full, Parked).tile(192, 128, 6, 2);
    fwd_sm90_bf16_d64_causal: sm90(Bf16, 64, Causal, Anchors).tile(192, 128, 6, 2).to(SOONER);
    fwd_sm90_bf16_d64_causal_long: sm90(Bf16, 64, Causal, Parked).tile(192, 128, 6, 2);
    fwd_sm90_bf16_d96_full: sm90(Bf16, 96, Full, Anchors).tile(128, 128, 2, 3).to(LONG);
    fwd_sm90_bf16_d96_full_long: sm90(Bf16, 96, Full, Parked).tile(128, 128, 4, 2);
    fwd_sm90_bf16_d96_causal: sm90(Bf16, 96, Causal, Anchors).tile(128, 128, 2, 3).to(LONG);
    fwd_sm90_bf16_d96_causal_long: sm90(Bf16, 96, Causal, Parked).tile(128, 128, 4, 2);
    fwd_sm90_bf16_d128_full: sm90(Bf16, 128, Full, Anchors).tile(128, 128, 4, 2).to(LONG);
    fwd_sm90_bf16_d128_full_long: sm90(Bf16, 128, Full, Parked).tile(128, 128, 4, 2);
    fwd_sm90_bf16_d128_causal_short: sm90(Bf16, 128, Causal, Maxima).tile(128, 128, 4, 2).to(1024);
    fwd_sm90_bf16_d128_causal: sm90(Bf16, 128, Causal, Anchors).tile(128, 128, 2, 3).to(LONG);
    fwd_sm90_bf16_d128_causal_long: sm90(Bf16, 128, Causal, Parked).tile(128, 128, 4, 2);
    fwd_sm90_bf16_d192_full: sm90(Bf16, 192, Full, Anchors).tile(128, 96, 3, 2).to(LONGER);
    fwd_sm90_bf16_d192_full_long: sm90(Bf16, 192, Full, ParkedMax).tile(128, 80, 2, 2);
    fwd_sm90_bf16_d192_causal: sm90(Bf16, 192, Causal, Anchors).tile(128, 64, 2, 3).to(LONGER);
    fwd_sm90_bf16_d192_causal_long: sm90(Bf16, 192, Causal, ParkedMax).tile(128, 64, 2, 2);
    fwd_sm90_bf16_d256_full: sm90(Bf16, 256, Full, Anchors).tile(128, 80, 2, 2);
    fwd_sm90_bf16_d256_causal_short: sm90(Bf16, 256, Causal, Apart).tile(128, 64, 2, 2).to(1024);
    fwd_sm90_bf16_d256_causal: sm90(Bf16, 256, Causal, Anchors).tile(128, 64, 2, 2);
    fwd_sm90_f16_d64_full_short: sm90(F16, 64, Full, Maxima).tile(128, 128, 4, 3).to(512);
    fwd_sm90_f16_d64_causal_short: sm90(F16, 64, Causal, Apart).tile(128, 128, 4, 3).to(512);
    fwd_sm90_f16_d64_full: sm90(F16, 64, Full, Anchors).tile(192, 128, 6, 2).to(SOONER);
    fwd_sm90_f16_d64_full_long: sm90(F16, 64, Full, Parked).tile(192, 128, 6, 2);
    fwd_sm90_f16_d64_causal: sm90(F16, 64, Causal, Anchors).tile(192, 128, 6, 2).to(SOONER);
    fwd_sm90_f16_d64_causal_long: sm90(F16, 64, Causal, Parked).tile(192, 128, 6, 2);
    fwd_sm90_f16_d96_full: sm90(F16, 96, Full, Anchors).tile(128, 128, 2, 3).to(LONG);
    fwd_sm90_f16_d96_full_long: sm90(F16, 96, Full, Parked).tile(128, 128, 4, 2);
    fwd_sm90_f16_d96_causal: sm90(F16, 96, Causal, Anchors).tile(128, 128, 2, 3).to(LONG);
    fwd_sm90_f16_d96_causal_long: sm90(F16, 96, Causal, Parked).tile(128, 128, 4, 2);
    fwd_sm90_f16_d128_full: sm90(F16, 128, Full, Anchors).tile(128, 128, 4, 2).to(LONG);
    fwd_sm90_f16_d128_full_long: sm90(F16, 128, Full, Parked).tile(128, 128, 4, 2);
    fwd_sm90_f16_d128_causal_short: sm90(F16, 128, Causal, Maxima).tile(128, 128, 4, 2).to(1024);
    fwd_sm90_f16_d128_causal: sm90(F16, 128, Causal, Anchors).tile(128, 128, 2, 3).to(LONG);
    fwd_sm90_f16_d128_causal_long: sm90(F16, 128, Causal, Parked).tile(128, 128, 4, 2);
    fwd_sm90_f16_d192_full: sm90(F16, 192, Full, Anchors).tile(128, 96, 3, 2).to(LONGER);
    fwd_sm90_f16_d192_full_long: sm90(F16, 192, Full, ParkedMax).tile(128, 80, 2, 2);
    fwd_sm90_f16_d192_causal: sm90(F16, 192, Causal, Anchors).tile(128, 64, 2, 3).to(LONGER);
    fwd_sm90_f16_d192_causal_long: sm90(F16, 192, Causal, ParkedMax).tile(128, 64, 2, 2);
    fwd_sm90_f16_d256_full: sm90(F16, 256, Full, Anchors).tile(128, 80, 2, 2);
    fwd_sm90_f16_d256_causal_short: sm90(F16, 256, Causal, Apart).tile(128, 64, 2, 2).to(1024);
    fwd_sm90_f16_d256_causal: sm90(F16, 256, Causal, Anchors).tile(128, 64, 2, 2);
    fwd_sm90_bf16_d64_window: sm90(Bf16, 64, Window, Anchors).tile(192, 128, 6, 2);
    fwd_sm90_bf16_d96_window: sm90(Bf16, 96, Window, Anchors).tile(128, 128, 2, 3);
    fwd_sm90_bf16_d128_window: sm90(Bf16, 128, Window, Anchors).tile(128, 128, 2, 3);
    fwd_sm90_bf16_d192_window: sm90(Bf16, 192, Window, Anchors).tile(128, 64, 2, 3);
    fwd_sm90_bf16_d256_window: sm90(Bf16, 256, Window, Apart).tile(128, 64, 2, 2);
    fwd_sm90_f16_d64_window: sm90(F16, 64, Window, Anchors).tile(192, 128, 6, 2);
    fwd_sm90_f16_d96_window: sm90(F16, 96, Window, Anchors).tile(128, 128, 2, 3);
    fwd_sm90_f16_d128_window: sm90(F16, 128, Window, Anchors).tile(128, 128, 2, 3);
    fwd_sm90_f16_d192_window: sm90(F16, 192, Window, Anchors).tile(128, 64, 2, 3);
    fwd_sm90_f16_d256_window: sm90(F16, 256, Window, Apart).tile(128, 64, 2, 2);
}
    };
}
