//! Planted errors: a right answer made wrong in the ways kernels go wrong. The rules must see each.

use fulgurite::internals::{MaskClass, Variant};
use fulgurite::{Dtype, Mask};
use reference::forward::lowprec::{self, Arithmetic};
use reference::forward::oracle::Problem;
use reference::forward::values::LONE_ROW;
use reference::tensor::{Tensor, decode, encode};

use super::call::{self, ForwardCall};
use super::cases::cases;
use crate::call::Launch;
use crate::case::check;
use crate::device::{Device, Ran};
use crate::memory::{Memory, UNWRITTEN, UNWRITTEN_F32};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// One row of one head is the row after it.
    WrongRow,
    /// Two heads are exchanged.
    SwappedHeads,
    /// Grouped heads are dealt to KV heads in turn.
    InterleavedGroups,
    /// A causal row sees one key too many.
    KeyTooMany,
    /// A causal row sees one key too few.
    KeyTooFew,
    /// The mask is aligned top left.
    TopLeft,
    /// Keys 64 to 127 are not looked at.
    MissingTile,
    /// 16 keys past the end count with a score of zero.
    PaddingCounted,
    /// The scale is 1% too large.
    ScaleOff,
    /// The output is truncated instead of rounded.
    Truncated,
    /// One row is not written.
    UnwrittenRow,
    /// One element in front of the output is written.
    GuardWritten,
    /// One log-sum-exp is not written.
    UnwrittenLse,
    /// The log-sum-exp is in base 2.
    LseBaseTwo,
    /// The log-sum-exp lacks one key in a hundred.
    LseLow,
    /// A row without keys is 1e-3.
    EmptyRowNotZero,
    /// A NaN in one query row reaches the next one too.
    NanSpreads,
    /// A constant V comes out one unit in the last place off, in one element.
    ConstantOff,
    /// One element is off by three times what its roundings may come to.
    ElementOff,
    /// The one value that has all of a row is one unit in the last place off, in one element.
    DominantOff,
    /// Scores past what float32 tells apart give zeros and a log-sum-exp of −∞.
    SilentZeros,
    /// A NaN or a peak in a query row turns the last bit of a row far behind it.
    LastBitSpreads,
}

impl Bug {
    /// Every bug, with the start of the name of a case that must show it.
    pub const ALL: &[(Bug, &str)] = &[
        (Bug::WrongRow, "many rows"),
        (Bug::SwappedHeads, "odd heads"),
        (Bug::InterleavedGroups, "grouped heads"),
        (Bug::KeyTooMany, "many rows"),
        (Bug::KeyTooFew, "many rows"),
        (Bug::TopLeft, "length b1 h2/2 255x257"),
        (Bug::MissingTile, "length b1 h2/2 1x1000"),
        (Bug::PaddingCounted, "length b1 h2/2 1023x1023"),
        (Bug::ScaleOff, "many rows"),
        (Bug::Truncated, "many rows"),
        (Bug::UnwrittenRow, "many rows"),
        (Bug::GuardWritten, "length b1 h2/2 1x1 "),
        (Bug::UnwrittenLse, "many rows"),
        (Bug::LseBaseTwo, "length b1 h2/2 1x2 "),
        (Bug::LseLow, "many rows"),
        (Bug::EmptyRowNotZero, "length b1 h2/2 700x90"),
        (Bug::NanSpreads, "nan in q"),
        (Bug::ConstantOff, "v all 1"),
        (Bug::ElementOff, "outliers"),
        (Bug::DominantOff, "scale 1e4 "),
        (Bug::SilentZeros, "scale 1e12 "),
        (Bug::LastBitSpreads, "settled, small"),
    ];

    /// Whether the bug changes anything under this mask.
    pub fn applies_to(self, mask: MaskClass) -> bool {
        let causal_only =
            [Bug::KeyTooMany, Bug::KeyTooFew, Bug::TopLeft, Bug::EmptyRowNotZero].contains(&self);
        mask == MaskClass::Causal || !causal_only
    }
}

/// A device with one planted error.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// The error.
    pub bug: Bug,
}

impl Device for Mutant {
    fn name(&self) -> String {
        format!("mutant {:?}", self.bug)
    }

    fn run(&self, launch: &mut Launch) -> Result<Ran, String> {
        let call = *launch.call_of::<ForwardCall>().ok_or("this error is one of attention")?;
        let memory = &mut launch.memory;
        let [q, k, v] = self.altered_inputs(call::inputs(memory));
        let mut problem = call.problem([&q, &k, &v]);
        if self.bug == Bug::ScaleOff {
            problem.scale *= 1.01;
        }
        let (mut out, mut lse) = self.solve(memory, &problem);
        self.alter(memory, &mut out, &mut lse);
        memory.store("out", out);
        memory.store_numbers("lse", &lse);
        if self.bug == Bug::GuardWritten {
            let place = memory.place("out");
            let start = place.start;
            memory.allocations[place.allocation].range_mut(start - 1..start)[0] = 0;
        }
        Ok(Ran::Done)
    }
}

/// Keeps the keys that `keep` accepts and appends `zeros` keys and values of zero.
fn with_keys(tensor: &Tensor, keep: impl Fn(usize) -> bool, zeros: usize) -> Tensor {
    let [batches, heads, keys, head_dim] = tensor.layout.shape;
    let mut bits = Vec::new();
    for head in tensor.bits.chunks(keys * head_dim) {
        let kept = head.chunks(head_dim).enumerate().filter(|(key, _)| keep(*key));
        bits.extend(kept.flat_map(|(_, row)| row));
        bits.extend(std::iter::repeat_n(0, zeros * head_dim));
    }
    let rows = bits.len() / (batches * heads * head_dim);
    Tensor::from_bits(tensor.layout.dtype, [batches, heads, rows, head_dim], bits)
}

/// Moves query heads so that head `h` meets KV head `h % kv_heads`.
fn interleave(tensor: &Tensor, kv_heads: usize) -> Tensor {
    let [_, heads, rows, head_dim] = tensor.layout.shape;
    let mut moved = tensor.clone();
    let size = rows * head_dim;
    let batches = tensor.bits.chunks(heads * size).zip(moved.bits.chunks_mut(heads * size));
    for (from, to) in batches {
        for head in 0..heads {
            let place = head % kv_heads * (heads / kv_heads) + head / kv_heads;
            to[place * size..(place + 1) * size]
                .copy_from_slice(&from[head * size..(head + 1) * size]);
        }
    }
    moved
}

impl Mutant {
    fn altered_inputs(&self, [q, k, v]: [Tensor; 3]) -> [Tensor; 3] {
        let kv_heads = k.layout.shape[1];
        match self.bug {
            Bug::MissingTile => {
                let keep = |key| !(64..128).contains(&key);
                [q, with_keys(&k, keep, 0), with_keys(&v, keep, 0)]
            }
            Bug::PaddingCounted => [q, with_keys(&k, |_| true, 16), with_keys(&v, |_| true, 16)],
            Bug::InterleavedGroups => [interleave(&q, kv_heads), k, v],
            _ => [q, k, v],
        }
    }

    /// The model's answer, its causal mask moved by some of the bugs.
    fn solve(&self, memory: &Memory, problem: &Problem) -> (Vec<u16>, Vec<f32>) {
        let rows = problem.rows();
        let solve = |problem: &Problem, rows: &[_]| {
            let answer = lowprec::attention(problem, rows, Arithmetic::PEER);
            (answer.out, answer.lse)
        };
        let (q_len, kv_len) = (problem.q.layout.shape[2], memory.place("k").layout.shape[2]);
        let shift = match self.bug {
            Bug::KeyTooMany => 1,
            Bug::KeyTooFew => -1,
            Bug::TopLeft => q_len as isize - kv_len as isize,
            _ => 0,
        };
        if shift == 0 || problem.mask != Mask::Causal {
            return solve(problem, &rows);
        }
        // Row r of the moved mask is row r + shift of the right one.
        let moved = |row: usize| row.saturating_add_signed(shift).min(q_len - 1);
        let mut q = memory.tensor("q");
        let original = q.clone();
        for id in &rows {
            let start = original.row_start([id.batch, id.head, id.row]);
            let row = &original.bits[start..start + original.layout.shape[3]];
            q.row_mut([id.batch, id.head, moved(id.row)]).copy_from_slice(row);
        }
        let (out, lse) = solve(&Problem { q: q.view(), ..*problem }, &rows);
        let head_dim = original.layout.shape[3];
        let place = |index: usize| index / q_len * q_len + moved(index % q_len);
        let row = |index| &out[place(index) * head_dim..][..head_dim];
        let back = (0..rows.len()).flat_map(row).copied().collect();
        (back, (0..rows.len()).map(|index| lse[place(index)]).collect())
    }

    fn alter(&self, memory: &Memory, out: &mut [u16], lse: &mut [f32]) {
        let layout = memory.place("out").layout;
        let (dtype, [_, heads, rows, head_dim]) = (layout.dtype, layout.shape);
        match self.bug {
            Bug::WrongRow => out.copy_within(41 * head_dim..42 * head_dim, 40 * head_dim),
            Bug::SwappedHeads => {
                let (first, second) = out.split_at_mut(rows * head_dim);
                first.swap_with_slice(&mut second[..rows * head_dim]);
            }
            Bug::InterleavedGroups => {
                let group_size = heads / memory.place("k").layout.shape[1];
                let moved = Tensor::from_bits(dtype, layout.shape, out.to_vec());
                out.copy_from_slice(&interleave(&moved, group_size).bits);
            }
            // Truncation is one unit nearer to zero for every other element, on average.
            Bug::Truncated => {
                let not_zero = |bits: &&mut u16| **bits & 0x7fff != 0;
                out.iter_mut().step_by(2).filter(not_zero).for_each(|bits| *bits -= 1);
            }
            Bug::UnwrittenRow => out[7 * head_dim..8 * head_dim].fill(UNWRITTEN),
            Bug::UnwrittenLse => lse[7] = f32::from_bits(UNWRITTEN_F32),
            Bug::LseBaseTwo => lse.iter_mut().for_each(|x| *x *= std::f32::consts::LOG2_E),
            Bug::LseLow => lse.iter_mut().for_each(|x| *x += 0.99f32.ln()),
            Bug::EmptyRowNotZero => out[0] = encode(dtype, 1e-3),
            Bug::NanSpreads if decode(dtype, out[3 * head_dim]).is_nan() => {
                out.copy_within(3 * head_dim..4 * head_dim, 4 * head_dim);
            }
            Bug::ConstantOff => out[5] += 1,
            Bug::ElementOff => {
                let unit = if dtype == Dtype::Bf16 { 2f64.powi(-8) } else { 2f64.powi(-11) };
                out[5000] = encode(dtype, f64::from(decode(dtype, out[5000])) + 3.0 * unit);
            }
            Bug::DominantOff => out[40 * head_dim + 5] ^= 1,
            Bug::SilentZeros => {
                out.fill(0);
                lse.fill(f32::NEG_INFINITY);
            }
            Bug::LastBitSpreads => {
                let q = memory.tensor("q");
                let is_odd = |x: f32| x.is_nan() || x.abs() > 30.0;
                if q.view().row([0, 0, LONE_ROW]).any(is_odd) {
                    out[(LONE_ROW + 64) * head_dim] ^= 1;
                }
            }
            _ => {}
        }
    }
}

/// Whether every bug is seen in a case of a variant.
///
/// # Errors
/// The first that is not.
pub fn are_seen(variant: &Variant) -> Result<(), String> {
    let cases = cases(variant);
    for (bug, name) in Bug::ALL.iter().filter(|(bug, _)| bug.applies_to(variant.mask)) {
        let Some(case) = cases.iter().find(|case| case.name.starts_with(name)) else {
            return Err(format!("{bug:?}: no case starts with `{name}`"));
        };
        if !check(case, &Mutant { bug: *bug }).failed() {
            return Err(format!("{bug:?} passes in the case {}", case.name));
        }
    }
    Ok(())
}
