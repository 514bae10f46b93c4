//! A batch entry's results have the same bits alone and in any company, wherever its tensors lie.

use fulgurite::internals::{VARIANTS, VARIANTS_8BIT, VARIANTS_SM80, Variant};
use reference::forward::values::{Inputs, Poison};
use reference::tensor::Tensor;

use super::cases::ForwardCase;
use super::judge::{Results, run};
use crate::case::Summary;
use crate::device::Device;
use crate::memory::Arrangement;

/// Batch entries of the call that is compared.
const ENTRIES: usize = 4;

/// Runs every variant of some entries on a call whose rows settle.
///
/// # Errors
/// A message that names what differs, or why it could not be run.
pub fn every(entries: &[&str], device: &dyn Device) -> Result<(), String> {
    let one = |variant: &Variant| {
        same_alone(variant, (4, 2), (130, 1150), device)
            .map_err(|reason| format!("{}: {reason}", variant.entry))
    };
    let all = VARIANTS.iter().chain(VARIANTS_SM80).chain(VARIANTS_8BIT);
    all.filter(|variant| entries.contains(&variant.entry)).try_for_each(one)
}

/// Computes four batch entries, the first with a NaN in a row of q: in order, in reverse, and the
/// other three alone, each time laid out in another way.
///
/// # Errors
/// A message that names what differs, or why it could not be run.
pub fn same_alone(
    variant: &Variant,
    heads: (usize, usize),
    lengths: (usize, usize),
    device: &dyn Device,
) -> Result<(), String> {
    let case = ForwardCase::new("in company", variant, ENTRIES, heads, lengths);
    let mut inputs = case.clean_inputs();
    Poison::RowNan.plant(&mut inputs);
    let results = |arrangement, entries: &[usize]| -> Result<Results, String> {
        let mut case = ForwardCase::new("in company", variant, entries.len(), heads, lengths);
        case.arrangement = arrangement;
        run(&case, &chosen(&inputs, entries), device).map_err(Summary::reason)
    };
    let together = results(Arrangement::Bshd, &[0, 1, 2, 3])?;
    let reversed = results(Arrangement::Sbhd, &[3, 2, 1, 0])?;
    for entry in 1..ENTRIES {
        let want = bits_of(&together, entry);
        if bits_of(&reversed, ENTRIES - 1 - entry) != want {
            return Err(format!("entry {entry} has other bits in another order"));
        }
    }
    for (entry, arrangement) in [(1, Arrangement::Bhsd), (3, Arrangement::Padded)] {
        if bits_of(&results(arrangement, &[entry])?, 0) != bits_of(&together, entry) {
            return Err(format!("entry {entry} has other bits alone"));
        }
    }
    Ok(())
}

/// Some entries of the inputs, in this order.
fn chosen(inputs: &Inputs, entries: &[usize]) -> Inputs {
    let part = |tensor: &Tensor| {
        let [_, heads, rows, head_dim] = tensor.layout.shape;
        let size = heads * rows * head_dim;
        let bits = entries.iter().flat_map(|entry| &tensor.bits[entry * size..(entry + 1) * size]);
        let shape = [entries.len(), heads, rows, head_dim];
        Tensor::from_bits(tensor.layout.dtype, shape, bits.copied().collect())
    };
    Inputs { q: part(&inputs.q), k: part(&inputs.k), v: part(&inputs.v) }
}

/// The bits of one entry of the results.
fn bits_of((out, lse): &Results, entry: usize) -> (Vec<u16>, Vec<u32>) {
    let size = out.bits.len() / out.layout.shape[0];
    let lse = lse.as_deref().unwrap_or_default();
    let rows = lse.len() / out.layout.shape[0];
    let lse = lse[entry * rows..(entry + 1) * rows].iter().map(|value| value.to_bits());
    (out.bits[entry * size..(entry + 1) * size].to_vec(), lse.collect())
}
