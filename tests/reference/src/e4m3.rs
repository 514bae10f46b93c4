//! Numbers of 8 bits with 4 of exponent and 3 of mantissa: no infinity, one NaN, 448 the largest.

use fulgurite_spec::quantise::E4M3_MAX;

/// The bits of a NaN.
const NAN: u8 = 0x7f;

/// Exponent of the least number that is not subnormal.
pub const LEAST_EXPONENT: i32 = -6;

/// The nearest number, ties to even; what is larger than the largest is the largest.
pub fn round(x: f32) -> f32 {
    if x.is_nan() {
        return x;
    }
    let exponent = (((x.to_bits() >> 23) & 0xff) as i32 - 127).max(LEAST_EXPONENT);
    let step = 2f32.powi(exponent - 3);
    let rounded = (x / step).round_ties_even() * step;
    rounded.clamp(-E4M3_MAX, E4M3_MAX)
}

/// The bits of the nearest number.
pub fn encode(x: f32) -> u8 {
    let rounded = round(x);
    let sign = if x.is_sign_negative() { 0x80 } else { 0 };
    let size = rounded.abs();
    if size.is_nan() {
        return NAN;
    }
    let bits = if size < 2f32.powi(LEAST_EXPONENT) {
        (size * 512.0) as u32
    } else {
        // Three bits of mantissa, and the exponent less the difference of the biases.
        (size.to_bits() >> 20) - ((127 - 7) << 3)
    };
    sign | bits as u8
}

/// The number of these bits.
pub fn decode(bits: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f32::from(bits & 7));
    let size = match (exponent, bits & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa * 2f32.powi(-9),
        _ => (8.0 + mantissa) * 2f32.powi(exponent - 10),
    };
    if bits & 0x80 == 0 { size } else { -size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_numbers_stay_and_midpoints_go_to_even() {
        for bits in (0..=u8::MAX).filter(|bits| bits & 0x7f != NAN) {
            let x = decode(bits);
            assert_eq!((encode(x), round(x)), (bits, x));
            let beyond = if bits & 0x7f == 0x7e { continue } else { decode(bits + 1) };
            let middle = 0.5 * (x + beyond);
            assert_eq!(encode(middle), bits + (bits & 1), "{middle}");
        }
        assert_eq!([1e9, 464.0, -1e9].map(encode), [0x7e, 0x7e, 0xfe]);
        assert!(decode(encode(f32::NAN)).is_nan());
    }
}
