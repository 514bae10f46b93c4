//! What kernels of one warp's products are made of: copies of threads, and these products.

use super::Probe;
use fulgurite_gpu::{
    barrier, copy,
    element::Element,
    frag::{self, Accum, Panels, RowsOf, row_bytes},
    mma,
    smem::{self, Smem},
    thread,
};
use fulgurite_spec::probes::PROBE_THREADS;

/// Copies of 16 bytes in three groups, of which the threads of odd index leave every second source
/// empty; each group is looked at while later ones may still be on their way.
///
/// # Safety
/// Three parts of input and of output.
#[inline(always)]
pub unsafe fn copies(probe: Probe) {
    let own = thread::index();
    let unit = |part: u32, thread: u32| Smem::base().plus(16 * (part * PROBE_THREADS + thread));
    // SAFETY: a barrier lies between a wait and what others read of it; nobody writes twice.
    unsafe {
        let mut part = 0;
        while part < 3 {
            let from = probe.scalars.input + u64::from(16 * (part * PROBE_THREADS + own));
            let bytes = if (own + part) % 4 == 3 { 0 } else { 16 };
            copy::start_16(unit(part, own), from, bytes);
            copy::commit();
            part += 1;
        }
        copy::wait::<2>();
        barrier::sync_all();
        probe.output(0, smem::load_16(unit(0, own ^ 37)));
        copy::wait::<1>();
        barrier::sync_all();
        probe.output(1, smem::load_16(unit(1, own ^ 90)));
        copy::wait::<0>();
        barrier::sync_all();
        probe.output(2, smem::load_16(unit(2, own ^ 5)));
    }
}

/// `S = A Bᵀ` and `O = S B` of 64 rows of 64 elements each, A and B copied into panels: the
/// products of four warps, 16 rows each. Of B the last four rows are not there.
///
/// # Safety
/// The input holds 128 rows, those of B behind those of A; the output has room for S and O.
#[inline(always)]
pub unsafe fn product<T: Element>(probe: Probe) {
    let (a, b) = (Panels::new(Smem::base(), 64), Panels::new(Smem::base().plus(64 * 128), 64));
    let rows = |first| RowsOf::new(probe.scalars.input, 128, 64, first);
    let mut scores = Accum::<64>::zero();
    let mut out = Accum::<64>::zero();
    // SAFETY: the barrier lies between the copies and the products; all threads come here.
    unsafe {
        a.copy_above::<64, 64>(&mut rows(64), PROBE_THREADS);
        b.copy::<64, 64>(rows(64), 60, PROBE_THREADS);
        copy::commit();
        copy::wait::<0>();
        barrier::sync_all();
        let (own, keys, values) =
            (a.rows_of_a(16 * thread::warp()), b.rows_of_b(), b.columns_of_b());
        let mut step = 0;
        while step < 4 {
            let a = own.load(0, step);
            let mut pair = 0;
            while pair < 4 {
                let b = keys.load(row_bytes(16 * pair), step);
                mma::multiply::<T, 64>(&mut scores, 2 * pair, a, [b[0], b[1]]);
                mma::multiply::<T, 64>(&mut scores, 2 * pair + 1, a, [b[2], b[3]]);
                pair += 1;
            }
            step += 1;
        }
        let packed = scores.pack::<T>();
        let mut step = 0;
        while step < 4 {
            let mut pair = 0;
            while pair < 4 {
                let b = values.load(row_bytes(16 * step), pair);
                let a = packed.operand(step);
                mma::multiply::<T, 64>(&mut out, 2 * pair, a, [b[0], b[1]]);
                mma::multiply::<T, 64>(&mut out, 2 * pair + 1, a, [b[2], b[3]]);
                pair += 1;
            }
            step += 1;
        }
        let address = |row: u32| probe.scalars.out + u64::from(row * 128);
        let rows = frag::rows();
        packed.store_rows(64, [true; 2], rows.map(address));
        out.pack::<T>().store_rows(64, [true; 2], rows.map(|row| address(64 + row)));
    }
}
