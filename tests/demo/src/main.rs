//! `fulgurite-demo`: the first look at the project, on any CPU; [`demo`] is what it shows.

use std::io::IsTerminal;
use std::process::ExitCode;

use demo::{Demo, Style};

const HELP: &str = "\
Shows one kernel computing on the CPU beside a float64 reference, its bits under three schedules, a
planted race, and what its warpgroups do. Needs no GPU.

Usage: cargo xtask demo [--svg FILE]

  --svg FILE  write the timeline as a picture, too
";

fn main() -> ExitCode {
    output::end_if_closed();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let svg = match words[..] {
        [] => None,
        ["--svg", path] => Some(path),
        ["-h" | "--help"] => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("error: `{}` is not understood\n\n{HELP}", words.join(" "));
            return ExitCode::FAILURE;
        }
    };
    match show(svg) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn show(svg: Option<&str>) -> Result<(), String> {
    let demo = Demo::run()?;
    let colors = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    print!("{}", demo.text(if colors { Style::Colored } else { Style::Plain }));
    if let Some(path) = svg {
        let title = "A block of the kernel for bf16, head dim 64, causal";
        std::fs::write(path, demo.timeline.svg(title))
            .map_err(|error| format!("{path}: {error}"))?;
        println!("picture: {path}");
    }
    Ok(())
}
