//! Element types of tensors.

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
    #[inline(always)]
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
