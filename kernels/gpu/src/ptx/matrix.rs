//! Four 8×8 matrices between shared memory and a warp.

use core::arch::asm;

macro_rules! load {
    ($form:literal, $row:ident) => {{
        let (a, b, c, d);
        asm!(concat!("ldmatrix.sync.aligned.m8n8.x4", $form,
                     ".shared.b16 {{{1}, {2}, {3}, {4}}}, [{0}];"),
             in(reg32) $row, out(reg32) a, out(reg32) b, out(reg32) c, out(reg32) d,
             options(nostack));
        [a, b, c, d]
    }};
}

macro_rules! store {
    ($form:literal, $row:ident, $words:ident) => {
        asm!(concat!("stmatrix.sync.aligned.m8n8.x4", $form,
                     ".shared.b16 [{0}], {{{1}, {2}, {3}, {4}}};"),
             in(reg32) $row, in(reg32) $words[0], in(reg32) $words[1], in(reg32) $words[2],
             in(reg32) $words[3], options(nostack))
    };
}

#[inline(always)]
pub unsafe fn load_matrices<const TRANSPOSED: bool>(row: u32) -> [u32; 4] {
    unsafe { if TRANSPOSED { load!(".trans", row) } else { load!("", row) } }
}

#[inline(always)]
pub unsafe fn store_matrices<const TRANSPOSED: bool>(row: u32, words: [u32; 4]) {
    unsafe { if TRANSPOSED { store!(".trans", row, words) } else { store!("", row, words) } }
}
