//! V: columns of keys as e4m3.
//!
//! A thread has 16 keys of 8 columns, and with them all that 8 units of 16 bytes of the transposed
//! tensor hold: transposing needs no shared memory. Eight threads side by side have the keys of a
//! block, so that what they store of a column lies side by side, and whole sectors are loaded.

use super::{Part, row_address};
use fulgurite_gpu::{element::Element, element8::E4m3, global, math, thread};
use fulgurite_spec::quantise::{BLOCK_ROWS, KEY_ORDER, QuantiseParams};

/// Keys that a thread has: one period of their order.
pub const KEYS: usize = KEY_ORDER.len();

/// Threads that share the keys of a block.
const SIDE_BY_SIDE: u32 = BLOCK_ROWS / KEYS as u32;

/// Columns of a thread.
const COLUMNS: usize = 8;

/// Which keys and columns a thread has.
#[derive(Clone, Copy)]
pub struct Share {
    /// The first of its 16 keys.
    pub first_key: u32,
    /// The first of its columns.
    pub column: u32,
}

impl Share {
    /// This thread's share of a block of keys, if each has so many columns.
    #[inline(always)]
    pub fn of(block: u32, columns: u32) -> Share {
        let (keys, column) = (thread::index() % SIDE_BY_SIDE, thread::index() / SIDE_BY_SIDE);
        Share { first_key: block * BLOCK_ROWS + keys * KEYS as u32, column: column * columns }
    }

    /// Stores the thread's keys of one of its columns of the transposed tensor.
    ///
    /// # Safety
    /// `v8` is that of the parameters for heads of `head_dim`; these keys and columns are the
    /// thread's alone.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn store(
        self,
        params: &QuantiseParams,
        (entry, head_dim): (u32, u32),
        column: usize,
        words: [u32; 4],
    ) {
        let row = u64::from(entry) * u64::from(head_dim) + u64::from(self.column + column as u32);
        let place = row * u64::from(params.kv_pad) + u64::from(self.first_key);
        // SAFETY: the caller's contract.
        unsafe { global::store_16(params.v8 + place, words) }
    }
}

/// One block's keys of V.
///
/// # Safety
/// As [`super::quantise`].
#[inline(always)]
pub(super) unsafe fn quantise_v<T: Element, const D: u32>(params: &QuantiseParams, part: Part) {
    let share = Share::of(part.part, COLUMNS as u32);
    if share.column >= D {
        return;
    }
    let has_columns = share.column < params.head_dim;
    let from = row_address(&params.v, part.batch, part.head, 0)
        + 2 * u64::from(if has_columns { share.column } else { 0 });
    let place = u64::from(part.entry) * u64::from(D) + u64::from(share.column);
    // SAFETY: what an earlier launch has written for the head and the thread's columns.
    let (factor, shifts) = unsafe {
        let scale = global::load_f32(params.v_scale + 4 * u64::from(part.entry));
        let shift = params.v_shift + 4 * place;
        let halves = [global::load_16(shift), global::load_16(shift + 16)];
        (1.0 / scale, halves.map(|half| half.map(f32::from_bits)))
    };
    let keys = if has_columns { params.kv_len.saturating_sub(share.first_key) } else { 0 };
    let mut packed = [[0; 4]; COLUMNS];
    let mut half = 0;
    while half < 2 {
        // The keys of two words of each column. All 16 at once would take too many registers.
        let mut words = [[0; 4]; KEYS / 2];
        let mut i = 0;
        while i < KEYS / 2 {
            // Keys beyond the last are loaded as the last: a load without a branch.
            let key = share.first_key + u32::from(KEY_ORDER[KEYS / 2 * half + i]);
            let row = u64::from(key.min(params.kv_len - 1));
            // SAFETY: inside of the tensor.
            words[i] = unsafe { global::load_16(from + 2 * row * params.v.row_stride) };
            i += 1;
        }
        let masks = [0, 1].map(|word| mask(2 * half + word, keys));
        let mut column = 0;
        while column < COLUMNS {
            let shift = shifts[column / 4][column % 4];
            let value = |i: usize| {
                let value = T::unpack(words[i][column / 2])[column % 2];
                // Rounding would make the largest number of infinity; times 0 it is NaN.
                math::fma(value, 0.0, (value - shift) * factor)
            };
            let mut word = 0;
            while word < 2 {
                let low = E4m3::pack(value(4 * word), value(4 * word + 1));
                let high = E4m3::pack(value(4 * word + 2), value(4 * word + 3));
                packed[column][2 * half + word] = E4m3::join(low, high) & masks[word];
                word += 1;
            }
            column += 1;
        }
        half += 1;
    }
    let mut column = 0;
    while column < COLUMNS {
        // SAFETY: the share's keys lie below `kv_pad`, and are this thread's.
        unsafe { share.store(params, (part.entry, D), column, packed[column]) }
        column += 1;
    }
}

/// All bits of those bytes of a column's `word`th word whose keys are among the first `keys`.
#[inline(always)]
fn mask(word: usize, keys: u32) -> u32 {
    let mut mask = 0;
    let mut byte = 0;
    while byte < 4 {
        if u32::from(KEY_ORDER[4 * word + byte]) < keys {
            mask |= 0xff << (8 * byte);
        }
        byte += 1;
    }
    mask
}
