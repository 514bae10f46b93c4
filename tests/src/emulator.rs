//! The emulator as a backend: the kernels themselves, on the CPU.

use std::path::Path;
use std::sync::Mutex;

use fulgurite::emulator::{Emulator, Fault, Global, MutationSite, Options, Outcome};
use fulgurite::{DeviceFacts, Plan, Pointers};

use crate::backend::{Backend, Ran};
use crate::memory::{Allocation, GUARD_ELEMENTS, Launch};

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
    /// Query tiles × KV tiles of all heads that the mask makes the kernel visit.
    pub tiles: u64,
    /// The launch's counts.
    pub outcome: Outcome,
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

/// Multiplications of one of a call's two products; `q`: shape of the queries.
pub fn products([batch, heads, rows, head_dim]: [usize; 4], kv_len: usize) -> usize {
    batch * heads * rows.next_multiple_of(128) * kv_len.next_multiple_of(64) * head_dim
}

/// Runs a launch once. The inner error is a rule that the kernel broke.
///
/// # Errors
/// What the host crate refuses.
pub fn run_once(
    launch: &mut Launch,
    options: Options,
) -> Result<(Plan, Result<Outcome, Box<Fault>>), fulgurite::Error> {
    run_on(launch, options, None)
}

/// As [`run_once`], on a device of so many multiprocessors instead of the emulator's own number.
///
/// # Errors
/// What the host crate refuses.
pub fn run_on(
    launch: &mut Launch,
    options: Options,
    sm_count: Option<u32>,
) -> Result<(Plan, Result<Outcome, Box<Fault>>), fulgurite::Error> {
    let emulator = Emulator::new().with_options(options);
    let own = emulator.facts();
    let facts = DeviceFacts { sm_count: sm_count.unwrap_or(own.sm_count), ..own.clone() };
    let plan = match &launch.variant {
        Some(variant) => Plan::with_variant(&launch.request, &facts, variant)?,
        None => Plan::new(&launch.request, &facts)?,
    };
    let address = |allocation: usize| FIRST_ADDRESS * (1 + allocation as u64);
    let at = |place: crate::memory::Place| address(place.allocation) + 2 * place.start as u64;
    let lse_address = address(launch.allocations.len());
    let pointers = Pointers {
        q: at(launch.q),
        k: at(launch.k),
        v: at(launch.v),
        out: at(launch.out),
        lse: launch.lse.as_ref().map(|_| lse_address + 4 * GUARD_ELEMENTS as u64),
    };
    let out = launch.out.allocation;
    // Bytes of memory as the kernel sees it: little-endian elements.
    let pack = |allocation: &Allocation| -> Vec<Vec<u8>> {
        let bytes = |bits: &Vec<u16>| bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        allocation.regions.iter().map(|region| bytes(&region.bits)).collect()
    };
    let mut contents: Vec<Vec<Vec<u8>>> = launch.allocations.iter().map(pack).collect();
    let mut lse: Vec<u8> =
        launch.lse.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    let mut global = Global::new();
    for (index, allocation) in contents.iter_mut().enumerate() {
        for (region, bytes) in launch.allocations[index].regions.iter().zip(allocation) {
            let start = address(index) + 2 * region.start as u64;
            match index == out {
                true => global.writable("out", start, bytes),
                false => global.readable("q, k, v", start, bytes),
            }
        }
    }
    if !lse.is_empty() {
        global.writable("lse", lse_address, &mut lse);
    }
    let result = emulator.launch_raw(&plan, &pointers, &global)?;
    drop(global);
    for (region, bytes) in launch.allocations[out].regions.iter_mut().zip(&contents[out]) {
        let pairs = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        region.bits = pairs.collect();
    }
    if let Some(values) = &mut launch.lse {
        for (value, word) in values.iter_mut().zip(lse.chunks_exact(4)) {
            *value = f32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        }
    }
    Ok((plan, result))
}

/// The function that a site lies in, by its source.
pub fn function_of(site: &MutationSite) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let source = std::fs::read_to_string(root.join(site.file)).expect("the kernels' source");
    let before: Vec<&str> = source.lines().take(site.line as usize).collect();
    let head = before.iter().rev().find_map(|line| line.split_once("fn ")).unwrap_or_default();
    head.1.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

impl Backend for Emulated {
    fn name(&self) -> String {
        "emulator".to_owned()
    }

    fn run(&self, launch: &mut Launch) -> Result<Ran, String> {
        let request = &launch.request;
        if products(request.q.shape, request.k.shape[2]) > BUDGET {
            return Ok(Ran::Skipped("too long to emulate".to_owned()));
        }
        let fresh = launch.clone();
        let mut first: Option<Launch> = None;
        for &seed in &self.seeds {
            let mut one = fresh.clone();
            let options = Options { seed, ..Options::default() };
            let (plan, result) = run_once(&mut one, options).map_err(|error| error.to_string())?;
            let outcome = result.map_err(|fault| {
                format!("{fault}\n  to see it again: --emulate --replay {seed}")
            })?;
            self.count(&plan, outcome);
            let out = |launch: &Launch| launch.allocations[launch.out.allocation].regions.clone();
            match &first {
                None => first = Some(one),
                Some(first) => {
                    let same = out(first).iter().zip(out(&one)).all(|(a, b)| a.bits == b.bits);
                    if !same {
                        return Err(format!("seed {seed} gives another output than the first"));
                    }
                }
            }
        }
        if let Some(done) = first {
            *launch = done;
        }
        Ok(Ran::Done)
    }
}

impl Emulated {
    fn count(&self, plan: &Plan, outcome: Outcome) {
        let (tile, request) = (plan.tile(), plan.request());
        let [batch, heads, rows, _] = request.q.shape;
        let q_rows = tile.q_rows() as usize;
        let kv_len = request.k.shape[2];
        let mask = request.mask.geometry(rows as u32, kv_len as u32);
        let visited = |first_row: usize| {
            let end = (first_row + q_rows).min(rows) as u32;
            if mask.keys(end - 1).is_empty() && plan.variant().stores_keyless() {
                return 0;
            }
            let segments = mask.segments(first_row as u32..end, tile.kv_rows);
            (segments.end - segments.begin) as usize
        };
        let of_head: usize = (0..rows).step_by(q_rows).map(visited).sum();
        let tiles = (batch * heads * of_head) as u64;
        if let Ok(mut counts) = self.counts.lock() {
            counts.push(Counted { entry: plan.variant().entry, tiles, outcome });
        }
    }
}
