//! Sums and largest sizes of columns, one chunk of rows of one head a block.
//!
//! A thread has 8 columns of every nth row; then the threads' sums of a column are added, in their
//! order.

use super::{Part, row_address};
use fulgurite_gpu::{barrier, element::Element, global, smem, smem::Smem, thread};
use fulgurite_spec::quantise::{CHUNK_ROWS, QuantiseParams, Source, THREADS};

/// Columns of a thread.
const COLUMNS: usize = 8;

/// Rows that a thread loads before it uses any.
const AHEAD: usize = 4;

/// Bytes that a thread leaves in shared memory.
const THREAD_BYTES: u32 = 3 * 4 * COLUMNS as u32;

const _: () = assert!(THREADS * THREAD_BYTES == 24_576);

/// Sums and largest sizes of a thread's columns.
struct Columns {
    sums: [f32; COLUMNS],
    largest: [f32; COLUMNS],
}

/// Which rows and columns of a chunk a thread has.
#[derive(Clone, Copy)]
struct Share {
    first_row: u32,
    /// From a row of the thread's to the next.
    step: u32,
    column: u32,
}

/// One block's chunk.
///
/// # Safety
/// Launched with [`THREADS`] and `THREADS * 96` bytes of shared memory; tensors and results are as
/// the parameters say.
#[inline(always)]
pub unsafe fn statistics<T: Element, const D: u32>(params: &QuantiseParams) {
    let part = Part::of(thread::block(), &params.chunks, &params.kv_heads);
    let units = D / COLUMNS as u32;
    let step = THREADS / units;
    let index = thread::index();
    let share = Share { first_row: index / units, step, column: index % units * COLUMNS as u32 };
    let (k_wanted, v_wanted) = (params.k_shift != 0, params.v8 != 0);
    // SAFETY: the caller's contract; the place in shared memory is the thread's; all threads meet.
    unsafe {
        if share.first_row < step {
            let k = columns::<T>(params, &params.k, part, share, k_wanted);
            let v = columns::<T>(params, &params.v, part, share, v_wanted);
            let to = Smem::base().plus(index * THREAD_BYTES);
            store(to, k.sums);
            store(to.plus(THREAD_BYTES / 3), v.sums);
            store(to.plus(THREAD_BYTES / 3 * 2), v.largest);
        }
        barrier::sync_all();
        let quarters = D / 4;
        if index < 3 * quarters {
            let (kind, quarter) = (index / quarters, index % quarters);
            let first = quarter / 2 * THREAD_BYTES + kind * THREAD_BYTES / 3 + quarter % 2 * 16;
            let total = total(first, step, units * THREAD_BYTES, kind == 2);
            let place = (u64::from(part.entry) * u64::from(params.chunks.value)
                + u64::from(part.part))
                * u64::from(3 * D)
                + u64::from(4 * index);
            global::store_16(params.partials + 4 * place, total.map(f32::to_bits));
        }
    }
}

/// Sums and largest sizes of the thread's share of a tensor; zeros if they are not wanted.
///
/// # Safety
/// As [`statistics`].
#[inline(always)]
unsafe fn columns<T: Element>(
    params: &QuantiseParams,
    source: &Source,
    part: Part,
    share: Share,
    wanted: bool,
) -> Columns {
    let mut columns = Columns { sums: [0.0; COLUMNS], largest: [0.0; COLUMNS] };
    if !wanted || share.column >= params.head_dim {
        return columns;
    }
    let first = part.part * CHUNK_ROWS;
    let rows = (params.kv_len - first).min(CHUNK_ROWS);
    let start = row_address(source, part.batch, part.head, first) + 2 * u64::from(share.column);
    let mut row = share.first_row;
    while row < rows {
        let mut words = [[0; 4]; AHEAD];
        let mut i = 0;
        while i < AHEAD {
            // The last row in place of those beyond it: a load without a branch.
            let place = u64::from((row + i as u32 * share.step).min(rows - 1));
            // SAFETY: inside of the tensor.
            words[i] = unsafe { global::load_16(start + 2 * place * source.row_stride) };
            i += 1;
        }
        let mut i = 0;
        while i < AHEAD {
            let inside = row + (i as u32) * share.step < rows;
            let mut pair = 0;
            while pair < COLUMNS / 2 {
                let values = T::unpack(if inside { words[i][pair] } else { 0 });
                let mut half = 0;
                while half < 2 {
                    let at = 2 * pair + half;
                    columns.sums[at] += values[half];
                    // Of the numbers: what is none stays in its column, and says nothing of the
                    // others' scale.
                    let size = values[half].abs();
                    let size = if size < f32::INFINITY { size } else { 0.0 };
                    columns.largest[at] = columns.largest[at].max(size);
                    half += 1;
                }
                pair += 1;
            }
            i += 1;
        }
        row += AHEAD as u32 * share.step;
    }
    columns
}

/// Leaves 8 floats in shared memory.
///
/// # Safety
/// The 32 bytes are the thread's.
#[inline(always)]
unsafe fn store(to: Smem, values: [f32; COLUMNS]) {
    let words = values.map(f32::to_bits);
    // SAFETY: the caller's contract.
    unsafe {
        smem::store_16(to, [words[0], words[1], words[2], words[3]]);
        smem::store_16(to.plus(16), [words[4], words[5], words[6], words[7]]);
    }
}

/// The sums of four columns of `count` threads, or the largest.
///
/// # Safety
/// All of these threads have stored, and a barrier came later.
#[inline(always)]
unsafe fn total(first: u32, count: u32, distance: u32, is_largest: bool) -> [f32; 4] {
    let mut total = [0.0_f32; 4];
    let mut thread = 0;
    while thread < count {
        // SAFETY: the caller's contract.
        let words = unsafe { smem::load_16(Smem::base().plus(first + thread * distance)) };
        let mut i = 0;
        while i < 4 {
            let value = f32::from_bits(words[i]);
            total[i] = if is_largest { total[i].max(value) } else { total[i] + value };
            i += 1;
        }
        thread += 1;
    }
    total
}
