//! Records beside their facts: versions, clocks, who is missing; and records in several runs.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bench::facts::{Earlier, Facts, Run};
use bench::grid::{Cell, DtypeName};
use bench::measurement::{self, Measurement, OURS};
use bench::record::{self, Origin};
use bench::section;
use clap::Parser;

/// Options as the program reads them.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: bench::Options,
}

/// Runs `bench` on the six cells of head dim 128, causal, bf16, with a program in place of Python
/// that says `events`.
fn bench(directory: &Path, more: &[&str], events: &str) -> Result<bool, String> {
    let program = directory.join("python");
    let text = format!(
        "#!/bin/sh\nread -r job\necho \"$1\" >'{}'\ncat <<'EVENTS'\n{events}\nEVENTS\n",
        directory.join("started").display()
    );
    fs::write(&program, text).expect("it can be written");
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("it is ours");
    let program = program.display().to_string();
    let peers = directory.display().to_string();
    let head = ["bench", "--no-first-use", "--filter=d128 causal", "--dtype=bf16"];
    let paths = ["--peers-dir", &peers, "--library", &program, "--python", &program];
    let commit = if more.contains(&"--commit") { &[][..] } else { &["--commit", "0123abc"] };
    let words = head.iter().chain(&paths).chain(commit).chain(more);
    bench::run(&Cli::parse_from(words).options)
}

fn time(cell: usize, peer: &str) -> String {
    let who = format!(r#""event":"time","cell":{cell},"peer":"{peer}""#);
    format!(r#"{{{who},"ms":0.25,"calls":20,"late":0,"error":0.002}}"#)
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("temporary directories can be made")
}

/// What the harness says first. An event is one line: the others are joined.
fn head() -> String {
    let gpu = r#"{"event":"gpu","name":"NVIDIA H100 80GB HBM3","torch":"2.11",
"versions":{"cuda":"13.0","cudnn":"91900"}}"#
        .replace('\n', "");
    let origin = r#"{"event":"origin","peer":"fa3","origin":"xformers_fa3_C.so, 7 bytes"}"#;
    let absent = r#"{"event":"absent","peer":"fa4","reason":"not here"}"#;
    [&gpu, origin, absent].join("\n")
}

const SENSORS: &str = r#"{"event":"sensors","samples":12,"power_limit_watts":700.0,
"clock_mhz":{"least":1200.0,"median":1500.0,"most":1980.0},
"power_watts":{"least":90.0,"median":650.0,"most":699.0}}"#;

fn first_run(directory: &Path, records: &str) -> Result<bool, String> {
    let times =
        [time(0, OURS), time(0, "fa3"), time(0, "sdpa-cudnn"), time(1, OURS), time(1, "fa3")];
    let skip = r#"{"event":"skip","cell":1,"peer":"sdpa-cudnn","reason":"not supported"}"#;
    let cublas = r#"{"event":"cublas","size":8192,"ms":1.5}"#;
    let end = r#"{"event":"end"}"#;
    let sensors = SENSORS.replace('\n', "");
    let events = [&head(), cublas, &times.join("\n"), skip, &sensors, end].join("\n");
    bench(directory, &["--record", records], &events)
}

/// The record's file with this ending.
fn file(records: &Path, ending: &str) -> PathBuf {
    let files = fs::read_dir(records.join("h100")).expect("it is named after the device");
    let name = format!("-0123abc{ending}");
    let mut paths = files.flatten().map(|item| item.path());
    paths.find(|path| path.to_string_lossy().ends_with(&name)).expect("it was written")
}

#[test]
fn a_record_has_its_facts_beside_it() {
    let directory = scratch();
    let records = directory.path().join("records");
    let done = first_run(directory.path(), &records.display().to_string());
    assert_eq!(done, Ok(false), "four cells are missing");
    let Earlier { facts, times, .. } =
        Earlier::read(&file(&records, ".json")).expect("it can be read");
    assert_eq!(facts.origin.gpu, "NVIDIA H100 80GB HBM3");
    assert_eq!(facts.ptx.is_empty(), facts.kernel_compiler == "unknown");
    let run = &facts.runs[0];
    assert_eq!((facts.runs.len(), run.cells), (1, 2));
    assert_eq!((&*run.versions["cudnn"], &*run.versions["torch"]), ("91900", "2.11"));
    assert_eq!(run.peers["fa3"], "xformers_fa3_C.so, 7 bytes");
    assert_eq!(run.absent["fa4"], "not here");
    assert_eq!(run.skipped[0].cell, "bf16 d128 causal 1024");
    let sensors = run.sensors.as_ref().expect("the harness told them");
    assert_eq!((sensors.clock_mhz.least, sensors.power_limit_watts), (1200.0, Some(700.0)));
    assert_eq!(facts.cublas_tflops.map(|range| range.median), Some(733.0));

    let text = fs::read_to_string(file(&records, ".csv")).expect("it is there");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[1].ends_with(','), "all peers have the first cell: {}", lines[1]);
    assert!(lines[2].ends_with(",sdpa-cudnn"), "cuDNN lacks the second: {}", lines[2]);
    let text = section::markdown(&facts, &times);
    for part in ["without sdpa-cudnn: 1 cells (bf16 d128 causal 1024)", "xtask/record/h100/"] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

#[test]
fn a_record_is_continued_where_it_stopped() {
    let directory = scratch();
    let records = directory.path().join("records");
    let done = first_run(directory.path(), &records.display().to_string());
    assert_eq!(done, Ok(false));
    let path = file(&records, ".json").display().to_string();
    let rest: Vec<String> = (0..4).flat_map(|cell| [time(cell, OURS), time(cell, "fa3")]).collect();
    let events = [&head(), &rest.join("\n"), r#"{"event":"end"}"#].join("\n");
    let done = bench(directory.path(), &["--onto", &path], &events);
    assert_eq!(done, Ok(true));
    let earlier = Earlier::read(Path::new(&path)).expect("it can be read");
    assert_eq!(earlier.facts.runs.iter().map(|run| run.cells).collect::<Vec<_>>(), [2, 4]);
    let wanted = Cell::lengths(DtypeName::Bf16, 128, true, false);
    assert!(earlier.missing(&wanted).is_empty());
    let text = section::markdown(&earlier.facts, &earlier.times);
    assert!(text.contains("2 processes, in each of which all took turns"), "{text}");

    // Nothing is left to measure, and another device's times are not mixed in.
    fs::remove_file(directory.path().join("started")).expect("the harness was started");
    assert_eq!(bench(directory.path(), &["--onto", &path], ""), Ok(true));
    assert!(!directory.path().join("started").exists());
    let error = bench(directory.path(), &["--onto", &path, "--commit", "4567def"], "");
    assert!(error.is_err_and(|text| text.contains("commit `0123abc`, this run `4567def`")));
    let other = Facts::of(Origin { gpu: "NVIDIA H200".into(), ..origin() }, Run::default(), &[]);
    let error = earlier.with(other, Vec::new()).expect_err("another device");
    assert!(error.contains("GPU `NVIDIA H100 80GB HBM3`, this run `NVIDIA H200`"), "{error}");
}

fn origin() -> Origin {
    Origin::of_today("0123abc", "NVIDIA H100 80GB HBM3".to_owned())
}

#[test]
fn records_lie_in_a_folder_named_after_the_device() {
    for (name, folder) in [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA GH200 480GB", "gh200"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA GeForce RTX 4090", "4090"),
        ("", "unknown"),
    ] {
        assert_eq!(record::folder(name), folder, "{name}");
    }
}

#[test]
fn calls_with_options_are_not_taken_for_plain_ones() {
    let directory = scratch();
    let cell = Cell::new(DtypeName::Bf16, 128, true, 512);
    let plain = Measurement::of(OURS, &cell, 0.25);
    let with = Measurement { options: "softcap=50".to_owned(), ..plain.clone() };
    assert_eq!((plain.cell(), with.cell()), (Some(cell), None));
    let path = directory.path().join("times.csv");
    let mut writer = csv::Writer::from_path(&path).expect("a file of our own");
    writer.serialize(&with).expect("it can be written");
    writer.flush().expect("it can be written");
    drop(writer);
    assert_eq!(measurement::read(&path).expect("it can be read"), [with]);
}

/// A record has every call, each beside the best peer of the same call, and gives them back.
#[test]
fn a_record_keeps_options_and_kinds() {
    let cell = Cell::new(DtypeName::Bf16, 128, true, 512);
    let time = |peer: &str, kind: &str, options: &str, ms| Measurement {
        kind: kind.to_owned(),
        options: options.to_owned(),
        ..Measurement::of(peer, &cell, ms)
    };
    let mut all = Vec::new();
    for (kind, options, ms) in [("fwd", "", 0.2), ("fwd", "softcap=50", 0.4), ("bwd", "", 0.8)] {
        all.push(time(OURS, kind, options, ms));
        all.push(time("fa3", kind, options, ms / 2.0));
    }
    let lines = record::lines(&origin(), &all);
    let ratios: Vec<Option<f64>> = lines.iter().map(|line| line.ratio).collect();
    assert_eq!(ratios.len(), 3);
    assert!(ratios.iter().all(|ratio| ratio.is_some_and(|it| (it - 0.5).abs() < 2e-3)));
    let directory = scratch();
    let path = directory.path().join("record.csv");
    check::csv_file::write(&path, &lines).expect("it can be written");
    let back = record::read(&path).expect("it can be read");
    let ours = |all: &[Measurement]| -> Vec<String> {
        let ours = all.iter().filter(|time| time.peer == OURS);
        ours.map(|time| time.called().expect("a call").to_string()).collect()
    };
    assert_eq!(ours(&back), ours(&all));
    assert_eq!(ours(&back)[1..], ["bf16 d128 causal 512 softcap=50", "bf16 d128 causal 512 bwd"]);
}

#[test]
fn the_harness_lies_in_a_folder_that_cannot_be_foreseen() {
    let directory = scratch();
    let started = || {
        let _ = bench(directory.path(), &[], r#"{"event":"end"}"#);
        let path = fs::read_to_string(directory.path().join("started")).expect("it was started");
        PathBuf::from(path.trim()).parent().expect("it is in a folder").to_path_buf()
    };
    let (first, second) = (started(), started());
    assert_ne!(first, second);
    assert!(!first.exists() && !second.exists(), "they go away with the run");
}
