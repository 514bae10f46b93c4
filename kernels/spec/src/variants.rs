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

/// Type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dtype {
    /// bfloat16: 8 exponent and 7 mantissa bits.
    Bf16,
    /// IEEE half: 5 exponent and 10 mantissa bits.
    F16,
    /// IEEE single.
    F32,
    /// 8-bit float: 4 exponent and 3 mantissa bits, no infinity.
    E4m3,
    /// 8-bit float: 5 exponent and 2 mantissa bits.
    E5m2,
    /// Bytes.
    U8,
    /// Signed 8-bit integers.
    I8,
    /// Signed 32-bit integers.
    I32,
    /// Signed 64-bit integers.
    I64,
}

impl Dtype {
    /// Bytes of one element.
    pub const fn bytes(self) -> u32 {
        match self {
            Dtype::E4m3 | Dtype::E5m2 | Dtype::U8 | Dtype::I8 => 1,
            Dtype::Bf16 | Dtype::F16 => 2,
            Dtype::F32 | Dtype::I32 => 4,
            Dtype::I64 => 8,
        }
    }

    /// The name used in entry names, tables and files.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::Bf16 => "bf16",
            Dtype::F16 => "f16",
            Dtype::F32 => "f32",
            Dtype::E4m3 => "e4m3",
            Dtype::E5m2 => "e5m2",
            Dtype::U8 => "u8",
            Dtype::I8 => "i8",
            Dtype::I32 => "i32",
            Dtype::I64 => "i64",
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

/// How a row's softmax finds the numbers that its exponents are relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SoftmaxKind {
    /// The row's maximum so far, in every tile: the online softmax. Little code, and no
    /// probability above 1. Rows whose scores are too large for exponents of one rounding are lost,
    /// and computed again.
    Maxima,
    /// As `Maxima`, with differences of scores taken before they are scaled: an addition for each
    /// element more, right for scores of any size, and no second pass.
    Apart,
    /// The row's maximum until the row has settled, then that number for good unless the sums of a
    /// tile object: no maxima, no shuffles, nothing rescaled, but more code. Rows can be lost.
    Anchors,
    /// As `Anchors`, for rows of very many keys: the output is *parked* every so many keys, so that
    /// the tensor core's accumulator, which truncates, never holds more than these.
    Parked,
    /// As `Apart`, and parked likewise.
    ParkedMax,
}

impl SoftmaxKind {
    /// The name used in tables and files.
    pub const fn name(self) -> &'static str {
        match self {
            SoftmaxKind::Maxima => "maxima",
            SoftmaxKind::Apart => "apart",
            SoftmaxKind::Anchors => "anchors",
            SoftmaxKind::Parked => "parked",
            SoftmaxKind::ParkedMax => "parked-max",
        }
    }

    /// Whether rows may keep their anchors.
    pub const fn keeps_anchors(self) -> bool {
        matches!(self, SoftmaxKind::Anchors | SoftmaxKind::Parked)
    }

    /// Whether rows can be lost, so that the kernel has a second pass.
    pub const fn loses(self) -> bool {
        self.keeps_anchors() || matches!(self, SoftmaxKind::Maxima)
    }

    /// Whether the output is parked in shared memory now and then.
    pub const fn parks(self) -> bool {
        matches!(self, SoftmaxKind::Parked | SoftmaxKind::ParkedMax)
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
    /// Its softmax.
    pub softmax: SoftmaxKind,
    /// Query rows of one job.
    pub q_rows: u32,
    /// Rows of K and V in one step.
    pub kv_rows: u32,
    /// Buffers for Q, of one warpgroup's rows each.
    pub q_parts: u32,
    /// Buffers for K and for V.
    pub kv_stages: u32,
    /// Key length up to which it is preferred to the rows behind it, in calls without keyless query
    /// tiles or if it stores those.
    pub kv_len_limit: u32,
}

/// The key length limit of a variant that suits all lengths.
pub const ANY: u32 = u32::MAX;

/// Key length beyond which a kernel that parks its output is preferred. With values of mean 1 the
/// error of the others in f16 is 1.2 times as large here as with few keys, and 1.6 times at
/// [`LONGER`] (`kernels/PERFORMANCE.md`, "Long rows").
pub const LONG: u32 = 1 << 15;

/// The same where parking costs more than 2 % of the speed: head dim 192.
pub const LONGER: u32 = 1 << 16;

/// The same at head dim 64, where the error in f16 passes the limit of `verify` first, at 30,000
/// keys, and parking costs 1 % at most.
pub const SOONER: u32 = 1 << 14;

impl Variant {
    /// Whether it can compute a call with these properties.
    pub const fn accepts(&self, dtype: Dtype, mask: MaskKind, head_dim: u32) -> bool {
        self.dtype as u32 == dtype as u32
            && self.mask as u32 == mask as u32
            && self.head_dim >= head_dim
    }

    /// Whether it stores query tiles without keys beside its jobs: [`stores_keyless`].
    pub const fn stores_keyless(&self) -> bool {
        stores_keyless(self.mask, self.softmax)
    }
}

/// Whether kernels of this mask and softmax store query tiles without keys beside their jobs. One
/// that does not computes each as a job of one masked tile: that is right and slow, but without the
/// code for it causal calls of up to 1024 keys are 5 to 7 % faster (head dim 64).
pub const fn stores_keyless(mask: MaskKind, softmax: SoftmaxKind) -> bool {
    matches!(mask, MaskKind::Causal) && softmax.keeps_anchors()
}

/// Calls the macro `$with` once with every row:
/// `entry: Arch, Dtype, head_dim, Mask, Softmax, q_rows, kv_rows, q_parts, kv_stages,
/// kv_len_limit;`.
///
/// The four in front of the limit are the [`Tile`](crate::Tile). Registers are its first limit
/// (scores kv_rows / 2, probabilities kv_rows / 4, output head_dim / 2 of 232 with two consumers or
/// 160 with three), shared memory the second. `cargo xtask tiles` tries what fits.
///
/// Why a row is as it is: `kernels/PERFORMANCE.md`, "Which softmax, which tile", has the figures.
/// Short calls want little code, so that instructions stay in their cache: the rows `short` with
/// maxima (at head dim 256, causal, a second pass would spill: `Apart`). Long ones want little
/// work: anchors. Causal calls waste less on half-masked tiles with fewer KV rows. Rows of more
/// than [`LONG`](crate::variants::LONG) keys have kernels of their own, which park; at head dim 256
/// none of the shapes tried has the registers for it.
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
fwd_sm90_bf16_d64_full_short:    Sm90, Bf16,  64, Full,   Maxima,  128, 128, 4, 3, 512;
        fwd_sm90_bf16_d64_causal_short:  Sm90, Bf16,  64, Causal, Apart,     128, 128, 4, 3, 512;
        fwd_sm90_bf16_d64_full:          Sm90, Bf16,  64, Full,   Anchors,   192, 128, 6, 2, SOONER;
        fwd_sm90_bf16_d64_full_long:     Sm90, Bf16,  64, Full,   Parked,    192, 128, 6, 2, ANY;
        fwd_sm90_bf16_d64_causal:        Sm90, Bf16,  64, Causal, Anchors,   192, 128, 6, 2, SOONER;
        fwd_sm90_bf16_d64_causal_long:   Sm90, Bf16,  64, Causal, Parked,    192, 128, 6, 2, ANY;
        fwd_sm90_bf16_d96_full:          Sm90, Bf16,  96, Full,   Anchors,   128, 128, 2, 3, LONG;
        fwd_sm90_bf16_d96_full_long:     Sm90, Bf16,  96, Full,   Parked,    128, 128, 4, 2, ANY;
        fwd_sm90_bf16_d96_causal:        Sm90, Bf16,  96, Causal, Anchors,   128, 128, 2, 3, LONG;
        fwd_sm90_bf16_d96_causal_long:   Sm90, Bf16,  96, Causal, Parked,    128, 128, 4, 2, ANY;
        fwd_sm90_bf16_d128_full:         Sm90, Bf16, 128, Full,   Anchors,   128, 128, 4, 2, LONG;
        fwd_sm90_bf16_d128_full_long:    Sm90, Bf16, 128, Full,   Parked,    128, 128, 4, 2, ANY;
        fwd_sm90_bf16_d128_causal_short: Sm90, Bf16, 128, Causal, Maxima,    128, 128, 4, 2, 1024;
        fwd_sm90_bf16_d128_causal:       Sm90, Bf16, 128, Causal, Anchors,   128, 128, 2, 3, LONG;
        fwd_sm90_bf16_d128_causal_long:  Sm90, Bf16, 128, Causal, Parked,    128, 128, 4, 2, ANY;
        fwd_sm90_bf16_d192_full:         Sm90, Bf16, 192, Full,   Anchors,   128,  96, 3, 2, LONGER;
        fwd_sm90_bf16_d192_full_long:    Sm90, Bf16, 192, Full,   ParkedMax, 128,  80, 2, 2, ANY;
        fwd_sm90_bf16_d192_causal:       Sm90, Bf16, 192, Causal, Anchors,   128,  64, 2, 3, LONGER;
        fwd_sm90_bf16_d192_causal_long:  Sm90, Bf16, 192, Causal, ParkedMax, 128,  64, 2, 2, ANY;
        fwd_sm90_bf16_d256_full:         Sm90, Bf16, 256, Full,   Anchors,   128,  80, 2, 2, ANY;
        fwd_sm90_bf16_d256_causal_short: Sm90, Bf16, 256, Causal, Apart,     128,  64, 2, 2, 1024;
        fwd_sm90_bf16_d256_causal:       Sm90, Bf16, 256, Causal, Anchors,   128,  64, 2, 2, ANY;
        fwd_sm90_f16_d64_full_short:     Sm90, F16,   64, Full,   Maxima,    128, 128, 4, 3, 512;
        fwd_sm90_f16_d64_causal_short:   Sm90, F16,   64, Causal, Apart,     128, 128, 4, 3, 512;
        fwd_sm90_f16_d64_full:           Sm90, F16,   64, Full,   Anchors,   192, 128, 6, 2, SOONER;
        fwd_sm90_f16_d64_full_long:      Sm90, F16,   64, Full,   Parked,    192, 128, 6, 2, ANY;
        fwd_sm90_f16_d64_causal:         Sm90, F16,   64, Causal, Anchors,   192, 128, 6, 2, SOONER;
        fwd_sm90_f16_d64_causal_long:    Sm90, F16,   64, Causal, Parked,    192, 128, 6, 2, ANY;
        fwd_sm90_f16_d96_full:           Sm90, F16,   96, Full,   Anchors,   128, 128, 2, 3, LONG;
        fwd_sm90_f16_d96_full_long:      Sm90, F16,   96, Full,   Parked,    128, 128, 4, 2, ANY;
        fwd_sm90_f16_d96_causal:         Sm90, F16,   96, Causal, Anchors,   128, 128, 2, 3, LONG;
        fwd_sm90_f16_d96_causal_long:    Sm90, F16,   96, Causal, Parked,    128, 128, 4, 2, ANY;
        fwd_sm90_f16_d128_full:          Sm90, F16,  128, Full,   Anchors,   128, 128, 4, 2, LONG;
        fwd_sm90_f16_d128_full_long:     Sm90, F16,  128, Full,   Parked,    128, 128, 4, 2, ANY;
        fwd_sm90_f16_d128_causal_short:  Sm90, F16,  128, Causal, Maxima,    128, 128, 4, 2, 1024;
        fwd_sm90_f16_d128_causal:        Sm90, F16,  128, Causal, Anchors,   128, 128, 2, 3, LONG;
        fwd_sm90_f16_d128_causal_long:   Sm90, F16,  128, Causal, Parked,    128, 128, 4, 2, ANY;
        fwd_sm90_f16_d192_full:          Sm90, F16,  192, Full,   Anchors,   128,  96, 3, 2, LONGER;
        fwd_sm90_f16_d192_full_long:     Sm90, F16,  192, Full,   ParkedMax, 128,  80, 2, 2, ANY;
        fwd_sm90_f16_d192_causal:        Sm90, F16,  192, Causal, Anchors,   128,  64, 2, 3, LONGER;
        fwd_sm90_f16_d192_causal_long:   Sm90, F16,  192, Causal, ParkedMax, 128,  64, 2, 2, ANY;
        fwd_sm90_f16_d256_full:          Sm90, F16,  256, Full,   Anchors,   128,  80, 2, 2, ANY;
        fwd_sm90_f16_d256_causal_short:  Sm90, F16,  256, Causal, Apart,     128,  64, 2, 2, 1024;
        fwd_sm90_f16_d256_causal:        Sm90, F16,  256, Causal, Anchors,   128,  64, 2, 2, ANY;
        }
    };
}

macro_rules! table {
    ($($entry:ident: $arch:ident, $dtype:ident, $head_dim:literal, $mask:ident,
      $softmax:ident, $q_rows:literal, $kv_rows:literal, $q_parts:literal, $kv_stages:literal,
      $kv_len_limit:expr;)*) => {
        /// Every kernel, in order of preference.
        pub const VARIANTS: &[Variant] = &[$(Variant {
            entry: stringify!($entry),
            arch: Arch::$arch,
            dtype: Dtype::$dtype,
            head_dim: $head_dim,
            mask: MaskKind::$mask,
            softmax: SoftmaxKind::$softmax,
            q_rows: $q_rows,
            kv_rows: $kv_rows,
            q_parts: $q_parts,
            kv_stages: $kv_stages,
            kv_len_limit: $kv_len_limit,
        }),*];
    };
}
for_each_variant!(table);
