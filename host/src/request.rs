//! What all requests have in common.

use std::fmt;
use std::hash::Hash;

use fulgurite_spec::Arch;

use crate::args::Args;
use crate::place::Place;
use crate::work::Work;
use crate::{DeviceFacts, Error};

/// A description of a call, as plain data: [`Forward`](crate::Forward).
///
/// The trait is sealed: requests are those of this crate.
pub trait Request: Decide + Clone + PartialEq + Hash + fmt::Debug + Send + Sync + 'static {
    /// The buffers of a launch.
    type Args<P: Place>: Args<P>;

    /// What the request is called in texts and records.
    const NAME: &'static str;
}

/// How requests become work.
pub trait Decide {
    /// Checks the request and decides everything that a launch needs but addresses. Pure.
    fn decide(&self, device: &DeviceFacts, options: &PlanOptions) -> Result<Work, Error>;

    /// One line for each decision and each default, `name  value`.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// How a request is carried out, which is no part of what it asks for.
///
/// ```
/// # use fulgurite::PlanOptions;
/// let options = PlanOptions::default().sm_limit(66); // leave the others to someone else
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PlanOptions {
    /// Only kernels of this architecture.
    pub arch: Option<Arch>,
    /// The kernel of this name, to measure or test it.
    pub entry: Option<&'static str>,
    /// Blocks of a grid at most, as if the device had no more multiprocessors. Kernels of
    /// [`Arch::Sm80`] have a block for each query tile, whatever this says.
    pub sm_limit: Option<u32>,
    /// Bytes of the workspace at most; a plan that needs more is refused.
    pub workspace_limit_bytes: Option<u64>,
}

impl PlanOptions {
    /// The default options, but for the kernel: the one of this name.
    pub fn entry(entry: &'static str) -> Self {
        PlanOptions { entry: Some(entry), ..PlanOptions::default() }
    }

    /// Only kernels of this architecture.
    pub fn arch(self, arch: Arch) -> Self {
        PlanOptions { arch: Some(arch), ..self }
    }

    /// Blocks of a grid at most.
    pub fn sm_limit(self, blocks: u32) -> Self {
        PlanOptions { sm_limit: Some(blocks), ..self }
    }

    /// Bytes of the workspace at most.
    pub fn workspace_limit_bytes(self, bytes: u64) -> Self {
        PlanOptions { workspace_limit_bytes: Some(bytes), ..self }
    }
}
