//! V that is e4m3 already, transposed.

use super::{
    Part,
    values::{KEYS, Share},
};
use fulgurite_gpu::{global, thread};
use fulgurite_spec::quantise::{KEY_ORDER, QuantiseParams};

/// Columns of a thread: 16 bytes.
const COLUMNS: usize = 16;

/// One block's keys of V.
///
/// # Safety
/// Launched with [`fulgurite_spec::quantise::THREADS`], for each block of 128 keys of each head;
/// tensors and results as the parameters say.
#[inline(always)]
pub unsafe fn transpose<const D: u32>(params: &QuantiseParams) {
    let part = Part::of(thread::block(), &params.v_blocks, &params.kv_heads);
    let share = Share::of(part.part, COLUMNS as u32);
    if share.column >= D {
        return;
    }
    let has_columns = share.column < params.head_dim;
    let from = params.v.address
        + u64::from(part.batch) * params.v.batch_stride
        + u64::from(part.head) * params.v.head_stride
        + u64::from(if has_columns { share.column } else { 0 });
    let mut words = [[0; 4]; KEYS];
    let mut key = 0;
    while key < KEYS {
        let row = share.first_key + key as u32;
        let inside = has_columns && row < params.kv_len;
        let place = u64::from(row.min(params.kv_len - 1)) * params.v.row_stride;
        // SAFETY: inside of the tensor.
        let loaded = unsafe { global::load_16(from + place) };
        words[key] = loaded.map(|word| if inside { word } else { 0 });
        key += 1;
    }
    let mut column = 0;
    while column < COLUMNS {
        let byte = |position: usize| {
            words[KEY_ORDER[position] as usize][column / 4] >> (column % 4 * 8) & 0xff
        };
        let mut packed = [0; 4];
        let mut word = 0;
        while word < 4 {
            packed[word] = byte(4 * word)
                | byte(4 * word + 1) << 8
                | byte(4 * word + 2) << 16
                | byte(4 * word + 3) << 24;
            word += 1;
        }
        // SAFETY: the share's keys lie below `kv_pad`, and are this thread's.
        unsafe { share.store(params, (part.entry, D), column, packed) }
        column += 1;
    }
}
