//! The kernels of one device: the embedded PTX of each, compiled by the driver on first use.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cudarc::driver::{CudaContext, sys};
use fulgurite_spec::{KERNELS, LaunchSpec};

use crate::driver::{self, CurrentContext};
use crate::slot::Slot;
use crate::{Context, Error, RawContext, fork};

/// Kernels that there are.
pub(crate) const KERNEL_COUNT: usize = KERNELS.len();

/// PTX of each of [`KERNELS`], as far as it was there when the crate was built; compressed.
static PTX: [Option<&[u8]>; KERNEL_COUNT] = include!(concat!(env!("OUT_DIR"), "/ptx_table.rs"));

/// The PTX text of a kernel; `None` if the crate was built before `cargo xtask build`, or there is
/// no kernel of this name. It is decompressed by each call: [`is_built`] does without.
pub fn ptx(entry: &str) -> Option<String> {
    index(entry).ok().and_then(text)
}

/// Whether this build has the kernel of a name.
pub fn is_built(entry: &str) -> bool {
    index(entry).is_ok_and(|index| PTX[index].is_some())
}

/// The PTX text of a kernel. One that `build.rs` did not write so, which cannot be, is none.
fn text(index: usize) -> Option<String> {
    let text = lz4_flex::block::decompress_size_prepended(PTX[index]?).ok()?;
    String::from_utf8(text).ok()
}

/// The number of the kernel of a name.
///
/// # Errors
/// [`Error::NotBuilt`] if there is none.
pub(crate) fn index(entry: &str) -> Result<usize, Error> {
    let position = KERNELS.iter().position(|kernel| kernel.entry == entry);
    position.ok_or_else(|| Error::NotBuilt { entry: entry.to_owned() })
}

/// The name of a kernel.
pub(crate) fn entry(index: usize) -> &'static str {
    KERNELS[index].entry
}

/// How a kernel is launched.
pub(crate) fn launch_spec(index: usize) -> LaunchSpec {
    KERNELS[index].launch
}

/// Whether any kernel at all is in this build.
///
/// # Errors
/// [`Error::NotBuilt`] with the first entry if none is.
pub(crate) fn check_built() -> Result<(), Error> {
    if PTX.iter().any(Option::is_some) {
        Ok(())
    } else {
        Err(Error::NotBuilt { entry: entry(0).to_owned() })
    }
}

/// A loaded kernel, for the rest of its context's life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    function: sys::CUfunction,
    /// The life of the context that it was loaded in: a reset context forgets its kernels, and
    /// may give their handles to others.
    life: u64,
}

// SAFETY: a handle that the driver synchronises, valid in any thread that has made the context
// current.
unsafe impl Send for Kernel {}
// SAFETY: as above; a `Kernel` is never changed.
unsafe impl Sync for Kernel {}

impl Kernel {
    fn load(context: RawContext, index: usize, life: u64) -> Result<Kernel, Error> {
        let entry = entry(index);
        let text = text(index).ok_or_else(|| Error::NotBuilt { entry: entry.to_owned() })?;
        let _current = CurrentContext::enter(context.handle())?;
        let module = driver::load_module(entry, &text)?;
        // SAFETY: the module was just loaded in the context that is current.
        unsafe { driver::function(module, entry, launch_spec(index).smem_bytes) }
            .map(|function| Kernel { function, life })
            .inspect_err(|_| driver::unload_module(module))
    }

    /// The driver's handle.
    pub(crate) fn function(self) -> sys::CUfunction {
        self.function
    }

    /// # Errors
    /// [`Error::ContextGone`] if the context was reset since the kernel was loaded in it.
    pub(crate) fn check_alive(self, context: RawContext) -> Result<(), Error> {
        if driver::context_life(context)? == self.life {
            return Ok(());
        }
        Err(Error::ContextGone { ordinal: context.ordinal() })
    }
}

/// The kernels of one context, each loaded at most once in a life of the context, and never
/// unloaded: a captured graph may outlive everything else that refers to them.
#[derive(Debug)]
pub(crate) struct Kernels {
    context: RawContext,
    /// Keeps the context, and with it the modules, alive, once it is known as one of cudarc.
    keeper: OnceLock<Arc<CudaContext>>,
    slots: [Slot<Kernel>; KERNEL_COUNT],
}

impl Kernels {
    /// The kernels of a context: the same ones for every call with that context.
    pub(crate) fn of(context: &impl Context) -> &'static Kernels {
        let kernels = Kernels::of_raw(context.raw());
        if let Some(keeper) = context.keeper() {
            kernels.keeper.get_or_init(|| keeper.clone());
        }
        kernels
    }

    fn of_raw(context: RawContext) -> &'static Kernels {
        static ALL: Mutex<Vec<&'static Kernels>> = Mutex::new(Vec::new());
        // A panic cannot leave the list half written: it is only pushed to.
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernels) = all.iter().find(|kernels| kernels.context == context) {
            return kernels;
        }
        let kernels = Box::leak(Box::new(Kernels {
            context,
            keeper: OnceLock::new(),
            slots: std::array::from_fn(|_| Slot::default()),
        }));
        all.push(kernels);
        kernels
    }

    /// One of [`KERNELS`], loaded if it is not yet.
    ///
    /// # Errors
    /// [`Error::NotBuilt`], [`Error::Forked`], [`Error::ContextGone`], [`Error::Driver`]; a later
    /// call tries again.
    pub(crate) fn get(&self, index: usize) -> Result<Kernel, Error> {
        fork::check_fork()?;
        let life = driver::context_life(self.context)?;
        self.slots[index]
            .get(|kernel| kernel.life == life, || Kernel::load(self.context, index, life))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_there_is_not_is_not_built() {
        let error = index("fwd_unknown").unwrap_err();
        assert_eq!(error, Error::NotBuilt { entry: "fwd_unknown".to_owned() });
        assert_eq!(ptx("fwd_unknown"), None);
        assert!(!is_built("fwd_unknown"));
    }

    #[test]
    fn embedded_ptx_is_that_of_its_file() {
        let built = |index: &usize| is_built(entry(*index));
        for index in (0..KERNEL_COUNT).filter(built) {
            let text = ptx(entry(index)).expect("it is built");
            assert!(text.contains(&format!(".entry {}", entry(index))));
            let file = format!("{}/ptx/{}.ptx", env!("CARGO_MANIFEST_DIR"), entry(index));
            assert!(text == std::fs::read_to_string(&file).unwrap(), "{file} is another one");
        }
        assert_eq!(check_built().is_ok(), (0..KERNEL_COUNT).any(|index| built(&index)));
    }
}
