use std::fs;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// A machine whose programs write down how they were called, and do as told.
struct Machine {
    directory: tempfile::TempDir,
    means: Means,
}

impl Machine {
    /// As root on Debian, with these programs: (name, what it does after writing down the call).
    fn with(programs: &[(&str, &str)]) -> Machine {
        let directory = tempfile::tempdir().expect("temporary directories can be made");
        for (name, body) in [("id", "echo 0")].iter().chain(programs) {
            let path = directory.path().join(name);
            let log = directory.path().join("log").display().to_string();
            let text =
                format!("#!/bin/sh\nPATH=/usr/bin:/bin\necho {name} \"$@\" >>'{log}'\n{body}\n");
            fs::write(&path, text).expect("a file of our own");
            fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("it is ours");
        }
        let path = directory.path().as_os_str().to_owned();
        let means = Means { path, policy: Policy::Auto, rustup_may: true, debian: true };
        Machine { directory, means }
    }

    fn install(&self, answers: Option<&str>) -> Result<()> {
        let mut terminal = answers.map(|text| Cursor::new(text.as_bytes().to_vec()));
        install(&Source::ALL, &self.means, terminal.as_mut().map(|text| text as &mut dyn BufRead))
    }

    /// The calls that change something.
    fn calls(&self) -> Vec<String> {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let asks = |call: &&str| call.ends_with("--version") || call.starts_with("id");
        log.lines().filter(|call| !asks(call)).map(str::to_string).collect()
    }
}

const TARGET_CALL: &str = "rustup target add nvptx64-nvidia-cuda";
const SOURCE_CALL: &str = "rustup component add rust-src";
const UPDATE_CALL: &str = "apt-get --quiet --yes -o DPkg::Lock::Timeout=600 update";
const INSTALL_CALL: &str = "apt-get --quiet --yes -o DPkg::Lock::Timeout=600 install \
                            --no-install-recommends rustc-web rust-web-src";

#[test]
fn the_users_own_way_comes_before_the_systems() {
    let machine = Machine::with(&[("rustup", ""), ("apt-get", "")]);
    machine.install(None).expect("rustup does it");
    assert_eq!(machine.calls(), [TARGET_CALL]);
}

#[test]
fn a_way_that_fails_is_followed_by_the_next() {
    let fails = "case \"$1\" in --version) ;; *) echo no network >&2; exit 1 ;; esac";
    let machine = Machine::with(&[("rustup", fails), ("apt-get", "")]);
    machine.install(None).expect("apt-get does it");
    assert_eq!(machine.calls(), [TARGET_CALL, SOURCE_CALL, UPDATE_CALL, INSTALL_CALL]);

    let machine = Machine::with(&[("rustup", fails)]);
    let error = machine.install(None).expect_err("nothing can do it").to_string();
    assert!(error.contains("rustup target add nvptx64-nvidia-cuda failed"), "{error}");
    assert!(error.contains("Run one of these"), "{error}");
}

#[test]
fn rustup_is_left_alone_if_the_user_wants_that() {
    let mut machine = Machine::with(&[("rustup", ""), ("apt-get", "")]);
    machine.means.rustup_may = false;
    machine.install(None).expect("apt-get does it");
    assert_eq!(machine.calls(), [UPDATE_CALL, INSTALL_CALL]);
}

#[test]
fn nothing_is_installed_against_the_users_will() {
    let mut machine = Machine::with(&[("rustup", ""), ("apt-get", "")]);
    machine.means.policy = Policy::Never;
    let error = machine.install(Some("y\ny\ny\n")).expect_err("it is forbidden").to_string();
    assert!(error.contains("FULGURITE_INSTALL=auto"), "{error}");
    machine.means.policy = Policy::Ask;
    machine.install(None).expect_err("nobody can be asked");
    machine.install(Some("n\n\n")).expect_err("the answer was no, or none");
    assert_eq!(machine.calls(), Vec::<String>::new());
    machine.install(Some("no\nYes\n")).expect("the second way was allowed");
    assert_eq!(machine.calls(), [SOURCE_CALL]);
}

#[test]
fn locks_are_waited_for() {
    // The first update finds the lists locked, as beside an unattended upgrade.
    let locked = r#"case "$*" in *update)
        test -e "${0%/*}/seen" || {
            : >"${0%/*}/seen"
            echo 'E: Could not get lock /var/lib/apt/lists/lock' >&2
            exit 100
        } ;;
    esac"#;
    let machine = Machine::with(&[("apt-get", locked)]);
    machine.install(None).expect("the lock goes away");
    assert_eq!(machine.calls(), [UPDATE_CALL, UPDATE_CALL, INSTALL_CALL]);

    let broken = "case \"$*\" in *update) echo 'E: no network' >&2; exit 100 ;; esac";
    let machine = Machine::with(&[("apt-get", broken)]);
    let error = machine.install(None).expect_err("that is no lock").to_string();
    assert!(error.contains("E: no network"), "{error}");
    assert_eq!(machine.calls(), [UPDATE_CALL]);
}

#[test]
fn policies_are_read_back() {
    for policy in Policy::ALL {
        assert_eq!(Policy::from_name(policy.name()).expect("its own name"), policy);
    }
    let error = Policy::from_name("maybe").expect_err("no such policy").to_string();
    assert!(error.contains("auto, ask, never"), "{error}");
}
