//! Means of K's and V's columns and the scale of V, one head of one batch entry a block.

use fulgurite_gpu::{barrier, global, smem, smem::Smem, thread};
use fulgurite_spec::quantise::{E4M3_MAX, QuantiseParams};

/// Chunks that a thread loads before it uses any.
const AHEAD: usize = 4;

/// One block's head.
///
/// # Safety
/// Launched with at least `D / 4` threads and `4 * D` bytes of shared memory behind the
/// statistics; results are as the parameters say.
#[inline(always)]
pub unsafe fn means<const D: u32>(params: &QuantiseParams) {
    let entry = thread::block();
    let batch = params.kv_heads.divide(entry);
    let threads = D / 4;
    let index = thread::index();
    let has_v = params.v8 != 0 && batch < params.v_batch;
    let at = Smem::base().plus(16 * index);
    // SAFETY: the caller's contract; the places are the thread's; all threads meet.
    unsafe {
        if index < threads {
            if params.k_shift != 0 && batch < params.k_batch {
                let mean = over_chunks::<D>(params, entry, 0, |sum, value| sum + value);
                let mean = mean.map(|sum| finite_or_0(sum / params.kv_len as f32));
                store_means::<D>(params.k_shift, entry, mean);
            }
            if has_v {
                let mean = over_chunks::<D>(params, entry, 1, |sum, value| sum + value)
                    .map(|sum| finite_or_0(sum / params.kv_len as f32));
                let sizes = over_chunks::<D>(params, entry, 2, f32::max);
                store_means::<D>(params.v_shift, entry, mean);
                let largest = [largest(mean.map(f32::abs)), largest(sizes)].map(f32::to_bits);
                smem::store_16(at, [largest[0], largest[1], 0, 0]);
            }
        }
        barrier::sync_all();
        if has_v && index == 0 {
            let (mut mean, mut size) = (0.0_f32, 0.0_f32);
            let mut thread = 0;
            while thread < threads {
                let words = smem::load_16(at.plus(16 * thread)).map(f32::from_bits);
                (mean, size) = (mean.max(words[0]), size.max(words[1]));
                thread += 1;
            }
            let scale = (mean / E4M3_MAX + size / E4M3_MAX).max(f32::MIN_POSITIVE);
            global::store_f32(params.v_scale + 4 * u64::from(entry), scale);
        }
    }
}

/// The thread's four columns of one kind of the statistics, combined over the chunks in turn.
///
/// # Safety
/// As [`means`].
#[inline(always)]
unsafe fn over_chunks<const D: u32>(
    params: &QuantiseParams,
    entry: u32,
    kind: u32,
    combine: impl Fn(f32, f32) -> f32,
) -> [f32; 4] {
    let chunks = params.chunks.value;
    let column = kind * D + 4 * thread::index();
    let start = u64::from(entry) * u64::from(chunks) * u64::from(3 * D) + u64::from(column);
    let mut total = [0.0; 4];
    let mut chunk = 0;
    while chunk < chunks {
        let mut words = [[0; 4]; AHEAD];
        let mut i = 0;
        while i < AHEAD {
            let place = start + u64::from((chunk + i as u32).min(chunks - 1)) * u64::from(3 * D);
            // SAFETY: inside of the statistics.
            words[i] = unsafe { global::load_16(params.partials + 4 * place) };
            i += 1;
        }
        let mut i = 0;
        while i < AHEAD {
            let inside = chunk + (i as u32) < chunks;
            let mut j = 0;
            while j < 4 {
                let value = f32::from_bits(if inside { words[i][j] } else { 0 });
                total[j] = combine(total[j], value);
                j += 1;
            }
            i += 1;
        }
        chunk += AHEAD as u32;
    }
    total
}

/// Stores the means of the thread's columns.
///
/// # Safety
/// As [`means`].
#[inline(always)]
unsafe fn store_means<const D: u32>(to: u64, entry: u32, means: [f32; 4]) {
    let place = u64::from(entry) * u64::from(D) + u64::from(4 * thread::index());
    // SAFETY: inside of the head's means; the columns are the thread's.
    unsafe { global::store_16(to + 4 * place, means.map(f32::to_bits)) }
}

/// The mean of numbers, or 0 if one of them is none: so that a bad key takes its KV tile alone, and
/// a bad value its column. Any other number would do as well, since shifts have no meaning for the
/// result.
#[inline(always)]
fn finite_or_0(mean: f32) -> f32 {
    if mean.abs() < f32::INFINITY { mean } else { 0.0 }
}

/// The largest of four.
#[inline(always)]
fn largest(values: [f32; 4]) -> f32 {
    let [a, b, c, d] = values;
    a.max(b).max(c.max(d))
}
