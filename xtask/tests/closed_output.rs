//! A closed output ends the builder without a word.

use std::process::Command;

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let (reader, writer) = std::io::pipe().expect("pipes can be made");
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["tiles", "--head-dim", "64", "--list"])
        .stdout(writer)
        .output()
        .expect("it can be started");
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
