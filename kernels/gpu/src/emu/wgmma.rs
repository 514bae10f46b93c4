//! Bodies of the matrix products' primitives on the host.

use std::panic::Location;

use crate::emu::current::{act, collective, planted, with};
use crate::emu::mutation::Change;
use crate::emu::report::{Primitive, broken, place};
use crate::emu::request::Request;
use crate::emu::tensor_core::{POISON, ProductRequest};
use fulgurite_spec::Dtype;

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

#[track_caller]
pub fn pin_f32<const N: u32>(acc: &mut [f32; 128]) {
    let words = acc[..N as usize / 2].iter().map(|value| value.to_bits()).collect();
    pin(acc.as_ptr().addr(), words);
}

#[track_caller]
pub fn pin_u32<const N: u32>(packed: &mut [u32; 64]) {
    pin(packed.as_ptr().addr(), packed[..N as usize / 4].to_vec());
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
    let site = Location::caller();
    let pending = match with(|block| block.planted(Primitive::WgmmaWait, site, "")) {
        Some(Change::Drop) => return,
        Some(Change::More) => PENDING + 1,
        _ => PENDING,
    };
    // Results are delivered through this address.
    let address = acc.as_mut_ptr().expose_provenance();
    let request = Request::Wait { pending, width: N as usize, address };
    collective(Primitive::WgmmaWait, site, request);
}

/// Issues this thread's part of a product: checks that the fence covers its registers, takes the
/// accumulator's values and poisons it.
#[track_caller]
fn product<const N: u32>(acc: &mut [f32; 128], mut request: ProductRequest) {
    let site = Location::caller();
    let registers = &mut acc[..N as usize / 2];
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
        request.loaded = Some(pins.take(request.address, registers)?);
        Ok(false)
    });
    if !chained {
        registers.fill(f32::from_bits(POISON));
    }
    collective(Primitive::WgmmaIssue, site, Request::Product(request));
}

macro_rules! products {
    ($dtype:ident, $ss:ident, $rs:ident) => {
        #[track_caller]
        pub unsafe fn $ss<const N: u32, const ADD: bool>(acc: &mut [f32; 128], a: u64, b: u64) {
            let (width, dtype) = (N as usize, Dtype::$dtype);
            let request = ProductRequest {
                address: 0,
                width,
                a,
                registers: None,
                b,
                add: ADD,
                dtype,
                loaded: None,
            };
            product::<N>(acc, request);
        }

        #[track_caller]
        pub unsafe fn $rs<const N: u32>(acc: &mut [f32; 128], a: [u32; 4], b: u64) {
            let (width, dtype) = (N as usize, Dtype::$dtype);
            let request = ProductRequest {
                address: 0,
                width,
                a: 0,
                registers: Some(a),
                b,
                add: true,
                dtype,
                loaded: None,
            };
            product::<N>(acc, request);
        }
    };
}
products!(Bf16, wgmma_ss_bf16, wgmma_rs_bf16);
products!(F16, wgmma_ss_f16, wgmma_rs_f16);
