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
    /// Shared memory of a multiprocessor, in bytes; each of its blocks takes [`BLOCK_SMEM_BYTES`]
    /// beside what it asks for.
    pub smem_per_sm_bytes: u32,
    /// The L2 cache, in bytes.
    pub l2_bytes: u32,
}

/// Shared memory that the system takes of each block.
pub const BLOCK_SMEM_BYTES: u32 = 1024;

/// The L2 cache of devices of whom nothing is said of it.
const L2_BYTES: u32 = 50 << 20;

impl DeviceFacts {
    /// Whether the device can run a kernel.
    ///
    /// # Errors
    /// [`Error::Architecture`], [`Error::SharedMemory`].
    pub fn check(&self, kernel: &Kernel) -> Result<(), Error> {
        let (got, want) = (self.compute_capability, kernel.arch.compute_capability());
        if !kernel.arch.runs_on(got) {
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

    /// Whether as many blocks of a kernel lie on a multiprocessor together as it is made for; with
    /// fewer it runs too.
    pub fn holds(&self, kernel: &Kernel) -> bool {
        let blocks = u64::from(kernel.launch.blocks_per_sm);
        let block = u64::from(kernel.launch.smem_bytes) + u64::from(BLOCK_SMEM_BYTES);
        blocks == 1 || blocks * block <= u64::from(self.smem_per_sm_bytes)
    }

    /// Checks that the device can run at least one kernel; if none, says why not the one that asks
    /// for least.
    ///
    /// # Errors
    /// [`Error::Architecture`], [`Error::SharedMemory`].
    pub fn check_any(&self) -> Result<(), Error> {
        let asks = |kernel: &&Kernel| (kernel.arch.compute_capability(), kernel.launch.smem_bytes);
        let any = KERNELS.iter().any(|kernel| self.check(kernel).is_ok());
        let least = KERNELS.iter().min_by_key(asks).filter(|_| !any);
        least.map_or(Ok(()), |kernel| self.check(kernel))
    }

    /// A device of these properties: to plan and test without a GPU. What is not said is as on
    /// GPUs of its kind: shared memory of a multiprocessor for one such block, 50 MiB of L2.
    pub fn new(
        name: &str,
        compute_capability: (u32, u32),
        sm_count: u32,
        smem_optin_bytes: u32,
    ) -> Self {
        DeviceFacts {
            name: name.to_owned(),
            compute_capability,
            sm_count,
            smem_optin_bytes,
            smem_per_sm_bytes: smem_optin_bytes.saturating_add(BLOCK_SMEM_BYTES),
            l2_bytes: L2_BYTES,
        }
    }

    /// The same device with so much L2 cache.
    pub fn l2_bytes(self, l2_bytes: u32) -> Self {
        DeviceFacts { l2_bytes, ..self }
    }

    /// An H200 (SXM): to plan and test without a GPU.
    pub fn h200() -> Self {
        DeviceFacts::new("NVIDIA H200", (9, 0), 132, fulgurite_spec::smem::SMEM_LIMIT_BYTES)
    }

    /// An A100 (SXM, 80 GB), likewise.
    pub fn a100() -> Self {
        DeviceFacts::new("NVIDIA A100-SXM4-80GB", (8, 0), 108, 163 << 10).l2_bytes(40 << 20)
    }

    /// A GeForce RTX 3090, likewise.
    pub fn rtx3090() -> Self {
        DeviceFacts::new("NVIDIA GeForce RTX 3090", (8, 6), 82, 99 << 10).l2_bytes(6 << 20)
    }

    /// A GeForce RTX 4090, likewise.
    pub fn rtx4090() -> Self {
        DeviceFacts::new("NVIDIA GeForce RTX 4090", (8, 9), 128, 99 << 10).l2_bytes(72 << 20)
    }

    /// An L4, likewise.
    pub fn l4() -> Self {
        DeviceFacts::new("NVIDIA L4", (8, 9), 58, 99 << 10).l2_bytes(48 << 20)
    }

    /// A GeForce RTX 5090, likewise.
    pub fn rtx5090() -> Self {
        DeviceFacts::new("NVIDIA GeForce RTX 5090", (12, 0), 170, 99 << 10).l2_bytes(96 << 20)
    }

    /// A B200, likewise.
    pub fn b200() -> Self {
        DeviceFacts::new("NVIDIA B200", (10, 0), 148, 227 << 10).l2_bytes(126 << 20)
    }

    /// A T4, for which there is no kernel.
    pub fn t4() -> Self {
        DeviceFacts::new("Tesla T4", (7, 5), 40, 64 << 10).l2_bytes(4 << 20)
    }
}

/// The GPUs of a compute capability that kernels are compiled for.
pub(crate) fn gpus_of(want: (u32, u32)) -> &'static str {
    match want {
        (9, 0) => "9.0 (Hopper: H100, H200, GH200)",
        _ => "8.0 or more (Ampere and later: A100, RTX 30, L4, RTX 40, H100, B200, RTX 50)",
    }
}
