//! Exact attention over a sequence that several GPUs hold.

mod call;
mod communicator;
mod cost;
mod device;
mod error;
mod gather;
mod nccl;
mod parallel;
mod plan;
pub mod program;
mod scheme;
mod shards;

pub use crate::communicator::{Communicator, ConnectOptions, DEADLINE, Id};
pub use crate::cost::{Cost, Links};
pub use crate::error::Error;
pub use crate::parallel::{Parallel, ParallelPrepared, Work};
pub use crate::plan::{ParallelOptions, ParallelPlan, Sharded, Strategy};
pub use crate::shards::{BORDER_ROWS, Shards};
