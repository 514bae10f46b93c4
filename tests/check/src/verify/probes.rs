//! The probes: single primitives, on the emulator and on a GPU.

use super::{Options, Tally};
use crate::device::Device;
use crate::gpu::Gpu;
use crate::probes::cases::all;
use crate::probes::process::Remote;
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
    let refused = cases.iter().filter(|case| is_refused(case)).count();
    let (count, alone) = match gpu {
        Some(_) if !options.provoke && refused > 0 => (
            cases.len() - refused,
            format!("; {refused} refused by the emulator, the GPU not asked (--provoke)"),
        ),
        _ => (cases.len(), String::new()),
    };
    let (place, same) = match gpu {
        Some(gpu) => (gpu.name(), ", bit-equal to the emulator"),
        None => ("the emulator".to_owned(), ""),
    };
    let result = match gpu.and_then(Device::lost) {
        Some(reason) => Err(format!("not run: {reason}")),
        None => faults(cases, gpu.is_some(), options),
    };
    match result {
        Ok(()) => {
            tally.add_check(&format!("probes: {count} passed on {place}{same}{alone}"), &Ok(()))
        }
        Err(error) => tally.add_check(&format!("probes on {place}"), &Err(error)),
    }
}

fn is_refused(case: &Case) -> bool {
    matches!(case.expected, Expected::Refused(_))
}

/// All that is wrong.
fn faults(cases: &[Case], on_gpu: bool, options: &Options) -> Result<(), String> {
    let mut remote = match on_gpu {
        true => Some(Remote::of_this_program(options.device)?),
        false => None,
    };
    let mut faults = Vec::new();
    for case in cases {
        let result = check(case, remote.as_mut(), options);
        faults.extend(result.err().map(|fault| format!("{}: {fault}", case.title())));
    }
    match faults.len() {
        0 => Ok(()),
        count => Err(format!("{count} of {} failed\n    {}", cases.len(), faults.join("\n    "))),
    }
}

fn check(case: &Case, remote: Option<&mut Remote>, options: &Options) -> Result<(), String> {
    let mut here = None;
    for seed in options.seeds() {
        here = case.check_emulated(seed)?;
    }
    let Some(remote) = remote.filter(|_| options.provoke || !is_refused(case)) else {
        return Ok(());
    };
    let there = match remote.run(&case.title()) {
        Err(error) if case.is_refusal(&error) => return Ok(()),
        ran => ran?,
    };
    if let (Expected::Bits(_), Some(here)) = (&case.expected, here) {
        there.same_as(&here).map_err(|wrong| format!("GPU and emulator: {wrong}"))?;
    }
    case.check(&there).map_err(|wrong| format!("on the GPU: {wrong}"))
}
