//! The text of `info`.

use std::fmt::Write;

use super::{Gpu, Info, Summary};

/// What is told, a line for each thing.
pub(super) fn of(info: &Info) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<20} {value}");
    };
    let system = &info.system;
    let container = if system.container { ", in a container" } else { "" };
    line("Fulgurite", &format!("{}, commit {}", info.version, info.commit));
    line(
        "system",
        &format!("{}, kernel {}, {}{container}", system.name, system.kernel, system.architecture),
    );
    match &info.driver {
        Summary::Found(driver) => {
            line("driver library", &format!("{} ({})", driver.library, driver.file));
            line("CUDA of the driver", &driver.cuda_version);
        }
        Summary::Missing(error) => line("driver library", &format!("MISSING: {error}")),
    }
    line("kernel module", info.kernel_module.as_deref().unwrap_or("not loaded, or not visible"));
    match &info.gpus {
        Summary::Found(gpus) if gpus.is_empty() => line("GPUs", &no_gpu()),
        Summary::Found(gpus) => gpus.iter().for_each(|gpu| tell_gpu(gpu, &mut line)),
        // Said above already.
        Summary::Missing(_) if matches!(info.driver, Summary::Missing(_)) => {}
        Summary::Missing(error) => line("GPUs", &format!("MISSING: {error}")),
    }
    match &info.nvidia_smi {
        Summary::Found(lines) => lines.iter().for_each(|said| line("nvidia-smi", said)),
        Summary::Missing(error) => line("nvidia-smi", error),
    }
    let all = info.kernels_built + info.kernels_missing.len();
    line("kernels", &format!("{} of {all} in this build", info.kernels_built));
    if let Some(entry) = info.kernels_missing.first() {
        line("", &format!("{entry} is not: run `cargo xtask build`, then build again"));
    }
    let folder = info.cache.folder.as_ref().map_or("none".into(), |path| path.to_string_lossy());
    match &info.cache.problem {
        None => line("driver's cache", &format!("{folder}, can be written")),
        Some(problem) => line("driver's cache", &format!("{folder}: {problem}")),
    }
    for (name, value) in &info.environment {
        line("environment", &format!("{name}={value}"));
    }
    text
}

fn tell_gpu(gpu: &Gpu, line: &mut impl FnMut(&str, &str)) {
    let memory = gpu
        .memory_bytes
        .map_or("memory not known".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
    let mig = if gpu.mig_slice { ", a MIG slice" } else { "" };
    let Gpu { name, compute_capability, multiprocessors, shared_memory_bytes, .. } = gpu;
    line(
        &format!("GPU {}", gpu.ordinal),
        &format!(
            "{name}, compute capability {compute_capability}, {multiprocessors} \
             multiprocessors, {memory}, {shared_memory_bytes} bytes of shared memory a block{mig}"
        ),
    );
    let refused = gpu.refused.as_ref().map(|reason| format!("; others: {reason}"));
    line("", &format!("runs {} kernels of this build{}", gpu.kernels, refused.unwrap_or_default()));
}

fn no_gpu() -> String {
    fulgurite::Error::NoDevice { ordinal: 0, count: 0 }.to_string()
}
