//! What `bench` prints at its end.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table};
use output::{WIDTH, wrapped};

use super::facts::Range;
use super::grid::{Cell, DtypeName, Kind};
use super::measurement::{Measurement, OURS};
use super::{first_use, peers};

/// Our times beside the best peers', and what follows from them, in lines of [`WIDTH`] characters.
pub fn text(all: &[Measurement]) -> String {
    let mut text = format!("{}\n", table(all));
    for line in summary(all) {
        let mut lines = wrapped(&line, WIDTH - 2).into_iter();
        text += &lines.next().unwrap_or_default();
        text += &lines.map(|more| format!("\n  {more}")).collect::<String>();
        text += "\n";
    }
    text
}

fn table(all: &[Measurement]) -> Table {
    let (best, cublas) = (peers::best(all), peers::cublas(all));
    let mut table =
        output::table(["cell", "ms", "TFLOP/s", "cuBLAS", "best peer", "TFLOP/s", "ratio"]);
    for time in all.iter().filter(|time| time.peer == OURS) {
        let Some(called) = time.called() else { continue };
        let mut row = vec![
            called.to_string(),
            format!("{:.4}", time.ms),
            format!("{:.1}", time.tflops),
            cublas.map_or_else(String::new, |range| format!("{:.3}", time.tflops / range.median)),
        ];
        if let Some(peer) = best.get(&called.without_quantising()) {
            row.push(peer.peer.clone());
            row.push(format!("{:.1}", peer.tflops));
            row.push(format!("{:.3}", time.tflops / peer.tflops));
        }
        table.add_row(row);
    }
    for column in [1, 2, 3, 5, 6] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The headline of each element type, the other cells, who is missing where, cuBLAS, errors and
/// first uses.
pub fn summary(all: &[Measurement]) -> Vec<String> {
    let best = peers::best(all);
    let mut lines = Vec::new();
    let mut sum_up = |what: String, counts: &dyn Fn(&Cell) -> bool| {
        if let Some(sum) = peers::sum_up(&peers::ratios(all, &best, counts)) {
            let (cells, mean, least) = (sum.cells, sum.geometric_mean, sum.least);
            lines.push(format!(
                "{OURS} over the best peer, {what}, {cells} cells: geometric mean {mean:.3}, \
                 least {least:.3}"
            ));
        }
    };
    for (kind, dtype) in Kind::ALL.into_iter().flat_map(|kind| DtypeName::ALL.map(|it| (kind, it)))
    {
        let name = match kind {
            Kind::Forward => dtype.to_string(),
            kind => format!("{dtype} {}", kind.name()),
        };
        let is_own = |cell: &Cell| cell.dtype == dtype && cell.kind == kind;
        sum_up(name.clone(), &|cell| is_own(cell) && cell.forward().is_main());
        sum_up(format!("{name}, other cells"), &|cell| is_own(cell) && !cell.forward().is_main());
    }
    lines.extend(absences(all));
    if let Some(Range { least, median, most }) = peers::cublas(all) {
        lines.push(format!(
            "cuBLAS on square bf16 matrices, between the cells: {least:.1} to {most:.1} TFLOP/s, \
             median {median:.1}"
        ));
    }
    lines.extend(worst_error(all));
    lines.extend(first_use::summary(all));
    lines
}

/// A line for each peer that lacks cells which others have.
fn absences(all: &[Measurement]) -> Vec<String> {
    let mut cells_of: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let missing = peers::missing(all);
    for (called, peers) in &missing {
        peers.iter().for_each(|peer| cells_of.entry(peer).or_default().push(called.to_string()));
    }
    let line = |(peer, cells): (&str, Vec<String>)| {
        format!("without {peer}: {} cells ({})", cells.len(), cells.join(", "))
    };
    cells_of.into_iter().map(line).collect()
}

/// The largest error of ours relative to the least of the peers' in the same cell.
fn worst_error(all: &[Measurement]) -> Option<String> {
    let ours = all.iter().filter(|time| time.peer == OURS);
    let ratio = |time: &Measurement| {
        let cell = time.cell()?;
        let peers = all.iter().filter(|peer| peer.peer != OURS && peer.cell() == Some(cell));
        let least = peers.filter_map(|peer| peer.error).reduce(f64::min)?;
        Some((time.error? / least, cell))
    };
    let (ratio, cell) = ours.filter_map(ratio).max_by(|a, b| a.0.total_cmp(&b.0))?;
    Some(format!("error against float64: at most {ratio:.3} times the best peer's, at {cell}"))
}
