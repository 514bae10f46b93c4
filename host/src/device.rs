//! What is known of a device, and of the driver.

use std::path::PathBuf;

use fulgurite_spec::{KERNELS, Kernel};

use crate::{Error, driver};

/// The driver that this process uses.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DriverInfo {
    /// The file that was loaded as the driver's library.
    pub library: PathBuf,
    /// The newest version of CUDA that the driver supports: major, minor.
    pub cuda_version: (u32, u32),
}

/// What the driver says about each device, by ordinal. Makes no context; empty without a GPU.
///
/// # Errors
/// [`Error::NoDriver`], [`Error::DriverTooOld`], [`Error::StubDriver`], [`Error::Forked`],
/// [`Error::Driver`].
pub fn devices() -> Result<Vec<DeviceFacts>, Error> {
    (0..driver::device_count()?).map(driver::facts).collect()
}

/// The properties of a GPU that decide how a call is laid out on it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceFacts {
    /// The driver's name of the device.
    pub name: String,
    /// Compute capability: major, minor.
    pub compute_capability: (u32, u32),
    /// Streaming multiprocessors; a grid has at most one block for each, and at most 1024.
    pub sm_count: u32,
    /// Shared memory that one block may ask for, in bytes.
    pub smem_optin_bytes: u32,
}

impl DeviceFacts {
    /// Whether the device can run a kernel.
    ///
    /// # Errors
    /// [`Error::Architecture`], [`Error::SharedMemory`].
    pub fn check(&self, kernel: &Kernel) -> Result<(), Error> {
        let (got, want) = (self.compute_capability, kernel.arch.compute_capability());
        if got != want {
            return Err(Error::Architecture { device: self.name.clone(), got, want });
        }
        let want_bytes = kernel.launch.smem_bytes;
        if self.smem_optin_bytes < want_bytes {
            return Err(Error::SharedMemory {
                device: self.name.clone(),
                entry: kernel.entry,
                got_bytes: self.smem_optin_bytes,
                want_bytes,
            });
        }
        Ok(())
    }

    /// Checks that the device can run at least one kernel; if none, says why not the last one.
    ///
    /// # Errors
    /// [`Error::Architecture`], [`Error::SharedMemory`].
    pub fn check_any(&self) -> Result<(), Error> {
        KERNELS.iter().map(|kernel| self.check(kernel)).reduce(Result::or).unwrap_or(Ok(()))
    }

    /// A device of these properties: to plan and test without a GPU.
    pub fn new(
        name: &str,
        compute_capability: (u32, u32),
        sm_count: u32,
        smem_optin_bytes: u32,
    ) -> Self {
        DeviceFacts { name: name.to_owned(), compute_capability, sm_count, smem_optin_bytes }
    }

    /// An H200 (SXM): to plan and test without a GPU.
    pub fn h200() -> Self {
        DeviceFacts::new("NVIDIA H200", (9, 0), 132, fulgurite_spec::smem::SMEM_LIMIT_BYTES)
    }
}
