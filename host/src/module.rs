//! The kernels of one device: the embedded PTX of each, compiled by the driver on first use.

use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaContext, sys};
use fulgurite_spec::{ForwardRow, KERNELS};

use crate::driver::{self, CurrentContext};
use crate::slot::Slot;
use crate::{Error, fork};

/// PTX of each of [`KERNELS`], as far as it was there when the crate was built.
static PTX: [Option<&str>; KERNELS.len()] = include!(concat!(env!("OUT_DIR"), "/ptx_table.rs"));

/// The PTX text of a variant; `None` if the crate was built before `cargo xtask build`.
pub fn ptx(variant: &ForwardRow) -> Option<&'static str> {
    index(variant.entry).ok().and_then(|index| PTX[index])
}

/// Where an entry is in [`KERNELS`].
///
/// # Errors
/// [`Error::NotBuilt`] if it is not there.
pub(crate) fn index(entry: &'static str) -> Result<usize, Error> {
    KERNELS.iter().position(|kernel| kernel.entry == entry).ok_or(Error::NotBuilt { entry })
}

/// Whether any kernel at all is in this build.
///
/// # Errors
/// [`Error::NotBuilt`] with the first entry if none is.
pub(crate) fn check_built() -> Result<(), Error> {
    if PTX.iter().any(Option::is_some) {
        Ok(())
    } else {
        Err(Error::NotBuilt { entry: KERNELS[0].entry })
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
    fn load(context: &CudaContext, index: usize, life: u64) -> Result<Kernel, Error> {
        let (entry, launch) = (KERNELS[index].entry, KERNELS[index].launch);
        let text = PTX[index].ok_or(Error::NotBuilt { entry })?;
        let _current = CurrentContext::enter(context)?;
        let module = driver::load_module(entry, text)?;
        // SAFETY: the module was just loaded in the context that is current.
        unsafe { driver::function(module, entry, launch.smem_bytes) }
            .map(|function| Kernel { function, life })
            .inspect_err(|_| driver::unload_module(module))
    }

    /// The driver's handle.
    pub(crate) fn function(self) -> sys::CUfunction {
        self.function
    }

    /// # Errors
    /// [`Error::ContextGone`] if the context was reset since the kernel was loaded in it.
    pub(crate) fn check_alive(self, context: &CudaContext) -> Result<(), Error> {
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
    /// Keeps the context, and with it the modules, alive.
    context: Arc<CudaContext>,
    slots: [Slot<Kernel>; KERNELS.len()],
}

impl Kernels {
    /// The kernels of a context: the same ones for every call with that context.
    pub(crate) fn of(context: &Arc<CudaContext>) -> &'static Kernels {
        static ALL: Mutex<Vec<&'static Kernels>> = Mutex::new(Vec::new());
        // A panic cannot leave the list half written: it is only pushed to.
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernels) = all.iter().find(|kernels| kernels.context == *context) {
            return kernels;
        }
        let kernels = Box::leak(Box::new(Kernels {
            context: context.clone(),
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
        let life = driver::context_life(&self.context)?;
        self.slots[index]
            .get(|kernel| kernel.life == life, || Kernel::load(&self.context, index, life))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulgurite_spec::FORWARD;

    #[test]
    fn a_variant_outside_the_table_is_not_built() {
        let unknown = ForwardRow { entry: "fwd_unknown", ..FORWARD[0] };
        let error = index(unknown.entry).unwrap_err();
        assert_eq!(error, Error::NotBuilt { entry: "fwd_unknown" });
        assert!(error.to_string().contains("run `cargo xtask build`"));
        assert_eq!(ptx(&unknown), None);
    }

    #[test]
    fn embedded_ptx_has_its_entry() {
        for variant in FORWARD {
            if let Some(text) = ptx(variant) {
                assert!(text.contains(&format!(".entry {}", variant.entry)));
            }
        }
        assert_eq!(check_built().is_ok(), FORWARD.iter().any(|variant| ptx(variant).is_some()));
    }
}
