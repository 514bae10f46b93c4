//! Signs of life where no bar shows them.

use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::WIDTH;

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
