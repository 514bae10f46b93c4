//! The rotation of Q and K before they are rounded to integers: fixed signs, then Hadamard matrices
//! along blocks of columns (QuIP, Chee et al. 2023, section 4; FlashAttention-3, Shah et al. 2024,
//! section 3.3, "incoherent processing"). It is orthogonal, so that all q·k stay what they are, and
//! it spreads the outliers of a row over all of a block's columns.

/// Columns of a block for a kernel's head dim: the largest power of two that divides it.
pub const fn block(head_dim: u32) -> u32 {
    1 << head_dim.trailing_zeros()
}

/// One bit for each column; 1: the column changes its sign. The same for all heads and calls, so
/// that what one call keeps fits the next. The bits are those of the fraction of the golden ratio.
pub const SIGNS: [u32; 8] = [
    0x9e37_79b9,
    0x7f4a_7c15,
    0xf39c_c060,
    0x5ced_c834,
    0x1082_276b,
    0xf3a2_7251,
    0xf86c_6a11,
    0xd0c1_8e95,
];

/// Whether a column changes its sign.
pub const fn is_negated(column: u32) -> bool {
    SIGNS[(column / 32) as usize] >> (column % 32) & 1 != 0
}

/// What the butterflies' sums are multiplied with to be those of an orthogonal matrix: 1/√block.
pub const fn norm(head_dim: u32) -> f32 {
    match block(head_dim) {
        32 => 0.176_776_7,
        64 => 0.125,
        128 => 0.088_388_35,
        256 => 0.0625,
        _ => panic!("head dims have blocks of 32 to 256 columns"),
    }
}
