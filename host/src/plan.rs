//! From a request and the facts of a device to everything a launch needs, or an error. Pure: no
//! driver, no GPU.

use std::fmt;

use crate::args::{Args, BUFFER_LIMIT, Field};
use crate::place::{Offer, Raw};
use crate::request::{PlanOptions, Request};
use crate::work::{BufferNeed, Launch, Work};
use crate::{DeviceFacts, Dtype, Error};

/// The decision for one request: which kernels, which grids, which parameters.
///
/// A plan holds no addresses: it serves any number of launches on buffers of the same layout.
/// Printed, it names all that was decided, and what the request left to a default.
///
/// ```
/// use fulgurite::{DeviceFacts, Dtype, Forward, Layout, Mask, Plan};
/// let qo = Layout::bshd(Dtype::Bf16, 2, 4096, 32, 128);
/// let kv = Layout::bshd(Dtype::Bf16, 2, 4096, 8, 128); // 4 query heads share a KV head
/// let plan = Plan::new(&Forward::new(qo, kv, kv, qo, Mask::Causal), &DeviceFacts::h200())?;
/// assert_eq!(plan.launches()[0].entry(), "fwd_sm90_bf16_d128_causal");
/// assert_eq!(plan.launches()[0].grid(), 132);
/// println!("{plan}");
/// # Ok::<(), fulgurite::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Plan<R> {
    request: R,
    pub(crate) work: Work,
}

impl<R: Request> Plan<R> {
    /// Decides how to run `request` on a device.
    ///
    /// # Errors
    /// Every [`Error`] about what the request says, and about devices that cannot run it.
    pub fn new(request: &R, device: &DeviceFacts) -> Result<Self, Error> {
        Plan::with(request, device, &PlanOptions::default())
    }

    /// As [`Plan::new`], in the way that the options say.
    ///
    /// # Errors
    /// Those of [`Plan::new`]; [`Error::WrongEntry`] if the kernel asked for cannot compute the
    /// request; [`Error::Limit`].
    pub fn with(request: &R, device: &DeviceFacts, options: &PlanOptions) -> Result<Self, Error> {
        let work = request.decide(device, options)?;
        if let Some(limit) = options.workspace_limit_bytes
            && work.workspace_bytes > limit
        {
            return Err(Error::Limit { got: work.workspace_bytes, limit });
        }
        Ok(Plan { request: request.clone(), work })
    }

    /// The request this plan answers.
    pub fn request(&self) -> &R {
        &self.request
    }

    /// The buffers that a launch brings: the arguments of these names, and no others.
    pub fn buffers(&self) -> &[BufferNeed] {
        &self.work.buffers
    }

    /// The buffer of a name, if launches bring one.
    pub fn buffer(&self, name: &str) -> Option<&BufferNeed> {
        self.buffers().iter().find(|need| need.name == name)
    }

    /// The kernels of a launch, in their order on the stream.
    pub fn launches(&self) -> &[Launch] {
        &self.work.launches
    }

    /// Bytes of the [`Workspace`](crate::Workspace) that a launch needs at least.
    pub fn workspace_bytes(&self) -> u64 {
        self.work.workspace_bytes
    }

    /// Whether there is nothing to compute (batch 0 or no query rows): a launch returns at once
    /// and writes nothing.
    pub fn is_noop(&self) -> bool {
        self.work.launches.is_empty()
    }

    /// Checks the addresses of a launch: given exactly if the plan has a use for them, none null,
    /// all aligned, but those of empty tensors, which are not looked at.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Unexpected`], [`Error::NullPointer`], [`Error::Misaligned`],
    /// [`Error::WorkspaceShort`].
    pub fn check_addresses(&self, args: R::Args<Raw>) -> Result<(), Error> {
        self.work.locate_raw(Self::fields(), args.into_buffers()).map(|_| ())
    }

    /// Checks buffers of these names, element types and lengths in elements, as a launch does: for
    /// doors that know them, and launch bare addresses.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Unexpected`], [`Error::BufferDtype`],
    /// [`Error::BufferTooShort`].
    pub fn check_buffers(&self, offered: &[(&str, Dtype, usize)]) -> Result<(), Error> {
        let mut offers = [None; BUFFER_LIMIT];
        for (place, field) in Self::fields().iter().enumerate() {
            let own = offered.iter().find(|(name, ..)| *name == field.name);
            offers[place] = own.map(|&(_, dtype, elements)| Offer {
                dtype,
                bytes: elements.saturating_mul(dtype.bytes() as usize),
            });
        }
        self.work.check_offers(Self::fields(), &offers)
    }

    /// The fields of the arguments, which those of other languages are compared with.
    #[doc(hidden)]
    pub fn fields() -> &'static [Field] {
        <R::Args<Raw> as Args<Raw>>::FIELDS
    }
}

impl<R: Request> fmt::Display for Plan<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", R::NAME)?;
        self.request.describe(f)?;
        for need in self.buffers() {
            let BufferNeed { name, dtype, elements, access, .. } = need;
            let access = format!("{access:?}").to_lowercase();
            writeln!(f, "  buffer     {name}: {elements} {}, {access}", dtype.name())?;
        }
        for launch in self.launches() {
            let (entry, grid, spec) = (launch.entry(), launch.grid(), launch.spec());
            writeln!(
                f,
                "  kernel     {entry}: {grid} blocks of {} threads, {} bytes of shared memory",
                spec.threads, spec.smem_bytes
            )?;
        }
        if self.is_noop() {
            writeln!(f, "  kernel     none: there is nothing to compute")?;
        }
        write!(f, "  workspace  {} bytes", self.workspace_bytes())
    }
}
