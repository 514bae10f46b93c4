//! How the tensor core adds products to an accumulator.

use super::format::Format;

/// How the tensor core adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accumulator {
    /// One product after another, each sum rounded to nearest: no bias, and fast.
    #[default]
    Nearest,
    /// As Hopper does: the products of a step and the accumulator are aligned to the largest
    /// exponent among them and cut off, of 16-bit types behind 25 fractional bits, of e4m3 behind
    /// 13; their sum is exact; and the result is cut off to float32, with e4m3 to 13 mantissa
    /// bits of it. Sums of one sign fall behind, with 16-bit types by up to five units in the last
    /// place with every 16 keys. Integers are exact in any case.
    Truncating,
}

/// Bits that Hopper keeps.
struct Kept {
    /// Of a term, behind the point of a significand aligned to the largest exponent.
    fraction: i32,
    /// The bits of the float32 that a result has.
    result: u32,
}

/// What it keeps of floats of this format.
fn kept(format: Format) -> Kept {
    match format {
        Format::E4m3 => Kept { fraction: 13, result: !0x3ff },
        Format::Bf16 | Format::F16 | Format::S8 => Kept { fraction: 25, result: !0 },
    }
}

impl Accumulator {
    /// `d += a × b`: `a` is 64×K, `b` K×`width`, `d` 64×`width`, all row by row.
    pub(super) fn multiply(
        self,
        format: Format,
        d: &mut [f32],
        a: &[f32],
        b: &[f32],
        width: usize,
    ) {
        match (self, format.k()) {
            (Accumulator::Nearest, 16) => add_rows::<16>(d, a, b, width),
            (Accumulator::Nearest, _) => add_rows::<32>(d, a, b, width),
            (Accumulator::Truncating, k) => {
                for (d_row, a_row) in d.chunks_exact_mut(width).zip(a.chunks_exact(k)) {
                    for (column, sum) in d_row.iter_mut().enumerate() {
                        let column = b.iter().skip(column).step_by(width);
                        *sum = truncated(format, *sum, a_row, column);
                    }
                }
            }
        }
    }
}

/// `d += a × b`, with a K that the compiler knows: what all kernels wait for.
fn add_rows<const K: usize>(d: &mut [f32], a: &[f32], b: &[f32], width: usize) {
    for (d_row, a_row) in d.chunks_exact_mut(width).zip(a.chunks_exact(K)) {
        add_row(d_row, a_row, b);
    }
}

/// The same with integers, whose sums wrap around.
pub(super) fn multiply_integers(d: &mut [i32], a: &[f32], b: &[f32], width: usize) {
    for (d_row, a_row) in d.chunks_exact_mut(width).zip(a.chunks_exact(Format::S8.k())) {
        for (factor, b_row) in a_row.iter().zip(b.chunks_exact(width)) {
            for (sum, value) in d_row.iter_mut().zip(b_row) {
                // Products of 8-bit integers are exact in float32.
                *sum = sum.wrapping_add((factor * value) as i32);
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
fn truncated<'a>(
    format: Format,
    sum: f32,
    a_row: &[f32],
    column: impl Iterator<Item = &'a f32>,
) -> f32 {
    let pairs: Vec<(f32, f32)> = a_row.iter().copied().zip(column.copied()).collect();
    // Products of two floats of 16 bits and less are exact in float64.
    let products = pairs.iter().map(|(a, b)| f64::from(*a) * f64::from(*b));
    let plain = f64::from(sum) + products.clone().sum::<f64>();
    if !plain.is_finite() {
        return if plain.is_nan() { f32::from_bits(0x7fff_ffff) } else { plain as f32 };
    }
    // The exponent of a product is that of its factors' together: its significand may reach 4.
    let of = |x: f32| exponent(x, format.least_exponent());
    let exponents = pairs.iter().filter_map(|(a, b)| Some(of(*a)? + of(*b)?));
    let Some(largest) = exponents.chain(exponent(sum, f32::MIN_EXP - 1)).max() else {
        return 0.0;
    };
    let Kept { fraction, result } = kept(format);
    let unit = 2f64.powi(largest - fraction);
    let terms = products.chain([f64::from(sum)]);
    // At most 33 whole numbers below 2^28: exact.
    let whole: f64 = terms.map(|term| (term / unit).trunc()).sum();
    f32::from_bits(cut_off(whole * unit).to_bits() & result)
}

/// The exponent of a finite number that is not 0; subnormals have the `least` one.
fn exponent(x: f32, least: i32) -> Option<i32> {
    let magnitude = f64::from(x).abs();
    let exponent = (magnitude.to_bits() >> 52) as i32 - 1023;
    (magnitude > 0.0 && magnitude.is_finite()).then(|| exponent.max(least))
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

    /// K of 16-bit products.
    const K: usize = 16;

    /// The sum of `keys` probabilities of 1, each times a value of `value`.
    fn sum(accumulator: Accumulator, value: f32, keys: usize) -> f32 {
        let mut d = [0.0; 8];
        let (a, b) = ([1.0; K], [value; 8 * K]);
        (0..keys / K).for_each(|_| accumulator.multiply(Format::F16, &mut d, &a, &b, 8));
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
            Accumulator::Truncating.multiply(Format::F16, &mut d, &row, &[b; 8 * K], 8);
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

    /// One step of e4m3: `d` plus products of pairs, the others 0.
    fn e4m3(d: f32, pairs: &[(f32, f32)]) -> f32 {
        let (mut d, mut a, mut b) = ([d; 8], [0.0; 32], [0.0; 8 * 32]);
        for (k, (x, y)) in pairs.iter().enumerate() {
            a[k] = *x;
            b[8 * k..8 * k + 8].fill(*y);
        }
        Accumulator::Truncating.multiply(Format::E4m3, &mut d, &a, &b, 8);
        d[0]
    }

    #[test]
    fn e4m3_keeps_13_bits() {
        let bit = |n: i32| 2f32.powi(-n);
        // The last bit that is kept of a term beside 1, the first that is not, of either sign.
        assert_eq!(e4m3(1.0, &[(bit(6), bit(7))]), 1.0 + bit(13));
        assert_eq!(e4m3(1.0, &[(bit(7), bit(7))]), 1.0);
        assert_eq!(e4m3(1.0, &[(bit(7), -bit(7))]), 1.0);
        // Each term is cut off on its own, the accumulator too, and so is the result.
        assert_eq!(e4m3(1.0, &[(bit(7), bit(7)); 32]), 1.0);
        assert_eq!(e4m3(bit(13) * 1.5, &[(1.0, 1.0)]), 1.0 + bit(13));
        assert_eq!(e4m3(1.0 + bit(13), &[(1.0, 1.0)]), 2.0);
        // Products are not normalised: 3.5 is aligned as 2^0, so that 2^-13 beside it counts.
        let (large, small) = ((1.875, 1.875), (bit(6), bit(7)));
        assert_eq!(e4m3(0.0, &[large, small]), 3.515625);
        assert_eq!(e4m3(0.0, &[large, small, small]), 3.515625 + bit(12));
        assert_eq!(e4m3(-3.515625, &[large, small, small]), 0.0);
        assert_eq!(e4m3(0.0, &[large, (1.875, -1.875), small]), bit(13));
        // A subnormal is aligned as the smallest normal number.
        assert_eq!(e4m3(bit(26) * 1.5, &[(bit(9), bit(6))]), bit(15));
        assert_eq!(e4m3(0.0, &[(f32::NAN, 0.0)]).to_bits(), 0x7fff_ffff);
        assert_eq!(e4m3(-0.0, &[(-0.0, 1.0)]).to_bits(), 0);
    }

    #[test]
    fn subnormals_of_f16_are_aligned_as_the_smallest_normal_number() {
        let (mut d, mut a) = ([2f32.powi(-45) * 1.5; 8], [0.0; K]);
        a[0] = 2f32.powi(-24);
        Accumulator::Truncating.multiply(Format::F16, &mut d, &a, &[1.0; 8 * K], 8);
        assert_eq!(d[0], 2f32.powi(-24));
    }

    #[test]
    fn integers_are_exact() {
        let mut d = [127 * 127 * 224; 8];
        multiply_integers(&mut d, &[-127.0; 32], &[-127.0; 8 * 32], 8);
        assert_eq!(d, [127 * 127 * 256; 8]);
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
                how.multiply(Format::F16, &mut d, &row, &[1.0; 8 * K], 8);
                *sum = d[0];
            }
        }
        let [nearest, truncated] = sums.map(|sum| f64::from(sum) / exact - 1.0);
        assert!(nearest.abs() < 3e-5, "{nearest}");
        assert!((-2e-3..-1e-3).contains(&truncated), "{truncated}");
    }
}
