//! The 8-bit float: a sign, 4 exponent and 3 mantissa bits, no infinity, one NaN of each sign.

/// The largest number.
const LARGEST: f32 = 448.0;

/// The code of NaN.
const NAN: u8 = 0x7f;

/// Mantissa bits.
const MANTISSA: i32 = 3;

/// Exponent of the smallest normal number.
const LEAST_EXPONENT: i32 = -6;

/// The number that a code stands for.
pub fn value(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> MANTISSA & 0xf), i32::from(code & 7));
    let magnitude = match (code & 0x7f, exponent) {
        (NAN, _) => f32::NAN,
        (_, 0) => mantissa as f32 * 2f32.powi(LEAST_EXPONENT - MANTISSA),
        _ => (8 + mantissa) as f32 * 2f32.powi(exponent - 1 + LEAST_EXPONENT - MANTISSA),
    };
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

/// The code of the nearest number, of two as near the even one; what is beyond the largest number
/// becomes that, NaN becomes the positive one.
pub fn nearest(x: f32) -> u8 {
    if x.is_nan() {
        return NAN;
    }
    let magnitude = x.abs().min(LARGEST);
    let exponent = ((magnitude.to_bits() >> 23) as i32 - 127).max(LEAST_EXPONENT);
    // Numbers of this exponent are whole multiples of this unit, 8 of it and more where they are
    // normal; 16 of it are 8 of the next.
    let unit = 2f32.powi(exponent - MANTISSA);
    let units = (magnitude / unit).round_ties_even() as i32;
    let code = ((exponent - LEAST_EXPONENT) << MANTISSA) + units;
    code as u8 | if x.is_sign_negative() { 0x80 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_its_own_nearest() {
        for code in (0..=255).filter(|code| code & 0x7f != NAN) {
            assert_eq!(nearest(value(code)), code);
        }
        assert!(value(NAN).is_nan() && value(0x80 | NAN).is_nan());
        assert_eq!(
            [value(1), value(8), value(0x38), value(0x7e)],
            [2f32.powi(-9), 2f32.powi(-6), 1.0, 448.0]
        );
    }

    #[test]
    fn ties_are_even_and_large_numbers_saturate() {
        for code in 0..0x7e {
            let middle = f32::midpoint(value(code), value(code + 1));
            assert_eq!(nearest(middle), code + code % 2, "{middle}");
            assert_eq!(nearest(-middle.next_down()), code | 0x80);
            assert_eq!(nearest(middle.next_up()), code + 1);
        }
        assert_eq!([449.0, 464.0, 1e30, f32::INFINITY].map(nearest), [0x7e; 4]);
        assert_eq!(nearest(f32::NEG_INFINITY), 0xfe);
        assert_eq!([nearest(f32::NAN), nearest(-f32::NAN)], [NAN; 2]);
        assert_eq!([nearest(-0.0), nearest(1e-40), nearest(-1e-5)], [0x80, 0, 0x80]);
    }
}
