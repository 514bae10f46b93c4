//! What needs the program as a process of its own.

use std::process::Command;

use check::probes::process::Remote;

#[test]
fn a_process_that_ends_fails_one_probe() {
    // No machine has a device of this ordinal, so the process ends before it answers.
    let program = env!("CARGO_BIN_EXE_fulgurite-check").into();
    let mut remote = Remote::of(program, &["probes", "--device", "1000000"]);
    for title in ["probe_store None at [0, 0, 0, 0]", "probe_shuffles"] {
        let error = remote.run(title).expect_err("there is no such device");
        assert!(error.contains("it ended with"), "{error}");
    }
}

#[test]
fn a_first_use_gives_times_or_says_what_is_missing() {
    let program = env!("CARGO_BIN_EXE_fulgurite-check");
    let output = Command::new(program).arg("first-use").output().expect("it can be started");
    let (said, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        assert!(said.contains("from process start to first result"), "{said}");
    } else {
        let known = ["no NVIDIA driver", "no device", "compute capability", "not in this build"];
        assert!(known.iter().any(|text| error.contains(text)), "{error}");
        assert!(error.starts_with("error: "), "{error}");
    }
}
