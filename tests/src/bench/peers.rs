//! Ours beside the peers': who is best in a cell, and how we compare.

use std::collections::BTreeMap;

use super::grid::Cell;
use super::measurement::{MATMUL, Measurement, OURS};

/// The fastest peer of each cell.
pub fn best(all: &[Measurement]) -> BTreeMap<Cell, Measurement> {
    let mut best: BTreeMap<Cell, Measurement> = BTreeMap::new();
    let others = all.iter().filter(|peer| peer.peer != OURS);
    for (cell, peer) in others.filter_map(|peer| Some((peer.cell()?, peer))) {
        if best.get(&cell).is_none_or(|so_far| peer.tflops > so_far.tflops) {
            best.insert(cell, peer.clone());
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

/// Our ratios to the best peers in the cells that `counts` takes.
pub fn ratios(
    all: &[Measurement],
    best: &BTreeMap<Cell, Measurement>,
    counts: impl Fn(&Cell) -> bool,
) -> Vec<f64> {
    let ours = all.iter().filter(|time| time.peer == OURS);
    let ratio = |time: &Measurement| {
        let cell = time.cell().filter(&counts)?;
        Some(time.tflops / best.get(&cell)?.tflops)
    };
    ours.filter_map(ratio).collect()
}

/// The run's ceiling in TFLOP/s: the median of its matrix products.
pub fn ceiling(all: &[Measurement]) -> Option<f64> {
    let products = all.iter().filter(|time| time.kind == MATMUL);
    let mut tflops: Vec<f64> = products.map(|time| time.tflops).collect();
    tflops.sort_by(f64::total_cmp);
    tflops.get(tflops.len() / 2).copied()
}
