//! What the emulator says when a kernel breaks a rule.

use core::fmt;
use std::panic::Location;

use crate::planted::Rows;

/// Where a primitive was called.
pub type Site = &'static Location<'static>;

/// The primitives that a report or a mutation can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Primitive {
    Shuffle,
    BarrierSync,
    BarrierArrive,
    BarrierAny,
    BarrierInit,
    BarrierFenceInit,
    MbarrierArrive,
    MbarrierArriveExpect,
    MbarrierWait,
    TmaPrefetch,
    TmaLoad,
    TmaStore,
    TmaStoreCommit,
    TmaStoreWait,
    TmaStoreWaitRead,
    WgmmaBegin,
    WgmmaIssue,
    WgmmaCommit,
    WgmmaWait,
    RegistersShrink,
    RegistersGrow,
    CopyStart,
    CopyCommit,
    CopyWait,
    WarpProduct,
    GlobalLoad,
    GlobalStore,
    SharedLoad,
    SharedStore,
    MatrixLoad,
    MatrixStore,
    ProxyFence,
    GlobalStoreFloat,
    Ballot,
    Exp2,
    Log2,
    Fma,
    Pack,
    Rows(Rows),
    Constant,
    /// No primitive: the kernel's own code, or the end of the block.
    Code,
}

impl Primitive {
    /// The public function of `fulgurite-gpu` that it is.
    pub const fn name(self) -> &'static str {
        match self {
            Primitive::Shuffle => "shuffle",
            Primitive::BarrierSync => "barrier::sync",
            Primitive::BarrierArrive => "barrier::arrive",
            Primitive::BarrierAny => "barrier::any",
            Primitive::BarrierInit => "mbarrier::init",
            Primitive::BarrierFenceInit => "mbarrier::fence_init",
            Primitive::MbarrierArrive => "mbarrier::arrive",
            Primitive::MbarrierArriveExpect => "mbarrier::arrive_expect",
            Primitive::MbarrierWait => "mbarrier::wait",
            Primitive::TmaPrefetch => "tma::prefetch",
            Primitive::TmaLoad => "tma::load",
            Primitive::TmaStore => "tma::store",
            Primitive::TmaStoreCommit => "tma::commit_stores",
            Primitive::TmaStoreWait => "tma::wait_stores",
            Primitive::TmaStoreWaitRead => "tma::wait_stores_read",
            Primitive::WgmmaBegin => "wgmma::begin",
            Primitive::WgmmaIssue => "wgmma::issue",
            Primitive::WgmmaCommit => "wgmma::commit",
            Primitive::WgmmaWait => "wgmma::wait",
            Primitive::RegistersShrink => "registers::shrink_to",
            Primitive::RegistersGrow => "registers::grow_to",
            Primitive::CopyStart => "copy::start_16",
            Primitive::CopyCommit => "copy::commit",
            Primitive::CopyWait => "copy::wait",
            Primitive::WarpProduct => "mma::multiply",
            Primitive::GlobalLoad => "global::load_16",
            Primitive::GlobalStore => "global::store",
            Primitive::SharedLoad => "smem::load_16",
            Primitive::SharedStore => "smem::store_16",
            Primitive::MatrixLoad => "smem::load_matrices",
            Primitive::MatrixStore => "smem::store_matrices",
            Primitive::ProxyFence => "fence::proxy_async",
            Primitive::GlobalStoreFloat => "global::store_f32",
            Primitive::Ballot => "warp::ballot",
            Primitive::Exp2 => "math::exp2",
            Primitive::Log2 => "math::log2",
            Primitive::Fma => "math::fma",
            Primitive::Pack => "Element::pack",
            Primitive::Rows(_) => "frag",
            Primitive::Constant => "planted::constant",
            Primitive::Code => "kernel code",
        }
    }
}

/// What kind of rule was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// Nothing can go on: who waits where is in the message.
    Deadlock,
    /// A barrier used with a wrong count, over-arrived, with wrong bytes, or before it is one.
    Barrier,
    /// Accesses that nothing orders, between threads or with an asynchronous engine.
    Race,
    /// Shared memory read before anything was written to it.
    Uninitialised,
    /// An address outside what the kernel may touch.
    OutOfBounds,
    /// An address, descriptor or tensor map that is not aligned or not well formed.
    Malformed,
    /// A collective operation that not all of its threads reach, or not with the same operands.
    Divergence,
    /// Registers of a product in flight, used without the fence or the wait they need.
    Fragment,
    /// A register budget that does not fit.
    Registers,
    /// Something left open at the end of the block.
    Unfinished,
    /// The kernel's code panicked.
    Panic,
}

/// A broken rule: which, where, by whom.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What kind of rule.
    pub kind: FaultKind,
    /// The primitive at fault.
    pub primitive: Primitive,
    /// Where it was called.
    pub site: Option<Site>,
    /// Index of the block in its grid.
    pub block: u32,
    /// Index of the thread in its block, if it is one thread's.
    pub thread: Option<u32>,
    /// What happened, and what ought to.
    pub message: String,
    /// The schedule that shows it; the same number replays it.
    pub seed: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            FaultKind::Deadlock => "deadlock",
            FaultKind::Barrier => "barrier misused",
            FaultKind::Race => "data race",
            FaultKind::Uninitialised => "uninitialised shared memory",
            FaultKind::OutOfBounds => "out of bounds",
            FaultKind::Malformed => "malformed operand",
            FaultKind::Divergence => "collective not reached by all",
            FaultKind::Fragment => "registers in flight",
            FaultKind::Registers => "register budget",
            FaultKind::Unfinished => "left unfinished",
            FaultKind::Panic => "panic",
        };
        write!(f, "{kind}: {}", self.primitive.name())?;
        if let Some(site) = self.site {
            write!(f, " at {}:{}:{}", site.file(), site.line(), site.column())?;
        }
        write!(f, " (block {}", self.block)?;
        if let Some(thread) = self.thread {
            write!(f, ", warp {}, lane {}", thread / 32, thread % 32)?;
        }
        write!(f, ", seed {}): {}", self.seed, self.message)
    }
}

impl std::error::Error for Fault {}

/// A broken rule before it is known who broke it.
#[derive(Debug)]
pub(crate) struct Broken {
    pub kind: FaultKind,
    pub message: String,
}

impl Broken {
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Broken {
        Broken { kind, message: message.into() }
    }
}

/// Outcome of a rule's check.
pub(crate) type Checked<T = ()> = Result<T, Broken>;

/// Breaks a rule with a formatted message.
macro_rules! broken {
    ($kind:ident, $($message:tt)*) => {
        Err($crate::emu::report::Broken::new(
            $crate::emu::report::FaultKind::$kind,
            format!($($message)*),
        ))
    };
}
pub(crate) use broken;

/// `file:line` of a call.
pub(crate) fn place(site: Site) -> String {
    format!("{}:{}", site.file(), site.line())
}
