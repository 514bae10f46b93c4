//! The first look at the project, on any CPU, in seconds: one kernel beside the reference, its bits
//! under three schedules, a planted race, and a timeline of its warpgroups.
//!
//! [`Demo::run`] computes all of it; what it holds can be tested, and [`Demo::text`] is what the
//! program `fulgurite-demo` prints. That program is built without the packages that `verify` and
//! `bench` need, so that it is there in seconds.

mod picture;
mod race;
mod text;
mod timeline;

use std::time::{Duration, Instant};

use check::call::Launch;
use check::emulator::run_once;
use check::forward::cases::ForwardCase;
use check::forward::judge::{expected, results};
use fulgurite::emulator::{Options, Stats, Summary};
use fulgurite::internals::VARIANTS;
use fulgurite_kernels::entry::SAMPLE;
use reference::tensor::{RowId, decode};

pub use race::Race;
pub use text::Style;
pub use timeline::{Activity, Timeline};

/// Schedules that the kernel runs under: round robin, random, random by priorities.
pub const SEEDS: [u64; 3] = [0, 1, 2];

/// Places that are shown side by side: row and column of head 0.
const SHOWN: [(usize, usize); 4] = [(0, 0), (100, 21), (200, 42), (383, 63)];

/// All that is shown.
#[derive(Clone, Debug)]
pub struct Demo {
    /// The kernel and the reference.
    pub computed: Computed,
    /// The kernel under each of [`SEEDS`].
    pub schedules: Vec<Scheduled>,
    /// What becomes of it without one wait.
    pub race: Race,
    /// What its warpgroups did.
    pub timeline: Timeline,
    /// How long it all took.
    pub took: Duration,
}

/// A kernel's output beside the float64 reference.
#[derive(Clone, Debug)]
pub struct Computed {
    /// The case.
    pub case: ForwardCase,
    /// Threads of a block, and blocks.
    pub threads: [u32; 2],
    /// What the launch did.
    pub stats: Stats,
    /// Row, column, and there the kernel's element and the reference's.
    pub shown: Vec<(usize, usize, f32, f64)>,
    /// How far the kernel is from the reference.
    pub error: Distance,
    /// The same of a model of attention that rounds to 16 bits where FlashAttention-2 does.
    pub unavoidable: Distance,
}

/// How far results are from the reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distance {
    /// Of the element that is farthest off.
    pub largest: f64,
    /// Root mean square, relative to that of the reference.
    pub rms: f64,
}

/// A run under one schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// The number that the schedule follows from.
    pub seed: u64,
    /// Steps that it took.
    pub steps: u64,
    /// FNV-1a of all bits of the output and its log-sum-exp.
    pub hash: u64,
}

impl Demo {
    /// Computes everything.
    ///
    /// # Errors
    /// A message if the kernel fails, or is not caught where it should.
    pub fn run() -> Result<Demo, String> {
        let start = Instant::now();
        let variant = VARIANTS.iter().find(|variant| variant.entry == SAMPLE);
        let variant = variant.ok_or_else(|| format!("{SAMPLE} is not in the table of variants"))?;
        let case = ForwardCase::new("demo", variant, 1, (2, 1), (384, 640));
        let inputs = case.clean_inputs();
        let fresh = case.launch(&inputs);
        let mut runs = Vec::new();
        for seed in SEEDS {
            let mut launch = fresh.clone();
            let options = Options { seed, record_sites: seed == SEEDS[0], ..Options::default() };
            let (_, result) = run_once(&mut launch, options).map_err(|e| e.to_string())?;
            runs.push((launch, result.map_err(|fault| fault.to_string())?));
        }
        let schedules = SEEDS.iter().zip(&runs).map(|(&seed, (launch, outcome))| Scheduled {
            seed,
            steps: outcome.stats.steps,
            hash: hash(launch),
        });
        let schedules = schedules.collect();
        let (launch, outcome) = &runs[0];
        launch.memory.check_written()?;
        let (out, _) = results(&launch.memory);
        let (reference, model) = expected(&case, &inputs);
        let shown = SHOWN.iter().map(|&(row, column)| {
            let id = RowId { batch: 0, head: 0, row };
            let place = reference.rows.iter().position(|known| *known == id).unwrap_or(0);
            let at = place * case.head_dim + column;
            (row, column, decode(case.dtype, out.bits[at]), reference.out[at])
        });
        let Summary { stats, sites, trace } = outcome;
        let blocks = trace.iter().map(|event| event.block + 1).max().unwrap_or(0);
        let threads = variant.launch().threads;
        let computed = Computed {
            threads: [threads, blocks],
            stats: stats.clone(),
            shown: shown.collect(),
            error: distance(&case, &out.bits, &reference.out),
            unavoidable: distance(&case, &model.out, &reference.out),
            case,
        };
        let race = Race::plant(&fresh, sites)?;
        let timeline = Timeline::of(trace, threads / 128);
        Ok(Demo { computed, schedules, race, timeline, took: start.elapsed() })
    }
}

/// How far elements are from the reference's.
fn distance(case: &ForwardCase, bits: &[u16], reference: &[f64]) -> Distance {
    let pairs = || bits.iter().map(|&x| f64::from(decode(case.dtype, x))).zip(reference);
    let squares = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|x| x * x).sum::<f64>();
    let off = squares(&mut pairs().map(|(x, exact)| x - exact));
    Distance {
        largest: pairs().map(|(x, exact)| (x - exact).abs()).fold(0.0, f64::max),
        rms: (off / squares(&mut reference.iter().copied())).sqrt(),
    }
}

/// FNV-1a of what a launch left behind.
fn hash(launch: &Launch) -> u64 {
    let (out, lse) = launch.memory.written_bits();
    let out = out.into_iter().flat_map(u16::to_le_bytes);
    let lse = lse.into_iter().flat_map(u32::to_le_bytes);
    out.chain(lse).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A line of a source of this checkout, if it is there.
fn source_line(file: &str, line: u32) -> Option<String> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join(file)).ok()?;
    text.lines().nth(line as usize - 1).map(|line| line.trim().to_owned())
}
