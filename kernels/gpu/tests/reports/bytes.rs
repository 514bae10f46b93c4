//! Products of 8-bit elements.

use fulgurite_gpu::element8::{E4m3, S8};
use fulgurite_gpu::emu::FaultKind;
use fulgurite_gpu::frag::{Accum, IntegerAccum};
use fulgurite_gpu::smem::Smem;
use fulgurite_gpu::wgmma::{self, Operand, PanelWidth};
use fulgurite_gpu::{fence, thread};

use crate::support::*;

/// The first warpgroup's stores become operands of `multiply`; what it does wrong is the
/// emulator's to find.
fn with_operands(multiply: impl Fn(Operand)) {
    store_box();
    // SAFETY: all threads come here.
    unsafe { fence::proxy_async() }
    barrier_for_all();
    if thread::index() < 128 {
        multiply(Operand::k_major(Smem::base()));
    }
}

#[test]
fn sums_of_integers_need_a_fence_and_a_wait() {
    let multiply = |begin: bool, wait: bool| {
        move |operand| {
            let mut sums = IntegerAccum::<64>::zero();
            // SAFETY: planted.
            unsafe {
                if begin {
                    wgmma::begin_integers(&mut sums);
                }
                wgmma::issue_ss_bytes::<S8, 64, false>(&mut sums, operand, operand);
                wgmma::commit();
                if wait {
                    wgmma::wait_integers::<0, 64>(&mut sums);
                }
            }
        }
    };
    run(0, |_| with_operands(multiply(true, true))).expect("nothing is wrong");
    expect(FaultKind::Fragment, &["wgmma::issue", "no wgmma::begin"], |_| {
        with_operands(multiply(false, true));
    });
    expect(FaultKind::Unfinished, &["never waited for"], |_| {
        with_operands(multiply(true, false));
    });
}

#[test]
fn packed_bytes_need_a_fence() {
    let multiply = |cover: bool| {
        move |operand| {
            let (mut ones, mut out) = (Accum::<64>::zero(), Accum::<64>::zero());
            ones.add_rows([1.0; 2]);
            let mut packed = ones.pack_e4m3();
            // SAFETY: planted.
            unsafe {
                match cover {
                    true => wgmma::begin_rs_bytes(&mut packed, &mut out),
                    false => wgmma::begin(&mut out),
                }
                wgmma::issue_rs_e4m3(&mut out, packed.operand(1), operand, false);
                wgmma::commit();
                wgmma::wait::<0, 64>(&mut out);
            }
        }
    };
    run(0, |_| with_operands(multiply(true))).expect("nothing is wrong");
    expect(FaultKind::Fragment, &["no wgmma::begin_rs covers"], |_| with_operands(multiply(false)));
}

#[test]
fn panels_start_where_their_swizzle_does() {
    expect(FaultKind::Malformed, &["is row 1 of the swizzle's pattern"], |_| {
        with_operands(|operand| {
            let mut acc = Accum::<64>::zero();
            let narrow = Operand::k_major_in(Smem::base().plus(128), PanelWidth::Bytes64);
            // SAFETY: planted.
            unsafe {
                wgmma::begin(&mut acc);
                wgmma::issue_ss_bytes::<E4m3, 64, false>(&mut acc, operand, narrow);
            }
        });
    });
}
