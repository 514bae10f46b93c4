//! What is launched, and what must come of it, by plain loops.

use approx::relative_eq;
use fulgurite::Dtype;
use fulgurite::emulator::Accumulator;
use fulgurite::internals::VARIANTS;
use fulgurite_gpu::emu::{MapFields, Swizzle};
use fulgurite_spec::PROBES;
use half::{bf16, f16};
use reference::tensor::encode;

use super::layout::{image, put};
use super::{Case, Expected, Seen, Tensor, UNTOUCHED, bytes as byte_cases};

/// Threads of a probe.
pub(super) const THREADS: usize = 128;

/// Every case.
pub fn all() -> Vec<Case> {
    let mut cases = vec![rounding(), exponentials(), shuffles(), exchange(), named(), votes()];
    cases.extend([matrices(false), matrices(true), phases(), relay(), stored_product()]);
    for swizzle in [Swizzle::None, Swizzle::Bytes32, Swizzle::Bytes64, Swizzle::Bytes128] {
        // Inside; across the ends; wholly below the last row; wholly beyond the last column.
        for at in [[0; 4], [56, 3, 1, 1], [0, 7, 0, 0], [72, 2, 0, 0]] {
            cases.extend([load(swizzle, at), store(swizzle, at)]);
        }
        // Wholly before the first row; across the first column and the last row; across all starts.
        cases.extend([[0, -6, 0, 0], [-8, 5, 0, 1], [-8, -2, -1, 0]].map(|at| load(swizzle, at)));
    }
    for swizzle in [Swizzle::None, Swizzle::Bytes128] {
        let loads = [[4, 0, 0, 0], [-3, 5, 0, 1]].map(|at| load(swizzle, at));
        let stores = [[4, 0, 0, 0], [0, -6, 0, 0], [-8, 5, 0, 1]].map(|at| store(swizzle, at));
        cases.extend(loads.into_iter().chain(stores).map(refused));
    }
    cases.extend([
        thread_copies(),
        warp_product("probe_warp_product_bf16", Dtype::Bf16),
        warp_product("probe_warp_product_f16", Dtype::F16),
    ]);
    let of_loads = |entry: &&&str| entry.starts_with("probe_product_") && entry.contains("f16");
    for entry in PROBES.iter().filter(of_loads) {
        let (dtype, width) = entry.trim_start_matches("probe_product_").split_once("_n").unwrap();
        let dtype = if dtype == Dtype::Bf16.name() { Dtype::Bf16 } else { Dtype::F16 };
        cases.push(product(entry, dtype, width.parse().expect("names end with the width")));
    }
    cases.extend(byte_cases::all());
    cases
}

/// A number that looks random.
pub(super) fn noise(index: usize) -> u32 {
    let mixed = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) as u32
}

pub(super) fn bytes(words: impl IntoIterator<Item = u32>) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn words(bytes: &[u8]) -> Vec<u32> {
    let word = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    bytes.chunks_exact(4).map(word).collect()
}

/// A tensor of 16-bit elements that look random.
pub(super) fn tensor(dims: [u64; 4], box_dims: [u32; 4], swizzle: Swizzle) -> Tensor {
    let row = (dims[0] * 2).next_multiple_of(16);
    let stride_bytes = [row, row * dims[1], row * dims[1] * dims[2]];
    let size = (stride_bytes[2] * dims[3]) as usize;
    let map = MapFields { address: 0, element_bytes: 2, dims, stride_bytes, box_dims, swizzle };
    Tensor { bytes: bytes((0..size / 4).map(noise)), map }
}

/// A case without tensors, whose output is `out`.
pub(super) fn plain(entry: &'static str, input: Vec<u8>, out: Vec<u8>) -> Case {
    let tensor = tensor([8, 1, 1, 1], [8, 1, 1, 1], Swizzle::None);
    let expected = Expected::Bits(Seen { out, target: tensor.bytes.clone() });
    Case {
        entry,
        name: String::new(),
        input,
        source: tensor.clone(),
        target: tensor,
        at: [0; 4],
        box_bytes: 0,
        accumulator: Accumulator::default(),
        expected,
    }
}

/// Floats of every kind: special ones, ties of both 16-bit types, and any bits.
pub(super) fn floats(index: usize) -> f32 {
    const SPECIAL: [u32; 24] = [
        0x0000_0000,
        0x8000_0000,
        0x3f80_0000,
        0x7fc0_1234,
        0xff80_0001,
        0x7f80_0000,
        0xff80_0000,
        0x0000_0001,
        0x807f_ffff,
        0x0080_0000,
        0x7f7f_ffff,
        0x477f_e000,
        0x477f_efff,
        0x477f_f000,
        0x3300_0000,
        0x3300_0001,
        0x3380_0000,
        0x387f_e000,
        0x3f80_8000,
        0x3f81_8000,
        0x3f80_1000,
        0x3f80_3000,
        0x7f7f_8000,
        0x7f7f_7fff,
    ];
    match SPECIAL.get(index % 41) {
        Some(bits) => f32::from_bits(*bits),
        // Exponents near 0, where all types have their normal numbers.
        None if index.is_multiple_of(2) => f32::from_bits(noise(index) % (16 << 23) + (120 << 23)),
        None => f32::from_bits(noise(index)),
    }
}

/// Subnormals are zero with their sign; every NaN is the device's.
fn flush(x: f32) -> f32 {
    match x {
        x if x.is_nan() => f32::from_bits(0x7fff_ffff),
        x if x.is_subnormal() => 0.0_f32.copysign(x),
        x => x,
    }
}

fn rounding() -> Case {
    let input: Vec<f32> = (0..4 * THREADS).map(floats).collect();
    let pack = |low: f32, high: f32, round: fn(f32) -> u16| {
        let bits = |x: f32| if x.is_nan() { 0x7fff } else { u32::from(round(x)) };
        bits(low) | bits(high) << 16
    };
    let to_bf16 = |x| bf16::from_f32(x).to_bits();
    let to_f16 = |x| f16::from_f32(x).to_bits();
    let out = input.chunks_exact(4).flat_map(|x| {
        let sum = flush(flush(x[0]).mul_add(flush(x[1]), flush(x[2]))).to_bits();
        [pack(x[0], x[1], to_bf16), pack(x[0], x[1], to_f16), sum, pack(x[2], x[3], to_f16)]
    });
    plain("probe_rounding", bytes(input.iter().map(|x| x.to_bits())), bytes(out))
}

fn exponentials() -> Case {
    let input = (0..4 * THREADS).map(|index| match (index % 4, floats(index)) {
        (_, x) if index < 82 => x.to_bits(),
        (0, _) => (noise(index) as f32 / u32::MAX as f32).mul_add(280.0, -140.0).to_bits(),
        (2, _) => (noise(index) as f32 / u32::MAX as f32).mul_add(-8.0, 1.0).to_bits(),
        (3, _) => (noise(index) as f32 / u32::MAX as f32).mul_add(0.5, 0.75).to_bits(),
        (_, x) => x.abs().to_bits(),
    });
    let input = bytes(input);
    Case { expected: Expected::Exponentials, ..plain("probe_exponentials", input, Vec::new()) }
}

/// `2^x` may be 2 units in the last place from the rounded one; `log2(x)` 2^-22 from the exact one,
/// or where that is larger than 1 that part of it (PTX ISA, `ex2.approx`, `lg2.approx`).
pub fn check_exponentials(input: &[u8], out: &[u8]) -> Result<(), String> {
    let limit = 2.0_f64.powi(-22);
    for (index, (x, y)) in words(input).into_iter().zip(words(out)).enumerate() {
        let (x, y) = (flush(f32::from_bits(x)), f32::from_bits(y));
        let exact = if index % 2 == 0 { f64::from(x).exp2() } else { f64::from(x).log2() };
        let rounded = flush(exact as f32);
        let good = if !rounded.is_finite() {
            rounded.is_nan() && y.is_nan() || rounded == y
        } else if index % 2 == 0 {
            rounded.to_bits().abs_diff(y.to_bits()) <= 2
        } else {
            relative_eq!(f64::from(y), exact, epsilon = limit, max_relative = limit)
        };
        if !good {
            let name = if index % 2 == 0 { "2^" } else { "log2 " };
            return Err(format!("{name}{x:e} is {y:e} ({:08x}), not {exact:e}", y.to_bits()));
        }
    }
    Ok(())
}

fn shuffles() -> Case {
    let input: Vec<[u32; 4]> =
        (0..THREADS).map(|thread| [0, 1, 2, 3].map(|n| noise(4 * thread + n))).collect();
    let near = (0..THREADS).flat_map(|thread| {
        [input[thread ^ 1][0], input[thread ^ 2][1], input[thread ^ 16][2], input[thread ^ 31][3]]
    });
    let votes = (0..THREADS).flat_map(|thread| {
        let warp = &input[thread / 32 * 32..][..32];
        let ballot = |vote: fn(&[u32; 4]) -> bool| {
            warp.iter().enumerate().map(|(place, x)| u32::from(vote(x)) << place).sum()
        };
        let [first, b, c, _] = warp[0];
        [first, b ^ c, ballot(|x| x[0] % 2 == 1), ballot(|x| x[1] > x[2])]
    });
    let out = bytes(near.chain(votes).collect::<Vec<_>>());
    plain("probe_shuffles", bytes(input.iter().flatten().copied()), out)
}

/// The 16-byte units with these indices.
fn units(of: &[u8], indices: impl Iterator<Item = usize>) -> Vec<u8> {
    indices.flat_map(|index| of[16 * index..16 * index + 16].to_vec()).collect()
}

fn exchange() -> Case {
    let input = bytes((0..4 * THREADS).map(noise));
    let out = units(&input, (0..THREADS).map(|it| it ^ 21).chain((0..THREADS).map(|it| it ^ 106)));
    plain("probe_exchange", input, out)
}

/// Where in a warp's fragment of four matrices an element is: thread, word, half.
fn fragment(row: usize, column: usize, transposed: bool) -> (usize, usize) {
    if transposed { (4 * column + row / 2, row % 2) } else { (4 * row + column / 2, column % 2) }
}

fn matrices(transposed: bool) -> Case {
    let input = bytes((0..4 * THREADS).map(noise));
    let mut smem = vec![0; 16 * THREADS];
    let mut loaded = vec![vec![0; 16 * THREADS]; 2];
    let places = || (0..THREADS * 8).map(|index| (index / 8, index % 8));
    // Byte of an element in the fragments of all threads; `owner`: who gives its row's address.
    let byte = |owner: usize, column: usize, transposed: bool| {
        let (thread, half) = fragment(owner % 8, column, transposed);
        16 * (owner / 32 * 32 + thread) + owner / 8 % 4 * 4 + half * 2
    };
    for (owner, column) in places() {
        let (to, from) = (16 * (owner ^ 42) + 2 * column, byte(owner, column, transposed));
        smem[to..to + 2].copy_from_slice(&input[from..from + 2]);
    }
    for (owner, column) in places() {
        for (form, out) in loaded.iter_mut().enumerate() {
            let from = 16 * (owner ^ [37, 90][form]) + 2 * column;
            let to = byte(owner, column, form == 1);
            out[to..to + 2].copy_from_slice(&smem[from..from + 2]);
        }
    }
    let entry = if transposed { "probe_matrices_transposed" } else { "probe_matrices" };
    plain(entry, input, [smem, loaded.concat()].concat())
}

fn named() -> Case {
    let input = bytes((0..4 * 4 * THREADS).map(noise));
    let handed = |unit: usize| match unit / 32 % 2 {
        0 => vec![UNTOUCHED; 16],
        _ => input[16 * (unit - 32)..16 * (unit - 31)].to_vec(),
    };
    let out = (0..4 * THREADS).flat_map(handed).collect();
    plain("probe_named_barriers", input, out)
}

/// Threads whose words are odd, so that they vote, in each round: for their pair of warps, and for
/// the block. Nobody; one thread, in a place of its own; everyone; everyone but one.
fn voters(round: usize) -> [Vec<usize>; 2] {
    let all_but = |one: usize| (0..THREADS).filter(|thread| *thread != one).collect();
    match round {
        0 => [vec![], vec![]],
        1 => [vec![37], vec![0]],
        2 => [vec![127], vec![63, 95]],
        3 => [vec![], vec![]],
        4 => [(0..THREADS).collect(), vec![127]],
        5 => [(64..THREADS).collect(), (0..THREADS).collect()],
        6 => [vec![0, 64], vec![]],
        _ => [all_but(31), all_but(100)],
    }
}

fn votes() -> Case {
    let word = |index: usize| {
        let (round, thread, place) = (index / 4 / THREADS, index / 4 % THREADS, index % 4);
        let votes = voters(round).get(place).is_some_and(|voters| voters.contains(&thread));
        noise(index) & !1 | u32::from(votes)
    };
    let input: Vec<u32> = (0..8 * THREADS * 4).map(word).collect();
    let heard = |unit: usize| {
        let (round, thread) = (unit / THREADS, unit % THREADS);
        let [for_pair, for_block] = voters(round);
        let in_pair = for_pair.iter().any(|voter| voter / 64 == thread / 64);
        let handed = input[4 * (round * THREADS + (thread ^ 37))];
        [in_pair.into(), u32::from(!for_block.is_empty()), handed, 0]
    };
    let out = bytes((0..8 * THREADS).flat_map(heard));
    plain("probe_votes", bytes(input.iter().copied()), out)
}

fn phases() -> Case {
    let source = tensor([64, 80, 2, 1], [64, 8, 1, 1], Swizzle::Bytes128);
    let mut out = vec![UNTOUCHED; 9 * 2048];
    for (index, part) in out.chunks_exact_mut(2048).enumerate() {
        part[..1024].copy_from_slice(&image(&source, [0, 3 + 8 * index as u32, 1, 0]));
    }
    let case = plain("probe_mbarrier_phases", Vec::new(), out);
    Case { source, at: [0, 3, 1, 0], box_bytes: 1024, ..case }
}

/// A tensor whose rows end within a box, as do its rows, heads and batch entries.
fn ragged(swizzle: Swizzle) -> Tensor {
    let columns = match swizzle {
        Swizzle::None => 24,
        Swizzle::Bytes32 => 16,
        Swizzle::Bytes64 => 32,
        Swizzle::Bytes128 => 64,
    };
    tensor([69, 7, 2, 2], [columns, 5, 2, 1], swizzle)
}

fn load(swizzle: Swizzle, place: [i32; 4]) -> Case {
    let at = place.map(|coordinate| coordinate as u32);
    let source = ragged(swizzle);
    let out = image(&source, at);
    let box_bytes = out.len() as u32;
    let name = format!("{swizzle:?} at {place:?}");
    Case { name, source, at, box_bytes, ..plain("probe_load", Vec::new(), out) }
}

fn store(swizzle: Swizzle, place: [i32; 4]) -> Case {
    let at = place.map(|coordinate| coordinate as u32);
    let target = ragged(swizzle);
    let mut after = target.clone();
    let box_bytes = image(&target, at).len();
    let input = bytes((0..box_bytes / 4).map(|index| noise(1000 + index)));
    put(&mut after, at, &input);
    let expected = Expected::Bits(Seen { out: Vec::new(), target: after.bytes });
    let name = format!("{swizzle:?} at {place:?}");
    let box_bytes = box_bytes as u32;
    Case { name, target, at, box_bytes, expected, ..plain("probe_store", input, Vec::new()) }
}

/// The same box, where the copy engine takes none.
fn refused(case: Case) -> Case {
    let Expected::Bits(seen) = case.expected else { return case };
    Case { expected: Expected::Refused(seen), ..case }
}

fn relay() -> Case {
    let source = tensor([64, 40, 2, 2], [64, 8, 1, 1], Swizzle::Bytes128);
    let target = Tensor { bytes: vec![UNTOUCHED; source.bytes.len()], map: source.map };
    let mut after = target.clone();
    let at = |boxes: u32| [0, 2 + 8 * boxes, 1, 1];
    (0..5).for_each(|boxes| put(&mut after, at(4 - boxes), &image(&source, at(boxes))));
    let expected = Expected::Bits(Seen { out: Vec::new(), target: after.bytes });
    let case = plain("probe_relay", Vec::new(), Vec::new());
    Case { source, target, at: at(0), box_bytes: 1024, expected, ..case }
}

/// The blocks of a product: rows of 64 of the numbers -1, 0 and 1.
fn blocks(dtype: Dtype) -> (Tensor, Vec<i32>) {
    let mut tensor = tensor([64, 320, 1, 1], [64, 64, 1, 1], Swizzle::Bytes128);
    let values: Vec<i32> = (0..64 * 320).map(|index| noise(index) as i32 % 3 % 2).collect();
    let bits = values.iter().flat_map(|value| encode(dtype, f64::from(*value)).to_le_bytes());
    tensor.bytes = bits.collect();
    (tensor, values)
}

/// S and O as the probe writes them.
fn products(values: &[i32], dtype: Dtype, width: usize) -> Vec<u8> {
    let (mut scores, mut out) = (vec![0; 64 * width], vec![0; 64 * width]);
    for row in 0..64 {
        for column in 0..width {
            let product = |k| values[64 * row + k] * values[64 * (64 + column) + k];
            scores[row * width + column] = (0..64).map(product).sum::<i32>();
        }
        for column in 0..width {
            let panel = 64 + column / 64 * 64;
            let product = |k| scores[row * width + k] * values[64 * (panel + k) + column % 64];
            out[row * width + column] = (0..64).map(product).sum::<i32>();
        }
    }
    let all = scores.into_iter().chain(out);
    all.flat_map(|value| {
        assert!(value.abs() <= 256, "{value} is not exact in bf16");
        encode(dtype, f64::from(value)).to_le_bytes()
    })
    .collect()
}

fn product(entry: &'static str, dtype: Dtype, width: usize) -> Case {
    let (source, values) = blocks(dtype);
    Case { source, ..plain(entry, Vec::new(), products(&values, dtype, width)) }
}

fn stored_product() -> Case {
    let (tensor, values) = blocks(Dtype::Bf16);
    let input = [0, 64].map(|row| image(&tensor, [0, row, 0, 0])).concat();
    let box_bytes = input.len() as u32;
    let case = plain("probe_product_of_stores", input, products(&values, Dtype::Bf16, 64));
    Case { box_bytes, ..case }
}

fn thread_copies() -> Case {
    let input = bytes((0..3 * 4 * THREADS).map(noise));
    let unit = |part: usize, thread: usize| match (thread + part) % 4 {
        3 => vec![0; 16],
        _ => units(&input, std::iter::once(part * THREADS + thread)),
    };
    let others = [37, 90, 5].into_iter().enumerate();
    let out =
        others.flat_map(|(part, other)| (0..THREADS).flat_map(move |it| [(part, it ^ other)]));
    let out = out.flat_map(|(part, thread)| unit(part, thread)).collect();
    plain("probe_thread_copies", input.clone(), out)
}

fn warp_product(entry: &'static str, dtype: Dtype) -> Case {
    let (tensor, mut values) = blocks(dtype);
    let input = tensor.bytes[..128 * 128].to_vec();
    values[64 * 124..64 * 128].fill(0);
    plain(entry, input, products(&values, dtype, 64))
}

/// Whether every width that a kernel of the table multiplies is probed.
pub fn cover_the_table() -> bool {
    VARIANTS.iter().all(|variant| {
        let tile = fulgurite::internals::Tile::of(variant);
        [tile.kv_rows, tile.head_dim].iter().all(|width| {
            let entry = format!("probe_product_{}_n{width}", variant.dtype.name());
            PROBES.contains(&entry.as_str())
        })
    })
}
