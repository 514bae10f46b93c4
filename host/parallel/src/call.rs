//! A call as all ranks see it: the whole sequence, and what of it each piece of rows needs.

use std::ops::Range;

use fulgurite::internals::Tile;
use fulgurite::{DeviceFacts, Dtype, Forward, Layout, Mask, Plan, Precision, Workspace};

use crate::program::{Attend, Copy, Lane, Memory, Program, Request, Spot};
use crate::{Error, Shards};

/// Places in a workspace are multiples of so many bytes.
const ALIGN_BYTES: u64 = Workspace::ALIGN_BYTES;

/// Where what a launch works in begins: behind the part that stays zero.
pub(crate) const WORKSPACE_START: u64 = Workspace::HEAD_BYTES as u64;

/// Bytes of a number of the log-sum-exp.
pub(crate) const LSE_BYTES: u64 = size_of::<f32>() as u64;

/// The whole call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub batch: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub dtype: Dtype,
    /// The simplest mask that shows the same keys.
    pub mask: Mask,
    pub scale: Option<f32>,
    pub lse: bool,
    pub shards: Shards,
    /// The kernel that one GPU would choose for it all, so that bits do not depend on the world;
    /// none if there is nothing to compute.
    pub entry: Option<&'static str>,
    /// Rows of its query tiles, and of its KV tiles.
    pub tile_rows: [usize; 2],
}

impl Call {
    /// Checks a rank's request, and looks at the whole.
    ///
    /// # Errors
    /// [`Error::NoRank`], [`Error::LocalRows`], [`Error::EightBits`], [`Error::TooLarge`],
    /// [`Error::Attention`].
    pub fn new(
        local: &Forward,
        shards: &Shards,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<Call, Error> {
        let world = shards.world();
        if rank >= world {
            return Err(Error::NoRank { rank, world });
        }
        if local.precision != Precision::Given || !matches!(local.q.dtype, Dtype::Bf16 | Dtype::F16)
        {
            let (dtype, precision) = (local.q.dtype, local.precision);
            return Err(Error::EightBits { dtype, precision });
        }
        let want = shards.local_rows(rank);
        for (tensor, layout) in [("q", &local.q), ("k", &local.k)] {
            let got = layout.rows();
            if got != want {
                return Err(Error::LocalRows { rank, tensor, got, want });
            }
        }
        Plan::new(local, device)?;
        let Forward { q, k, scale, lse, .. } = local;
        let rows = shards.rows();
        let mask = local.mask.simplest(rows, rows);
        let [qo, kv] = [q.heads() / k.heads(), 1]
            .map(|heads| Layout::bhsd(q.dtype, 1, heads, rows, q.head_dim()));
        let mut whole = Forward::new(qo, kv, kv, qo, mask);
        whole.scale = *scale;
        let variant = Plan::new(&whole, device)?.variant();
        let tile = variant.map(Tile::of);
        // Nothing that is computed from these numbers is larger than some times this.
        let bytes = [q.batch(), q.heads(), rows, q.head_dim()].map(|size| size as u128);
        if bytes.iter().product::<u128>() >> 57 > 0 {
            return Err(Error::TooLarge);
        }
        Ok(Call {
            batch: q.batch(),
            heads: q.heads(),
            kv_heads: k.heads(),
            head_dim: q.head_dim(),
            dtype: q.dtype,
            mask,
            scale: *scale,
            lse: *lse,
            shards: shards.clone(),
            entry: variant.map(|variant| variant.entry),
            tile_rows: tile.map_or([1, 1], |it| [it.q_rows() as usize, it.kv_rows as usize]),
        })
    }

    /// Query heads that share a KV head.
    pub fn group_size(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Bytes of a row of one head.
    pub fn row_bytes(&self) -> u64 {
        (self.head_dim * self.dtype.bytes() as usize) as u64
    }

    /// Whether there is nothing to compute for any rank.
    pub fn is_noop(&self) -> bool {
        self.entry.is_none() || self.batch == 0
    }

    /// The keys that a piece of query rows is launched with: whole KV tiles in front, so that they
    /// are those of one GPU.
    pub fn keys(&self, piece: &Range<usize>) -> Range<usize> {
        let rows = self.shards.rows();
        match self.mask {
            Mask::Causal => 0..piece.end,
            Mask::Window { left, right } => {
                let clamp = |row: i64| row.clamp(0, rows as i64) as usize;
                let end = right.map_or(rows, |right| clamp(piece.end as i64 + i64::from(right)));
                let start = left.map_or(0, |left| clamp(piece.start as i64 - i64::from(left)));
                let start = start.min(end);
                start / self.tile_rows[1] * self.tile_rows[1]..end
            }
            _ => 0..rows,
        }
    }

    /// The mask of a piece's launch. Its last row stands at its last key there, also where it sees
    /// keys behind its own: the ends move by as many.
    fn piece_mask(&self, piece: &Range<usize>, keys: &Range<usize>) -> Mask {
        let Mask::Window { left, right } = self.mask else {
            return self.mask;
        };
        let behind = keys.end as i64 - piece.end as i64;
        // What does not fit lies behind all keys.
        let moved =
            |end: Option<i32>, by: i64| end.and_then(|end| i32::try_from(i64::from(end) + by).ok());
        Mask::Window { left: moved(left, behind), right: moved(right, -behind) }
    }

    /// The launch of a piece: so many KV heads with their query heads, from K's and V's layout
    /// (whose rows are replaced), and from the strides of q and out.
    pub fn request(&self, piece: &Range<usize>, q: Layout, kv: Layout, out: Layout) -> Request {
        let keys = self.keys(piece);
        let mask = self.piece_mask(piece, &keys);
        let heads = kv.heads() * self.group_size();
        let part = |layout: Layout| {
            let shape = [self.batch, heads, piece.len(), self.head_dim];
            Layout::strided(self.dtype, shape, layout.strides)
        };
        let shape = [self.batch, kv.heads(), keys.len(), self.head_dim];
        let kv = Layout::strided(self.dtype, shape, kv.strides);
        let mut forward = Forward::new(part(q), kv, kv, part(out), mask);
        (forward.scale, forward.lse) = (self.scale, self.lse);
        Request { forward, entry: self.entry.filter(|_| !keys.is_empty()) }
    }

    /// Pairs of a query and a key that a piece multiplies, of one query head.
    pub fn pairs(&self, piece: &Range<usize>) -> f64 {
        let rows = self.shards.rows() as i64;
        let (left, right) = match self.mask {
            Mask::Causal => (None, Some(0)),
            Mask::Window { left, right } => (left, right),
            _ => (None, None),
        };
        // Keys in front of a row's end, less those in front of its start.
        let ends = right.map_or(piece.len() as f64 * rows as f64, |right| {
            clamped_sum(piece, i64::from(right) + 1, rows)
        });
        (ends - left.map_or(0.0, |left| clamped_sum(piece, -i64::from(left), rows))).max(0.0)
    }

    /// Bytes of one row of K and V together, of so many KV heads.
    pub fn kv_bytes(&self, kv_heads: usize) -> u64 {
        2 * (self.batch * kv_heads) as u64 * self.row_bytes()
    }
}

/// The sum over rows of `row + shift`, each at least 0 and at most `limit`.
fn clamped_sum(rows: &Range<usize>, shift: i64, limit: i64) -> f64 {
    let (start, end) = (rows.start as i64 + shift, rows.end as i64 + shift);
    // In between the terms grow by one from row to row.
    let (first, last) = (start.clamp(0, limit), end.clamp(0, limit));
    let growing = (last - first) as f64 * (first + last - 1) as f64 / 2.0;
    growing + (end - end.min(limit).max(start)).max(0) as f64 * limit as f64
}

/// Where a tensor's rows lie: a buffer, its element (0, 0, 0), and bytes from one batch entry, head
/// and row to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    pub at: Spot,
    pub strides: [u64; 3],
}

impl Rows {
    /// The rows of a launch's buffer.
    pub fn of(memory: Memory, layout: &Layout) -> Rows {
        let [batch, head, row, _] =
            layout.strides.map(|it| it as u64 * u64::from(layout.dtype.bytes()));
        Rows { at: Spot::new(memory, 0), strides: [batch, head, row] }
    }

    /// Rows of `row_bytes` each, one after another, at a place of the workspace.
    pub fn dense(offset_bytes: u64, heads: usize, rows: usize, row_bytes: u64) -> Rows {
        let head = rows as u64 * row_bytes;
        let at = Spot::new(Memory::Workspace, offset_bytes);
        Rows { at, strides: [heads as u64 * head, head, row_bytes] }
    }

    /// Where a row begins.
    pub fn spot(&self, batch: usize, head: usize, row: usize) -> Spot {
        let [by_batch, by_head, by_row] = self.strides;
        let behind = batch as u64 * by_batch + head as u64 * by_head + row as u64 * by_row;
        Spot { offset_bytes: self.at.offset_bytes + behind, ..self.at }
    }

    /// The same rows from a head and a row on.
    pub fn from(&self, head: usize, row: usize) -> Rows {
        Rows { at: self.spot(0, head, row), ..*self }
    }

    /// The copies of `[batch, heads, rows]` rows of `width` bytes to another place.
    pub fn copies(self, to: Rows, [batch, heads, rows]: [usize; 3], width: u64) -> Vec<Copy> {
        let [from_pitch, to_pitch] = [self.strides[2], to.strides[2]];
        let dense = from_pitch == width && to_pitch == width;
        let lines = rows as u64;
        let copy = |(batch, head)| Copy {
            from: self.spot(batch, head, 0),
            from_pitch: if dense { width * lines } else { from_pitch },
            to: to.spot(batch, head, 0),
            to_pitch: if dense { width * lines } else { to_pitch },
            width: if dense { width * lines } else { width },
            lines: if dense { 1 } else { lines },
        };
        let all = (0..batch).flat_map(|batch| (0..heads).map(move |head| (batch, head)));
        if rows == 0 { Vec::new() } else { all.map(copy).collect() }
    }
}

/// Gives out places of a workspace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room(pub u64);

impl Room {
    pub fn take(&mut self, bytes: u64) -> u64 {
        let at = self.0;
        self.0 = at.saturating_add(bytes).next_multiple_of(ALIGN_BYTES);
        at
    }
}

impl Program {
    pub(crate) fn copy_all(&mut self, lane: Lane, copies: Vec<Copy>) {
        for copy in copies {
            self.push(lane, crate::program::Action::Copy(copy));
        }
    }

    pub(crate) fn attend(
        &mut self,
        lane: Lane,
        request: Request,
        tensors: [Spot; 4],
        lse: Option<Spot>,
    ) {
        let request = self.request(request);
        self.push(lane, crate::program::Action::Attend(Attend { request, tensors, lse }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_clamped_numbers() {
        for limit in [0, 1, 5, 9] {
            for shift in -12..12 {
                for rows in [0..0, 0..1, 0..9, 3..7, 8..9] {
                    let terms = rows.clone().map(|row| (row as i64 + shift).clamp(0, limit));
                    let want = terms.sum::<i64>() as f64;
                    assert_eq!(clamped_sum(&rows, shift, limit), want, "{rows:?} {shift} {limit}");
                }
            }
        }
    }
}
