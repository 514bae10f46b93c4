//! Calls of 8 bits beside the peers', and the table of errors.

use std::path::{Path, PathBuf};

use bench::accuracy::{self, Line, Problem};
use bench::facts::{Earlier, Facts, Run};
use bench::grid::{Cell, DtypeName};
use bench::measurement::{self, Called, Measurement, OURS, QUANTISE};
use bench::{page, peers, record, section, table};
use check::call::Call;
use clap::Parser;
use fulgurite::{DeviceFacts, Dtype, Plan};

const EIGHT_BITS: DtypeName = DtypeName::S8E4m3;

/// Options as the program reads them.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: bench::Options,
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("temporary directories can be made")
}

fn origin() -> record::Origin {
    record::Origin::of_today("0123abc", "NVIDIA H100 80GB HBM3".to_owned())
}

/// Times of the grid in bf16 and in 8 bits: ours with quantising, of peers of each only.
fn times() -> Vec<Measurement> {
    let mut all = Vec::new();
    for (dtype, options, others) in
        [(DtypeName::Bf16, "", ["fa3", "fa4"]), (EIGHT_BITS, QUANTISE, ["cudnn-fp8", "fa3-fp8"])]
    {
        for cell in Cell::grid(dtype, false) {
            let time =
                |peer: &str, tflops| Measurement::of(peer, &cell, cell.flops() / tflops / 1e9);
            all.push(Measurement { options: options.to_owned(), ..time(OURS, 900.0) });
            all.push(time(others[0], 600.0));
            all.push(time(others[1], 1000.0));
        }
    }
    all
}

#[test]
fn cells_of_8_bits_have_tensors_of_16() {
    let cells = bench::wanted_cells(&Cli::parse_from(["bench", "--dtype=s8e4m3"]).options);
    assert_eq!(cells, Cell::grid(EIGHT_BITS, false));
    for cell in cells {
        assert!(cell.is_main() && cell.to_string().starts_with("s8e4m3 d"), "{cell}");
        let call = cell.call();
        assert_eq!((call.q.dtype, call.out.dtype), (Dtype::Bf16, Dtype::Bf16));
        let plan = Plan::new(&call.request(), &DeviceFacts::h200()).expect("a good request");
        assert!(plan.workspace_bytes() > 0, "{cell} is quantised somewhere");
        assert!(call.plan(&DeviceFacts::h200()).is_ok(), "{cell}");
    }
}

#[test]
fn without_peers_8_bits_are_refused() {
    let options = Cli::parse_from(["bench", "--dtype=s8e4m3,bf16", "--quick"]).options;
    let refused = bench::run(&options).expect_err("nothing measures them");
    assert!(refused.contains("s8e4m3 d64 full 1024") && refused.contains("--peers-dir"));
}

/// A call that quantises is compared with those that need not, in its own dtype, and told apart
/// from them.
#[test]
fn quantising_is_counted_in_and_compared() {
    let all = times();
    let cell = Cell::new(EIGHT_BITS, 128, true, 4096);
    let ours = all.iter().find(|time| time.peer == OURS && time.cell() == Some(cell));
    let called = ours.and_then(Measurement::called).expect("it was measured");
    assert_eq!(called.to_string(), "s8e4m3 d128 causal 4096 quantise");
    assert_eq!(called.without_quantising(), Called::plain(cell));
    let softcap = Called { options: "softcap=50".to_owned(), ..called.clone() };
    assert!(called.is_plain() && !softcap.is_plain());
    assert_eq!(peers::best(&all)[&called.without_quantising()].peer, "fa3-fp8");
    assert!(peers::missing(&all).is_empty(), "peers of another dtype are not missing");
    let fewer: Vec<_> = all
        .iter()
        .filter(|time| !(time.peer == "cudnn-fp8" && time.cell() == Some(cell)))
        .cloned()
        .collect();
    assert_eq!(peers::missing(&fewer)[&Called::plain(cell)], ["cudnn-fp8"]);
    let summary = table::summary(&all);
    for dtype in ["bf16", "s8e4m3"] {
        let line = format!("over the best peer, {dtype}, 36 cells: geometric mean 0.900");
        assert!(summary.iter().any(|text| text.contains(&line)), "{summary:?}");
    }
    let text = table::text(&all);
    assert!(text.contains("s8e4m3 d256 causal 16384 quantise"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn a_record_says_what_its_times_hold() {
    let (directory, all) = (scratch(), times());
    let facts = Facts::of(origin(), Run::default(), &all);
    let written = record::write(directory.path(), &facts, &all).expect("it can be written");
    assert!(written.iter().any(|path| path.to_string_lossy().ends_with("-s8e4m3.svg")));
    let text = std::fs::read_to_string(&written[0]).expect("it is there");
    let line = text.lines().find(|line| line.contains(",s8e4m3,128,causal,quantise,"));
    let line = line.expect("8 bits are in the record");
    assert!(line.ends_with(",900.0,fa3-fp8,1000.0,0.9,,"), "{line}");
    let back = record::read(&written[0]).expect("it can be read");
    let best = back.iter().filter(|time| time.peer != OURS && time.dtype == "s8e4m3");
    assert!(best.clone().all(|time| time.options.is_empty()));
    assert_eq!(best.count(), 36);
    assert_eq!(measurement::read(&written[1]).expect("it can be read"), all);
    let earlier = Earlier::read(&written[2]).expect("it can be read");
    assert!(earlier.missing(&Cell::grid(EIGHT_BITS, false)).is_empty());
    let page = section::markdown(&facts, &all);
    assert!(page.contains("| s8e4m3 | 512 |") && page.contains("| 900 (0.90) |"), "{page}");
}

/// A record of 8 bits alone stands on the page beside that of 16 bits, and does not replace it.
#[test]
fn the_page_has_the_newest_record_of_each_dtype() {
    let checkout = scratch();
    let directory = checkout.path().join("xtask/record/h100");
    let (of_8_bits, of_16): (Vec<_>, Vec<_>) =
        times().into_iter().partition(|time| time.dtype == "s8e4m3");
    for (day, times) in [("05", &of_16), ("06", &of_16), ("06", &of_8_bits), ("07", &of_8_bits)] {
        let mut facts = Facts::of(origin(), Run::default(), times);
        facts.origin.date = format!("2026-12-{day}");
        facts.origin.commit = times[0].dtype.clone();
        record::write(&directory, &facts, times).expect("it can be written");
    }
    let records = page::newest(checkout.path()).expect("they can be read");
    let names: Vec<String> = records.iter().map(|(facts, _)| facts.origin.date.clone()).collect();
    assert_eq!(names, ["2026-12-06", "2026-12-07"], "the newest of bf16, and of 8 bits");
    let page = page::page(&records);
    for heading in ["\n## NVIDIA H100 80GB HBM3\n", "\n## NVIDIA H100 80GB HBM3, s8e4m3\n"] {
        assert!(page.contains(heading), "{heading:?} is not in\n{page}");
    }
}

/// Runs `bench` with a program in place of Python that keeps its job and says `events`.
#[cfg(unix)]
fn run(directory: &Path, more: &[&str], events: &[String]) -> Result<bool, String> {
    use std::os::unix::fs::PermissionsExt;
    let program = directory.join("python");
    let text = format!(
        "#!/bin/sh\nread -r job\nprintf '%s' \"$job\" >'{}'\ncd \"${{1%/*}}\"\nls >'{}'\n\
         cat <<'EVENTS'\n{}\n{{\"event\":\"end\"}}\nEVENTS\n",
        directory.join("job").display(),
        directory.join("files").display(),
        events.join("\n")
    );
    std::fs::write(&program, text).expect("it can be written");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("it is ours");
    let (program, peers) = (program.display().to_string(), directory.display().to_string());
    let paths = ["--peers-dir", &peers, "--library", &program, "--python", &program];
    let head = ["bench", "--no-first-use", "--commit", "0123abc"];
    let words = head.iter().chain(&paths).chain(more);
    bench::run(&Cli::try_parse_from(words).map_err(|error| error.to_string())?.options)
}

#[cfg(unix)]
fn gpu() -> String {
    r#"{"event":"gpu","name":"NVIDIA H100 80GB HBM3","torch":"2.11"}"#.to_owned()
}

#[cfg(unix)]
fn error(problem: usize, scheme: &str, peer: &str, rmse: f64) -> String {
    let who = format!(r#""cell":{problem},"peer":"{peer}","scheme":"{scheme}""#);
    format!(r#"{{"event":"error",{who},"rmse":{rmse},"relative":{}}}"#, rmse * 4.0)
}

#[test]
#[cfg(unix)]
fn times_with_options_are_taken_down() {
    let directory = scratch();
    let csv = directory.path().join("times.csv");
    let time = |peer: &str, options: &str| {
        let who = format!(r#""event":"time","cell":0,"peer":"{peer}",{options}"#);
        format!(r#"{{{who}"ms":0.25,"calls":20,"late":0,"error":0.04}}"#)
    };
    let events = [gpu(), time(OURS, r#""options":"quantise","#), time("fa3-fp8", "")];
    let csv_option = format!("--csv={}", csv.display());
    let asked = ["--dtype=s8e4m3", "--filter=d128 causal 512", &csv_option];
    assert_eq!(run(directory.path(), &asked, &events), Ok(true));
    let all = measurement::read(&csv).expect("it was written");
    let options: Vec<&str> = all.iter().map(|time| &*time.options).collect();
    assert_eq!(options, ["quantise", ""]);
    let job = std::fs::read_to_string(directory.path().join("job")).expect("it was told");
    let job: serde_json::Value = serde_json::from_str(&job).expect("one line of JSON");
    assert_eq!(job["cells"][0]["dtype"], "s8e4m3");
    assert_eq!(job["problems"], serde_json::json!([]));
    let files = std::fs::read_to_string(directory.path().join("files")).expect("it was started");
    for file in ["harness.py", "eight_bits.py", "accuracy.py", "interface.py"] {
        assert!(files.lines().any(|name| name == file), "{file} is not among\n{files}");
    }
}

#[test]
#[cfg(unix)]
fn errors_are_compared_and_recorded() {
    let directory = scratch();
    let records = directory.path().join("records");
    let records_option = format!("--record={}", records.display());
    let asked = ["--errors", "--filter=outlier d128", &records_option];
    let events = [
        gpu(),
        error(0, "s8e4m3", OURS, 0.005_234_56),
        error(0, "e4m3", "fa3-fp8", 0.0158),
        r#"{"event":"skip","cell":0,"peer":"cudnn-fp8","reason":"e4m3: no"}"#.to_owned(),
    ];
    assert_eq!(run(directory.path(), &asked, &events), Ok(true));
    let files = std::fs::read_dir(records.join("h100")).expect("it is named after the device");
    let paths: Vec<PathBuf> = files.flatten().map(|item| item.path()).collect();
    assert_eq!(paths.len(), 1);
    assert!(paths[0].to_string_lossy().ends_with("-0123abc-errors.csv"), "{paths:?}");
    let text = std::fs::read_to_string(&paths[0]).expect("it is there");
    assert_eq!(
        text,
        "data,batch,heads,rows,head_dim,scheme,peer,rmse,relative\n\
         outlier,2,16,2048,128,s8e4m3,fulgurite,0.005235,0.02094\n\
         outlier,2,16,2048,128,e4m3,fa3-fp8,0.0158,0.0632\n"
    );
    let job = std::fs::read_to_string(directory.path().join("job")).expect("it was told");
    let job: serde_json::Value = serde_json::from_str(&job).expect("one line of JSON");
    assert_eq!(job["cells"], serde_json::json!([]));
    let sizes = ["batch", "heads", "rows", "head_dim"].map(|name| job["problems"][0][name].clone());
    assert_eq!(sizes, [2, 16, 2048, 128].map(serde_json::Value::from));
    let files = std::fs::read_to_string(directory.path().join("files")).expect("it was started");
    assert!(files.lines().any(|name| name == "minilm.safetensors"), "{files}");
}

#[test]
#[cfg(unix)]
fn errors_without_ours_are_failures() {
    let directory = scratch();
    let asked = ["--errors", "--filter=minilm"];
    let ours = [gpu(), error(0, "s8e4m3", OURS, 0.01), error(1, "bf16", OURS, 0.01)];
    assert_eq!(run(directory.path(), &asked, &ours), Ok(true));
    assert_eq!(run(directory.path(), &asked, &ours[..2]), Ok(false), "one problem is missing");
    let no_problem = [&ours[..], &[error(2, "bf16", OURS, 0.01)]].concat();
    assert_eq!(run(directory.path(), &asked, &no_problem), Ok(false), "there are two problems");
    let skip = format!(r#"{{"event":"skip","cell":0,"peer":"{OURS}","reason":"s8e4m3: no"}}"#);
    assert_eq!(run(directory.path(), &asked, &[&ours[..], &[skip]].concat()), Ok(false));
    let refused = |more: &[&str]| run(directory.path(), more, &ours).expect_err("it is refused");
    assert!(refused(&["--errors", "--filter=nothing"]).contains("--filter"));
    for other in ["--quick", "--dtype=bf16", "--csv=times.csv", "--reps=3"] {
        assert!(refused(&["--errors", other]).contains("cannot be used with"), "{other}");
    }
    assert!(Cli::try_parse_from(["bench", "--errors"]).is_err(), "it needs the peers' folder");
}

#[test]
fn the_table_of_errors_compares_within_a_problem() {
    let problems = accuracy::problems();
    let names: std::collections::BTreeSet<_> = problems.iter().map(Problem::to_string).collect();
    assert_eq!(names.len(), problems.len(), "each has a name of its own");
    let mut lines = Vec::new();
    for (index, problem) in problems.iter().enumerate() {
        let rmse = 0.01 * (index + 1) as f64;
        lines.push(Line::new(problem, ["s8e4m3", OURS], rmse * 0.25, 0.1));
        lines.push(Line::new(problem, ["e4m3", "cudnn-fp8"], rmse * 2.0, 0.1));
        lines.push(Line::new(problem, ["e4m3", "fa3-fp8"], rmse, 0.1));
    }
    let text = accuracy::text(&lines);
    for (peer, ratio) in [(OURS, "0.250"), ("cudnn-fp8", "2.000"), ("fa3-fp8", "1.000")] {
        let of_peer = text.lines().filter(|line| line.contains(&format!(" {peer} ")));
        let right = of_peer.filter(|line| line.contains(ratio)).count();
        assert_eq!(right, problems.len(), "{peer}:\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let alone = accuracy::text(&lines[..1]);
    assert!(!alone.contains("0.250"), "there is nothing to compare with:\n{alone}");
}
