//! How far something is: a bar on a terminal, a line every ten seconds on anything else.

use indicatif::{ProgressBar, ProgressStyle};
use output::Pulse;

/// A number of steps, each with a message.
pub struct Steps {
    bar: ProgressBar,
    pulse: Option<Pulse>,
}

impl Steps {
    /// So many steps.
    pub fn new(count: usize) -> Steps {
        let bar = ProgressBar::new(count as u64).with_style(
            ProgressStyle::with_template("  {bar:40} {pos}/{len} {elapsed} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        let seen = bar.clone();
        let pulse =
            Pulse::of(move || format!("{} of {count} done, {}", seen.position(), seen.message()));
        Steps { bar, pulse: Some(pulse) }
    }

    /// What is being done.
    pub fn at(&self, message: String) {
        self.bar.set_message(message);
    }

    /// One step is done.
    pub fn done(&self) {
        self.bar.inc(1);
    }

    /// Prints something without disturbing the bar.
    pub fn print(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    /// No more is shown, however many steps are left.
    pub fn end(&mut self) {
        self.bar.finish_and_clear();
        self.pulse = None;
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.end();
    }
}
