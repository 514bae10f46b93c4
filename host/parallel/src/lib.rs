//! Exact attention over a sequence that several GPUs hold, with the kernels of [`fulgurite`].
//!
//! Each *rank*, one GPU in a thread or process of its own, holds some rows of q, k, v and the
//! output ([`Shards`]). A call gives every rank its rows of the output (and of the log-sum-exp),
//! as one GPU with the whole sequence would compute them. What moves goes by NCCL, which is loaded
//! at run time: no toolkit, nothing linked.
//!
//! ```no_run
//! use std::time::Duration;
//! use fulgurite::{Dtype, FlashAttention, Forward, ForwardArgs, Layout, Mask, Workspace};
//! use fulgurite_parallel::{Communicator, ConnectOptions, Id, Parallel, Sharded, Shards};
//! use half::bf16;
//!
//! # fn f(rank: usize, id: Id) -> Result<(), Box<dyn std::error::Error>> {
//! let attention = FlashAttention::open(rank)?;
//! let communicator =
//!     Communicator::connect(&attention, &id, rank, 2, &ConnectOptions::default())?;
//! let parallel = Parallel::new(&attention, communicator);
//!
//! let shards = Shards::zigzag(65536, 2)?; // equal work under a causal mask
//! let rows = shards.local_rows(rank);
//! let layout = Layout::bshd(Dtype::Bf16, 1, rows, 16, 128); // batch, rows, heads, head_dim
//! let local = Forward::new(layout, layout, layout, layout, Mask::Causal);
//! let prepared = parallel.plan(&Sharded::new(&local, shards))?; // all ranks together
//!
//! let stream = attention.context().default_stream();
//! let mut workspace = Workspace::new(&stream);
//! workspace.grow(prepared.plan().workspace_bytes())?;
//! let q = stream.alloc_zeros::<bf16>(rows * 16 * 128)?;
//! let (k, v, mut out) = (q.clone(), q.clone(), q.clone());
//! let args = ForwardArgs::new(&q, &k, &v, &mut out).workspace(&mut workspace);
//! prepared.launch(&stream, args)?.wait(Duration::from_secs(10))?;
//! # Ok(()) }
//! ```
//!
//! # What is computed
//! What [`fulgurite`] says of a call, with q, k, v and out of the whole sequence: as many keys as
//! queries, in bf16 or f16, full, causal or with a window. All ranks have all heads, the same batch
//! entries, and any strides.
//!
//! * **Bits**: where borders between pieces are multiples of [`BORDER_ROWS`] (as those of
//!   [`Shards::contiguous`] and [`Shards::zigzag`] are), output and log-sum-exp have the bits of
//!   the whole call on one GPU, whatever the number of ranks: the plan takes the kernel of the
//!   whole length, and every group of rows meets the same tiles in the same order. With other
//!   borders the bits depend on these; the limits of the error are the same.
//! * **How**: [`Strategy::Gather`] moves keys and values alone, one group of KV heads while the one
//!   before is computed; there are no partial results and nothing is merged. A rank receives those
//!   rows only that its own see: with a window a halo. [`Strategy::AllToAll`] moves rows to the
//!   ranks of their heads and the output back. [`ParallelPlan`] says which one it is, what moves,
//!   and what that costs by a model.
//! * **Memory**: a workspace of the keys and values that a rank's rows see; less with
//!   [`ParallelOptions::workspace_limit_bytes`].
//! * **Faults**: every wait has a deadline. A rank that stops, or never comes, is
//!   [`Error::PeerLost`] or [`Error::NotConnected`], after which the communicator is dead and the
//!   device usable. Ranks that plan different calls are [`Error::PlansDiffer`], before anything
//!   moves.
//!
//! # NCCL
//! `FULGURITE_NCCL` names the library's file, or else the system finds `libnccl.so.2` (a wheel has
//! it in `site-packages/nvidia/nccl/lib`). `NCCL_NVLS_ENABLE=0` must be set before the program
//! starts: NVLink multicast is of no use here ([`Error::MulticastAllowed`]).
//!
//! # Sources
//! Sequences cut into 2·N chunks of which rank r holds r and 2·N − 1 − r: Megatron-LM's context
//! parallelism, and zigzag ring attention. Keys and values gathered instead of passed round:
//! Llama 3 (Grattafiori et al. 2024, section 3.3.2). Heads instead of rows: DeepSpeed-Ulysses
//! (Jacobs et al. 2023).

mod call;
mod communicator;
mod cost;
mod device;
mod error;
mod gather;
mod heads;
mod nccl;
mod parallel;
mod plan;
pub mod program;
mod scheme;
mod shards;

pub use crate::communicator::{Communicator, ConnectOptions, DEADLINE, Id};
pub use crate::cost::{Cost, Links};
pub use crate::error::Error;
#[doc(hidden)]
pub use crate::parallel::Part;
pub use crate::parallel::{Parallel, ParallelPrepared, Work};
pub use crate::plan::{ParallelOptions, ParallelPlan, Sharded, Strategy};
pub use crate::shards::{BORDER_ROWS, Shards};
