//! Special registers, arithmetic, shuffles, plain stores.

use core::arch::asm;

/// Not `pure`: read again at every use. Kept in registers over the main loop, these values were
/// spilled where registers are short (head dims 64 and 256).
macro_rules! special_register {
    ($name:ident, $register:literal) => {
        #[inline(always)]
        pub fn $name() -> u32 {
            let value;
            unsafe {
                asm!(concat!("mov.u32 {0}, ", $register, ";"), out(reg32) value,
                     options(nomem, nostack));
            }
            value
        }
    };
}
special_register!(thread_index, "%tid.x");
special_register!(block_index, "%ctaid.x");
special_register!(grid_size, "%nctaid.x");

#[inline(always)]
pub fn dynamic_smem_base() -> u32 {
    let base;
    unsafe { asm!("mov.u32 {0}, dynamic_smem;", out(reg32) base, options(pure, nomem, nostack)) }
    base
}

macro_rules! unary {
    ($name:ident, $instruction:literal) => {
        #[inline(always)]
        pub fn $name(x: f32) -> f32 {
            let y;
            unsafe {
                asm!(concat!($instruction, " {0}, {1};"), out(reg32) y, in(reg32) x,
                     options(pure, nomem, nostack));
            }
            y
        }
    };
}
unary!(ex2, "ex2.approx.ftz.f32");
unary!(lg2, "lg2.approx.ftz.f32");

#[inline(always)]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    let y;
    unsafe {
        asm!("fma.rn.ftz.f32 {0}, {1}, {2}, {3};", out(reg32) y, in(reg32) a, in(reg32) b,
             in(reg32) c, options(pure, nomem, nostack));
    }
    y
}

#[inline(always)]
pub fn max_nan(a: f32, b: f32) -> f32 {
    let y;
    unsafe {
        asm!("max.NaN.f32 {0}, {1}, {2};", out(reg32) y, in(reg32) a, in(reg32) b,
             options(pure, nomem, nostack));
    }
    y
}

#[inline(always)]
pub fn nearest_s32(x: f32) -> i32 {
    let y;
    unsafe {
        asm!("cvt.rni.s32.f32 {0}, {1};", out(reg32) y, in(reg32) x,
             options(pure, nomem, nostack));
    }
    y
}

macro_rules! pack {
    ($name:ident, $instruction:literal) => {
        #[inline(always)]
        pub fn $name(low: f32, high: f32) -> u32 {
            let packed;
            unsafe {
                asm!(concat!($instruction, " {0}, {1}, {2};"), out(reg32) packed,
                     in(reg32) high, in(reg32) low, options(pure, nomem, nostack));
            }
            packed
        }
    };
}
pack!(pack_bf16, "cvt.rn.bf16x2.f32");
pack!(pack_f16, "cvt.rn.f16x2.f32");

#[inline(always)]
pub fn unpack_bf16(pair: u32) -> [f32; 2] {
    [f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000)]
}

#[inline(always)]
pub fn unpack_f16(pair: u32) -> [f32; 2] {
    let (low, high);
    unsafe {
        asm!(
            "{{ .reg .b16 l, h;",
            "mov.b32 {{l, h}}, {pair};",
            "cvt.f32.f16 {low}, l;",
            "cvt.f32.f16 {high}, h; }}",
            low = out(reg32) low, high = out(reg32) high, pair = in(reg32) pair,
            options(pure, nomem, nostack),
        );
    }
    [low, high]
}

#[inline(always)]
pub fn pack_e4m3(low: f32, high: f32) -> u16 {
    let packed;
    unsafe {
        asm!("cvt.rn.satfinite.e4m3x2.f32 {0}, {1}, {2};", out(reg16) packed, in(reg32) high,
             in(reg32) low, options(pure, nomem, nostack));
    }
    packed
}

#[inline(always)]
pub fn unpack_e4m3(pair: u16) -> u32 {
    let unpacked;
    unsafe {
        asm!("cvt.rn.f16x2.e4m3x2 {0}, {1};", out(reg32) unpacked, in(reg16) pair,
             options(pure, nomem, nostack));
    }
    unpacked
}

/// By `mov`, which ptxas merges with the conversion that makes the upper half; of a shift and an
/// `or` it makes an instruction more.
#[inline(always)]
pub fn join_halves(low: u16, high: u16) -> u32 {
    let word;
    unsafe {
        asm!("mov.b32 {0}, {{{1}, {2}}};", out(reg32) word, in(reg16) low, in(reg16) high,
             options(pure, nomem, nostack));
    }
    word
}

#[inline(always)]
pub fn pack_s8(low: i32, high: i32, upper: u32) -> u32 {
    let word;
    unsafe {
        asm!("cvt.pack.sat.s8.s32.b32 {0}, {1}, {2}, {3};", out(reg32) word, in(reg32) high,
             in(reg32) low, in(reg32) upper, options(pure, nomem, nostack));
    }
    word
}

#[inline(always)]
pub fn shuffle_xor<const XOR: u32>(x: u32) -> u32 {
    let y;
    unsafe {
        asm!("shfl.sync.bfly.b32 {0}, {1}, {xor}, 31, -1;", out(reg32) y, in(reg32) x,
             xor = const XOR, options(nomem, nostack));
    }
    y
}

#[inline(always)]
pub fn shuffle_xor_f32<const XOR: u32>(x: f32) -> f32 {
    f32::from_bits(shuffle_xor::<XOR>(x.to_bits()))
}

#[inline(always)]
pub fn broadcast_first(x: u32) -> u32 {
    let y;
    unsafe {
        asm!("shfl.sync.idx.b32 {0}, {1}, 0, 31, -1;", out(reg32) y, in(reg32) x,
             options(nomem, nostack));
    }
    y
}

/// The predicate enters and the mask leaves as registers, since `asm!` has no predicate operands.
#[inline(always)]
pub fn ballot(vote: bool) -> u32 {
    let votes;
    unsafe {
        asm!(
            "{{ .reg .pred p;",
            "setp.ne.u32 p, {vote}, 0;",
            "vote.sync.ballot.b32 {votes}, p, -1; }}",
            votes = out(reg32) votes, vote = in(reg32) vote as u32, options(nomem, nostack),
        );
    }
    votes
}

#[inline(always)]
pub fn any(vote: bool) -> bool {
    let any: u32;
    unsafe {
        asm!(
            "{{ .reg .pred p;",
            "setp.ne.u32 p, {vote}, 0;",
            "vote.sync.any.pred p, p, -1;",
            "selp.b32 {any}, 1, 0, p; }}",
            any = out(reg32) any, vote = in(reg32) vote as u32, options(nomem, nostack),
        );
    }
    any != 0
}

/// Loads and stores of 16 bytes in one space, whose addresses have the type and register named.
macro_rules! access_16 {
    ($load:ident, $store:ident, $space:literal, $address:ty, $register:ident) => {
        #[inline(always)]
        pub unsafe fn $load(from: $address) -> [u32; 4] {
            let (a, b, c, d);
            unsafe {
                asm!(concat!("ld.", $space, ".v4.b32 {{{1}, {2}, {3}, {4}}}, [{0}];"),
                     in($register) from, out(reg32) a, out(reg32) b, out(reg32) c, out(reg32) d,
                     options(nostack));
            }
            [a, b, c, d]
        }

        #[inline(always)]
        pub unsafe fn $store(to: $address, words: [u32; 4]) {
            unsafe {
                asm!(concat!("st.", $space, ".v4.b32 [{0}], {{{1}, {2}, {3}, {4}}};"),
                     in($register) to, in(reg32) words[0], in(reg32) words[1],
                     in(reg32) words[2], in(reg32) words[3], options(nostack));
            }
        }
    };
}
access_16!(load_global_16, store_global_16, "global", u64, reg64);
access_16!(load_shared_16, store_shared_16, "shared", u32, reg32);

#[inline(always)]
pub unsafe fn load_global_f32(address: u64) -> f32 {
    let value: f32;
    unsafe {
        asm!("ld.global.nc.f32 {0}, [{1}];", out(reg32) value, in(reg64) address, options(nostack));
    }
    value
}

#[inline(always)]
pub unsafe fn load_global_f32x2(address: u64) -> [f32; 2] {
    let (low, high): (f32, f32);
    unsafe {
        asm!(
            "ld.global.nc.v2.f32 {{{0}, {1}}}, [{2}];", out(reg32) low, out(reg32) high,
            in(reg64) address, options(nostack),
        );
    }
    [low, high]
}

#[inline(always)]
pub unsafe fn store_global_f32(address: u64, value: f32) {
    unsafe {
        asm!("st.global.f32 [{0}], {1};", in(reg64) address, in(reg32) value, options(nostack));
    }
}

#[inline(always)]
pub unsafe fn store_global_8(address: u64, words: [u32; 2]) {
    unsafe {
        asm!("st.global.v2.b32 [{0}], {{{1}, {2}}};", in(reg64) address, in(reg32) words[0],
             in(reg32) words[1], options(nostack));
    }
}
