//! Processes that were forked after the driver was used: in them the driver does not work, and
//! locks of threads that are not there stay locked. They get an error before either is touched.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::Error;

/// Uses of the driver that went well or are under way.
static USES: AtomicUsize = AtomicUsize::new(0);

/// Whether this process was forked from one that used the driver.
static FORKED: AtomicBool = AtomicBool::new(false);

/// A use of the driver; unless it is [kept](Use::keep), it ends when dropped.
pub(crate) struct Use;

impl Use {
    /// Begins a use: a process that is forked from now on counts as forked.
    pub(crate) fn begin() -> Use {
        watch();
        USES.fetch_add(1, Ordering::SeqCst);
        Use
    }

    /// The driver is initialised, for the rest of the process.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        USES.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Whether the driver may be used in this process as far as forks go; every other function asks
/// by itself. For programs with locks of their own around this crate: ask before such a lock is
/// taken, because a thread that is not there in the forked process may hold it. Costs one read of
/// memory.
///
/// # Errors
/// [`Error::Forked`] in a process that was forked after its parent had used the driver.
pub fn check_fork() -> Result<(), Error> {
    if FORKED.load(Ordering::Relaxed) {
        return Err(Error::Forked { pid: std::process::id() });
    }
    Ok(())
}

/// Has the system call `in_child` in every process that is forked from this one.
#[cfg(unix)]
fn watch() {
    static WATCHED: AtomicBool = AtomicBool::new(false);
    if !WATCHED.swap(true, Ordering::SeqCst) {
        // SAFETY: the handler only reads and writes atomics, which is allowed in a forked child.
        // It fails for want of memory alone; then a child gets the driver's own error.
        let _ = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    }
}

#[cfg(unix)]
extern "C" fn in_child() {
    if USES.load(Ordering::SeqCst) != 0 {
        FORKED.store(true, Ordering::SeqCst);
    }
}

/// There are no forked processes here.
#[cfg(not(unix))]
fn watch() {}
