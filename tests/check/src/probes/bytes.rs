//! What comes of 8-bit elements, by plain loops over integers.

use fulgurite::emulator::Accumulator;
use fulgurite_gpu::emu::Swizzle;
use fulgurite_spec::PROBES;

use super::cases::{THREADS, bytes, floats, noise, plain, tensor};
use super::{Case, Tensor};

/// Every case of 8-bit elements.
pub fn all() -> Vec<Case> {
    let mut cases = vec![conversions()];
    for entry in PROBES {
        let Some(of) = entry.strip_prefix("probe_product_") else {
            continue;
        };
        if let Some(shape) = of.strip_prefix("e4m3_").map(Shape::of) {
            cases.extend([false, true].map(|nan| floats_product(entry, shape, nan)));
        }
        if let Some(shape) = of.strip_prefix("s8_").map(Shape::of) {
            cases.extend([false, true].map(|largest| integers_product(entry, shape, largest)));
        }
    }
    cases
}

/// The magnitude of the NaN of e4m3.
const NAN: u8 = 0x7f;

/// What a device makes of any NaN.
const NAN_BITS: u32 = 0x7fff_ffff;

/// Significand and exponent of an e4m3 that is not NaN: its magnitude is `significand / 8 *
/// 2^exponent`.
fn parts(code: u8) -> (i64, i32) {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), i64::from(code & 7));
    if exponent == 0 { (mantissa, -6) } else { (8 + mantissa, exponent - 7) }
}

/// The value of an e4m3 code.
fn value(code: u8) -> f32 {
    let (significand, exponent) = parts(code);
    let magnitude = match code & 0x7f {
        NAN => f32::NAN,
        _ => significand as f32 * 2f32.powi(exponent - 3),
    };
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

/// The code of the nearest e4m3, found by looking at all of them.
fn rounded(x: f32) -> u8 {
    if x.is_nan() {
        return NAN;
    }
    let distance = |code: &u8| (f64::from(value(*code)) - f64::from(x.abs().min(448.0))).abs();
    // Of two as near the even one.
    let key = |code: &u8| (distance(code), code % 2);
    let nearest = (0..NAN).min_by(|a, b| key(a).partial_cmp(&key(b)).expect("numbers"));
    nearest.expect("there are codes") | if x.is_sign_negative() { 0x80 } else { 0 }
}

/// The bits of an e4m3 as f16, shifted into place; subnormals become normal.
fn to_f16(code: u8) -> u32 {
    let sign = u32::from(code & 0x80) << 8;
    let (significand, exponent) = parts(code);
    match (code & 0x7f, significand) {
        (NAN, _) => 0x7fff,
        (_, 0) => sign,
        _ => {
            let shift = significand.leading_zeros() - 60;
            let fraction = (significand << shift) as u32 & 7;
            let biased = (exponent - shift as i32 + 15) as u32;
            sign | biased << 10 | fraction << 7
        }
    }
}

/// Floats to be converted: every e4m3, the middle to the next one and its neighbours, of both
/// signs; then what saturates, integers and ties, and any floats.
fn inputs() -> Vec<f32> {
    let near = (0..0x7e_u8).flat_map(|code| {
        let middle = f32::midpoint(value(code), value(code + 1));
        [value(code), middle.next_down(), middle, middle.next_up()]
    });
    let special = [448.0, 464.0, 480.0, 1e9, f32::INFINITY, f32::NAN, 0.0, 1e-40, 8e-4];
    let integers = [126.5, 127.5, 128.5, 129.5, 0.5, 1.5, 2.5, 1e9, 3e9, 2_147_483_648.0];
    let signed = near.chain(special).chain(integers).flat_map(|x| [x, -x]);
    let mut inputs: Vec<f32> = signed.collect();
    inputs.extend((inputs.len()..12 * THREADS).map(floats));
    inputs
}

fn conversions() -> Case {
    let inputs = inputs();
    let (mut input, mut out) = (Vec::new(), Vec::new());
    for (round, values) in inputs.chunks_exact(4 * THREADS).enumerate() {
        input.extend(values.iter().map(|x| x.to_bits()));
        for (thread, x) in values.chunks_exact(4).enumerate() {
            let index = 2 * (round * THREADS + thread);
            let pair = [index, index + 1].map(|code| (code + index / 256) as u8);
            input.extend([u32::from(u16::from_le_bytes(pair)), 0, 0, 0]);
            let codes = [0, 1, 2, 3].map(|n| rounded(x[n]));
            // Rust's conversion saturates, and makes 0 of NaN.
            let integers = [0, 1, 2, 3].map(|n| x[n].round_ties_even() as i8 as u8);
            let larger = match (x[0], x[1]) {
                (a, b) if a.is_nan() || b.is_nan() => NAN_BITS,
                (a, b) if a == b => a.to_bits() & b.to_bits(),
                (a, b) => a.max(b).to_bits(),
            };
            let unpacked = to_f16(pair[0]) | to_f16(pair[1]) << 16;
            let words = [u32::from_le_bytes(codes), unpacked, u32::from_le_bytes(integers), larger];
            out.extend(words);
        }
    }
    plain("probe_bytes", bytes(input), bytes(out))
}

/// The shape of a product of a probe: its width, and the bytes of its panels.
#[derive(Clone, Copy)]
struct Shape {
    width: usize,
    panel: usize,
}

impl Shape {
    /// From the end of the probe's name.
    fn of(name: &str) -> Shape {
        let number = |text: &str| text.parse().expect("names end with a number");
        match name.strip_prefix("panel") {
            Some(panel) => Shape { width: 64, panel: number(panel) },
            None => Shape { width: number(&name[1..]), panel: 128 },
        }
    }

    /// A tensor of rows of 128 bytes: 64 of A, then B.
    fn tensor(self, rows: Vec<u8>) -> Tensor {
        let swizzle = match self.panel {
            128 => Swizzle::Bytes128,
            64 => Swizzle::Bytes64,
            _ => Swizzle::Bytes32,
        };
        let box_dims = [self.panel as u32 / 2, 64, 1, 1];
        Tensor { bytes: rows, ..tensor([64, 320, 1, 1], box_dims, swizzle) }
    }
}

/// Bytes of a row of A and B.
const DEPTH: usize = 128;

/// The words of a matrix of 64 rows as threads write them, group by group of eight columns.
fn by_threads(width: usize, element: impl Fn(usize, usize) -> u32) -> Vec<u32> {
    let mut words = Vec::new();
    for group in 0..width / 8 {
        for thread in 0..THREADS {
            let row = thread / 32 * 16 + thread % 32 / 4;
            let column = 8 * group + thread % 4 * 2;
            words.extend(
                [(0, 0), (0, 1), (8, 0), (8, 1)]
                    .map(|(down, right)| element(row + down, column + right)),
            );
        }
    }
    words
}

/// Numbers of 15 binary orders, so that products are of 30. In half of A's rows and a quarter of
/// B's the columns are in pairs, whose products cancel; an eighth of both has subnormals that meet
/// the largest numbers, between small ones that meet small ones.
fn codes(nan: bool) -> Vec<u8> {
    let code = |index: usize| {
        let (bits, row, column) = (noise(index), index / DEPTH, index % DEPTH);
        let (sign, mantissa, exponent) = (bits & 0x80, bits & 7, (bits >> 8) % 11);
        let magnitude = match (row % 8 == 1, row < 64, column % 2) {
            (true, true, 0) => 1 + mantissa % 3,
            (true, false, 0) => 120 | (mantissa % 7),
            (true, _, _) => 1 << 3 | mantissa,
            // Mostly small ones, so that few sums saturate.
            _ if bits >> 16 & 7 > 0 => (exponent - exponent / 3) << 3 | mantissa,
            _ => exponent << 3 | mantissa,
        };
        (sign | magnitude) as u8
    };
    let mut codes: Vec<u8> = (0..320 * DEPTH).map(code).collect();
    for (row, row_codes) in codes.chunks_exact_mut(DEPTH).enumerate() {
        let (pairs, flip) = if row < 64 { (row % 2 == 0, 0) } else { (row % 4 == 3, 0x80) };
        if pairs {
            for pair in row_codes[..DEPTH - 8].chunks_exact_mut(2) {
                pair[1] = pair[0] ^ flip;
            }
        }
    }
    if nan {
        codes[5 * DEPTH + 3] = NAN;
        codes[(64 + 9) * DEPTH + 7] = 0x80 | NAN;
    }
    codes
}

/// One step of 32 along K: the bits of `sum` plus the products of pairs of codes.
///
/// All terms are cut off 13 bits behind the largest exponent, that of a product being its factors'
/// together; what they come to is cut off to 13 mantissa bits.
fn step(sum: u32, pairs: &[(u8, u8)]) -> u32 {
    let is_nan = |code: u8| code & 0x7f == NAN;
    if sum == NAN_BITS || pairs.iter().any(|(a, b)| is_nan(*a) || is_nan(*b)) {
        return NAN_BITS;
    }
    // Sign, integer and exponent: a term is `integer * 2^(exponent - point)`.
    let products = pairs.iter().map(|(a, b)| {
        let ((m, e), (n, f)) = (parts(*a), parts(*b));
        ((a ^ b) & 0x80 != 0, m * n, e + f, 6)
    });
    let before = (sum >> 31 == 1, i64::from(sum & 0x7f_ffff | 0x80_0000), (sum >> 23 & 255) as i32);
    let before = (sum << 1 != 0).then_some((before.0, before.1, before.2 - 127, 23));
    let terms: Vec<_> = products.chain(before).filter(|(_, integer, ..)| *integer != 0).collect();
    let Some(largest) = terms.iter().map(|(_, _, exponent, _)| *exponent).max() else {
        return 0;
    };
    let aligned = terms.iter().map(|(negative, integer, exponent, point)| {
        let up = exponent - largest + 13 - point;
        let magnitude = if up >= 0 { integer << up } else { integer >> (-up).min(63) };
        if *negative { -magnitude } else { magnitude }
    });
    let total: i64 = aligned.sum();
    if total == 0 {
        return 0;
    }
    let top = 63 - total.unsigned_abs().leading_zeros() as i32;
    let fraction = total.unsigned_abs() as u32 & !(u32::MAX << top);
    let fraction = if top > 13 { fraction >> (top - 13) } else { fraction << (13 - top) };
    let exponent = (top + largest - 13 + 127) as u32;
    u32::from(total < 0) << 31 | exponent << 23 | fraction << 10
}

/// Where in a packed accumulator's row a column lies along K.
fn position(column: usize) -> usize {
    let (half, place, part) = (column % 16 / 8, column % 8 / 2, column % 2);
    column / 16 * 16 + 4 * place + 2 * half + part
}

fn floats_product(entry: &'static str, shape: Shape, nan: bool) -> Case {
    let codes = codes(nan);
    let row = |row: usize| &codes[DEPTH * row..DEPTH * (row + 1)];
    let chain = |a: &[u8], b: &[u8]| {
        let pairs: Vec<(u8, u8)> = a.iter().copied().zip(b.iter().copied()).collect();
        pairs.chunks(32).fold(0, step)
    };
    let width = shape.width;
    let score = |r: usize, column: usize| chain(row(r), row(64 + column));
    let scores: Vec<u32> = (0..64 * width).map(|at| score(at / width, at % width)).collect();
    let mut probabilities = vec![0; 64 * width];
    for (at, score) in scores.iter().enumerate() {
        let place = at / width * width + position(at % width);
        probabilities[place] = rounded(f32::from_bits(*score));
    }
    let depth = width.min(DEPTH);
    let out = |r: usize, column: usize| {
        chain(&probabilities[r * width..][..depth], &row(64 + column)[..depth])
    };
    let words = [by_threads(width, |r, column| scores[r * width + column]), by_threads(width, out)];
    Case {
        name: (if nan { "with NaN" } else { "" }).to_owned(),
        source: shape.tensor(codes.clone()),
        accumulator: Accumulator::Truncating,
        ..plain(entry, Vec::new(), bytes(words.concat()))
    }
}

fn integers_product(entry: &'static str, shape: Shape, largest: bool) -> Case {
    let integer = |index: usize| match (largest, index / DEPTH % 3) {
        (false, _) => noise(index) as u8,
        (true, 0) => 127,
        (true, 1) => -127_i8 as u8,
        (true, _) => -128_i8 as u8,
    };
    let rows: Vec<u8> = (0..320 * DEPTH).map(integer).collect();
    let at = |row: usize, k: usize| i32::from(rows[DEPTH * row + k] as i8);
    let sum = |row: usize, column: usize| -> i32 {
        2 * (0..DEPTH).map(|k| at(row, k) * at(64 + column, k)).sum::<i32>()
    };
    let integers = by_threads(shape.width, |row, column| sum(row, column) as u32);
    let floats = by_threads(shape.width, |row, column| (sum(row, column) as f32).to_bits());
    Case {
        name: (if largest { "of the largest" } else { "" }).to_owned(),
        source: shape.tensor(rows),
        ..plain(entry, Vec::new(), bytes([integers, floats].concat()))
    }
}
