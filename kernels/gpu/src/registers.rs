//! Register budgets of warpgroups.

use crate::imp;

/// Registers per thread of a role, known at compile time.
pub trait Budget {
    /// A multiple of 8 from 24 to 256.
    const REGISTERS: u32;
}

/// Lowers this warpgroup's registers per thread to the budget.
///
/// # Safety
/// All threads of the warpgroup call it once, at the start of their role.
#[inline(always)]
#[track_caller]
pub unsafe fn shrink_to<B: Budget>() {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::setmaxnreg_dec::<B>() }
}

/// Raises this warpgroup's registers per thread to the budget, waiting until others gave theirs.
///
/// # Safety
/// As [`shrink_to`]; the budgets of all roles fit into the register file (asserted in `spec`).
#[inline(always)]
#[track_caller]
pub unsafe fn grow_to<B: Budget>() {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::setmaxnreg_inc::<B>() }
}
