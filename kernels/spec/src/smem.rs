//! Shared memory, as the hardware has it.

/// Bytes of one row of a shared-memory panel: the span of TMA's 128-byte swizzle.
pub const PANEL_ROW_BYTES: u32 = 128;

/// Elements of one row of a panel, and columns of one TMA box (16-bit elements).
pub const PANEL_COLUMNS: u32 = 64;

/// Shared memory one block of a Hopper GPU may use, in bytes (227 KiB).
pub const SMEM_LIMIT_BYTES: u32 = 232_448;
