//! Exact attention over a sequence that several GPUs hold.

mod call;
mod cost;
mod error;
mod gather;
mod plan;
pub mod program;
mod scheme;
mod shards;

pub use crate::cost::{Cost, Links};
pub use crate::error::Error;
pub use crate::plan::{ParallelOptions, ParallelPlan, Sharded, Strategy};
pub use crate::shards::{BORDER_ROWS, Shards};
