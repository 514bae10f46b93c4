//! Where results of the quantiser lie in a workspace, in bytes from the start of a region.

use super::CHUNK_ROWS;

/// Keys to a multiple of which transposed V is padded: the widest panel of a KV tile.
const KV_PAD: u64 = 128;

/// Results start at multiples of so many bytes.
const ALIGN: u64 = 256;

/// Where quantised K and V lie; all of it depends on the shape and the forward kernel's tile alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvRegion {
    /// [`QuantiseParams::k8`](super::QuantiseParams::k8) and so on.
    pub k8: u64,
    /// Scales of K.
    pub k_scale: u64,
    /// Means of K.
    pub k_shift: u64,
    /// Transposed V; of no bytes if V stays as it is.
    pub v8: u64,
    /// Scales of V.
    pub v_scale: u64,
    /// Means of V.
    pub v_shift: u64,
    /// Keys of a row of `v8`.
    pub kv_pad: u64,
    /// KV tiles of a head.
    pub kv_tiles: u64,
    /// Bytes of all of it, a multiple of 256.
    pub bytes: u64,
}

/// Where quantised Q lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QRegion {
    /// [`QuantiseParams::q8`](super::QuantiseParams::q8) and so on.
    pub q8: u64,
    /// Scales of the rows.
    pub q_scale: u64,
    /// What K's mean takes from the log-sum-exp of each row.
    pub q_shift: u64,
    /// Bytes of all of it, a multiple of 256.
    pub bytes: u64,
}

/// Where the statistics' partial sums lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialsRegion {
    /// Chunks of a head.
    pub chunks: u64,
    /// Bytes of all of it, a multiple of 256.
    pub bytes: u64,
}

/// Places of a number of bytes each, one behind another.
struct Places {
    next: Option<u64>,
}

impl Places {
    fn take(&mut self, sizes: &[u64]) -> Option<u64> {
        let at = self.next?;
        let bytes = sizes.iter().try_fold(1_u64, |product, &size| product.checked_mul(size))?;
        self.next = at.checked_add(bytes.checked_next_multiple_of(ALIGN)?);
        self.next.map(|_| at)
    }
}

/// Keys of a row of transposed V. `None` if that is more than 2⁶⁴.
pub const fn padded_keys(kv_len: u64) -> Option<u64> {
    kv_len.checked_next_multiple_of(KV_PAD)
}

/// Bytes of transposed V of `entries` (KV heads of all batch entries), a multiple of 256. `None` if
/// that is more than 2⁶⁴.
pub fn transposed_bytes(entries: u64, kv_len: u64, head_dim: u64) -> Option<u64> {
    let mut places = Places { next: Some(0) };
    places.take(&[entries, head_dim, padded_keys(kv_len)?])?;
    places.next
}

impl KvRegion {
    /// For `entries` of K and `v_entries` of V (KV heads of all their batch entries), `kv_len`
    /// keys, the forward kernel's head dim and KV rows. `None` if that is more than 2⁶⁴ bytes.
    pub fn of(
        [k_entries, v_entries]: [u64; 2],
        kv_len: u64,
        head_dim: u64,
        kv_rows: u64,
        transposes_v: bool,
    ) -> Option<KvRegion> {
        let (kv_pad, kv_tiles) = (padded_keys(kv_len)?, kv_len.div_ceil(kv_rows));
        let v_entries = if transposes_v { v_entries } else { 0 };
        let mut places = Places { next: Some(0) };
        Some(KvRegion {
            k8: places.take(&[k_entries, kv_len, head_dim])?,
            k_scale: places.take(&[k_entries, kv_tiles, 4])?,
            k_shift: places.take(&[k_entries, head_dim, 4])?,
            v8: places.take(&[v_entries, head_dim, kv_pad])?,
            v_scale: places.take(&[v_entries, 4])?,
            v_shift: places.take(&[v_entries, head_dim, 4])?,
            kv_pad,
            kv_tiles,
            bytes: places.next?,
        })
    }
}

impl QRegion {
    /// For `entries` (query heads of all batch entries) of `q_len` rows and the forward kernel's
    /// head dim. `None` if that is more than 2⁶⁴ bytes.
    pub fn of(entries: u64, q_len: u64, head_dim: u64) -> Option<QRegion> {
        let mut places = Places { next: Some(0) };
        Some(QRegion {
            q8: places.take(&[entries, q_len, head_dim])?,
            q_scale: places.take(&[entries, q_len, 4])?,
            q_shift: places.take(&[entries, q_len, 4])?,
            bytes: places.next?,
        })
    }
}

impl PartialsRegion {
    /// For `entries` (KV heads of all batch entries) of `kv_len` keys and the forward kernel's head
    /// dim. `None` if that is more than 2⁶⁴ bytes.
    pub fn of(entries: u64, kv_len: u64, head_dim: u64) -> Option<PartialsRegion> {
        let chunks = kv_len.div_ceil(u64::from(CHUNK_ROWS));
        let mut places = Places { next: Some(0) };
        places.take(&[entries, chunks, 3, head_dim, 4])?;
        Some(PartialsRegion { chunks, bytes: places.next? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_follow_each_other_and_overflow_is_said() {
        let kv = KvRegion::of([6, 6], 1000, 128, 128, true).unwrap();
        assert_eq!((kv.kv_pad, kv.kv_tiles), (1024, 8));
        assert_eq!(kv.k_scale, 6 * 1000 * 128);
        assert!(kv.k_scale < kv.k_shift && kv.k_shift < kv.v8 && kv.v8 < kv.v_scale);
        assert_eq!(kv.v_scale - kv.v8, 6 * 128 * 1024);
        assert!([kv.k8, kv.k_shift, kv.v8, kv.v_shift, kv.bytes].iter().all(|at| at % ALIGN == 0));
        let short = KvRegion::of([6, 6], 1000, 128, 128, false).unwrap();
        assert!(short.v8 == short.v_scale && short.v_shift == short.bytes);
        assert_eq!(KvRegion::of([1 << 40, 1], 1 << 30, 128, 128, true), None);
        assert_eq!(QRegion::of(2, 3, 64).unwrap().bytes, 512 + 256 + 256);
        assert_eq!(QRegion::of(u64::MAX, 3, 64), None);
        assert_eq!(PartialsRegion::of(2, 513, 64).unwrap().bytes, 2 * 2 * 3 * 64 * 4);
    }
}
