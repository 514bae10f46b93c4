//! How a kernel is launched, as data: the builder stamps it into the PTX, the host passes it to
//! the driver, the kernel sets its registers from it.

/// Threads of one warpgroup.
pub const WARPGROUP_THREADS: u32 = 128;

/// Rows of one warpgroup's products: the M of a `wgmma`.
pub const WARPGROUP_ROWS: u32 = 64;

/// Registers of one multiprocessor.
const REGISTER_FILE: u32 = 65_536;

/// Block size, shared memory and register budget of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchSpec {
    /// Threads of a block. Where roles have budgets: one producer warpgroup and the consumers.
    pub threads: u32,
    /// Blocks that fit on one multiprocessor.
    pub blocks_per_sm: u32,
    /// Dynamic shared memory of a block in bytes.
    pub smem_bytes: u32,
    /// Registers per thread that the producer keeps (`setmaxnreg.dec`); 0: no budgets.
    pub producer_registers: u32,
    /// Registers per thread that a consumer takes (`setmaxnreg.inc`); 0: no budgets.
    pub consumer_registers: u32,
}

impl LaunchSpec {
    /// Whether the roles get the registers that they ask for; else `setmaxnreg` would wait for
    /// ever.
    pub const fn has_registers(&self) -> bool {
        let consumers = (self.threads / WARPGROUP_THREADS).saturating_sub(1);
        let asked = self.producer_registers + consumers * self.consumer_registers;
        // A block starts with an equal share per thread, in steps of 8; roles trade inside that.
        let share = REGISTER_FILE / self.blocks_per_sm / self.threads / 8 * 8;
        asked * WARPGROUP_THREADS <= share * self.threads
    }
}
