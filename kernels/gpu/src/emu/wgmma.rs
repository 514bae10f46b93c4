//! Bodies of the matrix products' primitives on the host.

use std::panic::Location;

use crate::emu::current::{act, collective, planted, with};
use crate::emu::format::Format;
use crate::emu::mutation::Change;
use crate::emu::operand::Major;
use crate::emu::report::{Primitive, broken, place};
use crate::emu::request::Request;
use crate::emu::tensor_core::{POISON, ProductRequest};

#[track_caller]
fn pin(address: usize, words: Vec<u32>) {
    let site = Location::caller();
    act(Primitive::WgmmaBegin, site, |block| {
        let thread = block.current;
        if let Some(before) = block.tensor_core.in_flight(thread, address) {
            return broken!(
                Fragment,
                "the accumulator's product issued at {} was not waited for, or its wait did not \
                 cover it",
                place(before)
            );
        }
        block.lanes[thread].pins.pin(address, words);
        Ok(())
    });
}

/// A register of an accumulator.
trait Register: Copy {
    fn bits(self) -> u32;
    fn of_bits(bits: u32) -> Self;
}

impl Register for f32 {
    fn bits(self) -> u32 {
        self.to_bits()
    }

    fn of_bits(bits: u32) -> f32 {
        f32::from_bits(bits)
    }
}

impl Register for i32 {
    fn bits(self) -> u32 {
        self as u32
    }

    fn of_bits(bits: u32) -> i32 {
        bits as i32
    }
}

#[track_caller]
fn pin_registers<R: Register>(registers: &[R]) {
    let words = registers.iter().map(|register| register.bits()).collect();
    pin(registers.as_ptr().addr(), words);
}

#[track_caller]
pub fn pin_f32<const N: u32>(acc: &mut [f32; 128]) {
    pin_registers(&acc[..N as usize / 2]);
}

#[track_caller]
pub fn pin_s32<const N: u32>(acc: &mut [i32; 128]) {
    pin_registers(&acc[..N as usize / 2]);
}

#[track_caller]
pub fn pin_u32<const N: u32>(packed: &mut [u32; 64]) {
    pin(packed.as_ptr().addr(), packed[..N as usize / 4].to_vec());
}

#[track_caller]
pub fn pin_bytes<const N: u32>(packed: &mut [u32; 32]) {
    pin(packed.as_ptr().addr(), packed[..N as usize / 8].to_vec());
}

#[track_caller]
pub unsafe fn wgmma_fence() {
    let site = Location::caller();
    if with(|block| block.planted(Primitive::WgmmaBegin, site, "")).is_none() {
        collective(Primitive::WgmmaBegin, site, Request::Fence);
    }
}

#[track_caller]
pub unsafe fn wgmma_commit() {
    let site = Location::caller();
    with(|block| block.lanes[block.current].issued = 0);
    if with(|block| block.planted(Primitive::WgmmaCommit, site, "")).is_none() {
        collective(Primitive::WgmmaCommit, site, Request::Commit);
    }
}

#[track_caller]
pub unsafe fn wgmma_wait<const PENDING: u32, const N: u32>(acc: &mut [f32; 128]) {
    // Results are delivered through this address.
    wait_at::<PENDING, N>(acc.as_mut_ptr().expose_provenance());
}

#[track_caller]
pub unsafe fn wgmma_wait_s32<const PENDING: u32, const N: u32>(acc: &mut [i32; 128]) {
    wait_at::<PENDING, N>(acc.as_mut_ptr().expose_provenance());
}

#[track_caller]
fn wait_at<const PENDING: u32, const N: u32>(address: usize) {
    let site = Location::caller();
    let pending = match with(|block| block.planted(Primitive::WgmmaWait, site, "")) {
        Some(Change::Drop) => return,
        Some(Change::More) => PENDING + 1,
        _ => PENDING,
    };
    let request = Request::Wait { pending, width: N as usize, address };
    collective(Primitive::WgmmaWait, site, request);
}

/// Issues this thread's part of a product: checks that the fence covers its registers, takes the
/// accumulator's values and poisons it.
#[track_caller]
fn product<R: Register>(acc: &mut [R; 128], mut request: ProductRequest) {
    let site = Location::caller();
    let registers = &mut acc[..request.width / 2];
    request.address = registers.as_ptr().addr();
    let issued = with(|block| {
        let issued = &mut block.lanes[block.current].issued;
        *issued += 1;
        *issued
    });
    match planted(Primitive::WgmmaIssue, site) {
        Some(Change::Drop) if issued == 2 => return,
        Some(Change::More) => request.b += 1,
        Some(Change::Less) => match &mut request.registers {
            Some(registers) => registers.rotate_left(1),
            None => request.a += 1,
        },
        Some(Change::Flip) => request.add = !request.add,
        _ => {}
    }
    let chained = act(Primitive::WgmmaIssue, site, |block| {
        let thread = block.current;
        let pins = &mut block.lanes[thread].pins;
        if let Some(words) = request.registers {
            pins.check_operand(words)?;
        }
        if block.tensor_core.in_flight(thread, request.address).is_some() {
            return Ok(true);
        }
        request.loaded = Some(pins.take(request.address, registers.iter().map(|it| it.bits()))?);
        Ok(false)
    });
    if !chained {
        registers.fill(R::of_bits(POISON));
    }
    collective(Primitive::WgmmaIssue, site, Request::Product(request));
}

/// A product with A in shared memory.
fn of_shared(format: Format, width: u32, [a, b]: [u64; 2], add: bool) -> ProductRequest {
    let (address, width) = (0, width as usize);
    let (registers, major, loaded) = (None, Major::K, None);
    ProductRequest { address, width, a, registers, b, add, major, format, loaded }
}

/// A product with A in registers.
fn of_registers(
    (format, major): (Format, Major),
    width: u32,
    a: [u32; 4],
    b: u64,
    add: bool,
) -> ProductRequest {
    let width = width as usize;
    let registers = Some(a);
    ProductRequest { address: 0, width, a: 0, registers, b, add, major, format, loaded: None }
}

macro_rules! products {
    ($format:ident, $ss:ident, $rs:ident) => {
        #[track_caller]
        pub unsafe fn $ss<const N: u32, const ADD: bool>(acc: &mut [f32; 128], a: u64, b: u64) {
            product(acc, of_shared(Format::$format, N, [a, b], ADD));
        }

        #[track_caller]
        pub unsafe fn $rs<const N: u32>(acc: &mut [f32; 128], a: [u32; 4], b: u64) {
            product(acc, of_registers((Format::$format, Major::N), N, a, b, true));
        }
    };
}
products!(Bf16, wgmma_ss_bf16, wgmma_rs_bf16);
products!(F16, wgmma_ss_f16, wgmma_rs_f16);

#[track_caller]
pub unsafe fn wgmma_ss_e4m3<const N: u32, const ADD: bool>(acc: &mut [f32; 128], a: u64, b: u64) {
    product(acc, of_shared(Format::E4m3, N, [a, b], ADD));
}

#[track_caller]
pub unsafe fn wgmma_rs_e4m3<const N: u32>(acc: &mut [f32; 128], a: [u32; 4], b: u64, add: bool) {
    product(acc, of_registers((Format::E4m3, Major::K), N, a, b, add));
}

#[track_caller]
pub unsafe fn wgmma_ss_s8<const N: u32, const ADD: bool>(acc: &mut [i32; 128], a: u64, b: u64) {
    product(acc, of_shared(Format::S8, N, [a, b], ADD));
}
