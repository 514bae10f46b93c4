//! Workspaces whose every byte behind the head is set: no result may depend on what they held.

use fulgurite::emulator::{Emulator, Global};
use fulgurite::{Error, RawWorkspace, Workspace};

use crate::gpu::{Gpu, failed};

/// What every byte behind the head holds before a launch: numbers of all types are NaN of it.
const SPOILT: u8 = 0xff;

/// As many bytes as a launch asks for.
fn spoilt(bytes: u64) -> Result<Vec<u8>, String> {
    let bytes = usize::try_from(bytes).map_err(|error| error.to_string())?;
    let mut memory = vec![SPOILT; bytes];
    memory[..bytes.min(Workspace::HEAD_BYTES)].fill(0);
    Ok(memory)
}

/// A workspace on a GPU.
///
/// # Errors
/// A message if the driver refuses.
pub fn on_gpu(gpu: &Gpu, bytes: u64) -> Result<Workspace, String> {
    if bytes == 0 {
        return Ok(Workspace::new(gpu.stream()));
    }
    let memory = gpu.stream().clone_htod(&spoilt(bytes)?);
    let memory = memory.map_err(failed("copying to the device"))?;
    Workspace::wrap(memory).map_err(|error| error.to_string())
}

/// A workspace on the emulator.
#[derive(Debug)]
pub struct Emulated {
    address: u64,
    bytes: Vec<u8>,
}

impl Emulated {
    /// An empty one at an address.
    pub fn new(address: u64) -> Emulated {
        Emulated { address, bytes: Vec::new() }
    }

    /// As many bytes of it as a launch asks for, which kernels may write.
    pub fn map<'a>(&'a mut self, bytes: u64, global: &mut Global<'a>) -> RawWorkspace {
        self.bytes = spoilt(bytes).unwrap_or_default();
        global.writable("workspace", self.address, &mut self.bytes);
        RawWorkspace { address: self.address, bytes }
    }

    /// Whether the head is zero, as it was before the launch.
    ///
    /// # Errors
    /// [`Error::Emulated`] says where it is not.
    pub fn check_head(&self) -> Result<(), Error> {
        Emulator::check_workspace_head(&self.bytes)
    }
}
