//! `first-use`: the time from the start of a process to its first result on the host, with the
//! driver's cache empty, so that it compiles the kernel, and with the kernel in it.
//!
//! Each time is that of a fresh process: this program starts itself.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use check::forward::call::{self, ForwardCall};
use check::gpu::failed;
use clap::Args;
use fulgurite::{Dtype, FlashAttention, Layout, Mask};
use half::bf16;
use output::Pulse;
use serde::{Deserialize, Serialize};

use super::grid::{Cell, DtypeName};
use super::measurement::{COLD, Measurement, OURS, WARM};
use super::side_by_side::scratch;

/// A kernel of each size.
const HEAD_DIMS: [usize; 3] = [64, 128, 256];

/// Rows of the small call.
const ROWS: usize = 128;

/// Runs with the kernel in the driver's cache, of which the median counts.
const WARM_RUNS: usize = 3;

/// Options of `first-use`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Ordinal of the GPU
    #[arg(long, default_value_t = 0)]
    pub device: usize,
    /// Be the process that is measured: one call at this head dim
    #[arg(long, hide = true, value_name = "HEAD_DIM")]
    pub child: Option<usize>,
}

/// Parts of a process's first result, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parts {
    /// Loading and initialising the driver, making the context.
    pub open_ms: f64,
    /// Planning, and the driver compiling the kernel or finding it in its cache.
    pub kernel_ms: f64,
    /// Copying the tensors there, the launch, copying the output back.
    pub call_ms: f64,
}

/// Runs `first-use`.
///
/// # Errors
/// A message if there is no usable GPU or this program cannot start itself.
pub fn run(options: &Options) -> Result<bool, String> {
    match options.child {
        Some(head_dim) => {
            let parts = first_result(options.device, head_dim)?;
            println!("{}", serde_json::to_string(&parts).map_err(|error| error.to_string())?);
        }
        None => {
            for line in summary(&measure(options.device)?) {
                println!("{line}");
            }
        }
    }
    Ok(true)
}

/// Whether first uses are among times.
pub fn is_among(all: &[Measurement]) -> bool {
    all.iter().any(|time| [COLD, WARM].contains(&time.kind.as_str()))
}

/// Measures first uses of a kernel of each size, cold and warm.
///
/// # Errors
/// A message if there is no usable GPU or this program cannot start itself.
pub fn measure(device: usize) -> Result<Vec<Measurement>, String> {
    let _pulse = Pulse::text("first uses");
    let mut times = Vec::new();
    for head_dim in HEAD_DIMS {
        let cache = scratch(&format!("cache-d{head_dim}"))?;
        let once = |name: &str| {
            let (ms, parts) = process_ms(device, head_dim, cache.path())?;
            let Parts { open_ms, kernel_ms, call_ms } = parts;
            println!(
                "{name} d{head_dim}: {ms:.0} ms (driver and context {open_ms:.0}, kernel \
                 {kernel_ms:.0}, call {call_ms:.0})"
            );
            Ok::<f64, String>(ms)
        };
        let cold = once(COLD)?;
        let mut warm = (0..WARM_RUNS).map(|_| once(WARM)).collect::<Result<Vec<_>, _>>()?;
        warm.sort_by(f64::total_cmp);
        times.push(measurement(COLD, head_dim, cold));
        times.push(measurement(WARM, head_dim, warm[WARM_RUNS / 2]));
    }
    Ok(times)
}

/// What first uses among a run's times say.
pub fn summary(all: &[Measurement]) -> Vec<String> {
    let line = |(kind, what): (&str, &str)| {
        let times = all.iter().filter(|time| time.kind == kind);
        let each: Vec<String> =
            times.map(|time| format!("d{} {:.2} s", time.hd, time.ms / 1e3)).collect();
        let each = (!each.is_empty()).then(|| each.join(", "));
        each.map(|each| format!("from process start to first result, {what}: {each}"))
    };
    let kinds = [(COLD, "the driver compiling the kernel"), (WARM, "the driver's cache warm")];
    kinds.into_iter().filter_map(line).collect()
}

fn measurement(kind: &str, head_dim: usize, ms: f64) -> Measurement {
    let cell = Cell {
        heads: 1,
        heads_kv: 1,
        batch: 1,
        ..Cell::new(DtypeName::Bf16, head_dim, false, ROWS)
    };
    Measurement { kind: kind.to_owned(), ..Measurement::of(OURS, &cell, ms) }
}

/// Starts this program for one call and waits for the line that follows its result.
fn process_ms(device: usize, head_dim: usize, cache: &Path) -> Result<(f64, Parts), String> {
    let at = |error: std::io::Error| format!("starting this program again: {error}");
    let mut command = Command::new(std::env::current_exe().map_err(at)?);
    command
        .args(["first-use", "--device", &device.to_string(), "--child", &head_dim.to_string()])
        .env("CUDA_CACHE_PATH", cache)
        .env_remove("CUDA_CACHE_DISABLE")
        .env_remove("CUDA_FORCE_PTX_JIT")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn().map_err(at)?;
    let output = child.stdout.take().ok_or("the process has no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).map_err(at)?;
    let ms = start.elapsed().as_secs_f64() * 1e3;
    let ended = child.wait_with_output().map_err(at)?;
    if !ended.status.success() {
        let text = String::from_utf8_lossy(&ended.stderr).into_owned();
        return Err(text.trim().trim_start_matches("error: ").to_owned());
    }
    let parts = serde_json::from_str(&line).map_err(|error| format!("`{line}`: {error}"))?;
    Ok((ms, parts))
}

/// One small call, from nothing to its output on the host.
fn first_result(device: usize, head_dim: usize) -> Result<Parts, String> {
    let start = Instant::now();
    let attention = FlashAttention::open(device).map_err(|error| error.to_string())?;
    let opened = Instant::now();
    let layout = Layout::bshd(Dtype::Bf16, 1, ROWS, 1, head_dim);
    let prepared = ForwardCall::plain(layout, layout, Mask::Full).prepare(&attention)?;
    let planned = Instant::now();
    let stream = attention.context().default_stream();
    let ones = vec![bf16::ONE; ROWS * head_dim];
    let input = stream.clone_htod(&ones).map_err(failed("copying to the device"))?;
    let mut out = stream.alloc_zeros::<bf16>(ROWS * head_dim).map_err(failed("allocating"))?;
    call::launch(&prepared, &stream, [&input; 3], &mut out, None)?;
    let result = stream.clone_dtoh(&out).map_err(failed("copying back"))?;
    let ended = Instant::now();
    // All values are equal, and so are all means of them.
    if result != ones {
        return Err("the first call gave a wrong result: see `verify`".to_owned());
    }
    let ms = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1e3;
    Ok(Parts {
        open_ms: ms(start, opened),
        kernel_ms: ms(opened, planned),
        call_ms: ms(planned, ended),
    })
}
