//! What serves the emulator, and is nothing here.

pub use crate::planted::Rows;

#[inline(always)]
pub fn constant<T>(_name: &'static str, value: T) -> T {
    value
}

#[inline(always)]
pub fn count(_name: &'static str) {}

#[inline(always)]
pub fn alter<T>(_what: Rows, values: [T; 2], _rest: [T; 2]) -> [T; 2] {
    values
}
