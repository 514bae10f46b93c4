//! Warpgroup products. An accumulator is a list of up to 128 register operands, so the lists are
//! made by macros: `for_width!` calls another macro with the indices of a product's registers.

use core::arch::asm;

/// Calls `$with!(args…; width; i0 i1 …)` with the register indices of a 64×`$n` accumulator.
macro_rules! for_width {
    ($n:ident, $with:ident!($($args:tt)*)) => {{
        const { assert_width($n) };
        match $n {
            48 => octets!($with [$($args)*] "48" 0 8 16;),
            64 => octets!($with [$($args)*] "64" 0 8 16 24;),
            80 => octets!($with [$($args)*] "80" 0 8 16 24 32;),
            96 => octets!($with [$($args)*] "96" 0 8 16 24 32 40;),
            112 => octets!($with [$($args)*] "112" 0 8 16 24 32 40 48;),
            128 => octets!($with [$($args)*] "128" 0 8 16 24 32 40 48 56;),
            144 => octets!($with [$($args)*] "144" 0 8 16 24 32 40 48 56 64;),
            160 => octets!($with [$($args)*] "160" 0 8 16 24 32 40 48 56 64 72;),
            176 => octets!($with [$($args)*] "176" 0 8 16 24 32 40 48 56 64 72 80;),
            192 => octets!($with [$($args)*] "192" 0 8 16 24 32 40 48 56 64 72 80 88;),
            208 => octets!($with [$($args)*] "208" 0 8 16 24 32 40 48 56 64 72 80 88 96;),
            224 => octets!($with [$($args)*] "224" 0 8 16 24 32 40 48 56 64 72 80 88 96 104;),
            240 => octets!($with [$($args)*] "240" 0 8 16 24 32 40 48 56 64 72 80 88 96 104 112;),
            256 => octets!($with [$($args)*] "256"
                0 8 16 24 32 40 48 56 64 72 80 88 96 104 112 120;),
            _ => core::hint::unreachable_unchecked(),
        }
    }};
}

/// The same for the packed form of a fragment, which has half as many registers.
macro_rules! for_packed_width {
    ($n:ident, $with:ident!($($args:tt)*)) => {{
        const { assert_width($n) };
        match $n {
            48 => octets!($with [$($args)*] "48" 0; 8),
            64 => octets!($with [$($args)*] "64" 0 8;),
            80 => octets!($with [$($args)*] "80" 0 8; 16),
            96 => octets!($with [$($args)*] "96" 0 8 16;),
            112 => octets!($with [$($args)*] "112" 0 8 16; 24),
            128 => octets!($with [$($args)*] "128" 0 8 16 24;),
            144 => octets!($with [$($args)*] "144" 0 8 16 24; 32),
            160 => octets!($with [$($args)*] "160" 0 8 16 24 32;),
            176 => octets!($with [$($args)*] "176" 0 8 16 24 32; 40),
            192 => octets!($with [$($args)*] "192" 0 8 16 24 32 40;),
            208 => octets!($with [$($args)*] "208" 0 8 16 24 32 40; 48),
            224 => octets!($with [$($args)*] "224" 0 8 16 24 32 40 48;),
            240 => octets!($with [$($args)*] "240" 0 8 16 24 32 40 48; 56),
            256 => octets!($with [$($args)*] "256" 0 8 16 24 32 40 48 56;),
            _ => core::hint::unreachable_unchecked(),
        }
    }};
}

/// The same for a fragment packed to bytes, which has a quarter as many registers: widths that are
/// multiples of 32, the K of its products.
macro_rules! for_bytes_width {
    ($n:ident, $with:ident!($($args:tt)*)) => {{
        const { assert!($n.is_multiple_of(32)) };
        const { assert_width($n) };
        match $n {
            64 => octets!($with [$($args)*] "64" 0;),
            96 => octets!($with [$($args)*] "96" 0; 8),
            128 => octets!($with [$($args)*] "128" 0 8;),
            160 => octets!($with [$($args)*] "160" 0 8; 16),
            192 => octets!($with [$($args)*] "192" 0 8 16;),
            224 => octets!($with [$($args)*] "224" 0 8 16; 24),
            256 => octets!($with [$($args)*] "256" 0 8 16 24;),
            _ => core::hint::unreachable_unchecked(),
        }
    }};
}

/// The widths that the lists above have: multiples of 16 from 48 on.
const fn assert_width(n: u32) {
    assert!(n.is_multiple_of(16) && 48 <= n && n <= 256, "no wgmma of this width in the list");
}

/// Spells out octets of indices, and possibly a last quad.
macro_rules! octets {
    ($with:ident [$($args:tt)*] $width:literal
     $first:literal $($base:literal)*; $($quad:literal)?) => {
        $with!($($args)*; $width; ($first) ($first + 1) ($first + 2) ($first + 3) ($first + 4)
            ($first + 5) ($first + 6) ($first + 7)
            $(($base) ($base + 1) ($base + 2) ($base + 3) ($base + 4) ($base + 5) ($base + 6)
              ($base + 7))*
            $(($quad) ($quad + 1) ($quad + 2) ($quad + 3))?)
    };
}

/// One placeholder of a register list after the first.
macro_rules! next_operand {
    ($i:tt) => {
        ", {}"
    };
}

/// `$type` with K, `$flags` behind the predicate, which says whether the accumulator is added.
macro_rules! issue_ss {
    ($type:literal, $flags:literal, $acc:ident, $a:ident, $b:ident, $add:expr;
     $width:literal; $first:tt $($i:tt)*) => {
        asm!(
            concat!(
                "{{ .reg .pred p; setp.ne.b32 p, {add}, 0; wgmma.mma_async.sync.aligned.m64n",
                $width, $type, " {{{}", $(next_operand!($i),)*
                "}}, {a}, {b}, p", $flags, "; }}"
            ),
            inout(reg32) $acc[$first], $(inout(reg32) $acc[$i],)*
            a = in(reg64) $a, b = in(reg64) $b, add = const $add as u32, options(nostack),
        )
    };
}

macro_rules! issue_rs {
    ($type:literal, $acc:ident, $a:ident, $b:ident; $width:literal; $first:tt $($i:tt)*) => {
        asm!(
            concat!(
                "wgmma.mma_async.sync.aligned.m64n", $width, $type,
                " {{{}", $(next_operand!($i),)* "}}, {{{a0}, {a1}, {a2}, {a3}}}, {b}, 1, 1, 1, 1;"
            ),
            inout(reg32) $acc[$first], $(inout(reg32) $acc[$i],)*
            a0 = in(reg32) $a[0], a1 = in(reg32) $a[1], a2 = in(reg32) $a[2], a3 = in(reg32) $a[3],
            b = in(reg64) $b, options(nostack),
        )
    };
}

macro_rules! products {
    ($type:literal, $ss:ident, $rs:ident) => {
        #[inline(always)]
        pub unsafe fn $ss<const N: u32, const ADD: bool>(acc: &mut [f32; 128], a: u64, b: u64) {
            unsafe { for_width!(N, issue_ss!($type, ", 1, 1, 0, 0", acc, a, b, ADD)) }
        }

        #[inline(always)]
        pub unsafe fn $rs<const N: u32>(acc: &mut [f32; 128], a: [u32; 4], b: u64) {
            unsafe { for_width!(N, issue_rs!($type, acc, a, b)) }
        }
    };
}
products!("k16.f32.bf16.bf16", wgmma_ss_bf16, wgmma_rs_bf16);
products!("k16.f32.f16.f16", wgmma_ss_f16, wgmma_rs_f16);

#[inline(always)]
pub unsafe fn wgmma_ss_e4m3<const N: u32, const ADD: bool>(acc: &mut [f32; 128], a: u64, b: u64) {
    unsafe { for_width!(N, issue_ss!("k32.f32.e4m3.e4m3", ", 1, 1", acc, a, b, ADD)) }
}

#[inline(always)]
pub unsafe fn wgmma_ss_s8<const N: u32, const ADD: bool>(acc: &mut [i32; 128], a: u64, b: u64) {
    unsafe { for_width!(N, issue_ss!("k32.s32.s8.s8", "", acc, a, b, ADD)) }
}

macro_rules! issue_rs_e4m3 {
    ($acc:ident, $a:ident, $b:ident, $add:expr; $width:literal; $first:tt $($i:tt)*) => {
        asm!(
            concat!(
                "{{ .reg .pred p; setp.ne.b32 p, {add}, 0; wgmma.mma_async.sync.aligned.m64n",
                $width, "k32.f32.e4m3.e4m3 {{{}", $(next_operand!($i),)*
                "}}, {{{a0}, {a1}, {a2}, {a3}}}, {b}, p, 1, 1; }}"
            ),
            inout(reg32) $acc[$first], $(inout(reg32) $acc[$i],)*
            a0 = in(reg32) $a[0], a1 = in(reg32) $a[1], a2 = in(reg32) $a[2], a3 = in(reg32) $a[3],
            b = in(reg64) $b, add = in(reg32) $add as u32, options(nostack),
        )
    };
}

#[inline(always)]
pub unsafe fn wgmma_rs_e4m3<const N: u32>(acc: &mut [f32; 128], a: [u32; 4], b: u64, add: bool) {
    unsafe { for_width!(N, issue_rs_e4m3!(acc, a, b, add)) }
}

#[inline(always)]
pub unsafe fn wgmma_fence() {
    unsafe { asm!("wgmma.fence.sync.aligned;", options(nostack)) }
}

#[inline(always)]
pub unsafe fn wgmma_commit() {
    unsafe { asm!("wgmma.commit_group.sync.aligned;", options(nostack)) }
}

/// `$instruction` with a register list as operands that it only names, in a comment: the compiler
/// then sees them as read and written here.
macro_rules! name_registers {
    ($instruction:literal, $registers:ident $(, $name:ident = $value:expr)*;
     $width:literal; $first:tt $($i:tt)*) => {
        asm!(
            concat!($instruction, "// {}", $(next_operand!($i)),*),
            inout(reg32) $registers[$first], $(inout(reg32) $registers[$i],)*
            $($name = const $value,)*
            options(nostack),
        )
    };
}

#[inline(always)]
pub unsafe fn wgmma_wait<const PENDING: u32, const N: u32>(acc: &mut [f32; 128]) {
    unsafe {
        for_width!(
            N,
            name_registers!("wgmma.wait_group.sync.aligned {pending}; ", acc, pending = PENDING)
        )
    }
}

#[inline(always)]
pub unsafe fn wgmma_wait_s32<const PENDING: u32, const N: u32>(acc: &mut [i32; 128]) {
    unsafe {
        for_width!(
            N,
            name_registers!("wgmma.wait_group.sync.aligned {pending}; ", acc, pending = PENDING)
        )
    }
}

#[inline(always)]
pub fn pin_f32<const N: u32>(acc: &mut [f32; 128]) {
    unsafe { for_width!(N, name_registers!("", acc)) }
}

#[inline(always)]
pub fn pin_u32<const N: u32>(packed: &mut [u32; 64]) {
    unsafe { for_packed_width!(N, name_registers!("", packed)) }
}

#[inline(always)]
pub fn pin_s32<const N: u32>(acc: &mut [i32; 128]) {
    unsafe { for_width!(N, name_registers!("", acc)) }
}

#[inline(always)]
pub fn pin_bytes<const N: u32>(packed: &mut [u32; 32]) {
    unsafe { for_bytes_width!(N, name_registers!("", packed)) }
}
