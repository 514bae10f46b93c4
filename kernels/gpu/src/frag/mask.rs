//! Masks that take elements at both ends of a row.

use super::{Accum, first_column};
use crate::imp;

impl<const N: u32> Accum<N> {
    /// Sets the elements in front of column `start[half]`, and those of columns `end[half]` and
    /// later, to `-inf`.
    ///
    /// By a word for each row, with a bit for each of the thread's columns: ptxas takes these into
    /// predicates many at a time, where comparing with both ends takes two instructions for each
    /// element.
    #[inline(always)]
    #[track_caller]
    pub fn mask_outside(&mut self, start: [i32; 2], end: [i32; 2]) {
        const { assert!(N <= 128, "a thread's columns of a row are the bits of a word") };
        let start = imp::alter(imp::Rows::Start, start, [0; 2]);
        let end = imp::alter(imp::Rows::End, end, [i32::MAX; 2]);
        let kept = [0, 1].map(|half: usize| {
            let [before, until] = [start[half], end[half]].map(own_columns::<N>);
            u32::MAX.unbounded_shl(before) & !u32::MAX.unbounded_shl(until)
        });
        let mut i = 0;
        while i < Self::LEN {
            let mut part = 0;
            while part < 4 {
                if kept[part / 2] >> (i / 2 + part % 2) & 1 == 0 {
                    self.registers[i + part] = f32::NEG_INFINITY;
                }
                part += 1;
            }
            i += 4;
        }
    }
}

/// How many of the thread's columns, two of each eight, lie in front of a column.
#[inline(always)]
fn own_columns<const N: u32>(column: i32) -> u32 {
    let column = (column - first_column() as i32).clamp(0, N as i32) as u32;
    column / 8 * 2 + (column % 8).min(2)
}
