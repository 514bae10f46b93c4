//! Something that takes long says so, also where nobody draws a bar.

use std::sync::mpsc::{self, RecvError};
use std::time::Duration;

use tests::progress::Pulse;

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
