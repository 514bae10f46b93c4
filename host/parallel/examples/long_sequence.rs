//! One causal call over 131072 tokens that two GPUs hold, a thread for each.
//!
//! Run with `NCCL_NVLS_ENABLE=0`, and NCCL where the system finds it or `FULGURITE_NCCL` says.

use std::time::{Duration, Instant};

use fulgurite::{Dtype, FlashAttention, Forward, ForwardArgs, Layout, Mask, Workspace};
use fulgurite_parallel::{ConnectOptions, Parallel, Sharded, Shards};
use half::bf16;

const ROWS: usize = 131_072;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let devices = [FlashAttention::open(0)?, FlashAttention::open(1)?];
    let ranks = Parallel::all(&devices, &ConnectOptions::default())?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = ranks.iter().map(|rank| scope.spawn(|| attend(rank))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("it does not panic"))
    })
}

/// What each rank does, whether it is a thread or a process.
fn attend(rank: &Parallel) -> Result<(), Failure> {
    let communicator = rank.communicator();
    let shards = Shards::zigzag(ROWS, communicator.world())?; // equal work under a causal mask
    let rows = shards.local_rows(communicator.rank());
    let qo = Layout::bshd(Dtype::Bf16, 1, rows, 32, 128); // batch, rows, heads, head_dim
    let kv = Layout::bshd(Dtype::Bf16, 1, rows, 8, 128);
    let local = Forward::new(qo, kv, kv, qo, Mask::Causal);

    // The same call on all ranks, each with its own rows; who plans another one is named.
    let prepared = rank.plan(&Sharded::new(&local, shards.clone()))?;
    let stream = rank.attention().context().default_stream();
    let mut workspace = Workspace::new(&stream);
    workspace.grow(prepared.plan().workspace_bytes())?;

    // Queries of 0 weigh all keys alike: row r of the output is the mean of v's rows 0 to r.
    let positions: Vec<usize> = shards.positions(communicator.rank()).collect();
    let value = |index: usize| bf16::from_f32(positions[index / (8 * 128)] as f32 / ROWS as f32);
    let q = stream.alloc_zeros::<bf16>(rows * 32 * 128)?;
    let k = stream.alloc_zeros::<bf16>(rows * 8 * 128)?;
    let v = stream.clone_htod(&(0..rows * 8 * 128).map(value).collect::<Vec<_>>())?;
    let mut out = stream.alloc_zeros::<bf16>(rows * 32 * 128)?;

    for _ in 0..2 {
        let start = Instant::now();
        let args = ForwardArgs::new(&q, &k, &v, &mut out).workspace(&mut workspace);
        // A peer that stops is an error after ten seconds, and no hang.
        prepared.launch(&stream, args)?.wait(Duration::from_secs(10))?;
        println!("rank {}: {:.1?}", communicator.rank(), start.elapsed());
    }
    let out = stream.clone_dtoh(&out)?;
    for index in [0, rows / 2, rows - 1] {
        let (row, got) = (positions[index], out[index * 32 * 128]);
        println!("row {row}: {got} (the mean is {})", row as f32 / 2.0 / ROWS as f32);
    }
    if communicator.rank() == 0 {
        println!("{}", prepared.plan());
    }
    Ok(())
}
