//! Times of calls over several GPUs beside one, and what hides what.

use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use bench::facts::{Facts, Run};
use bench::grid::{Cell, DtypeName};
use bench::measurement::{Measurement, OURS};
use bench::record::{self, Origin};
use fulgurite::cudarc::driver::DriverError;
use fulgurite::cudarc::driver::sys::CUevent_flags;
use fulgurite::{Dtype, Mask};
use fulgurite_parallel::{
    Cost, Parallel, ParallelOptions, ParallelPrepared, Part, Sharded, Shards, Strategy,
};
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
    transfer_blocks: u32,
    one_stream: bool,
    /// Groups of KV heads.
    groups: usize,
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
    let name_of = |(heads, kv_heads, rows)| format!("{heads}/{kv_heads} {rows}");
    let wanted = |cell: &(usize, usize, usize)| {
        options.filter.iter().all(|text| name_of(*cell).contains(text.as_str()))
    };
    for cell in CELLS.into_iter().filter(wanted) {
        let found = measure(&ranks, cell, options)?;
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
        let all = Measurement::of(OURS, &cell, self.ms);
        let all = Measurement { options: format!("gpus={}", self.gpus), ..all };
        [all, Measurement::of(OURS, &cell, self.one_gpu_ms)]
    }
}

/// A rank with its plan and buffers.
struct Ready {
    prepared: ParallelPrepared,
    own: Mutex<Buffers>,
}

/// What is launched.
#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    OneGpu,
    Part(Part),
}

fn measure(
    ranks: &[Parallel],
    (heads, kv_heads, rows): (usize, usize, usize),
    options: &bench::Options,
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
        lse: false,
    };
    let shards = Shards::zigzag(sizes.rows, world).map_err(|error| error.to_string())?;
    let plan = ParallelOptions::default().timed();
    let plan = options.groups.map_or(plan, |groups| plan.groups(groups));
    let plan = options.transfer_blocks.map_or(plan, |blocks| plan.transfer_blocks(blocks));
    let plan = if options.one_stream { plan.one_stream() } else { plan };
    let ready = each(ranks, |rank| {
        let rows = shards.local_rows(rank.communicator().rank());
        let sharded = Sharded::new(&sizes.request(rows), shards.clone());
        let sharded = sharded.strategy(Strategy::Gather);
        let prepared = rank.plan_with(&sharded, &plan);
        let prepared = prepared.map_err(|error| error.to_string())?;
        let mut own = Buffers::repeated(rank.attention(), sizes, rows)?;
        own.grow(prepared.plan().workspace_bytes())?;
        Ok(Ready { prepared, own: Mutex::new(own) })
    })?;
    let mut whole = Buffers::repeated(ranks[0].attention(), sizes, sizes.rows)?;
    let cost = *ready[0].prepared.plan().cost();
    let rounds = (0..ROUNDS).map(|_| round(ranks, &ready, &cost, sizes, &mut whole));
    let rounds = rounds.collect::<Result<Vec<[f64; 5]>, String>>()?;
    let timeline = ready[0].prepared.timeline().map_err(|error| error.to_string())?;
    for (what, ms) in timeline {
        println!("  {ms:9.3} ms  {what}");
    }
    let median = |what: usize| {
        let mut times: Vec<f64> = rounds.iter().map(|round| round[what]).collect();
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
        nccl_blocks: options.nccl_blocks,
        transfer_blocks: options.transfer_blocks.unwrap_or(0),
        one_stream: options.one_stream,
        groups: ready[0].prepared.plan().groups(),
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

/// Milliseconds of a call: on one GPU, on all, launches only, transfers only; and of the host.
fn round(
    ranks: &[Parallel],
    ready: &[Ready],
    cost: &Cost,
    sizes: Sizes,
    whole: &mut Buffers,
) -> Result<[f64; 5], String> {
    let count = |seconds: f64| ((SERIES_MS / 1e3 / seconds) as usize).clamp(3, 50);
    let on_all = |part: Part, count: usize| -> Result<[f64; 2], String> {
        let times = each(ranks, |rank| {
            let ready = &ready[rank.communicator().rank()];
            let mut own = ready.own.lock().map_err(|error| error.to_string())?;
            series(rank, Some(&ready.prepared), What::Part(part), count, sizes, &mut own)
        })?;
        // A call has ended when the slowest rank has.
        Ok(times.into_iter().fold([0.0; 2], |most, time| [0, 1].map(|it| time[it].max(most[it]))))
    };
    let one = count(cost.compute * ranks.len() as f64);
    Ok([
        series(&ranks[0], None, What::OneGpu, one, sizes, whole)?[0],
        on_all(Part::All, count(cost.total))?[0],
        on_all(Part::Launches, count(cost.total))?[0],
        on_all(Part::Transfers, count(cost.transfer))?[0],
        on_all(Part::All, 3)?[1],
    ])
}

/// Milliseconds of one launch among `count` behind each other, on the GPU and of the host.
fn series(
    rank: &Parallel,
    prepared: Option<&ParallelPrepared>,
    what: What,
    count: usize,
    sizes: Sizes,
    buffers: &mut Buffers,
) -> Result<[f64; 2], String> {
    let attention = rank.attention();
    let context = attention.context();
    let stream = context.default_stream();
    let failed = |error: DriverError| error.to_string();
    let mut launch = || match (what, prepared) {
        (What::Part(part), Some(prepared)) => {
            let launched = prepared.launch_part(&stream, buffers.args(), part);
            launched.map(drop).map_err(|error| error.to_string())
        }
        _ => {
            let launched = attention.launch(&stream, &sizes.request(sizes.rows), buffers.args());
            launched.map_err(|error| error.to_string())
        }
    };
    context.bind_to_thread().map_err(failed)?;
    // The first one brings the ranks together, and keeps the GPU busy while the host enqueues.
    launch()?;
    let event = || context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(failed);
    let (start, end) = (event()?, event()?);
    start.record(&stream).map_err(failed)?;
    let host = Instant::now();
    (0..count).try_for_each(|_| launch())?;
    let host_ms = host.elapsed().as_secs_f64() * 1e3 / count as f64;
    end.record(&stream).map_err(failed)?;
    stream.synchronize().map_err(failed)?;
    let ms = start.elapsed_ms(&end).map_err(failed)?;
    Ok([f64::from(ms) / count as f64, host_ms])
}
