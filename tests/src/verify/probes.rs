//! The probes: single primitives, on the emulator and on a GPU.

use super::{Options, Tally};
use crate::backend::Backend;
use crate::gpu::Gpu;
use crate::probes::cases::all;
use crate::probes::gpu::Probes;
use crate::probes::{Case, Expected};

/// The probes that are wanted.
pub fn wanted(options: &Options) -> Vec<Case> {
    let mut cases = all();
    cases.retain(|case| options.wants(case.entry, &case.name));
    cases
}

/// Runs probes on the emulator, and on the GPU if there is one.
pub fn verify(cases: &[Case], gpu: Option<&Gpu>, options: &Options, tally: &mut Tally) {
    if cases.is_empty() {
        return;
    }
    let count = cases.len();
    let (place, same) = match gpu {
        Some(gpu) => (gpu.name(), ", bit-equal to the emulator"),
        None => ("the emulator".to_owned(), ""),
    };
    let result = faults(cases, gpu, &options.seeds());
    match result {
        Ok(()) => tally.add_check(&format!("probes: {count} passed on {place}{same}"), &Ok(())),
        Err(error) => tally.add_check(&format!("probes on {place}"), &Err(error)),
    }
}

/// All that is wrong.
fn faults(cases: &[Case], gpu: Option<&Gpu>, seeds: &[u64]) -> Result<(), String> {
    let mut probes = gpu.map(Probes::of);
    let mut faults = Vec::new();
    for case in cases {
        let result = check(case, probes.as_mut(), seeds);
        faults.extend(result.err().map(|fault| format!("{}: {fault}", case.title())));
        if let Some(reason) = gpu.and_then(Backend::lost) {
            faults.push(format!("the other probes were not run: {reason}"));
            break;
        }
    }
    match faults.len() {
        0 => Ok(()),
        count => Err(format!("{count} of {} failed\n    {}", cases.len(), faults.join("\n    "))),
    }
}

fn check(case: &Case, probes: Option<&mut Probes>, seeds: &[u64]) -> Result<(), String> {
    let mut here = None;
    for seed in seeds {
        let (seen, _) = case.emulate(*seed, None, false).map_err(|fault| fault.to_string())?;
        case.check(&seen).map_err(|wrong| format!("on the emulator, seed {seed}: {wrong}"))?;
        here = Some(seen);
    }
    let (Some(probes), Some(here)) = (probes, here) else {
        return Ok(());
    };
    let there = probes.run(case)?;
    if let Expected::Bits(_) = case.expected {
        there.same_as(&here).map_err(|wrong| format!("GPU and emulator: {wrong}"))?;
    }
    case.check(&there).map_err(|wrong| format!("on the GPU: {wrong}"))
}
