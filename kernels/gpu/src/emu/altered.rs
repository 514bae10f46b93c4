//! Arithmetic on the host, and the errors that can be planted in it.

use std::ops::{Add, Sub};
use std::panic::Location;

use half::{bf16, f16};

use crate::emu::current::{planted, with};
use crate::emu::e4m3;
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

/// The larger one, -0 being smaller than 0; NaN if one of them is.
pub fn max_nan(a: f32, b: f32) -> f32 {
    if a.is_nan() || b.is_nan() {
        return f32::from_bits(0x7fff_ffff);
    }
    if a.total_cmp(&b).is_gt() { a } else { b }
}

/// The nearest integer that there is; of NaN 0.
pub fn nearest_s32(x: f32) -> i32 {
    x.round_ties_even() as i32
}

#[track_caller]
pub fn pack_bf16(low: f32, high: f32) -> u32 {
    let (round, value) = (|x| bf16::from_f32(x).to_bits(), |bits| bf16::from_bits(bits).to_f32());
    pack::<16, 0x7fff>(low, high, round, value)
}

#[track_caller]
pub fn pack_f16(low: f32, high: f32) -> u32 {
    let (round, value) = (|x| f16::from_f32(x).to_bits(), |bits| f16::from_bits(bits).to_f32());
    pack::<16, 0x7fff>(low, high, round, value)
}

#[track_caller]
pub fn pack_e4m3(low: f32, high: f32) -> u16 {
    let (round, value) = (|x| e4m3::nearest(x).into(), |bits| e4m3::value(bits as u8));
    pack::<8, 0x7f>(low, high, round, value) as u16
}

/// Packs two floats that `round` rounds to nearest in so many bits and `value` reads again.
#[track_caller]
fn pack<const BITS: u32, const NAN: u32>(
    low: f32,
    high: f32,
    round: impl Fn(f32) -> u16,
    value: impl Fn(u16) -> f32,
) -> u32 {
    let change = planted(Primitive::Pack, Location::caller());
    let bits = |x: f32| {
        if x.is_nan() {
            return NAN;
        }
        let bits = round(x);
        let cut = change == Some(Change::Truncate) && value(bits).abs() > x.abs();
        u32::from(if cut { bits - 1 } else { bits })
    };
    match change {
        Some(Change::Swap) => bits(high) | bits(low) << BITS,
        Some(Change::Half) => bits(low),
        Some(Change::Drop) => 0,
        _ => bits(low) | bits(high) << BITS,
    }
}

pub fn unpack_bf16(pair: u32) -> [f32; 2] {
    [pair as u16, (pair >> 16) as u16].map(|bits| bf16::from_bits(bits).to_f32())
}

pub fn unpack_f16(pair: u32) -> [f32; 2] {
    [pair as u16, (pair >> 16) as u16].map(|bits| f16::from_bits(bits).to_f32())
}

pub fn unpack_e4m3(pair: u16) -> u32 {
    let [low, high] = pair.to_le_bytes().map(|code| match e4m3::value(code) {
        x if x.is_nan() => 0x7fff,
        x => u32::from(f16::from_f32(x).to_bits()),
    });
    low | high << 16
}

pub fn join_halves(low: u16, high: u16) -> u32 {
    u32::from(low) | u32::from(high) << 16
}

/// Saturates two integers to 8 bits, in front of the lower half of `upper`.
pub fn pack_s8(low: i32, high: i32, upper: u32) -> u32 {
    let [low, high] = [low, high].map(|x| u32::from(x.clamp(-128, 127) as i8 as u8));
    low | high << 8 | upper << 16
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
