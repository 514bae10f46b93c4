//! The builder of the kernels and the commands of Fulgurite's developers: `cargo xtask help`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod artifacts;
mod build;
mod candle;
mod ci;
mod closed_output;
mod compile;
mod copy;
mod cross;
mod dist;
mod error;
mod harness;
mod inputs;
mod interop;
mod libraries;
mod manifest;
mod package;
mod probes;
mod process;
mod progress;
mod ptx;
mod ptxas;
mod python;
mod tidy;
mod tiles;
mod toolchain;
mod unchanged;
mod wheel;
mod workspace;

use build::BuildArgs;
use ci::CiArgs;
use cross::CrossArgs;
use tiles::TilesArgs;
use wheel::WheelArgs;
use workspace::Workspace;

/// Builds, checks and measures Fulgurite.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compile the kernels to PTX (host/ptx) and check what they need
    Build(BuildArgs),
    /// A first look, in seconds and without a GPU: one kernel on the emulator; --help for more
    Demo(Passed),
    /// Build, then compare the kernels with the float64 reference; arguments go to the program
    Verify(Passed),
    /// Build, then measure the kernels; arguments go to the program
    Bench(Passed),
    /// Build, then print what a report of an error should say; arguments go to the program
    Info(Passed),
    /// Build what machines without Rust need: the program that checks, the C library, archives
    Dist(BuildArgs),
    /// Check all that must hold before the crates are published, up to a use from outside
    Package,
    /// Check that the crates compile for other platforms and with the oldest Rust
    Cross(CrossArgs),
    /// Build the wheel of the Python package (target/wheels)
    Wheel(WheelArgs),
    /// Check types and tests of the Python package, without PyTorch or GPU; arguments go to pytest
    Python(Passed),
    /// Check the package for candle without a CUDA toolkit: lints, and the tests that need no GPU
    Candle,
    /// Check the examples for other crates that drive GPUs, as far as those can be had here
    Interop,
    /// Try tile shapes: build all that may fit, measure them in turn, record the times
    Tiles(TilesArgs),
    /// Build, then run all tests; arguments go to `cargo test`
    Test(Passed),
    /// Check that what serves the emulator alone does not change the PTX
    PtxUnchanged,
    /// Check the rules of the repository that compilers do not know
    Tidy,
    /// Run everything that must hold before a change is taken, but what takes minutes more:
    /// `candle`, `interop`, `cross`, `package`
    Ci(CiArgs),
}

/// Arguments that another program understands.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
struct Passed {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,
}

fn main() -> ExitCode {
    output::end_if_closed();
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> error::Result<()> {
    let workspace = Workspace::find()?;
    let build = BuildArgs::default();
    let check = |subcommand, passed: Passed| {
        harness::run_subcommand(&workspace, subcommand, &passed.arguments, &build)
    };
    match command {
        Command::Build(arguments) => build::run(&workspace, &arguments),
        Command::Demo(passed) => harness::demo(&workspace, &passed.arguments),
        Command::Verify(passed) => check("verify", passed),
        Command::Bench(passed) => check("bench", passed),
        Command::Info(passed) => check("info", passed),
        Command::Dist(arguments) => dist::run(&workspace, &arguments),
        Command::Package => package::run(&workspace),
        Command::Cross(arguments) => cross::run(&workspace, &arguments),
        Command::Wheel(arguments) => wheel::run(&workspace, &arguments),
        Command::Python(passed) => python::check(&workspace, &passed.arguments),
        Command::Candle => candle::run(&workspace),
        Command::Interop => interop::run(&workspace),
        Command::Tiles(arguments) => tiles::run(&workspace, &arguments),
        Command::Test(passed) => ci::test(&workspace, &build, &passed.arguments),
        Command::PtxUnchanged => unchanged::run(&workspace),
        Command::Tidy => tidy::run(&workspace),
        Command::Ci(arguments) => ci::ci(&workspace, &arguments),
    }
}
