//! Ours beside the peers': who is best in a cell, and how we compare.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::Range;
use super::grid::{Cell, DtypeName};
use super::measurement::{Called, MATMUL, Measurement, OURS};

/// The fastest peer of each call. Of calls that quantise, look for
/// [`Called::without_quantising`]: that is how peers are timed.
pub fn best(all: &[Measurement]) -> BTreeMap<Called, Measurement> {
    let mut best: BTreeMap<Called, Measurement> = BTreeMap::new();
    let others = all.iter().filter(|peer| peer.peer != OURS);
    for (called, peer) in others.filter_map(|peer| Some((peer.called()?, peer))) {
        if best.get(&called).is_none_or(|so_far| peer.tflops > so_far.tflops) {
            best.insert(called, peer.clone());
        }
    }
    best
}

/// Our speed over the best peer's, summed up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratios {
    /// Cells that both have.
    pub cells: usize,
    /// Geometric mean.
    pub geometric_mean: f64,
    /// The smallest.
    pub least: f64,
}

/// Sums up ratios; none if there are none.
pub fn sum_up(ratios: &[f64]) -> Option<Ratios> {
    let least = ratios.iter().copied().reduce(f64::min)?;
    Some(Ratios { cells: ratios.len(), geometric_mean: geometric_mean(ratios), least })
}

/// The geometric mean of numbers, of which there is one at least.
pub fn geometric_mean(numbers: &[f64]) -> f64 {
    (numbers.iter().map(|number| number.ln()).sum::<f64>() / numbers.len() as f64).exp()
}

/// Our ratios to the best peers in the cells of plain calls that `counts` takes.
pub fn ratios(
    all: &[Measurement],
    best: &BTreeMap<Called, Measurement>,
    counts: impl Fn(&Cell) -> bool,
) -> Vec<f64> {
    let ours = all.iter().filter(|time| time.peer == OURS);
    let ratio = |time: &Measurement| {
        let cell = time.cell().filter(&counts)?;
        Some(time.tflops / best.get(&Called::plain(cell))?.tflops)
    };
    ours.filter_map(ratio).collect()
}

/// What cuBLAS had for its matrix products in TFLOP/s, over the run: the GPU lowers its clock for
/// them as for everything, so that it is no bound.
pub fn cublas(all: &[Measurement]) -> Option<Range> {
    Range::of(all.iter().filter(|time| time.kind == MATMUL).map(|time| time.tflops))
}

/// The peers that have other calls of a dtype, but not this one, for each of our calls that lacks
/// one; the calls are those [`Called::without_quantising`].
pub fn missing<'a>(all: &'a [Measurement]) -> BTreeMap<Called, Vec<&'a str>> {
    let mut of_call: BTreeMap<Called, BTreeSet<&str>> = BTreeMap::new();
    let mut of_dtype: BTreeMap<DtypeName, BTreeSet<&'a str>> = BTreeMap::new();
    for (called, time) in all.iter().filter_map(|time| Some((time.called()?, time))) {
        of_dtype.entry(called.cell.dtype).or_default().insert(&time.peer);
        of_call.entry(called.without_quantising()).or_default().insert(&time.peer);
    }
    let ours = of_call.into_iter().filter(|(_, there)| there.contains(OURS));
    let lacking = |(called, there): (Called, BTreeSet<&'a str>)| {
        let everyone = &of_dtype[&called.cell.dtype];
        let lacking: Vec<&'a str> = everyone.difference(&there).copied().collect();
        (!lacking.is_empty()).then_some((called, lacking))
    };
    ours.filter_map(lacking).collect()
}
