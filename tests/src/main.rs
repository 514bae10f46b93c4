//! `fulgurite-check`: verifies and measures the kernels; runs alone, with a driver or without.

use std::process::ExitCode;

use check::{probes, verify};
use clap::{Parser, Subcommand};
use tests::info;

/// Checks Fulgurite's kernels against a float64 reference, and measures them.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every variant on the case list, or on your own tensors, and compare with the reference
    Verify(verify::Options),
    /// Measure the forward kernels, and peers beside them; every cell is checked before it is timed
    Bench(bench::Options),
    /// Measure every variant in turn with those that compute the same, to choose between them
    Variants(bench::variants::Options),
    /// Measure the time from process start to first result, with the driver's cache empty and warm
    FirstUse(bench::first_use::Options),
    /// Draw the picture of a benchmark from its CSV or record; needs no GPU
    Plot(bench::PlotOptions),
    /// Print what a report of an error should say about this machine, its driver and this build
    Info(info::Options),
    /// Run the probes whose names come from the input, for `verify`
    #[command(hide = true)]
    Probes(probes::process::Options),
    /// Be one of several ranks, for `verify --gpus`
    #[command(hide = true)]
    Rank(gpus::process::Options),
}

fn main() -> ExitCode {
    output::end_if_closed();
    let result = match Cli::parse().command {
        Command::Verify(verify::Options { gpus: Some(gpus), filter, .. }) => {
            without_multicast();
            gpus::verify::run(gpus, &filter)
        }
        Command::Verify(options) => verify::run(&options),
        Command::Bench(options) if options.gpus.is_some() => {
            without_multicast();
            gpus::measure::run(&options)
        }
        Command::Bench(options) => bench::run(&options),
        Command::Variants(options) => bench::variants::run(&options),
        Command::FirstUse(options) => bench::first_use::run(&options),
        Command::Plot(options) => bench::run_plot(&options),
        // Of this file alone, which is compiled again for every commit.
        Command::Info(options) => info::run(&options, option_env!("FULGURITE_COMMIT")),
        Command::Probes(options) => probes::process::serve(&options),
        Command::Rank(options) => gpus::process::serve(&options),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Calls over several GPUs ask for that. Processes that are started inherit it.
fn without_multicast() {
    // SAFETY: no other thread was started yet that could read the environment.
    unsafe { std::env::set_var("NCCL_NVLS_ENABLE", "0") };
}
