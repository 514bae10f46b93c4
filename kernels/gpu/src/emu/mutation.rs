//! Planted errors: one site in a kernel, of its synchronisation or its arithmetic, dropped or
//! altered for a whole run, to see whether the checks notice.

use super::report::{Primitive, Site};
use crate::planted::Rows;

/// A place in a kernel where a primitive is called. A loop over several barriers is one place for
/// each barrier family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MutationSite {
    /// What is called.
    pub primitive: Primitive,
    /// File of the call.
    pub file: &'static str,
    /// Line of the call.
    pub line: u32,
    /// Column of the call.
    pub column: u32,
    /// The barrier's name, without its index, or the constant's; empty for what is neither.
    pub name: &'static str,
}

/// What becomes of the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// The call does nothing. A function gives its operand back, a product is left out of a sum, a
    /// thread gets its own value; a factor is 1; of a group of products the second is left out.
    Drop,
    /// A count, a number of bytes (by 16) or of pending groups is larger; so is an exponent or an
    /// index (by 1), and an address (by 16 bytes); a factor or a sum is twice as large; a stored
    /// float is in another unit.
    More,
    /// A count, a number of bytes (by 16), or an index (by 1; a box's row) is smaller; of a product
    /// it is not B that starts 16 bytes further, as with [`Change::More`], but A.
    Less,
    /// The parity, the vote, the sign of an exponent, result or product, or whether products are
    /// added up is the other one.
    Flip,
    /// As [`Change::Drop`] for the second of the thread's two rows; the second of two elements
    /// is 0.
    Half,
    /// The two rows or the two elements are exchanged.
    Swap,
    /// Elements are cut off instead of rounded.
    Truncate,
    /// Everyone votes so.
    Vote(bool),
    /// This coordinate of a copy's box (0: column, 1: row, 2: head, 3: batch entry) is one further,
    /// the column 16 bytes.
    Coordinate(u8),
    /// The constant is this.
    Is(u16),
}

/// One site changed in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mutation {
    /// Where.
    pub site: MutationSite,
    /// How.
    pub change: Change,
}

impl MutationSite {
    pub(crate) fn new(primitive: Primitive, site: Site, name: &'static str) -> MutationSite {
        let (file, line, column) = (site.file(), site.line(), site.column());
        MutationSite { primitive, file, line, column, name }
    }

    fn with(self, changes: &'static [Change]) -> impl Iterator<Item = Mutation> {
        changes.iter().map(move |change| Mutation { site: self, change: *change })
    }

    /// Every mutation of this site's synchronisation that means something.
    pub fn mutations(self) -> impl Iterator<Item = Mutation> {
        self.with(match self.primitive {
            Primitive::BarrierSync
            | Primitive::BarrierArrive
            | Primitive::BarrierAny
            | Primitive::BarrierInit
            | Primitive::MbarrierArriveExpect => &[Change::Drop, Change::More, Change::Less],
            Primitive::MbarrierWait => &[Change::Drop, Change::Flip],
            Primitive::WgmmaWait
            | Primitive::MbarrierArrive
            | Primitive::TmaStoreWait
            | Primitive::TmaStoreWaitRead
            | Primitive::CopyWait => &[Change::Drop, Change::More],
            Primitive::BarrierFenceInit
            | Primitive::WgmmaBegin
            | Primitive::WgmmaCommit
            | Primitive::ProxyFence
            | Primitive::TmaLoad
            | Primitive::TmaStore
            | Primitive::TmaStoreCommit
            | Primitive::CopyStart
            | Primitive::CopyCommit
            | Primitive::RegistersShrink
            | Primitive::RegistersGrow => &[Change::Drop],
            _ => &[],
        })
    }

    /// Every mutation of this site's arithmetic that means something; those of a constant are its
    /// user's to say.
    pub fn arithmetic_mutations(self) -> impl Iterator<Item = Mutation> {
        use Change::{Coordinate, Drop, Flip, Half, Less, More, Swap, Truncate, Vote};
        self.with(match self.primitive {
            Primitive::Exp2 => &[Drop, More, Flip],
            Primitive::GlobalStore | Primitive::GlobalStoreFloat => &[Drop, More],
            Primitive::Log2 | Primitive::Fma => &[Drop, Flip],
            Primitive::Shuffle => &[Drop],
            Primitive::Ballot | Primitive::BarrierAny => &[Flip, Vote(false), Vote(true)],
            Primitive::Pack => &[Truncate, Swap, Half, Drop],
            Primitive::WgmmaIssue => &[Drop, More, Less, Flip],
            Primitive::WarpProduct => &[Drop, Swap],
            Primitive::TmaLoad => {
                &[Less, Coordinate(0), Coordinate(1), Coordinate(2), Coordinate(3)]
            }
            Primitive::Rows(Rows::Held) => &[More, Swap],
            Primitive::Rows(Rows::Floor) => &[Drop],
            Primitive::Rows(Rows::Maximum) => &[Drop, Half],
            Primitive::Rows(Rows::Sum | Rows::Factor) => &[Drop, Half, Swap, More],
            Primitive::Rows(Rows::Term) => &[Drop, Half, Swap],
            Primitive::Rows(Rows::Start | Rows::End) => &[Drop, More, Less, Half, Swap],
            _ => &[],
        })
    }
}
