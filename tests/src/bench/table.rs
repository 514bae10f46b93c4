//! What `bench` prints at its end.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use super::grid::{Cell, DtypeName};
use super::measurement::{Measurement, OURS};
use super::{first_use, peers};

/// Prints our times beside the best peers', and what follows from them.
pub fn print(all: &[Measurement]) {
    println!("{}", table(all));
    for line in summary(all) {
        println!("{line}");
    }
}

fn table(all: &[Measurement]) -> Table {
    let (best, ceiling) = (peers::best(all), peers::ceiling(all));
    let mut table = Table::new();
    let heads = ["cell", "batch", "heads", "ms", "TFLOP/s", "of ceiling"];
    let peer_heads = ["best peer", "its TFLOP/s", "ratio"];
    table.load_preset(UTF8_FULL_CONDENSED).set_header(heads.into_iter().chain(peer_heads));
    for time in all.iter().filter(|time| time.peer == OURS) {
        let Some(cell) = time.cell() else { continue };
        let mut row = vec![
            cell.to_string(),
            cell.batch.to_string(),
            cell.heads.to_string(),
            format!("{:.4}", time.ms),
            format!("{:.1}", time.tflops),
            ceiling.map_or_else(String::new, |top| format!("{:.3}", time.tflops / top)),
        ];
        if let Some(peer) = best.get(&cell) {
            row.push(peer.peer.clone());
            row.push(format!("{:.1}", peer.tflops));
            row.push(format!("{:.3}", time.tflops / peer.tflops));
        }
        table.add_row(row);
    }
    for column in [1, 2, 3, 4, 5, 7, 8] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The headline of each element type, the other cells, the ceiling, errors and first uses.
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
    for dtype in [DtypeName::Bf16, DtypeName::F16] {
        sum_up(dtype.to_string(), &|cell| cell.dtype == dtype && cell.is_main());
        sum_up(format!("{dtype}, other cells"), &|cell| cell.dtype == dtype && !cell.is_main());
    }
    if let Some(top) = peers::ceiling(all) {
        lines.push(format!("ceiling (cuBLAS, bf16, square matrices): {top:.1} TFLOP/s"));
    }
    lines.extend(worst_error(all));
    lines.extend(first_use::summary(all));
    lines
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
