//! `verify --input`: the same check on a user's own q, k and v.

use std::collections::BTreeMap;
use std::path::Path;

use fulgurite::{DeviceFacts, Dtype, Mask};
use half::{bf16, f16};
use reference::forward::values::Inputs;
use reference::tensor::Tensor;
use safetensors::{Dtype as FileDtype, SafeTensors, tensor::TensorView};

use super::cases::ForwardCase;
use super::judge::Given;
use crate::call::Call;
use crate::case::check;
use crate::device::Device;
use crate::emulator::Emulated;
use crate::gpu::Gpu;
use crate::report::{Record, Tally, Who};
use crate::verify::Options;

/// One tensor of the file: shape (batch, head, row, head dim) and values.
struct FileTensor {
    shape: [usize; 4],
    values: Vec<f32>,
}

/// Reads the file and checks every set of q, k and v in it.
///
/// # Errors
/// A message if the file cannot be read or holds no such set.
pub fn verify(
    path: &Path,
    options: &Options,
    gpu: Option<&Gpu>,
    tally: &mut Tally,
) -> Result<(), String> {
    let at = |reason: String| format!("{}: {reason}", path.display());
    let bytes = std::fs::read(path).map_err(|error| at(error.to_string()))?;
    let sets = read_sets(&bytes).map_err(at)?;
    if gpu.is_none() {
        println!("The emulator runs what is small enough for it.");
    }
    let emulated = Emulated::new(options.seeds());
    let mut records = Vec::new();
    for (name, [q, k, v]) in &sets {
        for dtype in [Dtype::Bf16, Dtype::F16] {
            let tensor = |t: &FileTensor| Tensor::new(dtype, t.shape, t.values.iter().copied());
            let inputs = Inputs { q: tensor(q), k: tensor(k), v: tensor(v) };
            for mask in [Mask::Full, Mask::Causal] {
                let case = case(name, q.shape, k.shape, (dtype, mask));
                let entry = entry_of(&case).map_err(at)?;
                if !options.wants(entry, &case.name) {
                    continue;
                }
                let given = Given { case, inputs: inputs.clone(), entry };
                let device = gpu.map_or(&emulated as &dyn Device, |gpu| gpu as &dyn Device);
                records.push(Record::of(&given, check(&given, device)));
            }
        }
    }
    tally.add_records(gpu.map_or(Who::Emulator, |gpu| Who::Gpu(gpu.name())), records);
    Ok(())
}

/// The kernel that a plan chooses.
fn entry_of(case: &ForwardCase) -> Result<&'static str, String> {
    let plan = case.call().plan(&DeviceFacts::h200());
    let plan = plan.map_err(|error| format!("{}: {error}", case.name))?;
    plan.entry.ok_or_else(|| format!("{}: planned as no work", case.name))
}

fn case(name: &str, q: [usize; 4], kv: [usize; 4], kind: (Dtype, Mask)) -> ForwardCase {
    let [batch, q_heads, q_len, head_dim] = q;
    ForwardCase::chosen(name, kind, batch, (q_heads, kv[1]), (q_len, kv[2]), head_dim)
}

/// All sets of q, k and v in a file, by the name in front of them.
fn read_sets(bytes: &[u8]) -> Result<BTreeMap<String, [FileTensor; 3]>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let mut sets = BTreeMap::new();
    for name in file.names() {
        let prefix = match name.strip_suffix('q') {
            Some(prefix) if prefix.is_empty() || prefix.ends_with('.') => prefix,
            _ => continue,
        };
        let tensor = |part: &str| {
            let name = format!("{prefix}{part}");
            let view = file.tensor(&name).map_err(|error| format!("tensor {name}: {error}"))?;
            read_tensor(&view).map_err(|reason| format!("tensor {name}: {reason}"))
        };
        let title = if prefix.is_empty() { "input" } else { prefix.trim_end_matches('.') };
        sets.insert(title.to_owned(), [tensor("q")?, tensor("k")?, tensor("v")?]);
    }
    if sets.is_empty() {
        let names = file.names().iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let names = names.join(", ");
        return Err(format!("no tensors named q, k, v or <prefix>.q, ...; it has: {names}"));
    }
    Ok(sets)
}

fn read_tensor(view: &TensorView) -> Result<FileTensor, String> {
    let shape = match *view.shape() {
        [batch, heads, rows, head_dim] => [batch, heads, rows, head_dim],
        [heads, rows, head_dim] => [1, heads, rows, head_dim],
        ref other => {
            return Err(format!(
                "shape {other:?}: [batch, heads, rows, head_dim] or [heads, rows, head_dim] is read"
            ));
        }
    };
    let data = view.data();
    let pairs = || data.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let values = match view.dtype() {
        FileDtype::F32 => {
            data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
        FileDtype::F16 => pairs().map(|bits| f16::from_bits(bits).to_f32()).collect(),
        FileDtype::BF16 => pairs().map(|bits| bf16::from_bits(bits).to_f32()).collect(),
        other => return Err(format!("type {other:?}: F32, F16 and BF16 are read")),
    };
    Ok(FileTensor { shape, values })
}
