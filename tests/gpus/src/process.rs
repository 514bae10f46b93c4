//! Ranks in processes of their own: this program, run again with the hidden command `rank`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use fulgurite::{Dtype, FlashAttention, Mask};
use fulgurite_parallel::{
    Communicator, ConnectOptions, Id, Parallel, ParallelOptions, Shards, Strategy,
};

use crate::ranks::DEADLINE;
use crate::tensors::{Results, Sizes, prepare};
use crate::verify::{PATIENCE, check_lost};

/// What a rank does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Task {
    /// Compares its rows with those of one GPU.
    Verify,
    /// Launches until a peer is lost.
    Endure,
}

/// Options of the hidden command.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// What to do
    #[arg(value_enum)]
    pub task: Task,
    /// The rank, and the ordinal of its device
    pub rank: usize,
    /// How many there are
    pub world: usize,
    /// What they have in common, as hexadecimal digits
    pub id: String,
}

/// What the rank that endures says once it launches.
const RUNNING: &str = "running";

/// How long a rank lives at most.
const LIFE: Duration = Duration::from_secs(60);

/// A call of some milliseconds.
const SIZES: Sizes = Sizes {
    dtype: Dtype::Bf16,
    batch: 1,
    heads: 32,
    kv_heads: 8,
    rows: 16_384,
    head_dim: 128,
    mask: Mask::Causal,
    rows_first: true,
    lse: true,
};

/// Is a rank.
///
/// # Errors
/// A message.
pub fn serve(options: &Options) -> Result<bool, String> {
    // Who waits for this process shall not wait for ever, whatever happens to it.
    std::thread::spawn(|| {
        std::thread::sleep(LIFE);
        std::process::exit(3)
    });
    let text = |error: fulgurite_parallel::Error| error.to_string();
    let id = Id(of_digits(&options.id)?);
    let attention = FlashAttention::open(options.rank).map_err(|error| error.to_string())?;
    let connect = ConnectOptions::default().deadline(DEADLINE);
    let communicator =
        Communicator::connect(&attention, &id, options.rank, options.world, &connect);
    let parallel = Parallel::new(&attention, communicator.map_err(text)?);
    let values = SIZES.values(3);
    let shards = Shards::zigzag(SIZES.rows, options.world).map_err(text)?;
    let plan = ParallelOptions::default();
    let (prepared, mut buffers) =
        prepare(&parallel, SIZES, &values, (&shards, Strategy::Gather), &plan)?;
    match options.task {
        Task::Verify => {
            let work = buffers.launch(&prepared, &attention).map_err(text)?;
            work.wait(DEADLINE).map_err(text)?;
            // The rows of others are as on one GPU from the start.
            let one = Results::of_one(&attention, SIZES, &values)?;
            let mut results = one.clone();
            buffers.collect(&attention, &mut results)?;
            let [out, lse] = results.differences(&one);
            println!("{out} elements and {lse} log-sum-exps differ");
            Ok([out, lse] == [0, 0])
        }
        Task::Endure => {
            let one = Results::of_one(&attention, SIZES, &values)?;
            for launch in 0.. {
                let start = Instant::now();
                let launched = buffers.launch(&prepared, &attention);
                let lost = launched.and_then(|work| work.wait(PATIENCE));
                if lost.is_err() {
                    println!("{}", check_lost(&lost, start.elapsed())?);
                    break;
                }
                if launch == 10 {
                    println!("{RUNNING}");
                }
            }
            Ok(Results::of_one(&attention, SIZES, &values)? == one)
        }
    }
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn of_digits(text: &str) -> Result<[u8; 128], String> {
    let pair = |index: usize| text.get(2 * index..2 * index + 2);
    let byte = |index| u8::from_str_radix(pair(index)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..text.len() / 2).map(byte).collect();
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| format!("{} digits are no id", text.len()))
}

/// Starts a process for each rank.
fn start(task: Task, world: usize) -> Result<Vec<Child>, String> {
    let id = digits(&Id::new().map_err(|error| error.to_string())?.0);
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let name = task.to_possible_value().map(|value| value.get_name().to_owned());
    let name = name.unwrap_or_default();
    let spawn = |rank: usize| {
        let mut command = Command::new(&program);
        command.args(["rank", &name, &rank.to_string(), &world.to_string(), &id]);
        command.stdout(Stdio::piped()).spawn().map_err(|error| error.to_string())
    };
    (0..world).map(spawn).collect()
}

/// All ranks' rows are those of one GPU.
///
/// # Errors
/// A message if not.
pub fn verify(world: usize) -> Result<String, String> {
    let mut said = String::new();
    for child in start(Task::Verify, world)? {
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() {
            return Err(said);
        }
    }
    Ok(said)
}

/// The last rank is killed between its launches and in them; the first one is told.
///
/// # Errors
/// A message if not, or if its device is of no use afterwards.
pub fn kill(world: usize) -> Result<String, String> {
    let mut ranks = start(Task::Endure, world)?;
    let mut first = ranks.remove(0);
    let mut lines = first.stdout.take().map(|output| BufReader::new(output).lines());
    let mut next = || lines.as_mut().and_then(|lines| lines.next()?.ok()).unwrap_or_default();
    let began = next();
    std::thread::sleep(Duration::from_millis(50));
    let killed: Vec<_> =
        ranks.iter_mut().map(|other| other.kill().and_then(|()| other.wait())).collect();
    let said = next();
    let status = first.wait().map_err(|error| error.to_string())?;
    for other in killed {
        other.map_err(|error| error.to_string())?;
    }
    match began == RUNNING && status.success() {
        true => Ok(said),
        false => Err(format!("rank 0 said {began:?}, then {said:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_goes_through_an_argument() {
        let id: [u8; 128] = std::array::from_fn(|index| (index * 37) as u8);
        assert_eq!(of_digits(&digits(&id)), Ok(id));
        for text in ["", "00", &"g".repeat(256), &"é".repeat(128), &"0".repeat(258)] {
            assert!(of_digits(text).is_err(), "{text}");
        }
    }
}
