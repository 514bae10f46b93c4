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

    /// Elements as floats, which all of them are.
    pub fn floats(self, bytes: &[u8]) -> Vec<f32> {
        let mut values = vec![0.0; bytes.len() / self.bytes()];
        let bits = || -> Vec<u16> {
            bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
        };
        match self {
            Format::Bf16 => bits().reinterpret_cast::<bf16>().convert_to_f32_slice(&mut values),
            Format::F16 => bits().reinterpret_cast::<f16>().convert_to_f32_slice(&mut values),
            Format::E4m3 => values.iter_mut().zip(bytes).for_each(|(x, b)| *x = e4m3::value(*b)),
            Format::S8 => values.iter_mut().zip(bytes).for_each(|(x, b)| *x = (*b as i8).into()),
        }
        values
    }
}
