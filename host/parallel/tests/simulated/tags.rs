//! Attention that computes nothing and misses nothing: rows say who they are, a launch looks at
//! every row that it reads, and writes which rows it was.

use std::ops::Range;

use fulgurite::{Dtype, Forward, Layout, Mask};
use fulgurite_parallel::program::{Attend, Memory, Program, Request, Spot};
use fulgurite_parallel::{ParallelPlan, Shards, Strategy};

use crate::world::{Memories, Rank, memories, memory};

/// A call as the tests make it.
#[derive(Clone, Debug)]
pub struct Shape {
    pub batch: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub mask: Mask,
    pub lse: bool,
    /// Tensors are [batch, rows, heads, head_dim], not [batch, heads, rows, head_dim].
    pub rows_first: bool,
    pub strategy: Strategy,
}

impl Shape {
    fn layout(&self, heads: usize, rows: usize) -> Layout {
        let make = if self.rows_first { Layout::bshd } else { Layout::bhsd };
        if self.rows_first {
            make(Dtype::Bf16, self.batch, rows, heads, self.head_dim)
        } else {
            make(Dtype::Bf16, self.batch, heads, rows, self.head_dim)
        }
    }

    /// The request of a rank with so many rows.
    pub fn local(&self, rows: usize) -> Forward {
        let (qo, kv) = (self.layout(self.heads, rows), self.layout(self.kv_heads, rows));
        let forward = Forward::new(qo, kv, kv, qo, self.mask);
        if self.lse { forward.with_lse() } else { forward }
    }
}

/// What the row of a tensor holds first.
fn tag(memory: Memory, batch: usize, head: usize, row: usize) -> u64 {
    (memory as u64) << 60 | (batch as u64) << 48 | (head as u64) << 32 | row as u64
}

/// The places of all rows of a tensor: batch entry, head, row, first byte.
pub fn rows(layout: &Layout) -> impl Iterator<Item = ([usize; 3], usize)> + use<> {
    let [batch, heads, rows, _] = layout.shape;
    let strides = layout.strides;
    (0..batch * heads * rows).map(move |index| {
        let place = [index / rows / heads, index / rows % heads, index % rows];
        let elements: usize = place.iter().zip(strides).map(|(at, stride)| at * stride).sum();
        (place, 2 * elements)
    })
}

fn read(bytes: &[u8], at: usize) -> Result<u64, String> {
    let bytes = bytes.get(at..at + 8).ok_or("a row beyond its buffer")?;
    Ok(u64::from_le_bytes(bytes.try_into().unwrap()))
}

/// A rank before its call: its own rows with their tags, all else NaN.
pub fn rank(plan: &ParallelPlan) -> Rank {
    rank_with(plan, plan.program().clone())
}

/// The same with another program.
pub fn rank_with(plan: &ParallelPlan, program: Program) -> Rank {
    let local = &plan.sharded().local;
    let positions: Vec<usize> = plan.sharded().shards.positions(plan.rank()).collect();
    let span = |layout: &Layout| 2 * layout.span_elements().unwrap();
    let lse = if local.lse { 4 * local.q.shape[..3].iter().product::<usize>() } else { 0 };
    let sizes = [&local.q, &local.k, &local.v, &local.out].map(span);
    let [q, k, v, out] = sizes;
    let mut all = memories([q, k, v, out, lse, plan.workspace_bytes() as usize]);
    for (name, layout) in [(Memory::Q, &local.q), (Memory::K, &local.k), (Memory::V, &local.v)] {
        for ([batch, head, row], at) in rows(layout) {
            let tag = tag(name, batch, head, positions[row]).to_le_bytes();
            memory(&mut all, name)[at..at + 8].copy_from_slice(&tag);
        }
    }
    Rank::new(program, all)
}

/// The keys that a row of the whole sequence sees.
fn keys(mask: Mask, total: usize, row: usize) -> Range<u32> {
    let keys = mask.geometry(total as u32, total as u32).keys(row as u32);
    if keys.is_empty() { 0..0 } else { keys }
}

/// A launch: every key that a row sees is the one that it sees in the whole sequence.
///
/// # Errors
/// What is not.
pub fn attend(
    shape: &Shape,
    shards: &Shards,
    request: &Request,
    attend: &Attend,
    all: &mut Memories,
) -> Result<(), String> {
    let Forward { q, k, out, mask, .. } = &request.forward;
    let [at_q, at_k, at_v, at_out] = attend.tensors;
    let at = |spot: Spot, bytes: usize| spot.offset_bytes as usize + bytes;
    let geometry = mask.geometry(q.rows() as u32, k.rows() as u32);
    let first = read(&all[at_k.memory as usize], at(at_k, 0)).unwrap_or(0);
    let first_key = if k.rows() == 0 { 0 } else { first & 0xffff_ffff };
    let mut of_head = None;
    for (([batch, head, row], from), (_, to)) in rows(q).zip(rows(out)) {
        let found = read(&all[at_q.memory as usize], at(at_q, from))?;
        let (global, global_head) =
            ((found & 0xffff_ffff) as usize, (found >> 32 & 0xffff) as usize);
        if found != tag(Memory::Q, batch, global_head, global) {
            return Err(format!("q row {row} is {found:x}"));
        }
        let group = shape.heads / shape.kv_heads;
        let kv_head = global_head / group;
        if of_head.replace((batch, head / group)) != Some((batch, head / group)) {
            for (name, spot) in [(Memory::K, at_k), (Memory::V, at_v)] {
                let this = |([b, h, _], _): &([usize; 3], usize)| [*b, *h] == [batch, head / group];
                for ([_, _, key], from) in rows(k).filter(this) {
                    let found = read(&all[spot.memory as usize], at(spot, from))?;
                    let want = tag(name, batch, kv_head, first_key as usize + key);
                    if found != want {
                        return Err(format!("{name:?} row {key} is {found:x}, not {want:x}"));
                    }
                }
            }
        }
        let mut seen = geometry.keys(row as u32);
        seen = if seen.is_empty() {
            0..0
        } else {
            seen.start + first_key as u32..seen.end + first_key as u32
        };
        let want = keys(shape.mask, shards.rows(), global);
        if seen != want {
            return Err(format!("row {global} sees {seen:?}, not {want:?}"));
        }
        let tag = tag(Memory::Out, batch, global_head, global).to_le_bytes();
        let to = at(at_out, to);
        all[at_out.memory as usize].get_mut(to..to + 8).ok_or("out")?.copy_from_slice(&tag);
        if let Some(lse) = attend.lse {
            let to = at(lse, 4 * ((batch * q.heads() + head) * q.rows() + row));
            let tag = ((batch << 28 | global_head << 20 | global) as u32).to_le_bytes();
            all[lse.memory as usize].get_mut(to..to + 4).ok_or("lse")?.copy_from_slice(&tag);
        }
    }
    Ok(())
}

/// Every row of a rank's output and log-sum-exp is there.
///
/// # Errors
/// The first that is not.
pub fn check(plan: &ParallelPlan, rank: &Rank) -> Result<(), String> {
    let [out, lse] = rank.results.as_ref().ok_or("no results")?;
    let local = &plan.sharded().local;
    let positions: Vec<usize> = plan.sharded().shards.positions(plan.rank()).collect();
    for ([batch, head, row], at) in rows(&local.out) {
        let found = read(out, at)?;
        if found != tag(Memory::Out, batch, head, positions[row]) {
            return Err(format!("rank {}: out row {row} is {found:x}", plan.rank()));
        }
        if local.lse {
            let at = 4 * ((batch * local.q.heads() + head) * local.q.rows() + row);
            let found = &lse[at..at + 4];
            let want = ((batch << 28 | head << 20 | positions[row]) as u32).to_le_bytes();
            if found != want {
                return Err(format!("rank {}: lse of head {head}, row {row}", plan.rank()));
            }
        }
    }
    Ok(())
}
