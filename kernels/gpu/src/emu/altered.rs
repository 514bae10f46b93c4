//! Arithmetic on the host, and the errors that can be planted in it.

use std::ops::{Add, Sub};
use std::panic::Location;

use half::{bf16, f16};

use crate::emu::current::{planted, with};
use crate::emu::mutation::Change;
use crate::emu::report::Primitive;

pub use crate::planted::Rows;

/// Subnormals are zero, with their sign.
fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0_f32.copysign(x) } else { x }
}

/// Flushes a result; every NaN is the one that the device makes.
fn result(x: f32) -> f32 {
    if x.is_nan() { f32::from_bits(0x7fff_ffff) } else { flush(x) }
}

#[track_caller]
pub fn ex2(x: f32) -> f32 {
    match planted(Primitive::Exp2, Location::caller()) {
        Some(Change::Drop) => x,
        Some(Change::Flip) => result(flush(-x).exp2()),
        Some(_) => result((flush(x) + 1.0).exp2()),
        None => result(flush(x).exp2()),
    }
}

#[track_caller]
pub fn lg2(x: f32) -> f32 {
    match planted(Primitive::Log2, Location::caller()) {
        Some(Change::Drop) => x,
        Some(_) => -result(flush(x).log2()),
        None => result(flush(x).log2()),
    }
}

#[track_caller]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    let a = match planted(Primitive::Fma, Location::caller()) {
        Some(Change::Drop) => return c,
        Some(_) => -a,
        None => a,
    };
    result(flush(a).mul_add(flush(b), flush(c)))
}

#[track_caller]
pub fn pack_bf16(low: f32, high: f32) -> u32 {
    pack(low, high, |x| bf16::from_f32(x).to_bits(), |bits| bf16::from_bits(bits).to_f32())
}

#[track_caller]
pub fn pack_f16(low: f32, high: f32) -> u32 {
    pack(low, high, |x| f16::from_f32(x).to_bits(), |bits| f16::from_bits(bits).to_f32())
}

/// Packs two floats that `round` rounds to nearest and `value` reads again.
#[track_caller]
fn pack(low: f32, high: f32, round: impl Fn(f32) -> u16, value: impl Fn(u16) -> f32) -> u32 {
    let change = planted(Primitive::Pack, Location::caller());
    let bits = |x: f32| {
        if x.is_nan() {
            return 0x7fff;
        }
        let bits = round(x);
        let cut = change == Some(Change::Truncate) && value(bits).abs() > x.abs();
        u32::from(if cut { bits - 1 } else { bits })
    };
    match change {
        Some(Change::Swap) => bits(high) | bits(low) << 16,
        Some(Change::Half) => bits(low),
        Some(Change::Drop) => 0,
        _ => bits(low) | bits(high) << 16,
    }
}

/// A vote as it is given, or with what is planted at its site.
pub(super) fn vote(change: Option<Change>, vote: bool) -> bool {
    match change {
        Some(Change::Flip) => !vote,
        Some(Change::Vote(vote)) => vote,
        _ => vote,
    }
}

/// Coordinates of a copy's box, or what a planted error makes of them.
pub(super) fn coordinates(change: Option<Change>, mut at: [u32; 4]) -> [u32; 4] {
    match change {
        Some(Change::Less) => at[1] = at[1].wrapping_sub(1),
        Some(Change::Coordinate(which)) => {
            at[usize::from(which)] += if which == 0 { 8 } else { 1 };
        }
        _ => {}
    }
    at
}

#[track_caller]
pub fn constant<T: From<u16>>(name: &'static str, value: T) -> T {
    let site = Location::caller();
    match with(|block| block.planted(Primitive::Constant, site, name)) {
        Some(Change::Is(number)) => T::from(number),
        _ => value,
    }
}

pub fn count(name: &'static str) {
    with(|block| {
        if block.current.is_multiple_of(32) {
            *block.stats.events.entry(name).or_default() += 1;
        }
    });
}

/// Values of the two rows that a thread holds, or what a planted error makes of them; `rest`: what
/// is left where they are dropped, of a sum what is left out of it.
#[track_caller]
pub fn alter<T>(what: Rows, values: [T; 2], rest: [T; 2]) -> [T; 2]
where
    T: Copy + Add<Output = T> + Sub<Output = T> + From<u8>,
{
    let one = T::from(1);
    let rest = match what {
        Rows::Sum => [values[0] - rest[0], values[1] - rest[1]],
        _ => rest,
    };
    match planted(Primitive::Rows(what), Location::caller()) {
        Some(Change::More) if [Rows::Sum, Rows::Factor].contains(&what) => {
            [values[0] + values[0], values[1] + values[1]]
        }
        Some(Change::Drop) => rest,
        Some(Change::Half) => [values[0], rest[1]],
        Some(Change::Swap) => [values[1], values[0]],
        Some(Change::More) => [values[0] + one, values[1] + one],
        Some(Change::Less) => [values[0] - one, values[1] - one],
        _ => values,
    }
}
