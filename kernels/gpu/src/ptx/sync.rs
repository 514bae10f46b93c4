//! Barriers and register budgets.

use crate::registers::Budget;
use core::arch::asm;

#[inline(always)]
pub fn barrier_name(_id: u32, _family: &'static str, _index: u32) {}

#[inline(always)]
pub fn mbarrier_name(_bar: u32, _family: &'static str, _index: u32) {}

#[inline(always)]
pub unsafe fn barrier_sync_all() {
    unsafe { asm!("bar.sync 0;", options(nostack)) }
}

#[inline(always)]
pub unsafe fn barrier_sync(id: u32, thread_count: u32) {
    unsafe { asm!("bar.sync {0}, {1};", in(reg32) id, in(reg32) thread_count, options(nostack)) }
}

#[inline(always)]
pub unsafe fn barrier_arrive(id: u32, thread_count: u32) {
    unsafe { asm!("bar.arrive {0}, {1};", in(reg32) id, in(reg32) thread_count, options(nostack)) }
}

/// The predicates enter and leave as registers, since `asm!` has no predicate operands.
#[inline(always)]
pub unsafe fn barrier_any(id: u32, thread_count: u32, vote: bool) -> bool {
    let any: u32;
    unsafe {
        asm!(
            "{{ .reg .pred p;",
            "setp.ne.u32 p, {vote}, 0;",
            "bar.red.or.pred p, {id}, {count}, p;",
            "selp.b32 {any}, 1, 0, p; }}",
            any = out(reg32) any, id = in(reg32) id, count = in(reg32) thread_count,
            vote = in(reg32) vote as u32, options(nostack),
        );
    }
    any != 0
}

#[inline(always)]
pub unsafe fn mbarrier_init(bar: u32, arrivals: u32) {
    unsafe {
        asm!("mbarrier.init.shared::cta.b64 [{0}], {1};", in(reg32) bar, in(reg32) arrivals,
             options(nostack));
    }
}

#[inline(always)]
pub unsafe fn mbarrier_fence_init() {
    unsafe { asm!("fence.mbarrier_init.release.cluster;", options(nostack)) }
}

#[inline(always)]
pub unsafe fn fence_proxy_async() {
    unsafe { asm!("fence.proxy.async.shared::cta;", options(nostack)) }
}

#[inline(always)]
pub unsafe fn mbarrier_arrive(bar: u32) {
    unsafe { asm!("mbarrier.arrive.shared::cta.b64 _, [{0}];", in(reg32) bar, options(nostack)) }
}

#[inline(always)]
pub unsafe fn mbarrier_arrive_expect(bar: u32, bytes: u32) {
    unsafe {
        asm!("mbarrier.arrive.expect_tx.shared::cta.b64 _, [{0}], {1};", in(reg32) bar,
             in(reg32) bytes, options(nostack));
    }
}

/// The predicate leaves the statement through `selp`, since `asm!` has no predicate operands.
macro_rules! parity_question {
    ($(#[$doc:meta])* $name:ident, $instruction:literal, $last_operand:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub unsafe fn $name(bar: u32, parity: u32) -> bool {
            let done: u32;
            unsafe {
                asm!(
                    "{{ .reg .pred p;",
                    concat!($instruction, " p, [{bar}], {parity}", $last_operand, ";"),
                    "selp.b32 {done}, 1, 0, p; }}",
                    done = out(reg32) done, bar = in(reg32) bar, parity = in(reg32) parity,
                    options(nostack),
                );
            }
            done != 0
        }
    };
}
parity_question!(
    /// The last operand, nanoseconds, makes the waiting thread sleep until the phase completes.
    /// Without it the loop around spins: on an H200 a producer waiting for a free stage took 9 % of
    /// all issue slots and 2 to 3 % of the speed at head dim 64.
    mbarrier_try_wait, "mbarrier.try_wait.parity.shared::cta.b64", ", 10000000"
);
parity_question!(mbarrier_test_wait, "mbarrier.test_wait.parity.shared::cta.b64", "");

#[inline(always)]
pub unsafe fn setmaxnreg_dec<B: Budget>() {
    unsafe { asm!("setmaxnreg.dec.sync.aligned.u32 {0};", const B::REGISTERS, options(nostack)) }
}

#[inline(always)]
pub unsafe fn setmaxnreg_inc<B: Budget>() {
    unsafe { asm!("setmaxnreg.inc.sync.aligned.u32 {0};", const B::REGISTERS, options(nostack)) }
}
