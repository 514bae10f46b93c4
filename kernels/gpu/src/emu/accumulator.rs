//! How the tensor core adds the products of 16-bit floats to an accumulator.

use super::operand::K;

/// How the tensor core adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accumulator {
    /// One product after another, each sum rounded to nearest: no bias, and fast.
    #[default]
    Nearest,
    /// As Hopper does: the products of a step and the accumulator are aligned to the largest
    /// exponent among them and cut off behind 25 fractional bits, their sum is exact, and the
    /// result is cut off to float32. Sums of one sign fall behind, by up to five units in the
    /// last place with every 16 keys.
    Truncating,
}

/// Bits behind the point that a term keeps, of a significand aligned to the largest exponent.
const FRACTION_BITS: i32 = 25;

impl Accumulator {
    /// `d += a × b`: `a` is 64×16, `b` 16×`width`, `d` 64×`width`, all row by row.
    pub(super) fn multiply(self, d: &mut [f32], a: &[f32], b: &[f32], width: usize) {
        for (d_row, a_row) in d.chunks_exact_mut(width).zip(a.chunks_exact(K)) {
            match self {
                Accumulator::Nearest => add_row(d_row, a_row, b),
                Accumulator::Truncating => {
                    for (column, sum) in d_row.iter_mut().enumerate() {
                        *sum = truncated(*sum, a_row, b.iter().skip(column).step_by(width));
                    }
                }
            }
        }
    }
}

/// `d += a × b` for one row.
fn add_row(d_row: &mut [f32], a_row: &[f32], b: &[f32]) {
    for (factor, b_row) in a_row.iter().zip(b.chunks_exact(d_row.len())) {
        for (sum, value) in d_row.iter_mut().zip(b_row) {
            *sum += factor * value;
        }
    }
}

/// One element: the accumulator plus the products of a step.
fn truncated<'a>(sum: f32, a_row: &[f32], column: impl Iterator<Item = &'a f32>) -> f32 {
    let pairs: Vec<(f32, f32)> = a_row.iter().copied().zip(column.copied()).collect();
    // Products of two 16-bit floats are exact in float64.
    let products = pairs.iter().map(|(a, b)| f64::from(*a) * f64::from(*b));
    let plain = f64::from(sum) + products.clone().sum::<f64>();
    // The exponent of a product is that of its factors' together: its significand may reach 4.
    let exponents = pairs.iter().filter_map(|(a, b)| Some(exponent(*a)? + exponent(*b)?));
    let Some(largest) = exponents.chain(exponent(sum)).max() else {
        return plain as f32;
    };
    if !plain.is_finite() {
        return plain as f32;
    }
    let unit = 2f64.powi(largest - FRACTION_BITS);
    let terms = products.chain([f64::from(sum)]);
    // At most 17 whole numbers below 2^28: exact.
    let whole: f64 = terms.map(|term| (term / unit).trunc()).sum();
    cut_off(whole * unit)
}

/// The exponent of a finite number that is not 0.
fn exponent(x: f32) -> Option<i32> {
    let magnitude = f64::from(x).abs();
    (magnitude > 0.0 && magnitude.is_finite()).then(|| (magnitude.to_bits() >> 52) as i32 - 1023)
}

/// A float64 cut off to float32.
fn cut_off(x: f64) -> f32 {
    let nearest = x as f32;
    if f64::from(nearest).abs() > x.abs() {
        return f32::from_bits(nearest.to_bits() - 1);
    }
    nearest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum of `keys` probabilities of 1, each times a value of `value`.
    fn sum(accumulator: Accumulator, value: f32, keys: usize) -> f32 {
        let mut d = [0.0; 8];
        let (a, b) = ([1.0; K], [value; 8 * K]);
        (0..keys / K).for_each(|_| accumulator.multiply(&mut d, &a, &b, 8));
        d[0]
    }

    #[test]
    fn what_fits_is_exact() {
        assert_eq!(sum(Accumulator::Truncating, 1.0, 1 << 18), (1 << 18) as f32);
        assert_eq!(sum(Accumulator::Nearest, 1.0, 1 << 18), (1 << 18) as f32);
    }

    #[test]
    fn terms_and_results_are_cut_off() {
        let one = |d: f32, a: f32, b: f32| {
            let (mut d, mut row) = ([d; 8], [0.0; K]);
            row[0] = a;
            Accumulator::Truncating.multiply(&mut d, &row, &[b; 8 * K], 8);
            d[0]
        };
        let ulp = f32::EPSILON;
        // Half a unit and more goes, of either sign.
        assert_eq!(one(1.0, 0.875 * ulp, 1.0), 1.0);
        assert_eq!(one(-1.0, 0.875 * ulp, -1.0), -1.0);
        // Towards zero, too: a quarter of a unit is the last bit that a term of 1 is aligned to.
        assert_eq!(one(1.0, 0.25 * ulp, -1.0), 1.0 - ulp / 2.0);
        assert_eq!(one(1.0, 0.1875 * ulp, -1.0), 1.0);
        assert_eq!(one(0.0, f32::INFINITY, 1.0), f32::INFINITY);
        assert!(one(0.0, f32::INFINITY, 0.0).is_nan());
        assert_eq!(one(0.0, 0.0, 1.0), 0.0);
    }

    #[test]
    fn sums_of_one_sign_fall_behind() {
        // V all 1, and probabilities that need all of f16's bits.
        let mut random = fastrand::Rng::with_seed(0);
        let mut probability = || (1.0 + f32::from(random.u16(..1024)) / 1024.0) / 512.0;
        let keys = 1 << 18;
        let mut sums = [0.0_f32; 2];
        let mut exact = 0.0;
        for _ in 0..keys / K {
            let row: Vec<f32> = (0..K).map(|_| probability()).collect();
            exact += row.iter().map(|p| f64::from(*p)).sum::<f64>();
            for (sum, how) in sums.iter_mut().zip([Accumulator::Nearest, Accumulator::Truncating]) {
                let mut d = [*sum; 8];
                how.multiply(&mut d, &row, &[1.0; 8 * K], 8);
                *sum = d[0];
            }
        }
        let [nearest, truncated] = sums.map(|sum| f64::from(sum) / exact - 1.0);
        assert!(nearest.abs() < 3e-5, "{nearest}");
        assert!((-2e-3..-1e-3).contains(&truncated), "{truncated}");
    }
}
