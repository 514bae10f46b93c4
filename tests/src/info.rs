//! `info`: what a report of an error should say about the machine, its driver and this build.
//!
//! Works on every machine: what is missing is said, with what to do about it.

mod cache;
mod text;

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use clap::Args;
use fulgurite::DeviceFacts;
use fulgurite::cudarc::driver::{result, sys};
use fulgurite::internals::{KERNELS, Kernel};
use serde::Serialize;

use cache::Cache;

/// Variables that change what the driver does, or which driver it is.
const VARIABLES: &[&str] = &[
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "CUDA_CACHE_PATH",
    "CUDA_CACHE_DISABLE",
    "CUDA_CACHE_MAXSIZE",
    "CUDA_DISABLE_PTX_JIT",
    "CUDA_FORCE_PTX_JIT",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_MODULE_LOADING",
    "CUDA_MPS_PIPE_DIRECTORY",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "NVIDIA_DRIVER_CAPABILITIES",
    "NVIDIA_VISIBLE_DEVICES",
];

/// Options of `info`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// All that is told.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    /// Version of Fulgurite.
    pub version: &'static str,
    /// Commit it was built from.
    pub commit: String,
    /// The operating system.
    pub system: System,
    /// The driver's library, or why there is none.
    pub driver: Summary<Driver>,
    /// Version of the driver's kernel module, if one is loaded.
    pub kernel_module: Option<String>,
    /// The GPUs that the driver shows, or why it shows none.
    pub gpus: Summary<Vec<Gpu>>,
    /// What `nvidia-smi` lists: also GPUs that CUDA does not show.
    pub nvidia_smi: Summary<Vec<String>>,
    /// Kernels in this build.
    pub kernels_built: usize,
    /// Kernels that are not: to be had by `cargo xtask build`.
    pub kernels_missing: Vec<&'static str>,
    /// Where the driver keeps compiled kernels.
    pub cache: Cache,
    /// Variables that are set.
    pub environment: Vec<(&'static str, String)>,
}

/// Something, or the text of an error.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Summary<T> {
    /// It.
    Found(T),
    /// Why it is not there, and what to do.
    Missing(String),
}

impl<T, E: ToString> From<Result<T, E>> for Summary<T> {
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(found) => Summary::Found(found),
            Err(error) => Summary::Missing(error.to_string()),
        }
    }
}

/// The operating system.
#[derive(Clone, Debug, Serialize)]
pub struct System {
    /// Its name and version.
    pub name: String,
    /// The kernel's version.
    pub kernel: String,
    /// The processor's architecture.
    pub architecture: &'static str,
    /// Whether this looks like a container.
    pub container: bool,
}

/// The driver's library.
#[derive(Clone, Debug, Serialize)]
pub struct Driver {
    /// The file that was loaded.
    pub library: String,
    /// The file behind links: its name ends with the driver's version.
    pub file: String,
    /// The newest version of CUDA that it supports.
    pub cuda_version: String,
}

/// A GPU.
#[derive(Clone, Debug, Serialize)]
pub struct Gpu {
    /// Its ordinal, as CUDA counts.
    pub ordinal: usize,
    /// Its name.
    pub name: String,
    /// Its compute capability.
    pub compute_capability: String,
    /// Its multiprocessors.
    pub multiprocessors: u32,
    /// Shared memory that a block may ask for, in bytes.
    pub shared_memory_bytes: u32,
    /// Its memory in bytes; `None` if the driver does not say.
    pub memory_bytes: Option<u64>,
    /// Whether it is a slice of a GPU in MIG mode, as its name says.
    pub mig_slice: bool,
    /// Kernels of this build that run on it.
    pub kernels: usize,
    /// Why others do not, for the first of them.
    pub refused: Option<String>,
}

/// Runs `info`; `commit` is the one that the program was built from.
///
/// # Errors
/// None but a failure to write JSON.
pub fn run(options: &Options, commit: Option<&str>) -> Result<bool, String> {
    let info = gather(commit);
    let text = if options.json {
        serde_json::to_string_pretty(&info).map_err(|error| error.to_string())?
    } else {
        text::of(&info)
    };
    println!("{}", text.trim_end());
    Ok(true)
}

/// Asks the machine.
fn gather(commit: Option<&str>) -> Info {
    let (built, missing): (Vec<&Kernel>, Vec<&Kernel>) =
        KERNELS.iter().partition(|row| fulgurite::is_built(row.entry));
    Info {
        version: env!("CARGO_PKG_VERSION"),
        commit: commit.unwrap_or("not known: built without cargo xtask").to_owned(),
        system: system(),
        driver: fulgurite::driver_info()
            .map(|driver| Driver {
                library: driver.library.display().to_string(),
                file: fs::canonicalize(&driver.library)
                    .unwrap_or_else(|_| driver.library.clone())
                    .display()
                    .to_string(),
                cuda_version: format!("{}.{}", driver.cuda_version.0, driver.cuda_version.1),
            })
            .into(),
        kernel_module: first_line("/proc/driver/nvidia/version"),
        gpus: fulgurite::devices()
            .map(|devices| devices.iter().enumerate().map(|(at, facts)| gpu(at, facts)).collect())
            .into(),
        nvidia_smi: nvidia_smi().into(),
        kernels_built: built.len(),
        kernels_missing: missing.iter().map(|row| row.entry).collect(),
        cache: Cache::of_the_driver(|variable| env::var_os(variable)),
        environment: VARIABLES
            .iter()
            .filter_map(|name| Some((*name, env::var_os(name)?.to_string_lossy().into_owned())))
            .collect(),
    }
}

fn gpu(ordinal: usize, facts: &DeviceFacts) -> Gpu {
    let built = KERNELS.iter().filter(|row| fulgurite::is_built(row.entry));
    let (run, refused): (Vec<_>, Vec<_>) =
        built.map(|row| facts.check(row)).partition(Result::is_ok);
    Gpu {
        ordinal,
        name: facts.name.clone(),
        compute_capability: format!(
            "{}.{}",
            facts.compute_capability.0, facts.compute_capability.1
        ),
        multiprocessors: facts.sm_count,
        shared_memory_bytes: facts.smem_optin_bytes,
        memory_bytes: memory_bytes(ordinal),
        mig_slice: facts.name.split_whitespace().any(|word| word == "MIG"),
        kernels: run.len(),
        refused: refused.into_iter().find_map(Result::err).map(|error| error.to_string()),
    }
}

fn memory_bytes(ordinal: usize) -> Option<u64> {
    let device: sys::CUdevice = result::device::get(i32::try_from(ordinal).ok()?).ok()?;
    // SAFETY: the driver just gave the handle.
    let bytes = unsafe { result::device::total_mem(device) }.ok()?;
    u64::try_from(bytes).ok()
}

/// Name, driver and MIG mode of each GPU, as the driver's own tool says.
fn nvidia_smi() -> Result<Vec<String>, String> {
    let query = "--query-gpu=index,name,driver_version,mig.mode.current,memory.total,compute_mode";
    let output = Command::new("nvidia-smi")
        .args([query, "--format=csv"])
        .output()
        .map_err(|error| format!("nvidia-smi cannot be started: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return Ok(text.lines().map(str::to_owned).collect());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(format!("nvidia-smi failed ({}): {} {}", output.status, text.trim(), error.trim()))
}

fn system() -> System {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    System {
        name: name.map_or(env::consts::OS, |name| name.trim_matches('"')).to_owned(),
        kernel: first_line("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned()),
        architecture: env::consts::ARCH,
        container: ["/.dockerenv", "/run/.containerenv"].iter().any(|at| Path::new(at).exists())
            || env::var_os("KUBERNETES_SERVICE_HOST").is_some(),
    }
}

fn first_line(file: &str) -> Option<String> {
    Some(fs::read_to_string(file).ok()?.lines().next()?.to_owned())
}
