//! How a call is shared: a pure function of shapes, ranks, memory and links.

use std::fmt;

use fulgurite::{DeviceFacts, Forward};

use crate::call::Call;
use crate::cost::{Cost, Links};
use crate::gather::Gather;
use crate::heads::AllToAll;
use crate::program::Program;
use crate::scheme::Scheme;
use crate::{Error, Shards};

/// How a call is shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// The one that takes the least time by the model, of those that fit.
    #[default]
    Auto,
    /// Every rank receives the keys and values that its rows see, one group of KV heads after
    /// another. Any shards, any number of heads; with a window only its keys move (a halo).
    Gather,
    /// Every rank receives all rows of some KV heads and their query heads, and sends their output
    /// back. The ranks must share the KV heads evenly. Fewer bytes than a gather where there are
    /// many ranks or many KV heads; any shards have the same work.
    AllToAll,
}

/// A rank's part of a call over a sequence that several GPUs hold.
///
/// `local` describes the rank's own tensors: its rows of q, k, v and out, the pieces of its shard
/// one after another, all heads. The mask and everything else are those of the whole sequence: row
/// `i` of it stands at key `i`.
///
/// ```
/// use fulgurite::{Dtype, Forward, Layout, Mask};
/// use fulgurite_parallel::{Shards, Sharded};
/// let shards = Shards::zigzag(65536, 2)?; // 32768 rows each
/// let qo = Layout::bshd(Dtype::Bf16, 1, 32768, 64, 128);
/// let kv = Layout::bshd(Dtype::Bf16, 1, 32768, 8, 128);
/// let sharded = Sharded::new(&Forward::new(qo, kv, kv, qo, Mask::Causal), shards);
/// # Ok::<(), fulgurite_parallel::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sharded {
    /// The rank's own tensors.
    pub local: Forward,
    /// Who holds which rows.
    pub shards: Shards,
    /// How it is shared.
    pub strategy: Strategy,
}

impl Sharded {
    /// A call that is shared in the way that takes the least time.
    pub fn new(local: &Forward, shards: Shards) -> Self {
        Sharded { local: local.clone(), shards, strategy: Strategy::Auto }
    }

    /// Shared in this way.
    pub fn strategy(self, strategy: Strategy) -> Self {
        Sharded { strategy, ..self }
    }
}

/// How a shared call is carried out; the same on all ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ParallelOptions {
    /// Groups of KV heads that are transferred and computed one after another; by default one for
    /// each KV head, fewer where launches would not fill the GPU.
    pub groups: Option<usize>,
    /// Bytes of the workspace at most. By default keys and values of all groups have room at the
    /// same time; with less room later groups take that of earlier ones.
    pub workspace_limit_bytes: Option<u64>,
    /// Multiprocessors that launches leave to transfers; by default 8 where room is taken again,
    /// else none.
    pub transfer_blocks: Option<u32>,
    /// Whether all launches are on one stream: the last blocks of each then have no company. To
    /// measure what the second one is worth.
    pub one_stream: bool,
    /// Whether events are timed, which
    /// [`ParallelPrepared::timeline`](crate::ParallelPrepared::timeline) tells.
    pub timed: bool,
    /// Speeds, for the choice of the strategy.
    pub links: Links,
}

impl ParallelOptions {
    /// So many groups of KV heads.
    pub fn groups(self, groups: usize) -> Self {
        ParallelOptions { groups: Some(groups), ..self }
    }

    /// Bytes of the workspace at most.
    pub fn workspace_limit_bytes(self, bytes: u64) -> Self {
        ParallelOptions { workspace_limit_bytes: Some(bytes), ..self }
    }

    /// Multiprocessors that launches leave to transfers.
    pub fn transfer_blocks(self, blocks: u32) -> Self {
        ParallelOptions { transfer_blocks: Some(blocks), ..self }
    }

    /// All launches are on one stream.
    pub fn one_stream(self) -> Self {
        ParallelOptions { one_stream: true, ..self }
    }

    /// Events are timed.
    pub fn timed(self) -> Self {
        ParallelOptions { timed: true, ..self }
    }

    /// Speeds.
    pub fn links(self, links: Links) -> Self {
        ParallelOptions { links, ..self }
    }
}

/// The decision for one rank: pure, works without a GPU. Print it to see.
///
/// ```
/// # use fulgurite::{DeviceFacts, Dtype, Forward, Layout, Mask};
/// # use fulgurite_parallel::{ParallelOptions, ParallelPlan, Shards, Sharded, Strategy};
/// let qo = Layout::bshd(Dtype::Bf16, 1, 32768, 64, 128);
/// let kv = Layout::bshd(Dtype::Bf16, 1, 32768, 8, 128);
/// let local = Forward::new(qo, kv, kv, qo, Mask::Causal);
/// let sharded = Sharded::new(&local, Shards::zigzag(65536, 2)?);
/// let plan = ParallelPlan::new(&sharded, 0, &DeviceFacts::h200(), &ParallelOptions::default())?;
/// assert_eq!(plan.strategy(), Strategy::Gather);
/// assert!(plan.cost().efficiency > 0.99);
/// println!("{plan}");
/// # Ok::<(), fulgurite_parallel::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ParallelPlan {
    sharded: Sharded,
    rank: usize,
    strategy: Strategy,
    groups: usize,
    slots: usize,
    entry: Option<&'static str>,
    cost: Cost,
    hash: u64,
    program: Program,
}

impl ParallelPlan {
    /// Decides what `rank` does for its part of a call on a device.
    ///
    /// # Errors
    /// [`Error::NoRank`], [`Error::LocalRows`], [`Error::EightBits`], [`Error::Groups`],
    /// [`Error::KvHeads`], [`Error::WorkspaceLimit`], [`Error::TooLarge`]; [`Error::Attention`] for
    /// what the request itself does wrong.
    pub fn new(
        sharded: &Sharded,
        rank: usize,
        device: &DeviceFacts,
        options: &ParallelOptions,
    ) -> Result<Self, Error> {
        let Sharded { local, shards, .. } = sharded;
        let call = Call::new(local, shards, rank, device)?;
        let groups = groups(&call, device, options)?;
        let (strategy, scheme, cost) = choose(&call, sharded.strategy, groups, options)?;
        let noop = call.is_noop();
        let mut program = if noop { Program::default() } else { scheme.program(rank, local) };
        if options.one_stream {
            program.join_lanes();
        }
        let (groups, slots) = (scheme.groups(), scheme.slots());
        let hash = hash(&format!("{:?}", (VERSION, &call, strategy, groups, slots)));
        let (sharded, entry) = (sharded.clone(), call.entry);
        Ok(ParallelPlan { sharded, rank, strategy, groups, slots, entry, cost, hash, program })
    }

    /// The request.
    pub fn sharded(&self) -> &Sharded {
        &self.sharded
    }

    /// The rank whose plan it is.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How the call is shared; never [`Strategy::Auto`].
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// Groups of KV heads that are transferred and computed one after another.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Groups that have room in the workspace at the same time.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The kernel of all launches, which is that of the whole call on one GPU; `None` if there is
    /// nothing to compute.
    pub fn entry(&self) -> Option<&'static str> {
        self.entry
    }

    /// Bytes of the [`Workspace`](fulgurite::Workspace) that a launch needs at least.
    pub fn workspace_bytes(&self) -> u64 {
        self.program.workspace_bytes
    }

    /// Times and bytes by the model.
    pub fn cost(&self) -> &Cost {
        &self.cost
    }

    /// Whether output and log-sum-exp have the bits of the whole call on one GPU: where borders
    /// between pieces are multiples of [`BORDER_ROWS`](crate::BORDER_ROWS), and always with
    /// [`Strategy::AllToAll`].
    pub fn has_bits_of_one_gpu(&self) -> bool {
        self.strategy == Strategy::AllToAll || self.sharded.shards.has_even_borders()
    }

    /// A number that all ranks of a call have in common, and those of another call do not.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// What the rank does.
    pub fn program(&self) -> &Program {
        &self.program
    }
}

/// Plans of different versions do not meet.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// FNV-1a, which is the same in every build.
fn hash(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

/// One group for each KV head, unless its launches would have fewer jobs than multiprocessors.
fn groups(call: &Call, device: &DeviceFacts, options: &ParallelOptions) -> Result<usize, Error> {
    if let Some(got) = options.groups {
        let kv_heads = call.kv_heads;
        return match got {
            1.. if got <= kv_heads => Ok(got),
            _ => Err(Error::Groups { got, kv_heads }),
        };
    }
    let pieces: usize = (0..call.shards.world()).map(|rank| call.shards.pieces(rank).len()).sum();
    let piece_rows = call.shards.rows().div_ceil(pieces.max(1));
    let jobs = call.batch * call.group_size() * piece_rows.div_ceil(call.tile_rows[0]);
    let heads = (device.sm_count as usize).div_ceil(jobs.max(1)).clamp(1, call.kv_heads);
    Ok(call.kv_heads.div_ceil(heads))
}

/// A way to share the call, of those that fit the one that takes the least time by the model.
fn choose<'a>(
    call: &'a Call,
    strategy: Strategy,
    groups: usize,
    options: &ParallelOptions,
) -> Result<(Strategy, Box<dyn Scheme + 'a>, Cost), Error> {
    let flops_each = 4.0 * (call.head_dim * call.batch) as f64;
    let costed = |strategy, scheme: Box<dyn Scheme + 'a>| {
        let cost = Cost::of(&*scheme, call.shards.world(), flops_each, &options.links);
        (strategy, scheme, cost)
    };
    let gather = || {
        let slots = slots(call, groups, options)?;
        Ok(costed(Strategy::Gather, Box::new(Gather::new(call, groups, slots))))
    };
    let all_to_all = || {
        let (kv_heads, world) = (call.kv_heads, call.shards.world());
        let scheme = AllToAll::new(call, groups).ok_or(Error::KvHeads { kv_heads, world })?;
        let got = most_bytes(&scheme, world);
        match options.workspace_limit_bytes {
            Some(limit) if got > limit => Err(Error::WorkspaceLimit { got, limit }),
            _ => Ok(costed(Strategy::AllToAll, Box::new(scheme))),
        }
    };
    match strategy {
        Strategy::Gather => gather(),
        Strategy::AllToAll => all_to_all(),
        // Of two that take the same time the gather: it has no rule for heads.
        Strategy::Auto => match (gather(), all_to_all()) {
            (Ok(one), Ok(other)) => Ok(if other.2.total < one.2.total { other } else { one }),
            (one, other) => one.or(other),
        },
    }
}

/// Bytes of the workspace of the rank that needs the most.
fn most_bytes(scheme: &dyn Scheme, world: usize) -> u64 {
    (0..world).map(|rank| scheme.workspace_bytes(rank)).max().unwrap_or(0)
}

/// As many groups as fit the workspace on every rank.
fn slots(call: &Call, groups: usize, options: &ParallelOptions) -> Result<usize, Error> {
    let Some(limit) = options.workspace_limit_bytes else {
        return Ok(groups);
    };
    let needs = |slots: usize| most_bytes(&Gather::new(call, groups, slots), call.shards.world());
    let fits = (1..=groups).rev().find(|slots| needs(*slots) <= limit);
    fits.ok_or_else(|| Error::WorkspaceLimit { got: needs(1), limit })
}

impl fmt::Display for ParallelPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sharded { local, shards, .. } = &self.sharded;
        let Cost { compute, transfer, total, efficiency, received_bytes } = self.cost;
        let (rank, world) = (self.rank, shards.world());
        writeln!(f, "rank {rank} of {world}, {:?}", self.strategy)?;
        writeln!(f, "  rows       {:?} of {}", shards.pieces(rank), shards.rows())?;
        writeln!(f, "  q          {}", local.q)?;
        writeln!(f, "  k          {}", local.k)?;
        writeln!(f, "  mask       {:?}", local.mask)?;
        writeln!(f, "  kernel     {}", self.entry.unwrap_or("none: there is nothing to compute"))?;
        let bits = if self.has_bits_of_one_gpu() { "those of one GPU" } else { "its own" };
        writeln!(f, "  bits       {bits}")?;
        writeln!(f, "  groups     {}, room for {} at a time", self.groups, self.slots)?;
        writeln!(f, "  receives   {received_bytes} bytes at most")?;
        let ms = |seconds: f64| seconds * 1e3;
        writeln!(
            f,
            "  model      {:.3} ms: {:.3} of launches, {:.3} of transfers; efficiency {:.3}",
            ms(total),
            ms(compute),
            ms(transfer),
            efficiency
        )?;
        write!(f, "  workspace  {} bytes", self.workspace_bytes())
    }
}
