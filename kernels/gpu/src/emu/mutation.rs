//! Planted errors: one synchronisation site dropped or altered for a whole run, to see whether the
//! checks notice.

use super::report::{Primitive, Site};

/// A place in a kernel where a primitive synchronises. A loop over several barriers is one place
/// for each barrier family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SyncSite {
    /// What is called.
    pub primitive: Primitive,
    /// File of the call.
    pub file: &'static str,
    /// Line of the call.
    pub line: u32,
    /// Column of the call.
    pub column: u32,
    /// The barrier's name, without its index; empty for what is no barrier.
    pub barrier: &'static str,
}

/// What becomes of the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// The call does nothing.
    Drop,
    /// A count, a number of bytes (by 16) or of pending groups is larger.
    More,
    /// A count or a number of bytes (by 16) is smaller.
    Less,
    /// The parity is the other one.
    Flip,
}

/// One site changed in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mutation {
    /// Where.
    pub site: SyncSite,
    /// How.
    pub change: Change,
}

impl SyncSite {
    pub(crate) fn new(primitive: Primitive, site: Site, barrier: &'static str) -> SyncSite {
        let (file, line, column) = (site.file(), site.line(), site.column());
        SyncSite { primitive, file, line, column, barrier }
    }

    /// Every mutation of this site that means something.
    pub fn mutations(self) -> impl Iterator<Item = Mutation> {
        let changes: &[Change] = match self.primitive {
            Primitive::BarrierSync
            | Primitive::BarrierArrive
            | Primitive::BarrierAny
            | Primitive::BarrierInit
            | Primitive::MbarrierArriveExpect => &[Change::Drop, Change::More, Change::Less],
            Primitive::MbarrierWait => &[Change::Drop, Change::Flip],
            Primitive::WgmmaWait
            | Primitive::MbarrierArrive
            | Primitive::TmaStoreWait
            | Primitive::TmaStoreWaitRead => &[Change::Drop, Change::More],
            Primitive::BarrierFenceInit
            | Primitive::WgmmaBegin
            | Primitive::WgmmaCommit
            | Primitive::ProxyFence
            | Primitive::TmaLoad
            | Primitive::TmaStore
            | Primitive::TmaStoreCommit
            | Primitive::RegistersShrink
            | Primitive::RegistersGrow => &[Change::Drop],
            _ => &[],
        };
        changes.iter().map(move |change| Mutation { site: self, change: *change })
    }
}
