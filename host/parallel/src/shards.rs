//! Who holds which rows of the sequence.

use std::ops::Range;

use crate::Error;
use crate::error::RANK_LIMIT;

/// Borders between shards are multiples of so many rows, where it is up to us: the rows that a
/// kernel computes together, so that none of them has other company than on one GPU.
pub const BORDER_ROWS: usize = 64;

/// The rows of a sequence, dealt to the ranks: for each rank its *pieces*, runs of rows that lie
/// one after another in its tensors.
///
/// All batch entries are dealt alike.
///
/// ```
/// use fulgurite_parallel::Shards;
/// let shards = Shards::zigzag(1024, 2)?; // in four pieces: rank 0 has the first and the last
/// assert_eq!(shards.pieces(0), [0..256, 768..1024]);
/// assert_eq!(shards.pieces(1), [256..512, 512..768]);
/// // What a rotary embedding of rank 0's rows needs to know:
/// assert_eq!(shards.positions(0).nth(256), Some(768));
/// # Ok::<(), fulgurite_parallel::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shards {
    rows: usize,
    ranks: Vec<Vec<Range<usize>>>,
}

impl Shards {
    /// Each rank has one run of rows, in the order of the ranks: for full masks and windows.
    ///
    /// All runs but the last ones have the same number of rows, a multiple of [`BORDER_ROWS`]; the
    /// last ones may be shorter or empty.
    ///
    /// # Errors
    /// [`Error::RankCount`] if `world` is 0 or more than 65536.
    pub fn contiguous(rows: usize, world: usize) -> Result<Self, Error> {
        let piece = Chunks::new(rows, world, 1)?;
        let ranks = (0..world).map(|rank| piece.get(rank).into_iter().collect()).collect();
        Ok(Shards { rows, ranks })
    }

    /// The sequence is cut into `2 · world` pieces, of which rank `r` has the pieces `r` and `2 ·
    /// world − 1 − r`: under a causal mask all ranks have the same work then.
    ///
    /// The pieces are as long as those of [`contiguous`](Self::contiguous) are.
    ///
    /// # Errors
    /// [`Error::RankCount`] if `world` is 0 or more than 65536.
    pub fn zigzag(rows: usize, world: usize) -> Result<Self, Error> {
        let piece = Chunks::new(rows, world, 2)?;
        let both = |rank| [piece.get(rank), piece.get(2 * world - 1 - rank)];
        let ranks = (0..world).map(|rank| both(rank).into_iter().flatten().collect()).collect();
        Ok(Shards { rows, ranks })
    }

    /// The pieces of each rank, in the order in which its rows lie in its tensors.
    ///
    /// # Errors
    /// [`Error::RankCount`], [`Error::PieceOutside`], [`Error::RowTwice`], [`Error::RowMissing`]:
    /// each row of the sequence has one owner.
    pub fn from_ranges(rows: usize, mut ranks: Vec<Vec<Range<usize>>>) -> Result<Self, Error> {
        check_world(ranks.len())?;
        for (rank, pieces) in ranks.iter_mut().enumerate() {
            if let Some(piece) = pieces.iter().find(|it| it.start > it.end || it.end > rows) {
                return Err(Error::PieceOutside { rank, piece: piece.clone(), rows });
            }
            pieces.retain(|piece| !piece.is_empty());
        }
        let mut all: Vec<Range<usize>> = ranks.iter().flatten().cloned().collect();
        all.sort_unstable_by_key(|piece| piece.start);
        let mut next = 0;
        for piece in all {
            if piece.start < next {
                return Err(Error::RowTwice { row: piece.start });
            }
            if piece.start > next {
                return Err(Error::RowMissing { row: next });
            }
            next = piece.end;
        }
        if next < rows { Err(Error::RowMissing { row: next }) } else { Ok(Shards { rows, ranks }) }
    }

    /// Rows of the whole sequence.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many ranks there are.
    pub fn world(&self) -> usize {
        self.ranks.len()
    }

    /// The pieces of a rank, in the order of its tensors' rows; none for a rank that there is not.
    pub fn pieces(&self, rank: usize) -> &[Range<usize>] {
        self.ranks.get(rank).map_or(&[], Vec::as_slice)
    }

    /// Rows that a rank has.
    pub fn local_rows(&self, rank: usize) -> usize {
        self.pieces(rank).iter().map(ExactSizeIterator::len).sum()
    }

    /// The place in the sequence of each of a rank's rows: for rotary embeddings.
    pub fn positions(&self, rank: usize) -> impl Iterator<Item = usize> {
        self.pieces(rank).iter().cloned().flatten()
    }

    /// Whether all borders between pieces are multiples of [`BORDER_ROWS`].
    pub fn has_even_borders(&self) -> bool {
        let starts = self.ranks.iter().flatten().map(|piece| piece.start);
        starts.into_iter().all(|row| row.is_multiple_of(BORDER_ROWS))
    }
}

fn check_world(got: usize) -> Result<(), Error> {
    if (1..=RANK_LIMIT).contains(&got) { Ok(()) } else { Err(Error::RankCount { got }) }
}

/// A sequence in pieces of one length.
struct Chunks {
    rows: usize,
    piece_rows: usize,
}

impl Chunks {
    fn new(rows: usize, world: usize, pieces_each: usize) -> Result<Self, Error> {
        check_world(world)?;
        let piece_rows = rows.div_ceil(world * pieces_each);
        let piece_rows = piece_rows.checked_next_multiple_of(BORDER_ROWS).unwrap_or(piece_rows);
        Ok(Chunks { rows, piece_rows })
    }

    /// The piece of this number, if it has rows.
    fn get(&self, index: usize) -> Option<Range<usize>> {
        let start = index.saturating_mul(self.piece_rows);
        let end = start.saturating_add(self.piece_rows).min(self.rows);
        (start < end).then_some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_one_owner() {
        for world in 1..=64 {
            for rows in [0, 1, 63, 64, 65, 1000, 8192, 8192 * world, 8200 * world + 1] {
                for shards in [Shards::contiguous(rows, world), Shards::zigzag(rows, world)] {
                    let shards = shards.unwrap();
                    assert!(shards.has_even_borders());
                    assert_eq!(shards.world(), world);
                    let ranks = (0..world).map(|rank| shards.pieces(rank).to_vec()).collect();
                    assert_eq!(Shards::from_ranges(rows, ranks), Ok(shards));
                }
            }
        }
    }

    #[test]
    fn zigzag_shares_causal_work() {
        let shards = Shards::zigzag(8192 * 8, 8).unwrap();
        let keys = |rank| shards.positions(rank).map(|row| row + 1).sum::<usize>();
        assert!((0..8).all(|rank| keys(rank) == keys(0)));
    }

    #[test]
    fn what_is_no_dealing_is_refused() {
        let of = |ranks: &[&[(usize, usize)]]| {
            let pieces = |pieces: &&[(usize, usize)]| {
                pieces.iter().map(|&(start, end)| start..end).collect()
            };
            let ranks = ranks.iter().map(pieces).collect();
            Shards::from_ranges(10, ranks).unwrap_err()
        };
        assert_eq!(of(&[]), Error::RankCount { got: 0 });
        assert_eq!(of(&[&[(0, 4)], &[(4, 9)]]), Error::RowMissing { row: 9 });
        assert_eq!(of(&[&[(0, 4)], &[(5, 10)]]), Error::RowMissing { row: 4 });
        assert_eq!(of(&[&[(0, 5)], &[(4, 10)]]), Error::RowTwice { row: 4 });
        let outside = Error::PieceOutside { rank: 1, piece: 5..11, rows: 10 };
        assert_eq!(of(&[&[(0, 5)], &[(5, 11)]]), outside);
        for got in [0, (1 << 16) + 1, usize::MAX] {
            assert_eq!(Shards::zigzag(10, got), Err(Error::RankCount { got }));
        }
        assert!(Shards::contiguous(usize::MAX, 1).is_ok());
    }
}
