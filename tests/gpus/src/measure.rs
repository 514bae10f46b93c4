//! Times of calls over several GPUs beside one, and what hides what.

use std::path::Path;
use std::sync::Barrier;
use std::time::Instant;

use bench::facts::{Facts, Run};
use bench::grid::{Cell, DtypeName};
use bench::measurement::{Measurement, OURS};
use bench::record::{self, Origin};
use fulgurite::cudarc::driver::sys::CUevent_flags;
use fulgurite::{Dtype, Mask};
use fulgurite_parallel::{Parallel, ParallelOptions, ParallelPrepared, Part, Sharded, Shards};
use serde::Serialize;

use crate::ranks::{connect, each};
use crate::tensors::{Buffers, Sizes};

/// Query heads, KV heads, rows of a GPU.
const CELLS: [(usize, usize, usize); 3] = [(64, 8, 32_768), (32, 8, 32_768), (32, 8, 8192)];

/// Rounds in which each thing is measured once.
const ROUNDS: usize = 7;

/// A time is that of launches behind each other that take about so long together.
const SERIES_MS: f64 = 120.0;

/// What is measured of one call.
#[derive(Clone, Debug, Serialize)]
struct Parts {
    gpus: usize,
    heads_q: usize,
    heads_kv: usize,
    head_dim: usize,
    mask: &'static str,
    rows_per_gpu: usize,
    nccl_blocks: Option<u32>,
    /// The whole call on one GPU.
    one_gpu_ms: f64,
    ms: f64,
    /// Without exchanges.
    launches_ms: f64,
    /// Without launches.
    transfers_ms: f64,
    /// Time of one GPU over that of all of them together.
    efficiency: f64,
    /// Share of the time that is gone without exchanges.
    exposed: f64,
    /// Time in which the host enqueues a call.
    host_us: f64,
    received_bytes: u64,
    model_launches_ms: f64,
    model_transfers_ms: f64,
    model_efficiency: f64,
}

/// Runs `bench --gpus`; `Ok(true)` if all was measured.
///
/// # Errors
/// A message if there are not as many GPUs, or one fails.
pub fn run(options: &bench::Options) -> Result<bool, String> {
    let gpus = options.gpus.unwrap_or(1);
    let ranks = connect(gpus, options.nccl_blocks)?;
    let name = ranks[0].attention().facts().name.clone();
    let (library, version) =
        ranks[0].communicator().nccl_version().map_err(|error| error.to_string())?;
    println!("{gpus} x {name}, NCCL {version}");
    let mut parts = Vec::new();
    let mut times = Vec::new();
    for (heads, kv_heads, rows) in CELLS {
        let found = measure(&ranks, heads, kv_heads, rows, options.nccl_blocks)?;
        println!("{found:?}");
        times.extend(found.measurements());
        parts.push(found);
    }
    if let Some(directory) = &options.record {
        let origin = Origin::of_today(&options.commit, name);
        let directory = directory.join(format!("{}x{gpus}", record::folder(&origin.gpu)));
        let versions = [("nccl", version.to_string()), ("nccl library", library)];
        let versions = versions.map(|(name, version)| (name.to_owned(), version));
        let run = Run { cells: parts.len(), versions: versions.into(), ..Run::default() };
        let facts = Facts::of(origin, run, &times);
        write(&directory, &facts, &times, &parts)?;
    }
    Ok(true)
}

fn write(
    directory: &Path,
    facts: &Facts,
    times: &[Measurement],
    parts: &[Parts],
) -> Result<(), String> {
    for path in record::write(directory, facts, times)? {
        println!("record: {}", path.display());
    }
    let name = format!("{}-{}-parts.csv", facts.origin.date, facts.origin.commit);
    let path = directory.join(name);
    let at = |error: csv::Error| format!("cannot write {}: {error}", path.display());
    let mut file = csv::Writer::from_path(&path).map_err(at)?;
    parts.iter().try_for_each(|part| file.serialize(part)).map_err(at)?;
    println!("record: {}", path.display());
    file.flush().map_err(|error| at(error.into()))
}

impl Parts {
    /// The call on all GPUs and on one, as lines of a record.
    fn measurements(&self) -> [Measurement; 2] {
        let length = self.rows_per_gpu * self.gpus;
        let cell = Cell {
            heads: self.heads_q,
            heads_kv: self.heads_kv,
            batch: 1,
            ..Cell::new(DtypeName::Bf16, self.head_dim, true, length)
        };
        let all = Measurement::forward(OURS, &cell, self.ms);
        let all = Measurement { options: format!("gpus={}", self.gpus), ..all };
        [all, Measurement::forward(OURS, &cell, self.one_gpu_ms)]
    }
}

/// A rank with its plan and buffers.
struct Ready<'a> {
    rank: &'a Parallel,
    prepared: ParallelPrepared,
}

/// What is launched.
#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    OneGpu,
    Part(Part),
}

fn measure(
    ranks: &[Parallel],
    heads: usize,
    kv_heads: usize,
    rows: usize,
    nccl_blocks: Option<u32>,
) -> Result<Parts, String> {
    let world = ranks.len();
    let sizes = Sizes {
        dtype: Dtype::Bf16,
        batch: 1,
        heads,
        kv_heads,
        rows: rows * world,
        head_dim: 128,
        mask: Mask::Causal,
        rows_first: true,
    };
    let shards = Shards::zigzag(sizes.rows, world).map_err(|error| error.to_string())?;
    let barrier = Barrier::new(world);
    let found = each(ranks, |rank| {
        let number = rank.communicator().rank();
        let sharded = Sharded::new(&sizes.request(shards.local_rows(number)), shards.clone());
        let prepared = rank.plan_with(&sharded, &ParallelOptions::default());
        let prepared = prepared.map_err(|error| error.to_string())?;
        let ready = Ready { rank, prepared };
        ready.rounds(sizes, shards.local_rows(number), &barrier).map(|it| (it, ready.prepared))
    })?;
    let cost = *found[0].1.plan().cost();
    // Each round's time is that of the slowest rank.
    let median = |what: usize| {
        let slowest =
            |round: usize| found.iter().map(|(rank, _)| rank[round][what]).fold(0.0_f64, f64::max);
        let mut times: Vec<f64> = (0..ROUNDS).map(slowest).collect();
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    };
    let [one_gpu_ms, ms, launches_ms, transfers_ms, host_ms] = [0, 1, 2, 3, 4].map(median);
    Ok(Parts {
        gpus: world,
        heads_q: heads,
        heads_kv: kv_heads,
        head_dim: sizes.head_dim,
        mask: "causal",
        rows_per_gpu: rows,
        nccl_blocks,
        one_gpu_ms,
        ms,
        launches_ms,
        transfers_ms,
        efficiency: one_gpu_ms / world as f64 / ms,
        exposed: 1.0 - launches_ms / ms,
        host_us: host_ms * 1e3,
        received_bytes: cost.received_bytes,
        model_launches_ms: cost.compute * 1e3,
        model_transfers_ms: cost.transfer * 1e3,
        model_efficiency: cost.efficiency,
    })
}

impl Ready<'_> {
    /// Milliseconds of a call in each round: on one GPU (rank 0 alone), on all, launches only,
    /// transfers only; and of the host for a call on all.
    fn rounds(
        &self,
        sizes: Sizes,
        rows: usize,
        barrier: &Barrier,
    ) -> Result<Vec<[f64; 5]>, String> {
        let attention = self.rank.attention();
        let first = self.rank.communicator().rank() == 0;
        let mut own = Buffers::repeated(attention, sizes, rows)?;
        own.grow(self.prepared.plan().workspace_bytes())?;
        let mut whole =
            if first { Some(Buffers::repeated(attention, sizes, sizes.rows)?) } else { None };
        let parts = [Part::All, Part::Launches, Part::Transfers].map(What::Part);
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let mut times = [0.0; 5];
            barrier.wait();
            if let Some(whole) = &mut whole {
                times[0] = self.series(What::OneGpu, sizes, whole)?.0;
            }
            for (time, what) in times[1..].iter_mut().zip(parts) {
                barrier.wait();
                *time = self.series(what, sizes, &mut own)?.0;
            }
            barrier.wait();
            times[4] = self.series(What::Part(Part::All), sizes, &mut own)?.1;
            rounds.push(times);
        }
        Ok(rounds)
    }

    /// Milliseconds of one launch among several behind each other, on the GPU and of the host.
    fn series(
        &self,
        what: What,
        sizes: Sizes,
        buffers: &mut Buffers,
    ) -> Result<(f64, f64), String> {
        let attention = self.rank.attention();
        let stream = attention.context().default_stream();
        let event = || {
            let event = attention.context().new_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
            event.map_err(|error| error.to_string())
        };
        let mut launch = || match what {
            What::OneGpu => {
                let launched =
                    attention.launch(&stream, &sizes.request(sizes.rows), buffers.args());
                launched.map_err(|error| error.to_string())
            }
            What::Part(part) => {
                let launched = self.prepared.launch_part(&stream, buffers.args(), part);
                launched.map(drop).map_err(|error| error.to_string())
            }
        };
        let cost = self.prepared.plan().cost();
        let expected_ms = match what {
            What::OneGpu => cost.compute * 2e3,
            What::Part(Part::Transfers) => cost.transfer * 1e3,
            What::Part(_) => cost.total * 1e3,
        };
        let count = ((SERIES_MS / expected_ms) as usize).clamp(3, 50);
        // The first one brings the ranks together, and keeps the GPU busy while the host enqueues.
        launch()?;
        let (start, end) = (event()?, event()?);
        start.record(&stream).map_err(|error| error.to_string())?;
        let host = Instant::now();
        (0..count).try_for_each(|_| launch())?;
        let host_ms = host.elapsed().as_secs_f64() * 1e3 / count as f64;
        end.record(&stream).map_err(|error| error.to_string())?;
        stream.synchronize().map_err(|error| error.to_string())?;
        let ms = start.elapsed_ms(&end).map_err(|error| error.to_string())?;
        Ok((f64::from(ms) / count as f64, host_ms))
    }
}
