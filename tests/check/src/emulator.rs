//! The emulator as a device: the kernels themselves, on the CPU.

use std::path::Path;
use std::sync::Mutex;

use fulgurite::emulator::{Emulator, Global, MutationSite, Options, Summary};

use crate::call::{self, Launch};
use crate::device::{Device, Ran};
use crate::memory::{Allocation, GUARD_ELEMENTS, Memory, Region};
use crate::workspace;

/// Multiplications of a product beyond which a case is too long to emulate.
pub const BUDGET: usize = 400_000_000;

/// Address of the first allocation; each has its own 2^41 bytes.
const FIRST_ADDRESS: u64 = 1 << 41;

/// Runs cases on the emulator under one or more schedules.
#[derive(Debug)]
pub struct Emulated {
    /// Schedules to run every case under.
    pub seeds: Vec<u64>,
    /// What the launches did so far.
    counts: Mutex<Vec<Counted>>,
}

/// What the launches of a variant did.
#[derive(Clone, Debug)]
pub struct Counted {
    /// The kernel.
    pub entry: &'static str,
    /// Query tiles × KV tiles, or what else the kernel repeats.
    pub tiles: u64,
    /// The launch's counts.
    pub outcome: Summary,
}

impl Emulated {
    /// Runs under these schedules.
    pub fn new(seeds: Vec<u64>) -> Emulated {
        Emulated { seeds, counts: Mutex::default() }
    }

    /// What was counted, one for each case.
    pub fn counts(&self) -> Vec<Counted> {
        self.counts.lock().map(|counts| counts.clone()).unwrap_or_default()
    }
}

/// Runs a launch once. The inner error is a rule that the kernel broke.
///
/// # Errors
/// What the host crate refuses.
pub fn run_once(launch: &mut Launch, options: Options) -> call::Emulated {
    run_on(launch, options, None)
}

/// As [`run_once`], on a device of so many multiprocessors instead of the emulator's own number.
///
/// # Errors
/// What the host crate refuses.
pub fn run_on(launch: &mut Launch, options: Options, sm_count: Option<u32>) -> call::Emulated {
    let emulator = Emulator::new().with_options(options);
    let mut facts = emulator.facts().clone();
    facts.sm_count = sm_count.unwrap_or(facts.sm_count);
    let memory = &mut launch.memory;
    let mut bytes = Bytes::of(memory);
    let mut global = Global::new();
    bytes.map(memory, &mut global);
    let address = |name: &str| address_of(memory, name);
    let mut workspace = workspace::Emulated::new(behind(memory));
    let call = &launch.call;
    let ran = call.emulate(&facts, &emulator, &address, &mut global, &mut workspace)?;
    drop(global);
    workspace.check_head()?;
    bytes.write_back(memory);
    Ok(ran)
}

/// The address of an allocation; those of numbers follow those of tensors.
fn address(allocation: usize) -> u64 {
    FIRST_ADDRESS * (1 + allocation as u64)
}

/// The address behind all of it.
fn behind(memory: &Memory) -> u64 {
    address(memory.allocations.len() + memory.numbers.len())
}

/// The address of a tensor or of numbers.
fn address_of(memory: &Memory, name: &str) -> Option<u64> {
    if let Some(index) = memory.numbers.iter().position(|numbers| numbers.name == name) {
        return Some(address(memory.allocations.len() + index) + 4 * GUARD_ELEMENTS as u64);
    }
    let place = memory.tensors.iter().find(|tensor| tensor.name == name)?.place;
    Some(address(place.allocation) + 2 * place.start as u64)
}

/// What reports call an allocation that is read.
fn name_of(memory: &Memory, allocation: usize) -> &'static str {
    let mut inside = memory.tensors.iter().filter(|it| it.place.allocation == allocation);
    match (inside.next(), inside.next()) {
        (Some(tensor), None) => tensor.name,
        _ => "the inputs",
    }
}

/// Memory as a kernel sees it: little-endian bytes.
struct Bytes {
    /// Of each allocation's regions.
    regions: Vec<Vec<Vec<u8>>>,
    numbers: Vec<Vec<u8>>,
}

impl Bytes {
    fn of(memory: &Memory) -> Bytes {
        let region = |region: &Region| region.bits.iter().flat_map(|x| x.to_le_bytes()).collect();
        let regions = |it: &Allocation| it.regions.iter().map(region).collect();
        let numbers = memory.numbers.iter();
        Bytes {
            regions: memory.allocations.iter().map(regions).collect(),
            numbers: numbers
                .map(|it| it.guarded.iter().flat_map(|x| x.to_le_bytes()).collect())
                .collect(),
        }
    }

    fn map<'a>(&'a mut self, memory: &Memory, global: &mut Global<'a>) {
        for (index, regions) in self.regions.iter_mut().enumerate() {
            let allocation = &memory.allocations[index];
            let written = memory.written().find(|it| it.place.allocation == index);
            for (region, bytes) in allocation.regions.iter().zip(regions) {
                let start = address(index) + 2 * region.start as u64;
                match written {
                    Some(tensor) => global.writable(tensor.name, start, bytes),
                    None => global.readable(name_of(memory, index), start, bytes),
                }
            }
        }
        for (index, (numbers, bytes)) in memory.numbers.iter().zip(&mut self.numbers).enumerate() {
            let start = address(memory.allocations.len() + index);
            match numbers.is_written {
                true => global.writable(numbers.name, start, bytes),
                false => global.readable(numbers.name, start, bytes),
            }
        }
    }

    fn write_back(&self, memory: &mut Memory) {
        let written: Vec<usize> = memory.written().map(|it| it.place.allocation).collect();
        for index in written {
            let regions = memory.allocations[index].regions.iter_mut();
            for (region, bytes) in regions.zip(&self.regions[index]) {
                let pairs = bytes.chunks_exact(2).map(|x| u16::from_le_bytes([x[0], x[1]]));
                region.bits = pairs.collect();
            }
        }
        for (numbers, bytes) in memory.numbers.iter_mut().zip(&self.numbers) {
            for (value, word) in numbers.guarded.iter_mut().zip(bytes.chunks_exact(4)) {
                *value = f32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            }
        }
    }
}

/// The function that a site lies in, by its source.
pub fn function_of(site: &MutationSite) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let source = std::fs::read_to_string(root.join(site.file)).expect("the kernels' source");
    let before: Vec<&str> = source.lines().take(site.line as usize).collect();
    let head = before.iter().rev().find_map(|line| line.split_once("fn ")).unwrap_or_default();
    head.1.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

impl Device for Emulated {
    fn name(&self) -> String {
        "emulator".to_owned()
    }

    fn run(&self, launch: &mut Launch) -> Result<Ran, String> {
        if launch.call.products() > BUDGET {
            return Ok(Ran::Skipped("too long to emulate".to_owned()));
        }
        let fresh = launch.clone();
        let mut first: Option<Launch> = None;
        for &seed in &self.seeds {
            let mut one = fresh.clone();
            let options = Options { seed, ..Options::default() };
            let (decided, result) =
                run_once(&mut one, options).map_err(|error| error.to_string())?;
            let outcome = result.map_err(|fault| {
                format!("{fault}\n  to see it again: --emulate --replay {seed}")
            })?;
            if let (Some(entry), Ok(mut counts)) = (decided.entry, self.counts.lock()) {
                counts.push(Counted { entry, tiles: decided.tiles, outcome });
            }
            match &first {
                None => first = Some(one),
                Some(first) if first.memory.written_bits() != one.memory.written_bits() => {
                    return Err(format!("seed {seed} gives another output than the first"));
                }
                Some(_) => {}
            }
        }
        if let Some(done) = first {
            *launch = done;
        }
        Ok(Ran::Done)
    }
}
