//! A record as text: its section of the page.

use std::fmt::Write;

use super::facts::Facts;
use super::grid::{Cell, DtypeName};
use super::measurement::{Called, Measurement, OURS};
use super::record::{self, Origin};
use super::{peers, table};

/// Where the records are in a checkout.
pub(super) const RECORDS: &str = "xtask/record";

/// A record's section of the page.
pub fn markdown(facts: &Facts, all: &[Measurement]) -> String {
    let Origin { date, commit, gpu, driver } = &facts.origin;
    let stem = format!("{RECORDS}/{}/{date}-{commit}", record::folder(gpu));
    let processes = match facts.runs.len() {
        0 | 1 => "one process in which".to_owned(),
        count => format!("{count} processes, in each of which"),
    };
    let mut names: Vec<&str> =
        all.iter().filter_map(|row| row.cell().map(|_| &*row.peer)).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| *name != OURS);
    let mut text = format!(
        "One {gpu} (driver {driver}), commit `{commit}`, {date}, {processes} all took \
         turns:\n16384 tokens, hidden size 2048, `[b, s, h, d]`, random normal data. Cells: our \
         TFLOP/s, and in brackets the\nratio to the best of {} in that cell.\n\n",
        names.join(", ")
    );
    for line in table::summary(all) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "* {line}");
    }
    let _ = writeln!(text, "* {}", behind(all));
    for dtype in DtypeName::ALL {
        text += &grid(dtype, all);
    }
    text += &others(all);
    let drawn = |dtype: &DtypeName| all.iter().any(|row| row.is_main(*dtype));
    if let Some(dtype) = DtypeName::ALL.into_iter().find(drawn) {
        let picture = record::picture(dtype);
        let _ = write!(text, "\n![TFLOP/s of forward attention]({stem}{picture})\n");
    }
    let _ = write!(
        text,
        "\nRecord: [ours beside the best \
         peer]({stem}.csv), [every time]({stem}-all.csv), [versions, clocks, what is \
         missing]({stem}.json).\n"
    );
    text
}

/// Cells that are named in a sentence at most.
const NAMED: usize = 24;

/// The cells in which a peer is faster.
fn behind(all: &[Measurement]) -> String {
    let best = peers::best(all);
    let lost = all.iter().filter(|time| time.peer == OURS).filter_map(|time| {
        let cell = time.cell()?;
        let peer = best.get(&Called::plain(cell))?;
        let ratio = time.tflops / peer.tflops;
        (ratio < 1.0).then(|| format!("{cell} ({ratio:.3} of {})", peer.peer))
    });
    let lost: Vec<String> = lost.collect();
    match lost.len() {
        0 => "ahead of the best peer in every cell".to_owned(),
        // So many are a table's matter, which has them all.
        count if count > NAMED => format!("behind the best peer in {count} cells"),
        count => format!("behind the best peer in {count} cells: {}", lost.join(", ")),
    }
}

fn length_name(length: usize) -> String {
    if length.is_multiple_of(1024) { format!("{}k", length / 1024) } else { length.to_string() }
}

/// One table: the grid of an element type.
fn grid(dtype: DtypeName, all: &[Measurement]) -> String {
    let ours = ours(all, |cell| cell.dtype == dtype && cell.is_main());
    let mut lengths: Vec<usize> = ours.iter().map(|(cell, _)| cell.q_len).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let mut rows: Vec<_> = ours.iter().map(|(cell, _)| (cell.head_dim, cell.causal)).collect();
    rows.dedup();
    if rows.is_empty() {
        return String::new();
    }
    let names: Vec<String> = lengths.iter().map(|&length| length_name(length)).collect();
    let mut text = format!("\n| {dtype} | {} |\n", names.join(" | "));
    text += &format!("|---|{}\n", "---|".repeat(lengths.len()));
    for (head_dim, causal) in rows {
        let mask = if causal { "causal" } else { "full" };
        text += &format!("| head dim {head_dim} {mask} |");
        for &length in &lengths {
            let wanted = Cell::new(dtype, head_dim, causal, length);
            let found = ours.iter().find(|(cell, _)| *cell == wanted);
            text += &format!(" {} |", found.map_or("", |(_, speed)| speed));
        }
        text += "\n";
    }
    text
}

/// One table, folded: the cells that the headline does not count.
fn others(all: &[Measurement]) -> String {
    let ours = ours(all, |cell| !cell.is_main());
    if ours.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "\n<details><summary>{} other cells: head dims 96 and 192, unequal lengths, grouped heads, \
         long and short sequences</summary>\n\n| cell | TFLOP/s (ratio) |\n|---|---|\n",
        ours.len()
    );
    for (cell, speed) in ours {
        text += &format!("| {cell} | {speed} |\n");
    }
    text + "\n</details>\n"
}

/// Our cells of a kind, each with its speed and ratio.
fn ours(all: &[Measurement], counts: impl Fn(&Cell) -> bool) -> Vec<(Cell, String)> {
    let best = peers::best(all);
    let speed = |time: &Measurement| {
        let cell = time.cell().filter(&counts)?;
        let ratio = best.get(&Called::plain(cell)).map(|peer| time.tflops / peer.tflops);
        let ratio = ratio.map_or_else(String::new, |ratio| format!(" ({ratio:.2})"));
        Some((cell, format!("{:.0}{ratio}", time.tflops)))
    };
    all.iter().filter(|time| time.peer == OURS).filter_map(speed).collect()
}
