//! Progress on a terminal; on anything else only the lines that are worth keeping, and now and then
//! one that says that something still goes on.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use output::Pulse;

const TICK: Duration = Duration::from_millis(200);

/// A step that takes a while.
pub struct Progress {
    bar: ProgressBar,
    _pulse: Pulse,
}

impl Progress {
    /// A step of unknown length.
    pub fn spinner(message: &str) -> Progress {
        Progress::new(ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}", message)
    }

    /// A step with a number of parts.
    pub fn bar(message: &str, part_count: usize) -> Progress {
        let bar = ProgressBar::new(part_count as u64);
        Progress::new(bar, "{spinner} {msg} {bar:30} {pos}/{len} {elapsed}", message)
    }

    fn new(bar: ProgressBar, template: &str, message: &str) -> Progress {
        // A template that does not parse would only cost the looks.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(message.to_string());
        bar.enable_steady_tick(TICK);
        let seen = bar.clone();
        let _pulse = Pulse::of(move || match seen.length() {
            Some(parts) => format!("{}: {} of {parts}", seen.message(), seen.position()),
            None => seen.message(),
        });
        Progress { bar, _pulse }
    }

    /// One part is done.
    pub fn advance(&self) {
        self.bar.inc(1);
    }

    /// Writes a line above the bar, on a terminal or not.
    pub fn note(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
