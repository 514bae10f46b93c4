//! Division by a number that the host knows and the device only receives.

/// A divisor with its reciprocal: a division costs one multiplication and a shift, where the
/// device's own takes some 100 cycles between two jobs.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Divisor {
    /// The divisor.
    pub value: u32,
    multiplier: u32,
    shift: u32,
}

impl Divisor {
    /// Numerators must be below this.
    pub const NUMERATOR_LIMIT: u32 = 1 << 31;

    /// The reciprocal of `value` (0 counts as 1): `m = ⌈2^(31+s) / value⌉` with `2^s >= value`
    /// makes `n * m >> (31 + s)` exact for `n < 2³¹` (Granlund and Montgomery 1994, theorem 4.2).
    /// With the least such `s`, at most 32, `m` is below 2³².
    pub const fn new(value: u32) -> Divisor {
        let value = if value == 0 { 1 } else { value };
        // In 64 bits, because the next power of two may be 2³².
        let shift = 31 + (value as u64).next_power_of_two().trailing_zeros();
        let multiplier = (1_u128 << shift).div_ceil(value as u128) as u32;
        Divisor { value, multiplier, shift }
    }

    /// `numerator / value`, for a numerator below [`Divisor::NUMERATOR_LIMIT`].
    #[inline(always)]
    pub const fn divide(&self, numerator: u32) -> u32 {
        ((numerator as u64 * self.multiplier as u64) >> self.shift) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_exact() {
        let last = Divisor::NUMERATOR_LIMIT - 1;
        for value in (1..5000)
            .chain([65_535, 65_536, 65_537, (1 << 30) + 1, last, last + 1])
            .chain([last + 2, 3 << 30, u32::MAX])
        {
            let divisor = Divisor::new(value);
            let near = (0..40).map(|k| k * (last / 40)).map(|n| n / value * value);
            for n in near.flat_map(|n| [n.saturating_sub(1), n, n + 1]).chain([last]) {
                assert_eq!(divisor.divide(n), n / value, "{n} / {value}");
            }
        }
    }
}
