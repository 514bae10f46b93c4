//! Cases only grow: each name that was ever among them stays, for as many kernels.
//!
//! `tests/golden/cases.txt` has a line for each list and name, with the number of its kernels.
//! `FULGURITE_BLESS=1 cargo test -p check --test names` adds what is new.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use check::probes::cases::all;
use check::verify::{every_case, every_emulated_case};
use fulgurite::Arch;

/// The number of kernels of a list's case, by both names.
type Counts = BTreeMap<String, usize>;

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/cases.txt")
}

/// What there is now.
fn counts() -> Counts {
    let mut counts = Counts::new();
    let mut add = |list: &str, name: &str| {
        *counts.entry(format!("{list}: {name}")).or_default() += 1;
    };
    every_case(Arch::Sm90).iter().for_each(|case| add("all", case.name()));
    every_emulated_case(Arch::Sm90).iter().for_each(|case| add("emulated", case.name()));
    all().iter().for_each(|probe| add("probe", &probe.title()));
    counts
}

/// Lines as `3 all: name`.
fn read(text: &str) -> Counts {
    let line = |line: &str| {
        let (count, name) = line.split_once(' ').expect("a count and a name");
        (name.to_owned(), count.parse().expect("a count"))
    };
    text.lines().map(line).collect()
}

/// What is there less often than it was.
fn lost(golden: &Counts, now: &Counts) -> Vec<String> {
    let there = |name: &str| now.get(name).copied().unwrap_or(0);
    let less = golden.iter().filter(|(name, count)| there(name) < **count);
    less.map(|(name, count)| format!("{name}: {} kernels, not {count}", there(name))).collect()
}

#[test]
fn no_case_is_lost() {
    let mut golden = read(&std::fs::read_to_string(file()).unwrap_or_default());
    let now = counts();
    if std::env::var_os("FULGURITE_BLESS").is_some() {
        for (name, count) in &now {
            let kept = golden.entry(name.clone()).or_default();
            *kept = (*kept).max(*count);
        }
        let text: String = golden.iter().map(|(name, count)| format!("{count} {name}\n")).collect();
        std::fs::write(file(), text).expect("it can be written");
    }
    assert!(golden.len() > 1000, "{} has {} cases", file().display(), golden.len());
    let lost = lost(&golden, &now);
    assert!(lost.is_empty(), "{} cases are lost:\n{}", lost.len(), lost.join("\n"));
}

#[test]
fn a_lost_name_and_a_lost_kernel_are_seen_and_new_ones_are_not() {
    let golden = read("2 all: one\n1 all: two\n");
    assert!(lost(&golden, &read("2 all: one\n3 all: two\n1 all: new\n")).is_empty());
    assert_eq!(lost(&golden, &read("2 all: one\n")), ["all: two: 0 kernels, not 1"]);
    assert_eq!(lost(&golden, &read("1 all: one\n1 all: two\n")), ["all: one: 1 kernels, not 2"]);
}
