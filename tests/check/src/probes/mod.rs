//! Probes: single primitives on a GPU and on the emulator, bit for bit the same.
//!
//! [`cases`] says what is launched and what must come of it, `bytes` of 8-bit elements; [`gpu`]
//! launches on a GPU, [`process`] does so in a process of its own.

mod bytes;
pub mod cases;
pub mod gpu;
mod layout;
pub mod process;

use fulgurite::emulator::{Accumulator, Fault, FaultKind, Global, Mutation, Summary};
use fulgurite_gpu::emu::{self, MapFields};
use fulgurite_kernels::probe::entry;
use fulgurite_spec::probes::{PROBE_SMEM_BYTES, PROBE_THREADS};
use fulgurite_spec::{ProbeParams, ProbeScalars, TensorMap};
use serde::{Deserialize, Serialize};

/// What memory holds that a probe may write and has not written.
pub const UNTOUCHED: u8 = 0xa5;

/// A tensor in global memory; the map's address is given at the launch.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its contents.
    pub bytes: Vec<u8>,
    /// Sizes, strides, box and swizzle.
    pub map: MapFields,
}

/// One launch of a probe.
#[derive(Clone, Debug)]
pub struct Case {
    /// The probe.
    pub entry: &'static str,
    /// What is special about this launch; empty if there is only one.
    pub name: String,
    /// What the probe reads.
    pub input: Vec<u8>,
    /// The tensor that boxes are loaded from.
    pub source: Tensor,
    /// The tensor that boxes are stored to, before the launch.
    pub target: Tensor,
    /// Coordinates of the box.
    pub at: [u32; 4],
    /// Bytes of the box.
    pub box_bytes: u32,
    /// How the emulated tensor core adds; a GPU knows one way.
    pub accumulator: Accumulator,
    /// What must be there afterwards.
    pub expected: Expected,
}

/// What a probe leaves behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The output.
    pub out: Vec<u8>,
    /// The target tensor's bytes.
    pub target: Vec<u8>,
}

/// What a probe must leave behind.
#[derive(Clone, Debug)]
pub enum Expected {
    /// These bits.
    Bits(Seen),
    /// Nothing: the copy engine refuses the box. These bits would be there if it did not.
    Refused(Seen),
    /// `2^a`, `log2(b)`, `2^c`, `log2(d)` of the input, as near as the instructions are documented
    /// to come; GPU and emulator need not agree in every bit.
    Exponentials,
}

impl Case {
    /// The name in reports.
    pub fn title(&self) -> String {
        format!("{} {}", self.entry, self.name).trim_end().to_owned()
    }

    /// Memory that may be written, before the launch.
    pub fn blank(&self) -> Seen {
        let out_bytes = match &self.expected {
            Expected::Bits(seen) | Expected::Refused(seen) => seen.out.len(),
            Expected::Exponentials => self.input.len(),
        };
        Seen { out: vec![UNTOUCHED; out_bytes], target: self.target.bytes.clone() }
    }

    /// The parameters for memory at these addresses: input, out; the maps are encoded already.
    pub fn params(&self, maps: [TensorMap; 2], [input, out]: [u64; 2]) -> ProbeParams {
        let (at, box_bytes) = (self.at, self.box_bytes);
        let scalars = ProbeScalars { input, out, at, box_bytes, ..ProbeScalars::default() };
        ProbeParams { source: maps[0], target: maps[1], scalars }
    }

    /// Whether what a probe left behind is right.
    ///
    /// # Errors
    /// The first place that is wrong.
    pub fn check(&self, seen: &Seen) -> Result<(), String> {
        match &self.expected {
            Expected::Bits(expected) => seen.same_as(expected),
            Expected::Refused(expected) => Err(match seen.same_as(expected) {
                Ok(()) => "it is not refused, the bits are right".to_owned(),
                Err(wrong) => format!("it is not refused, and {wrong}"),
            }),
            Expected::Exponentials => cases::check_exponentials(&self.input, &seen.out),
        }
    }

    /// Whether this is how a GPU refuses.
    pub fn is_refusal(&self, error: &str) -> bool {
        matches!(self.expected, Expected::Refused(_)) && error.contains("ILLEGAL_INSTRUCTION")
    }

    /// Runs the case on the emulator and checks what it leaves behind, which is nothing if the
    /// emulator refuses it as it should.
    ///
    /// # Errors
    /// The rule that the probe broke, or the first place that is wrong.
    pub fn check_emulated(&self, seed: u64) -> Result<Option<Seen>, String> {
        match (self.emulate(seed, None, false), &self.expected) {
            (Err(fault), Expected::Refused(_)) if fault.kind == FaultKind::Malformed => Ok(None),
            (Err(fault), _) => Err(fault.to_string()),
            (Ok((seen, _)), _) => {
                let checked = self.check(&seen);
                checked.map_err(|wrong| format!("on the emulator, seed {seed}: {wrong}"))?;
                Ok(Some(seen))
            }
        }
    }

    /// Runs the case on the emulator.
    ///
    /// # Errors
    /// The rule that the probe broke.
    pub fn emulate(
        &self,
        seed: u64,
        mutation: Option<Mutation>,
        record: bool,
    ) -> Result<(Seen, Summary), Box<Fault>> {
        let mut seen = self.blank();
        let [input, out, source, target] = [1, 2, 3, 4].map(|place: u64| place << 40);
        let mut global = Global::new();
        global.readable("input", input, &self.input);
        global.writable("out", out, &mut seen.out);
        global.readable("source", source, &self.source.bytes);
        global.writable("target", target, &mut seen.target);
        let encode = |tensor: &Tensor, address| MapFields { address, ..tensor.map }.encode();
        let maps = [encode(&self.source, source), encode(&self.target, target)];
        let params = Aligned(self.params(maps, [input, out]));
        let entry = entry::find(self.entry).expect("cases are of the table");
        let grid = emu::Grid {
            blocks: 1,
            threads: PROBE_THREADS,
            smem_bytes: PROBE_SMEM_BYTES,
            parameters: (
                (&raw const params.0).expose_provenance() as u64,
                size_of::<ProbeParams>(),
            ),
            global: &global,
            seed,
            mutation,
            record,
            accumulator: self.accumulator,
        };
        // SAFETY: the block and its parameters are as the probe wants them; addresses are checked
        // against `global`.
        let outcome = emu::launch(&grid, &|| unsafe { entry((&raw const params.0).cast()) })?;
        drop(global);
        Ok((seen, outcome))
    }
}

impl Seen {
    /// Whether both are the same.
    ///
    /// # Errors
    /// Where they differ, and the first bytes there.
    pub fn same_as(&self, other: &Seen) -> Result<(), String> {
        compare("out", &self.out, &other.out)?;
        compare("target", &self.target, &other.target)
    }
}

/// Pieces of differing bytes that a message lists.
const LISTED: usize = 12;

fn compare(name: &str, a: &[u8], b: &[u8]) -> Result<(), String> {
    let differing: Vec<usize> =
        (0..a.len().max(b.len())).filter(|n| a.get(*n) != b.get(*n)).collect();
    let Some(first) = differing.first() else {
        return Ok(());
    };
    let mut message = format!("{} bytes of {name} differ:", differing.len());
    let mut pieces = differing.chunk_by(|before, next| before + 1 == *next);
    for piece in pieces.by_ref().take(LISTED) {
        message += &format!(" {}..{},", piece[0], piece[0] + piece.len());
    }
    if pieces.next().is_some() {
        message += " ...,";
    }
    let near = |bytes: &[u8]| bytes.iter().skip(*first).take(8).copied().collect::<Vec<u8>>();
    Err(message + &format!(" from the first on {:02x?}, not {:02x?}", near(a), near(b)))
}

/// Parameters at an address that suits tensor maps.
#[repr(align(64))]
struct Aligned(ProbeParams);
