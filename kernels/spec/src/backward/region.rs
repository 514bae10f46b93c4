//! Where what belongs to query rows lies in a workspace, in bytes from the start of a region.

/// Rows to a multiple of which a head is padded: a multiple of the query tiles of all kernels, so
/// that no tile reads beyond its head.
pub const ROW_PAD: u32 = 384;

/// Alignment of what lies in the region.
const ALIGN_BYTES: u64 = 256;

/// Numbers of query rows, from the first kernel for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatsRegion {
    /// `f32[batch, head, q_pad]`: the log-sum-exp in base 2.
    pub lse2: u64,
    /// `f32[batch, head, q_pad]`: each row's sum of `d_out · out`.
    pub delta: u64,
    /// Rows of a head with padding.
    pub q_pad: u64,
    /// Bytes of the region.
    pub bytes: u64,
}

impl StatsRegion {
    /// The region for so many heads of all batch entries; none if it is too large to count.
    pub const fn of(batch_heads: u64, q_len: u64) -> Option<StatsRegion> {
        let q_pad = q_len.next_multiple_of(ROW_PAD as u64);
        let Some(rows) = batch_heads.checked_mul(q_pad) else { return None };
        if rows > u64::MAX >> 4 {
            return None;
        }
        let one = (4 * rows).next_multiple_of(ALIGN_BYTES);
        Some(StatsRegion { lse2: 0, delta: one, q_pad, bytes: 2 * one })
    }
}
