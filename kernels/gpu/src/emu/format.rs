//! Types of the tensor core's operands.

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

use super::e4m3;

/// The type of a product's operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Bf16,
    F16,
    E4m3,
    S8,
}

impl Format {
    fn bytes(self) -> usize {
        match self {
            Format::Bf16 | Format::F16 => 2,
            Format::E4m3 | Format::S8 => 1,
        }
    }

    /// K of one product, columns of A and rows of B: always 32 bytes.
    pub fn k(self) -> usize {
        32 / self.bytes()
    }

    /// The smallest exponent of a normal number. Subnormals have it too, with a significand below
    /// 1; integers have none.
    pub fn least_exponent(self) -> i32 {
        match self {
            Format::Bf16 => -126,
            Format::F16 => -14,
            Format::E4m3 => -6,
            Format::S8 => 0,
        }
    }

    /// Elements as floats, which all of them are; 8-bit ones are the bytes of `words` in turn.
    pub fn floats(self, words: &[u16]) -> Vec<f32> {
        let mut values = vec![0.0; words.len() * 2 / self.bytes()];
        let mut bytes_to = |value: fn(u8) -> f32| {
            for (pair, word) in values.chunks_exact_mut(2).zip(words) {
                pair.copy_from_slice(&word.to_le_bytes().map(value));
            }
        };
        match self {
            Format::E4m3 => bytes_to(e4m3::value),
            Format::S8 => bytes_to(|byte| (byte as i8).into()),
            Format::Bf16 => words.reinterpret_cast::<bf16>().convert_to_f32_slice(&mut values),
            Format::F16 => words.reinterpret_cast::<f16>().convert_to_f32_slice(&mut values),
        }
        values
    }
}
