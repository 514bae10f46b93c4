//! Products of one warp.

use core::arch::asm;

macro_rules! product {
    ($name:ident, $dtype:literal) => {
        #[inline(always)]
        pub unsafe fn $name(sums: [f32; 4], a: [u32; 4], b: [u32; 2]) -> [f32; 4] {
            let [mut d0, mut d1, mut d2, mut d3] = sums;
            unsafe {
                asm!(
                    concat!("mma.sync.aligned.m16n8k16.row.col.f32.", $dtype, ".", $dtype, ".f32 ",
                            "{{{0}, {1}, {2}, {3}}}, {{{4}, {5}, {6}, {7}}}, {{{8}, {9}}}, ",
                            "{{{0}, {1}, {2}, {3}}};"),
                    inout(reg32) d0, inout(reg32) d1, inout(reg32) d2, inout(reg32) d3,
                    in(reg32) a[0], in(reg32) a[1], in(reg32) a[2], in(reg32) a[3],
                    in(reg32) b[0], in(reg32) b[1], options(pure, nomem, nostack),
                );
            }
            [d0, d1, d2, d3]
        }
    };
}
product!(mma_bf16, "bf16");
product!(mma_f16, "f16");
