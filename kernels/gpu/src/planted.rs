//! Where a kernel lets the emulator in: constants that an error can be planted in, and counts of
//! what the kernel does. On the GPU all of it is nothing.

use crate::imp;

/// `value`, of a constant called `name`; on the emulator a planted error puts another number in
/// its place.
#[inline(always)]
#[track_caller]
pub fn constant<T: From<u16>>(name: &'static str, value: T) -> T {
    imp::constant(name, value)
}

/// Counts `name` once for each warp that comes here, in the emulator's
/// [`Stats`](../emu/struct.Stats.html). All threads of the warp call it.
#[inline(always)]
pub fn count(name: &'static str) {
    imp::count(name)
}

/// Arithmetic on the two rows that a thread holds in which the emulator can plant an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rows {
    /// Which rows they are.
    Held,
    /// What a maximum must reach at least.
    Floor,
    /// The largest of half of a row's elements.
    Maximum,
    /// The thread's part of the sum of a row's elements.
    Sum,
    /// The factor that elements are multiplied by.
    Factor,
    /// What is added to elements.
    Term,
    /// The first column that a mask leaves.
    Start,
    /// The first column that a mask takes, behind those.
    End,
}
