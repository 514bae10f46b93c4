//! What a plan needs to know of a device.

/// The properties of a GPU that decide how a call is laid out on it.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// An H200 (SXM): to plan and test without a GPU.
    pub fn h200() -> Self {
        DeviceFacts {
            name: "NVIDIA H200".to_owned(),
            compute_capability: (9, 0),
            sm_count: 132,
            smem_optin_bytes: fulgurite_spec::tile::SMEM_LIMIT_BYTES,
        }
    }
}
