//! Everything that can go wrong, with what was got, what is allowed and what to do.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use fulgurite::{Dtype, Precision};

/// Ranks at most.
pub(crate) const RANK_LIMIT: usize = 1 << 16;

/// Why a shared call was refused or failed.
///
/// `Debug` prints the same text as `Display`: it is what a `main` that returns an error shows.
#[derive(Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The rank's own request is wrong, or its device fails.
    #[error(transparent)]
    Attention(#[from] fulgurite::Error),
    /// A sequence is dealt to nobody, or to more ranks than there can be.
    #[error("a sequence is shared by {got} ranks: there are 1 to {RANK_LIMIT}")]
    RankCount {
        /// How many were asked for.
        got: usize,
    },
    /// The tensors of the whole sequence are larger than any memory.
    #[error(
        "the tensors of the whole sequence have 2⁶⁰ bytes or more: see that batch, heads and rows \
             are those that are meant"
    )]
    TooLarge,
    /// There is no such rank.
    #[error("no rank {rank}: the shards are of {world} ranks, which are numbered from 0")]
    NoRank {
        /// The rank.
        rank: usize,
        /// How many there are.
        world: usize,
    },
    /// A piece reaches beyond the sequence.
    #[error(
        "rank {rank} is given the rows {piece:?} of a sequence of {rows}: a piece starts before it \
             ends, and ends at {rows} at most"
    )]
    PieceOutside {
        /// The rank.
        rank: usize,
        /// Its piece.
        piece: Range<usize>,
        /// Rows of the sequence.
        rows: usize,
    },
    /// Two pieces overlap.
    #[error("row {row} is in two pieces: every row of the sequence has one owner")]
    RowTwice {
        /// The first such row.
        row: usize,
    },
    /// No piece has this row.
    #[error("row {row} is in no piece: every row of the sequence has one owner")]
    RowMissing {
        /// The first such row.
        row: usize,
    },
    /// A rank's tensors have other rows than its shard.
    #[error(
        "{tensor} has {got} rows, but rank {rank} holds {want} of the sequence: give each rank its \
             own rows, one piece after another (Shards::positions)"
    )]
    LocalRows {
        /// The rank.
        rank: usize,
        /// The tensor.
        tensor: &'static str,
        /// Its rows.
        got: usize,
        /// Those of the shard.
        want: usize,
    },
    /// Calls in 8 bits are not shared.
    #[error(
        "{} with precision {}: calls over several GPUs are in bf16 or f16 and Precision::Given; \
             convert q, k and v", dtype.name(), precision.name()
    )]
    EightBits {
        /// Type of q.
        dtype: Dtype,
        /// What was asked for.
        precision: Precision,
    },
    /// KV heads cannot be put into so many groups.
    #[error("{got} groups of {kv_heads} KV heads: there are 1 to {kv_heads}")]
    Groups {
        /// What was asked for.
        got: usize,
        /// KV heads.
        kv_heads: usize,
    },
    /// The ranks cannot have the same number of KV heads.
    #[error(
        "{kv_heads} KV heads for {world} ranks: Strategy::AllToAll needs a multiple of {world}; \
             take Strategy::Gather, or leave the choice to the plan"
    )]
    KvHeads {
        /// KV heads.
        kv_heads: usize,
        /// Ranks.
        world: usize,
    },
    /// The least workspace is more than allowed.
    #[error(
        "the call needs a workspace of {got} bytes at least, its options allow {limit}: allow \
             more, ask for more groups, or share the call among more ranks"
    )]
    WorkspaceLimit {
        /// Bytes needed.
        got: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The stream is being captured.
    #[error(
        "the stream is being captured: a call over several GPUs cannot be a part of a graph; \
             launch it outside of the capture"
    )]
    Captured,
    /// NCCL cannot be loaded.
    #[error(
        "no NCCL: {reason}; install it (pip install nvidia-nccl-cu12 or -cu13, or the system's \
             libnccl2), and have FULGURITE_NCCL name the file libnccl.so.2 where the system does \
             not find it"
    )]
    NoNccl {
        /// What was tried and what the system said.
        reason: String,
    },
    /// NCCL is older than what is called.
    #[error("{path} lacks {symbol}: NCCL 2.18 or later is needed; update it")]
    NcclTooOld {
        /// The library.
        path: String,
        /// The missing function.
        symbol: &'static str,
    },
    /// NCCL may use NVLink multicast.
    #[error(
        "NCCL_NVLS_ENABLE is {got}: set it to 0 before the program starts; nothing here uses \
             NVLink multicast, which NCCL would set up all the same, and a program that ends badly \
             while it is set up can put the GPUs out of service"
    )]
    MulticastAllowed {
        /// The variable's value, or `not set`.
        got: String,
    },
    /// A call of NCCL failed.
    #[error("{call} failed with {name} ({code}): {detail}; NCCL_DEBUG=WARN says more")]
    Nccl {
        /// The function.
        call: &'static str,
        /// Its `ncclResult_t`.
        code: i32,
        /// The name of that code.
        name: &'static str,
        /// What NCCL says of it.
        detail: String,
    },
    /// The ranks did not find each other in time.
    #[error(
        "rank {rank} of {world} waited {waited:?} for the others: see that all of them run, with \
             the same id, each with its own rank, one thread or process for each"
    )]
    NotConnected {
        /// This rank.
        rank: usize,
        /// How many there are.
        world: usize,
        /// How long it waited.
        waited: Duration,
    },
    /// Another rank did not do its part in time, or ended.
    #[error(
        "rank {rank} waited {waited:?} for {}, {step}: {nccl}; the output is undefined and the \
             communicator is ended: see why the other rank stopped, then connect anew",
        peer.map_or_else(|| "other ranks".to_owned(), |peer| format!("rank {peer}"))
    )]
    PeerLost {
        /// This rank.
        rank: usize,
        /// The rank that is missing, where only one can be.
        peer: Option<usize>,
        /// How long it was waited for.
        waited: Duration,
        /// What was under way.
        step: String,
        /// What NCCL says.
        nccl: String,
    },
    /// The communicator was ended by an earlier error.
    #[error("the communicator of rank {rank} was ended by an earlier error: connect anew")]
    CommunicatorDead {
        /// This rank.
        rank: usize,
    },
    /// Ranks have planned different calls.
    #[error(
        "ranks {ranks:?} planned another call than rank 0, or none: shapes, types, mask, scale, \
             log-sum-exp, shards, strategy, groups, workspace limit and version must be the same \
             on all ranks"
    )]
    PlansDiffer {
        /// The ranks whose plans failed, or else those whose plans differ from that of rank 0.
        ranks: Vec<usize>,
    },
    /// The plan is of another world than the communicator.
    #[error("the shards are of {got} ranks, the communicator has {want}: they must be equal")]
    World {
        /// Ranks of the shards.
        got: usize,
        /// Ranks of the communicator.
        want: usize,
    },
}

impl Error {
    /// The variant's name.
    pub fn name(&self) -> &'static str {
        match self {
            Error::Attention(error) => error.name(),
            Error::RankCount { .. } => "RankCount",
            Error::TooLarge => "TooLarge",
            Error::NoRank { .. } => "NoRank",
            Error::PieceOutside { .. } => "PieceOutside",
            Error::RowTwice { .. } => "RowTwice",
            Error::RowMissing { .. } => "RowMissing",
            Error::LocalRows { .. } => "LocalRows",
            Error::EightBits { .. } => "EightBits",
            Error::Groups { .. } => "Groups",
            Error::KvHeads { .. } => "KvHeads",
            Error::WorkspaceLimit { .. } => "WorkspaceLimit",
            Error::Captured => "Captured",
            Error::NoNccl { .. } => "NoNccl",
            Error::NcclTooOld { .. } => "NcclTooOld",
            Error::MulticastAllowed { .. } => "MulticastAllowed",
            Error::Nccl { .. } => "Nccl",
            Error::NotConnected { .. } => "NotConnected",
            Error::PeerLost { .. } => "PeerLost",
            Error::CommunicatorDead { .. } => "CommunicatorDead",
            Error::PlansDiffer { .. } => "PlansDiffer",
            Error::World { .. } => "World",
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
