//! What the demo prints.

use std::fmt::Write;

use output::{WIDTH, wrapped};

use crate::{Activity, Computed, Demo, Race, Scheduled, Timeline};

/// Columns of a timeline's rows.
const TIMELINE: usize = 84;

/// Whether text has colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Text alone.
    Plain,
    /// With the escape codes of a terminal.
    Colored,
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Style::Plain => text.to_owned(),
            Style::Colored => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }

    fn title(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// A row of a timeline.
    fn letters(self, row: &str) -> String {
        let code = |letter: char| match letter {
            'L' => "33",
            'S' => "34",
            'O' => "36",
            'x' => "31",
            'w' => "32",
            _ => "2",
        };
        row.chars().map(|letter| self.paint(code(letter), &letter.to_string())).collect()
    }
}

impl Demo {
    /// The text, in [`WIDTH`] columns.
    pub fn text(&self, style: Style) -> String {
        let parts = [
            computed(&self.computed, style),
            schedules(&self.schedules, style),
            race(&self.race, style),
            timeline(&self.timeline, style),
        ];
        let seconds = self.took.as_secs_f64();
        format!(
            "{}\nAll of this ran on the CPU in {seconds:.1} s. Next: `cargo xtask verify` (every \
             kernel, on a GPU if\nthere is one), `cargo xtask bench` (needs a GPU), `cargo run -p \
             fulgurite --example basic`.\n",
            parts.join("\n")
        )
    }
}

fn computed(computed: &Computed, style: Style) -> String {
    let Computed { case, threads: [threads, blocks], stats, error, unavoidable, .. } = computed;
    let entry = case.variant.map_or("", |variant| variant.entry);
    let mut text = style.title("1. A kernel for Hopper GPUs computes on this CPU") + "\n";
    let (heads, kv_heads) = case.heads;
    let _ = writeln!(
        text,
        "   {entry}: {heads} query heads, {kv_heads} KV head, {} queries, {} keys, causal.\n   \
         The emulator ran its Rust source: {blocks} blocks of {threads} threads, {} tensor core \
         products,\n   {} TMA copies.\n\n   {:>5} {:>7} {:>13} {:>22} {:>12}",
        case.q_len,
        case.kv_len,
        stats.products,
        stats.copies,
        "row",
        "column",
        "kernel, bf16",
        "reference, float64",
        "difference"
    );
    for (row, column, got, exact) in &computed.shown {
        let off = f64::from(*got) - exact;
        let _ = writeln!(text, "   {row:>5} {column:>7} {got:>13.7} {exact:>22.15} {off:>12.1e}");
    }
    let elements = heads * case.q_len * case.head_dim;
    let _ = writeln!(
        text,
        "\n   Of {elements} elements: largest error {}, relative error {}.\n   What 16 bits cost \
         anyway (a model of FlashAttention-2's rounding): {:.2e}, {:.2e}.",
        style.good(&format!("{:.2e}", error.largest)),
        style.good(&format!("{:.2e}", error.rms)),
        unavoidable.largest,
        unavoidable.rms
    );
    text
}

fn schedules(all: &[Scheduled], style: Style) -> String {
    let mut text = style.title("2. The same bits under three schedules") + "\n";
    let kinds = ["round robin", "random", "random, by priorities"];
    for (Scheduled { seed, steps, hash }, kind) in all.iter().zip(kinds) {
        let hash = style.good(&format!("{hash:016x}"));
        let _ = writeln!(text, "   seed {seed}  {kind:<22} {steps} steps   bits {hash}");
    }
    text +=
        "   A seed is an order in which warps, copies and products take turns; it replays a run.\n";
    text
}

fn race(race: &Race, style: Style) -> String {
    let mut text = style.title("3. A planted race is caught and named") + "\n";
    let place = format!("{}:{}", race.site.file, race.site.line);
    let _ = writeln!(text, "   Taken out: the producer's wait for an empty buffer of V.");
    let _ = writeln!(text, "     {place}");
    let _ = writeln!(text, "     {}", race.line.as_deref().unwrap_or_default());
    let _ = writeln!(text, "   The emulator:");
    let fault = race.fault.to_string();
    for line in wrapped(&fault, WIDTH - 5) {
        let _ = writeln!(text, "     {}", style.bad(&line));
    }
    text
}

fn timeline(timeline: &Timeline, style: Style) -> String {
    let mut text = style.title("4. What the warpgroups of a block do") + "\n";
    for (number, row) in timeline.letters(TIMELINE).iter().enumerate() {
        let name = match number {
            0 => "producer".to_owned(),
            number => format!("consumer {number}"),
        };
        let _ = writeln!(text, "   {name:<10} {}", style.letters(row));
    }
    let key = |activity: Activity| {
        let letter = style.letters(&activity.letter().to_string());
        format!("{letter} {}", activity.name())
    };
    let keys = Activity::SHOWN.map(key);
    let steps = timeline.steps;
    let _ = writeln!(text, "   {}", keys[..5].join("   "));
    let _ =
        writeln!(text, "   {}   (steps 0 to {steps} of block 0, no times)", keys[5..].join("   "));
    text
}
