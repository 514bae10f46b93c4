//! What takes long says so, also where nobody draws a bar; long texts fit.

use std::sync::mpsc::{self, RecvError};
use std::time::Duration;

use output::{Pulse, WIDTH, wrapped};

#[test]
fn a_pulse_speaks_until_it_is_dropped() {
    let (said, heard) = mpsc::channel();
    let pulse = Pulse::every(Duration::from_millis(2), move || said.send(()).unwrap_or(()));
    for _ in 0..3 {
        heard.recv().expect("it speaks again and again");
    }
    drop(pulse);
    while heard.try_recv().is_ok() {}
    assert_eq!(heard.recv(), Err(RecvError), "its thread has ended");
}

#[test]
fn long_texts_are_broken_at_spaces() {
    let text = "no NVIDIA driver: libcuda.so: cannot open shared object file; ".repeat(5);
    let lines = wrapped(&text, WIDTH);
    assert!(lines.len() > 2 && lines.iter().all(|line| line.chars().count() <= WIDTH));
    assert_eq!(lines.join(" "), text.trim_end());
    assert_eq!(wrapped("a longer-word b", 5), ["a", "longer-word", "b"]);
}
