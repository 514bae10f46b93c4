//! How far something is: a bar on a terminal, a line every ten seconds on anything else.

use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::WIDTH;

/// How long nothing may be said.
const SILENCE: Duration = Duration::from_secs(10);

/// Says every ten seconds that something goes on, until it is dropped. On a terminal the user sees
/// that it does.
pub struct Pulse(Option<(Sender<()>, JoinHandle<()>)>);

impl Pulse {
    /// Says what `what` gives.
    pub fn of(what: impl Fn() -> String + Send + 'static) -> Pulse {
        if std::io::stderr().is_terminal() {
            return Pulse(None);
        }
        let start = Instant::now();
        Pulse::every(SILENCE, move || {
            let line = format!("  {} s: {}", start.elapsed().as_secs(), what());
            eprintln!("{}", line.chars().take(WIDTH).collect::<String>());
        })
    }

    /// Says a text.
    pub fn text(what: &'static str) -> Pulse {
        Pulse::of(move || what.to_owned())
    }

    /// Calls `say` whenever so much time has passed.
    pub fn every(interval: Duration, say: impl Fn() + Send + 'static) -> Pulse {
        let (stop, stopped) = mpsc::channel();
        let again = move || stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout);
        let thread = thread::spawn(move || {
            while again() {
                say();
            }
        });
        Pulse(Some((stop, thread)))
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.0.take() {
            drop(stop);
            // A panic in it has been told.
            let _ = thread.join();
        }
    }
}

/// A number of steps, each with a message.
pub struct Steps {
    bar: ProgressBar,
    pulse: Pulse,
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
        Steps { bar, pulse }
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
        self.pulse = Pulse(None);
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.end();
    }
}
