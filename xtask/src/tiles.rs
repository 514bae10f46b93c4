//! `cargo xtask tiles`: tries tile shapes. A candidate is a row of the table; the candidates are
//! built from a copy of the sources in which they are the table, and measured in turn by one
//! program that holds them all.

mod candidates;
mod shop;

use std::path::Path;
use std::process::Command;

use clap::{Args, ValueEnum};
use fulgurite_spec::{Dtype, MaskClass, SoftmaxKind};

use crate::error::{Error, Result};
use crate::process::{query, run as run_program};
use crate::ptxas::PtxasArgs;
use crate::workspace::Workspace;
use candidates::{Wanted, candidates};
use shop::Shop;

/// Options of `tiles`.
#[derive(Args, Clone, Debug)]
pub struct TilesArgs {
    /// Columns of a head: 64, 96 .. 256
    #[arg(long, value_name = "N")]
    head_dim: u32,
    /// Mask [default: all, each with candidates of its own]
    #[arg(long, value_parser = mask_of_name, value_name = "NAME")]
    mask: Option<MaskClass>,
    /// Element type
    #[arg(long, value_enum, default_value = "bf16")]
    dtype: DtypeName,
    /// Softmax [default: both]
    #[arg(long, value_enum)]
    softmax: Option<SoftmaxName>,
    /// Query rows of a job: 128 (two consumers), 192 (three), or both
    #[arg(long, value_delimiter = ',', default_value = "128,192")]
    q_rows: Vec<u32>,
    /// Fewest rows of K and V in a step
    #[arg(long, value_name = "N", default_value_t = 0)]
    kv_rows_from: u32,
    /// Most rows of K and V in a step
    #[arg(long, value_name = "N", default_value_t = 256)]
    kv_rows_to: u32,
    /// Most buffers for K and for V; the fewest are 2
    #[arg(long, value_name = "N", default_value_t = 3)]
    kv_stages_to: u32,
    /// Most sizes of a step for the same mask, query rows and buffers: the largest that may fit
    #[arg(long, value_name = "N", default_value_t = 5)]
    limit: usize,
    /// Only list the candidates
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    ptxas: PtxasArgs,
    /// Arguments of `fulgurite-check variants`, after `--`
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SoftmaxName {
    Maxima,
    Anchors,
    Parked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DtypeName {
    Bf16,
    F16,
}

/// Builds the candidates, and measures them if this machine has a GPU.
pub fn run(workspace: &Workspace, arguments: &TilesArgs) -> Result<()> {
    let wanted = wanted(arguments)?;
    let all = candidates(&wanted);
    println!("{} candidates", all.len());
    if arguments.list {
        all.iter().for_each(|candidate| println!("  {}", candidates::source(candidate.row)));
        return Ok(());
    }
    let shop = Shop::open(workspace, &name(&wanted), &all)?;
    let tried = shop.try_all(&all, &arguments.ptxas)?;
    println!("{}", shop::table(&tried));
    if tried.iter().all(|tried| !tried.problems.is_empty()) {
        return Err(Error::Resources(tried.into_iter().flat_map(|tried| tried.problems).collect()));
    }
    let program = shop.program(&tried)?;
    let candidates = shop.write_candidates(&tried)?;
    measure(workspace, &program, &candidates, &arguments.arguments)
}

fn wanted(arguments: &TilesArgs) -> Result<Wanted> {
    let head_dim = arguments.head_dim;
    if !head_dim.is_multiple_of(32) || !(64..=256).contains(&head_dim) {
        let text = format!("--head-dim {head_dim}: a multiple of 32 from 64 to 256");
        return Err(Error::Option(text));
    }
    if let Some(rows) = arguments.q_rows.iter().find(|rows| ![128, 192].contains(*rows)) {
        return Err(Error::Option(format!("--q-rows {rows}: 128, 192 or both")));
    }
    Ok(Wanted {
        head_dim,
        dtype: match arguments.dtype {
            DtypeName::Bf16 => Dtype::Bf16,
            DtypeName::F16 => Dtype::F16,
        },
        masks: arguments.mask.map_or(MaskClass::ALL.to_vec(), |mask| vec![mask]),
        softmaxes: match arguments.softmax {
            None => vec![SoftmaxKind::Maxima, SoftmaxKind::Anchors],
            Some(SoftmaxName::Maxima) => vec![SoftmaxKind::Maxima],
            Some(SoftmaxName::Anchors) => vec![SoftmaxKind::Anchors],
            Some(SoftmaxName::Parked) => vec![SoftmaxKind::Parked],
        },
        q_rows: arguments.q_rows.clone(),
        kv_rows: arguments.kv_rows_from..=arguments.kv_rows_to,
        kv_stages: 2..=arguments.kv_stages_to,
        limit: arguments.limit,
    })
}

fn mask_of_name(name: &str) -> std::result::Result<MaskClass, String> {
    let known = || MaskClass::ALL.iter().copied();
    known().find(|mask| mask.name() == name).ok_or_else(|| {
        let names: Vec<&str> = known().map(MaskClass::name).collect();
        format!("one of {}", names.join(", "))
    })
}

/// What the search is called in files, such as `d192-bf16` or `d192-bf16-causal`.
fn name(wanted: &Wanted) -> String {
    let name = format!("d{}-{}", wanted.head_dim, wanted.dtype.name());
    match wanted.masks[..] {
        [mask] => format!("{name}-{}", mask.name()),
        _ => name,
    }
}

/// Runs the program here, or says how to run it elsewhere.
fn measure(
    workspace: &Workspace,
    program: &Path,
    candidates: &Path,
    arguments: &[String],
) -> Result<()> {
    if query("nvidia-smi", &["--query-gpu=name", "--format=csv,noheader"]).is_none() {
        println!("no GPU here; carry these two files to one:");
        println!("  {}\n  {}", program.display(), candidates.display());
        println!("and run: ./fulgurite-check variants --candidates candidates.csv --record .");
        return Ok(());
    }
    let directory = workspace.root().join("xtask/record");
    let mut command = Command::new(program);
    command.arg("variants").arg("--candidates").arg(candidates).arg("--record").arg(&directory);
    run_program("fulgurite-check variants", command.args(arguments))
}
