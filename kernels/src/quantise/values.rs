//! V: columns of keys as e4m3.
//!
//! A thread has 16 keys of 8 columns, and with them all that 8 units of 16 bytes of the transposed
//! tensor hold: transposing needs no shared memory. Eight threads side by side have the keys of a
//! block, so that what they store of a column lies side by side, and whole sectors are loaded.

use super::{Part, row_address};
use fulgurite_gpu::{element::Element, element8::E4m3, global, thread};
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
    let mut words = [[0; 4]; KEYS];
    let mut key = 0;
    while key < KEYS {
        // Keys beyond the last are loaded as the last: a load without a branch.
        let row = (share.first_key + key as u32).min(params.kv_len - 1);
        // SAFETY: inside of the tensor.
        words[key] = unsafe { global::load_16(from + 2 * u64::from(row) * params.v.row_stride) };
        key += 1;
    }
    let place = u64::from(part.entry) * u64::from(D) + u64::from(share.column);
    // SAFETY: what an earlier launch has written for the head and the thread's columns.
    let (factor, shifts) = unsafe {
        let scale = global::load_f32(params.v_scale + 4 * u64::from(part.entry));
        let shift = params.v_shift + 4 * place;
        let halves = [global::load_16(shift), global::load_16(shift + 16)];
        (1.0 / scale, halves.map(|half| half.map(f32::from_bits)))
    };
    let mut column = 0;
    while column < COLUMNS {
        let shift = shifts[column / 4][column % 4];
        let value = |position: usize| {
            let key = KEY_ORDER[position] as usize;
            let value = T::unpack(words[key][column / 2])[column % 2];
            let inside = has_columns && share.first_key + (key as u32) < params.kv_len;
            if inside { (value - shift) * factor } else { 0.0 }
        };
        let mut packed = [0; 4];
        let mut word = 0;
        while word < 4 {
            let low = E4m3::pack(value(4 * word), value(4 * word + 1));
            packed[word] = E4m3::join(low, E4m3::pack(value(4 * word + 2), value(4 * word + 3)));
            word += 1;
        }
        // SAFETY: the share's keys lie below `kv_pad`, and are this thread's.
        unsafe { share.store(params, (part.entry, D), column, packed) }
        column += 1;
    }
}
