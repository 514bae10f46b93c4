//! The kernels on emulated GPUs, several of them and one: the same bits.

use fulgurite::emulator::Global;
use fulgurite::{Dtype, Emulator, Forward, ForwardArgs, Layout, Mask, PlanOptions};
use fulgurite_parallel::program::{Attend, Memory, Request, Spot};
use fulgurite_parallel::{ParallelOptions, ParallelPlan, Shards, Strategy};
use half::bf16;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::dealt;
use crate::plans;
use crate::tags::Shape;
use crate::world::{Memories, Rank, World, memories};

/// The tensors of a whole sequence, [batch, heads, rows, head_dim].
struct Whole {
    shape: Shape,
    rows: usize,
    /// Elements of q, k and v.
    values: [Vec<bf16>; 3],
}

impl Whole {
    fn new(shape: Shape, rows: usize, seed: u64) -> Whole {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let heads = [shape.heads, shape.kv_heads, shape.kv_heads];
        let values = heads.map(|heads| {
            let count = shape.batch * heads * rows * shape.head_dim;
            (0..count).map(|_| bf16::from_f32(random.random_range(-2.0..2.0))).collect()
        });
        Whole { shape, rows, values }
    }

    /// Output and log-sum-exp on one emulated GPU.
    fn on_one(&self) -> (Vec<bf16>, Vec<f32>) {
        let Shape { batch, heads, kv_heads, head_dim, mask, .. } = self.shape;
        let layout = |heads| Layout::bhsd(Dtype::Bf16, batch, heads, self.rows, head_dim);
        let (qo, kv) = (layout(heads), layout(kv_heads));
        let emulator = Emulator::new();
        let plan = emulator.plan(&Forward::new(qo, kv, kv, qo, mask).with_lse()).unwrap();
        let [q, k, v] = &self.values;
        let mut out = vec![bf16::NAN; q.len()];
        let mut lse = vec![f32::NAN; q.len() / head_dim];
        let args = ForwardArgs::new(q, k, v, &mut out).lse(&mut lse);
        emulator.launch(&plan, args).unwrap();
        (out, lse)
    }

    /// The rows of a rank, as its tensors hold them.
    fn rank(&self, plan: &ParallelPlan) -> Rank {
        let local = &plan.sharded().local;
        let positions: Vec<usize> = plan.sharded().shards.positions(plan.rank()).collect();
        let span = |layout: &Layout| 2 * layout.span_elements().unwrap();
        let lse = 4 * local.q.shape[..3].iter().product::<usize>();
        let [q, k, v, out] = [&local.q, &local.k, &local.v, &local.out].map(span);
        let mut all = memories([q, k, v, out, lse, plan.workspace_bytes() as usize]);
        let tensors = [(Memory::Q, &local.q), (Memory::K, &local.k), (Memory::V, &local.v)];
        for (values, (name, layout)) in self.values.iter().zip(tensors) {
            for ([batch, head, row], at) in crate::tags::rows(layout) {
                let from = (batch * layout.heads() + head) * self.rows + positions[row];
                let from = &values[from * layout.head_dim()..][..layout.head_dim()];
                let to = &mut all[name as usize][at..at + 2 * layout.head_dim()];
                for (to, value) in to.chunks_exact_mut(2).zip(from) {
                    to.copy_from_slice(&value.to_le_bytes());
                }
            }
        }
        Rank::new(plan.program().clone(), all)
    }

    /// Output and log-sum-exp of all ranks, as of the whole sequence.
    fn on_several(&self, plans: &[ParallelPlan], seed: u64) -> (Vec<bf16>, Vec<f32>) {
        let mut world = World::new(plans.iter().map(|plan| self.rank(plan)).collect(), seed);
        world.run(&mut |_, request, attend, all| compute(request, attend, all)).unwrap();
        let head_dim = self.shape.head_dim;
        let mut out = vec![bf16::NAN; self.values[0].len()];
        let mut lse = vec![f32::NAN; out.len() / head_dim];
        for (plan, rank) in plans.iter().zip(&world.ranks) {
            let results = rank.results.as_ref().unwrap();
            let local = &plan.sharded().local;
            let positions: Vec<usize> = plan.sharded().shards.positions(plan.rank()).collect();
            for ([batch, head, row], at) in crate::tags::rows(&local.out) {
                let to = (batch * local.q.heads() + head) * self.rows + positions[row];
                let bytes = &results[0][at..at + 2 * head_dim];
                for (to, pair) in out[to * head_dim..].iter_mut().zip(bytes.chunks_exact(2)) {
                    *to = bf16::from_le_bytes([pair[0], pair[1]]);
                }
                let at = 4 * ((batch * local.q.heads() + head) * local.q.rows() + row);
                let bytes = results[1][at..at + 4].try_into().unwrap();
                lse[to] = f32::from_le_bytes(bytes);
            }
        }
        (out, lse)
    }
}

/// A launch on an emulated GPU.
fn compute(request: &Request, attend: &Attend, all: &mut Memories) -> Result<(), String> {
    let emulator = Emulator::new();
    let options = request.entry.map_or_else(PlanOptions::default, PlanOptions::entry);
    let plan = emulator.plan_with(&request.forward, &options).map_err(|it| it.to_string())?;
    let address = |spot: Spot| (1 << 40) * (1 + spot.memory as u64) + spot.offset_bytes;
    let [q, k, v, out] = attend.tensors.map(address);
    let args = ForwardArgs::new(q, k, v, out).lse(address(attend.lse.unwrap()));
    let mut global = Global::new();
    for (memory, bytes) in Memory::ALL.into_iter().zip(all) {
        let start = (1 << 40) * (1 + memory as u64);
        match memory {
            Memory::Out | Memory::Lse | Memory::Workspace => {
                global.writable(memory.name(), start, bytes);
            }
            _ => global.readable(memory.name(), start, bytes),
        }
    }
    let ran = emulator.launch_raw(&plan, args, &global).map_err(|error| error.to_string())?;
    ran.map(|_| ()).map_err(|fault| fault.to_string())
}

fn bits(values: &[bf16]) -> Vec<u16> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Elements and numbers that differ.
fn differences(one: &(Vec<bf16>, Vec<f32>), other: &(Vec<bf16>, Vec<f32>)) -> [usize; 2] {
    let out = bits(&one.0).iter().zip(bits(&other.0)).filter(|(a, b)| **a != *b).count();
    let lse = one.1.iter().zip(&other.1).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    [out, lse]
}

fn shape(head_dim: usize, mask: Mask) -> Shape {
    let strategy = Strategy::Gather;
    Shape { batch: 1, heads: 2, kv_heads: 1, head_dim, mask, lse: true, rows_first: true, strategy }
}

fn window(left: i32, right: i32) -> Mask {
    Mask::Window { left: Some(left), right: Some(right) }
}

#[test]
fn bits_are_those_of_one_gpu() {
    let random = &mut ChaCha8Rng::seed_from_u64(5);
    let cases = [
        (shape(64, Mask::Causal), Shards::zigzag(600, 2)),
        (shape(128, Mask::Causal), Shards::zigzag(500, 3)),
        (shape(256, Mask::Causal), Shards::contiguous(300, 2)),
        (
            Shape { heads: 4, kv_heads: 4, batch: 2, ..shape(64, Mask::Causal) },
            Ok(dealt(random, 300, 5, 64)),
        ),
        (shape(64, Mask::Full), Shards::contiguous(500, 4)),
        (shape(128, Mask::Full), Ok(dealt(random, 400, 3, 64))),
        (shape(64, window(100, 0)), Shards::contiguous(500, 3)),
        (shape(128, window(70, 20)), Ok(dealt(random, 500, 4, 64))),
        (shape(256, window(150, -30)), Shards::zigzag(320, 2)),
        (shape(64, Mask::Causal), Shards::zigzag(100, 1)),
        (
            Shape {
                heads: 4,
                kv_heads: 2,
                strategy: Strategy::AllToAll,
                ..shape(64, Mask::Causal)
            },
            Ok(dealt(random, 300, 2, 1)),
        ),
    ];
    for (seed, (shape, shards)) in cases.into_iter().enumerate() {
        let shards = shards.unwrap();
        let options = ParallelOptions::default().groups(shape.kv_heads);
        let plans = plans(&shape, &shards, &options);
        assert!(plans.iter().all(ParallelPlan::has_bits_of_one_gpu));
        let whole = Whole::new(shape.clone(), shards.rows(), seed as u64);
        let (one, several) = (whole.on_one(), whole.on_several(&plans, seed as u64));
        assert_eq!(differences(&one, &several), [0, 0], "{shape:?} {shards:?}");
    }
}

/// Attention of one row in float64, and the weighted sum of magnitudes that errors scale with.
fn oracle(whole: &Whole, head: usize, row: usize) -> Vec<(f64, f64)> {
    let Shape { heads, kv_heads, head_dim, mask, .. } = whole.shape;
    let kv_head = head / (heads / kv_heads);
    let value = |tensor: usize, head: usize, row: usize, column: usize| {
        f64::from(whole.values[tensor][(head * whole.rows + row) * head_dim + column])
    };
    let keys = mask.geometry(whole.rows as u32, whole.rows as u32).keys(row as u32);
    let keys = keys.start as usize..keys.end as usize;
    let score = |key| {
        let dot = (0..head_dim).map(|it| value(0, head, row, it) * value(1, kv_head, key, it));
        (dot.sum::<f64>() / (head_dim as f64).sqrt()).exp()
    };
    let weights: Vec<f64> = keys.clone().map(score).collect();
    let sum: f64 = weights.iter().sum();
    let column = |column| {
        let terms =
            keys.clone().zip(&weights).map(|(key, weight)| value(2, kv_head, key, column) * weight);
        let terms: Vec<f64> = terms.collect();
        let magnitude = terms.iter().map(|term| term.abs()).sum::<f64>();
        (terms.iter().sum::<f64>() / sum, magnitude / sum)
    };
    (0..head_dim).map(column).collect()
}

/// Borders anywhere: other bits, the same limits.
#[test]
fn errors_are_those_of_one_gpu() {
    let random = &mut ChaCha8Rng::seed_from_u64(6);
    for (mask, rows) in [(Mask::Causal, 250), (Mask::Full, 130), (window(60, 10), 300)] {
        let shape = shape(64, mask);
        let shards = dealt(random, rows, 3, 1);
        let plans = plans(&shape, &shards, &ParallelOptions::default());
        assert!(!plans[0].has_bits_of_one_gpu(), "{shards:?}");
        let whole = Whole::new(shape, rows, 7);
        let (out, _) = whole.on_several(&plans, 7);
        for head in 0..2 {
            for row in 0..rows {
                let got = out[(head * rows + row) * 64..].iter();
                for (got, (want, magnitude)) in got.zip(oracle(&whole, head, row)) {
                    // Probabilities and the output are rounded to bf16, by 2^-9 of themselves.
                    let limit = (magnitude + want.abs()) / 256.0 + 1e-6;
                    assert!((f64::from(*got) - want).abs() <= limit, "{mask:?} row {row}");
                }
            }
        }
    }
}
