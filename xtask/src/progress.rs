//! Progress on a terminal; on anything else only the lines that are worth keeping, and now and then
//! one that says that something still goes on.

use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::WIDTH;

const TICK: Duration = Duration::from_millis(200);

/// How long nothing may be said.
const SILENCE: Duration = Duration::from_secs(10);

/// Says every ten seconds that something goes on, until it is dropped. On a terminal it says
/// nothing: there cargo and [`Progress`] show it.
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
            eprintln!("{}", line.chars().take(usize::from(WIDTH)).collect::<String>());
        })
    }

    fn every(interval: Duration, say: impl Fn() + Send + 'static) -> Pulse {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pulse_speaks_until_it_is_dropped() {
        let (said, heard) = mpsc::channel();
        let pulse = Pulse::every(Duration::from_millis(2), move || said.send(()).unwrap_or(()));
        for _ in 0..3 {
            heard.recv().expect("it speaks again and again");
        }
        drop(pulse);
        while heard.try_recv().is_ok() {}
        assert_eq!(heard.recv(), Err(mpsc::RecvError), "its thread has ended");
    }
}
