//! `verify`: every variant on every case, or on a user's own tensors.

mod emulate;
mod offline;
mod probes;

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use fulgurite::Arch;
use fulgurite::internals::{VARIANTS, VARIANTS_8BIT, VARIANTS_SM80};
use output::{Pulse, WIDTH, wrapped};
use rayon::prelude::*;

use crate::backward::cases as gradients;
use crate::case::{Job, check};
use crate::device::Device;
use crate::forward::cases::{cases, eight_bits, emulated_cases, every};
use crate::forward::{company, input, long};
use crate::gpu::{self, Gpu};
use crate::progress::Steps;
use crate::report::{Record, Tally, Who};
pub use offline::{ptx_faults, static_checks};

/// Options of `verify`.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Only variants and cases whose "entry case" contains this text; may be repeated (all must)
    #[arg(long, value_name = "TEXT")]
    pub filter: Vec<String>,
    /// The kernels of this architecture (sm90, sm80), also where a plan would choose others; by
    /// default those that it chooses on the GPU, or without one sm90
    #[arg(long, value_name = "ARCH", value_parser = gpu::arch)]
    pub arch: Option<Arch>,
    /// Check the q, k and v of a safetensors file instead of the case list. Tensors are named
    /// `q`, `k`, `v` or `<prefix>.q`, ... and shaped [batch, heads, rows, head_dim] or
    /// [heads, rows, head_dim]; F32, F16 and BF16 are read, each set runs as bf16 and f16, full
    /// and causal
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// List the cases and stop
    #[arg(long)]
    pub list: bool,
    /// Write every finding as CSV
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write every finding as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Ordinal of the GPU
    #[arg(long, default_value_t = 0)]
    pub device: usize,
    /// Fail if no GPU runs the kernels, instead of running them on the emulator; so does a variable
    /// FULGURITE_REQUIRE_GPU in the environment
    #[arg(long, conflicts_with_all = ["no_gpu", "emulate"])]
    pub gpu: bool,
    /// Do not use a GPU even if there is one
    #[arg(long)]
    pub no_gpu: bool,
    /// Check calls over so many GPUs of this machine against one, and nothing else; needs NCCL
    #[arg(long, value_name = "N", conflicts_with_all = ["no_gpu", "emulate", "input", "long"])]
    pub gpus: Option<usize>,
    /// Check rows of 2^17 and 2^20 keys against shorter ones, and nothing else; needs a GPU
    #[arg(long, conflicts_with_all = ["no_gpu", "emulate", "input"])]
    pub long: bool,
    /// Run the kernels on the emulator alone, even if there is a GPU
    #[arg(long)]
    pub emulate: bool,
    /// The emulator's first schedule: 0 is round robin, odd ones are random, even ones random by
    /// priorities
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// How many schedules the emulator runs every case under
    #[arg(long, value_name = "N", default_value_t = emulate::SCHEDULES)]
    pub schedules: u64,
    /// Run the emulator under this one schedule, the seed of a report
    #[arg(long, value_name = "SEED")]
    pub replay: Option<u64>,
    /// Have the GPU refuse the probes that it must refuse as well. Each ends its context, and the
    /// driver logs an illegal instruction (Xid 13)
    #[arg(long)]
    pub provoke: bool,
    /// Print how many products, copied bytes and barrier operations the kernels take per tile
    #[arg(long)]
    pub stats: bool,
}

impl Options {
    /// Whether a case of an entry is wanted.
    pub fn wants(&self, entry: &str, case: &str) -> bool {
        let full = format!("{entry} {case}");
        self.filter.iter().all(|text| full.contains(text))
    }

    /// The cases of a list that are wanted.
    fn wanted(&self, mut list: Vec<Job>) -> Vec<Job> {
        list.retain(|job| self.wants(job.entry(), job.name()));
        list
    }

    /// The emulator's schedules.
    pub fn seeds(&self) -> Vec<u64> {
        match self.replay {
            Some(seed) => vec![seed],
            None => (self.seed..self.seed.saturating_add(self.schedules.max(1))).collect(),
        }
    }
}

/// Every case of every operation, of the kernels of an architecture.
pub fn every_case(arch: Arch) -> Vec<Job> {
    if arch == Arch::Sm80 {
        return every(VARIANTS_SM80, cases);
    }
    let mut all = every(VARIANTS, cases);
    all.extend(every(VARIANTS_8BIT, eight_bits::cases));
    all.extend(gradients::every(gradients::cases));
    all
}

/// The cases of every operation that are made for the emulator: small, but with every branch.
pub fn every_emulated_case(arch: Arch) -> Vec<Job> {
    if arch == Arch::Sm80 {
        let mut all = every(VARIANTS_SM80, emulated_cases);
        all.retain(is_emulated);
        return all;
    }
    let mut all = every(VARIANTS, emulated_cases);
    all.extend(every(VARIANTS_8BIT, eight_bits::emulated_cases));
    all.extend(gradients::every(gradients::emulated_cases));
    all
}

/// Whether this build has a case's kernel for the CPU: of those for GPUs from Ampere on some.
fn is_emulated(job: &Job) -> bool {
    fulgurite_kernels::entry::find(job.entry()).is_some()
}

/// Runs `verify`; `Ok(true)` if nothing failed.
///
/// # Errors
/// A message if the options cannot be followed: an unreadable input, a report that cannot be
/// written.
pub fn run(options: &Options) -> Result<bool, String> {
    let gpu = if options.list || options.long { None } else { open(options)? };
    let arch = options.arch.unwrap_or_else(|| gpu.as_ref().map_or(Arch::Sm90, Gpu::arch));
    let jobs = options.wanted(every_case(arch));
    let emulated = options.wanted(every_emulated_case(arch));
    let probes = probes::wanted(options);
    if options.list {
        let listed = if options.emulate { &emulated } else { &jobs };
        listed.iter().for_each(|job| println!("{} {}", job.entry(), job.name()));
        probes.iter().for_each(|probe| println!("{}", probe.title()));
        return Ok(true);
    }
    if jobs.is_empty() && emulated.is_empty() && probes.is_empty() && options.input.is_none() {
        return Err(format!("no case contains {:?}; --list shows them", options.filter));
    }
    let start = Instant::now();
    let mut tally = Tally::default();
    if options.long {
        long::verify(&gpu::find(options.device, true)?.map_err(|e| e.to_string())?, &mut tally);
        println!("{}", tally.summary());
        return Ok(tally.passed());
    }
    if let Some(path) = &options.input {
        input::verify(path, options, gpu.as_ref(), &mut tally)?;
    } else {
        println!("Without a GPU:");
        let pulse = Pulse::text("plans, PTX and the reference");
        let checks = static_checks(&jobs);
        drop(pulse);
        for (name, result) in checks {
            tally.add_check(name, &result);
        }
        match &gpu {
            Some(gpu) => verify_on(gpu, &jobs, &emulated, &mut tally),
            None => {
                if !options.emulate {
                    offline::verify_model(&jobs, &mut tally);
                }
                let full = jobs.into_iter().filter(is_emulated).collect();
                emulate::verify(&emulated, full, options, &mut tally);
            }
        }
        let _pulse = Pulse::text("single primitives");
        probes::verify(&probes, gpu.as_ref(), options, &mut tally);
    }
    let tables = tally.tables();
    if !tables.is_empty() {
        println!("{tables}");
    }
    println!("took {:.0} s", start.elapsed().as_secs_f64());
    tally.write(options.csv.as_deref(), options.json.as_deref())?;
    println!("{}", tally.summary());
    Ok(tally.passed())
}

/// All cases on a GPU, and what else only a GPU shows.
fn verify_on(gpu: &Gpu, jobs: &[Job], emulated: &[Job], tally: &mut Tally) {
    println!("On {}:", gpu.name());
    let mut entries: Vec<&str> = jobs.iter().map(|job| job.entry()).collect();
    entries.dedup();
    // The driver compiles kernels while the first references are computed.
    let records = std::thread::scope(|scope| {
        scope.spawn(|| compile(gpu, &entries));
        run_jobs(jobs, gpu)
    });
    tally.add_records(Who::Gpu(gpu.name()), records);
    let _pulse = Pulse::text("batch entries alone and in company, and the emulator beside the GPU");
    let alone = company::every(&entries, gpu);
    tally.add_check("a batch entry has the same bits alone and in company", &alone);
    let same = emulate::compare_with(gpu, emulated);
    tally.add_check("the emulator gives the same", &same);
}

/// The GPU; none if there is none that the kernels are for, which is said.
///
/// # Errors
/// A right GPU that fails, or none where one is required.
fn open(options: &Options) -> Result<Option<Gpu>, String> {
    for (unwanted, name) in [(options.emulate, "--emulate"), (options.no_gpu, "--no-gpu")] {
        if unwanted {
            println!("GPU: not wanted ({name}); the kernels run on the emulator.");
            return Ok(None);
        }
    }
    match gpu::find(options.device, options.gpu || gpu::is_required())? {
        Ok(gpu) => {
            let facts = gpu.facts();
            println!("GPU: {}, {} multiprocessors", facts.name, facts.sm_count);
            Ok(Some(gpu))
        }
        Err(error) => {
            println!("GPU: none can be used; the kernels run on the emulator, on small cases.");
            for line in wrapped(&format!("({error})"), WIDTH - 5) {
                println!("     {line}");
            }
            Ok(None)
        }
    }
}

/// Has the driver compile the kernels, and says how long that took.
fn compile(gpu: &Gpu, entries: &[&str]) {
    let start = Instant::now();
    if let Some(count) = gpu.preload(entries) {
        let seconds = start.elapsed().as_secs_f64();
        println!("  {count} kernels compiled and loaded in {seconds:.1} s");
    }
}

/// Runs cases on a device; references are computed in parallel, a GPU is asked in turn.
pub fn run_jobs(jobs: &[Job], device: &dyn Device) -> Vec<Record> {
    let steps = Steps::new(jobs.len());
    let one = |job: &Job| {
        steps.at(format!("{} {}", job.entry(), job.name()));
        let outcome = check(&**job, device);
        steps.done();
        Record::of(&**job, outcome)
    };
    jobs.par_iter().map(one).collect()
}
