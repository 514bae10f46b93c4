//! The one list of kernels.
//!
//! A row is a decision someone made. Whoever needs "all kernels" expands
//! [`for_each_variant!`](crate::for_each_variant): the device crate makes an entry of each row,
//! the host finds the row that accepts a request, tests and checks walk [`VARIANTS`].

/// GPU architecture a variant is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    /// Hopper (H100, H200): TMA, wgmma, setmaxnreg; PTX target `sm_90a`.
    Sm90,
}

impl Arch {
    /// The `-C target-cpu` of rustc and the `.target` of the PTX.
    pub const fn target(self) -> &'static str {
        match self {
            Arch::Sm90 => "sm_90a",
        }
    }

    /// The one compute capability (major, minor) whose devices run this architecture's PTX.
    pub const fn compute_capability(self) -> (u32, u32) {
        match self {
            Arch::Sm90 => (9, 0),
        }
    }
}

/// Element type of q, k, v and the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// bfloat16: 8 exponent and 7 mantissa bits.
    Bf16,
    /// IEEE half: 5 exponent and 10 mantissa bits.
    F16,
}

impl Dtype {
    /// Bytes of one element.
    pub const fn bytes(self) -> u32 {
        match self {
            Dtype::Bf16 | Dtype::F16 => 2,
        }
    }

    /// The name used in entry names, tables and files.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::Bf16 => "bf16",
            Dtype::F16 => "f16",
        }
    }
}

/// Which keys a query row may see; the device crate has a type of the same name for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MaskKind {
    /// Every key.
    Full,
    /// Key `col` is kept for row `row` if `col <= row + kv_len - q_len` (bottom-right aligned).
    Causal,
}

impl MaskKind {
    /// The name used in entry names, tables and files.
    pub const fn name(self) -> &'static str {
        match self {
            MaskKind::Full => "full",
            MaskKind::Causal => "causal",
        }
    }
}

/// One row of the table: one compiled kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// The PTX symbol, also the name of the PTX file.
    pub entry: &'static str,
    /// Architecture it is compiled for.
    pub arch: Arch,
    /// Element type of q, k, v and the output.
    pub dtype: Dtype,
    /// Largest head dim it accepts; smaller ones are padded with zeros by TMA.
    pub head_dim: u32,
    /// The mask compiled in.
    pub mask: MaskKind,
    /// Query rows of one job.
    pub q_rows: u32,
    /// Rows of K and V in one step.
    pub kv_rows: u32,
    /// Buffers for Q, of one warpgroup's rows each.
    pub q_parts: u32,
    /// Buffers for K and for V.
    pub kv_stages: u32,
}

impl Variant {
    /// Whether it can compute a call with these properties.
    pub const fn accepts(&self, dtype: Dtype, mask: MaskKind, head_dim: u32) -> bool {
        self.dtype as u32 == dtype as u32
            && self.mask as u32 == mask as u32
            && self.head_dim >= head_dim
    }

    /// Query length up to which it is preferred to the rows behind it.
    ///
    /// At head dim 64 three warpgroups share each K and V, but with few rows too many of the 192
    /// are padding or masked. H200, 16384 tokens, TFLOP/s at 512 / 1k / 2k rows: causal 219 313
    /// 408 with 192 rows and 243 325 380 with 128; full 387 439 497 and 398 435 434.
    pub const fn q_len_limit(&self) -> u32 {
        if self.head_dim == 64 && self.q_rows == 128 { 1024 } else { u32::MAX }
    }
}

/// Calls the macro `$with` once with every row:
/// `entry: Arch, Dtype, head_dim, Mask, q_rows, kv_rows, q_parts, kv_stages;`.
///
/// The last four are the [`Tile`](crate::Tile). Registers are its first limit (scores kv_rows / 2,
/// probabilities kv_rows / 4, output head_dim / 2 of 232 with two consumers or 160 with three),
/// shared memory the second. `cargo xtask tiles` tries what fits, and its records beside the
/// bench's say by how much each row won: head dim 96 has gained 10 % (full) and 16 % (causal, 1k
/// rows) from a third stage in place of Q's second buffer, head dim 192 full 1 % from the opposite;
/// the others were the fastest, or within 1.5 %, as they stood. Since anchors took the place of
/// maxima, head dim 128 full gains 3 to 4 % at 1k and 2k rows from 128 KV rows in place of 176.
///
/// ```
/// macro_rules! count {
///     ($($entry:ident: $($column:tt),*;)*) => { [$(stringify!($entry)),*].len() };
/// }
/// assert_eq!(fulgurite_spec::for_each_variant!(count), fulgurite_spec::VARIANTS.len());
/// ```
#[macro_export]
macro_rules! for_each_variant {
    ($with:ident) => {
        $with! {
            fwd_sm90_bf16_d64_full_q128:   Sm90, Bf16,  64, Full,   128, 128, 4, 3;
            fwd_sm90_bf16_d64_causal_q128: Sm90, Bf16,  64, Causal, 128, 128, 4, 3;
            fwd_sm90_bf16_d64_full:        Sm90, Bf16,  64, Full,   192, 128, 6, 2;
            fwd_sm90_bf16_d64_causal:      Sm90, Bf16,  64, Causal, 192, 128, 6, 2;
            fwd_sm90_bf16_d96_full:        Sm90, Bf16,  96, Full,   128, 128, 2, 3;
            fwd_sm90_bf16_d96_causal:      Sm90, Bf16,  96, Causal, 128, 128, 2, 3;
            fwd_sm90_bf16_d128_full:       Sm90, Bf16, 128, Full,   128, 128, 4, 2;
            fwd_sm90_bf16_d128_causal:     Sm90, Bf16, 128, Causal, 128, 128, 4, 2;
            fwd_sm90_bf16_d192_full:       Sm90, Bf16, 192, Full,   128,  96, 3, 2;
            fwd_sm90_bf16_d192_causal:     Sm90, Bf16, 192, Causal, 128, 112, 2, 2;
            fwd_sm90_bf16_d256_full:       Sm90, Bf16, 256, Full,   128,  80, 2, 2;
            fwd_sm90_bf16_d256_causal:     Sm90, Bf16, 256, Causal, 128,  80, 2, 2;
            fwd_sm90_f16_d64_full_q128:    Sm90, F16,   64, Full,   128, 128, 4, 3;
            fwd_sm90_f16_d64_causal_q128:  Sm90, F16,   64, Causal, 128, 128, 4, 3;
            fwd_sm90_f16_d64_full:         Sm90, F16,   64, Full,   192, 128, 6, 2;
            fwd_sm90_f16_d64_causal:       Sm90, F16,   64, Causal, 192, 128, 6, 2;
            fwd_sm90_f16_d96_full:         Sm90, F16,   96, Full,   128, 128, 2, 3;
            fwd_sm90_f16_d96_causal:       Sm90, F16,   96, Causal, 128, 128, 2, 3;
            fwd_sm90_f16_d128_full:        Sm90, F16,  128, Full,   128, 128, 4, 2;
            fwd_sm90_f16_d128_causal:      Sm90, F16,  128, Causal, 128, 128, 4, 2;
            fwd_sm90_f16_d192_full:        Sm90, F16,  192, Full,   128,  96, 3, 2;
            fwd_sm90_f16_d192_causal:      Sm90, F16,  192, Causal, 128, 112, 2, 2;
            fwd_sm90_f16_d256_full:        Sm90, F16,  256, Full,   128,  80, 2, 2;
            fwd_sm90_f16_d256_causal:      Sm90, F16,  256, Causal, 128,  80, 2, 2;
        }
    };
}

macro_rules! table {
    ($($entry:ident: $arch:ident, $dtype:ident, $head_dim:literal, $mask:ident,
      $q_rows:literal, $kv_rows:literal, $q_parts:literal, $kv_stages:literal;)*) => {
        /// Every kernel, in order of preference.
        pub const VARIANTS: &[Variant] = &[$(Variant {
            entry: stringify!($entry),
            arch: Arch::$arch,
            dtype: Dtype::$dtype,
            head_dim: $head_dim,
            mask: MaskKind::$mask,
            q_rows: $q_rows,
            kv_rows: $kv_rows,
            q_parts: $q_parts,
            kv_stages: $kv_stages,
        }),*];
    };
}
for_each_variant!(table);
