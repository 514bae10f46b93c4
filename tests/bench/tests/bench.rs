//! What surrounds the measuring: cells, CSV, record, picture, text, and the talk with the harness.

use std::path::{Path, PathBuf};
use std::process::Command;

use bench::facts::{Facts, Run};
use bench::first_use;
use bench::grid::{Cell, DtypeName, HIDDEN, TOKENS};
use bench::measurement::{self, Called, Measurement, OURS};
use bench::variants::record as variants;
use bench::{self, page, peers, plot, record, section, table};
use check::call::Call;
use check::forward::call::ForwardCall;
use clap::Parser;
use fulgurite::DeviceFacts;

const BF16: DtypeName = DtypeName::Bf16;

/// A directory of one test.
fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("fulgurite-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).expect("temporary directories can be made");
    path
}

fn origin() -> record::Origin {
    record::Origin::of_today("0123abc", "a GPU, with a comma".to_owned())
}

fn facts(all: &[Measurement]) -> Facts {
    Facts::of(origin(), Run::default(), all)
}

/// Times of all cells, ours at 0.6 TFLOP/ms of 0.5 for the peer, and products of cuBLAS.
fn run_of_times() -> Vec<Measurement> {
    let mut cells = Cell::grid(BF16, false);
    cells.extend(Cell::extra(BF16, false));
    let times = |name: &str, tflops: f64| -> Vec<Measurement> {
        let time = |cell: &Cell| Measurement::of(name, cell, cell.flops() / tflops / 1e9);
        cells.iter().map(time).collect()
    };
    let cublas = [5.0, 1.8, 2.0].map(|ms| Measurement::cublas(8192, ms));
    [times(OURS, 600.0), times("fa3", 500.0), cublas.to_vec()].concat()
}

#[test]
fn the_grid_has_as_many_tokens_and_columns_everywhere() {
    let grid = Cell::grid(BF16, false);
    assert_eq!(grid.len(), 36);
    assert_eq!(Cell::grid(BF16, true).len(), 18);
    for cell in grid {
        assert!(cell.is_main());
        assert_eq!(cell.batch * cell.q_len, TOKENS);
        assert_eq!(cell.heads * cell.head_dim, HIDDEN);
        let call = cell.call();
        assert_eq!(call.q.shape, [cell.batch, cell.heads, cell.q_len, cell.head_dim]);
        assert_eq!(call.q.strides[3], 1);
        assert_eq!(call.q.strides[1], cell.head_dim);
    }
}

#[test]
fn every_cell_can_be_planned_and_has_a_name_of_its_own() {
    let mut names = std::collections::BTreeSet::new();
    for dtype in [BF16, DtypeName::F16] {
        let extra = Cell::extra(dtype, false);
        assert!(extra.iter().all(|cell| !cell.is_main()));
        for cell in Cell::grid(dtype, false).into_iter().chain(extra) {
            cell.call().plan(&DeviceFacts::h200()).expect("it is a good request");
            assert!(names.insert(cell.to_string()), "{cell} is there twice");
        }
    }
    for name in
        ["bf16 d128 causal 4096x1000", "f16 d128 full 4096 heads 32/8", "bf16 d128 full 131072"]
    {
        assert!(names.contains(name), "{name}");
    }
}

#[test]
fn speed_counts_what_the_mask_leaves() {
    let full = Cell::new(BF16, 128, false, 4096);
    assert_eq!(full.flops(), 4.0 * 4.0 * 16.0 * 4096.0 * 4096.0 * 128.0);
    let causal = Cell { causal: true, ..full };
    assert_eq!(causal.flops() * 2.0, full.flops());
    assert_eq!(Measurement::of(OURS, &full, 1.0).tflops, 549.8);
    // One row of two sees a key.
    let unequal = Cell { q_len: 2, kv_len: 1, batch: 1, heads: 1, head_dim: 8, ..causal };
    assert_eq!(unequal.flops(), 32.0);
    let longer = Cell { q_len: 2, kv_len: 4, ..unequal };
    assert_eq!(longer.flops(), 32.0 * 7.0);
    assert_eq!(Measurement::cublas(8192, 2.0).tflops, 549.8);
}

#[test]
fn the_best_peer_of_a_cell_is_found() {
    let cell = Cell::new(BF16, 128, false, 1024);
    let time = |peer, ms| Measurement::of(peer, &cell, ms);
    let other = Measurement { kind: "bwd".to_owned(), ..time("fa4", 0.01) };
    let all = [time("fa3", 0.11), time("sdpa-cudnn", 0.108), time(OURS, 0.1), other];
    let best = peers::best(&all);
    assert_eq!(best.len(), 2, "a call of another kind is another call");
    assert_eq!(best[&Called::plain(cell)].peer, "sdpa-cudnn");
    let ratios = peers::ratios(&all, &best, Cell::is_main);
    assert_eq!(ratios.len(), 1);
    assert!((ratios[0] - 1.08).abs() < 1e-3);
    assert!(peers::ratios(&all, &best, |cell| !cell.is_main()).is_empty());
}

#[test]
fn ratios_are_summed_up() {
    let all = peers::sum_up(&[0.5, 2.0, 1.0]).expect("three ratios");
    assert!((all.geometric_mean - 1.0).abs() < 1e-12);
    assert_eq!((all.least, all.cells), (0.5, 3));
    assert_eq!(peers::sum_up(&[]), None);
    let cublas = peers::cublas(&run_of_times()).expect("three products");
    assert_eq!((cublas.least, cublas.median, cublas.most), (219.9, 549.8, 610.8));
}

#[test]
fn a_record_is_written_read_and_drawn() {
    let directory = directory("record");
    let all = run_of_times();
    let written = record::write(&directory, &facts(&all), &all).expect("it can be written");
    let endings = [".csv", "-all.csv", ".json", ".svg"];
    assert_eq!(written.len(), endings.len());
    for (path, ending) in written.iter().zip(endings) {
        assert!(path.to_string_lossy().ends_with(&format!("0123abc{ending}")), "{path:?}");
        let least = if ending == ".json" { 200 } else { 2_000 };
        assert!(std::fs::metadata(path).expect("it is there").len() > least, "{path:?}");
    }
    let text = std::fs::read_to_string(&written[0]).expect("it is there");
    assert!(text.starts_with(
        "date,commit,gpu,driver,kind,dtype,head_dim,mask,options,batch,seqlen,kv_len,heads_q,\
         heads_kv,ms,tflops,peer,peer_tflops,ratio,cublas_share,without\n"
    ));
    assert!(text.lines().nth(1).expect("a line").ends_with(",fa3,500.0,1.2,1.091,"), "{text}");
    assert_eq!(measurement::read(&written[1]).expect("it can be read"), all);
    let back = record::read(&written[0]).expect("it can be read");
    assert_eq!(back.len(), all.len() - 3);
    assert_eq!(back[0].cell(), all[0].cell());
    plot::draw(&directory.join("picture"), "title", &back).expect("it is drawn");
    assert!(plot::draw(&directory.join("empty"), "title", &[]).is_err());
    std::fs::remove_dir_all(&directory).expect("it can be removed");
}

/// The columns that `cargo xtask tiles` writes, of one candidate that is built and one that is not.
const CANDIDATES: &str = "\
entry,dtype,head_dim,mask,softmax,q_rows,kv_rows,q_parts,kv_stages,smem_bytes,current,\
registers,spill_bytes,left_out
fwd_a,bf16,192,full,anchors,128,112,2,2,221280,1,168,0,
fwd_b,bf16,192,full,anchors,128,96,3,2,221296,0,168,0,
fwd_c,bf16,192,full,anchors,192,48,6,2,221344,0,128,24,12 bytes of spill stores
fwd_d,bf16,192,full,anchors,192,64,6,2,221344,0,,,uses local memory
";

#[test]
fn the_record_of_tile_shapes_marks_the_best() {
    let file = std::env::temp_dir().join(format!("fulgurite-tiles-{}.csv", std::process::id()));
    std::fs::write(&file, CANDIDATES).expect("a file of our own");
    let rows = variants::read_candidates(&file).expect("candidates");
    std::fs::remove_file(&file).expect("a file of our own");
    assert_eq!((rows[0].kv_rows, rows[0].current, rows[3].registers), (112, 1, None));

    let tflops = vec![
        vec![Some(400.0), Some(600.0)],
        vec![Some(500.0), Some(590.0)],
        vec![None, None],
        vec![None, None],
    ];
    let times = variants::Times { lengths: vec![1024, 4096], rows, tflops };
    assert_eq!(times.best(), Some(1));
    assert!((times.mean(0) - 489.9).abs() < 0.1, "the geometric mean");
    let origin = record::Origin {
        date: "2026-08-01".to_owned(),
        commit: "abc1234".to_owned(),
        gpu: "NVIDIA H200".to_owned(),
        driver: "580.1".to_owned(),
    };
    let text = variants::text(&origin, &[times]).expect("a record");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].ends_with("tflops_1024,tflops_4096,tflops_mean,best,fastest_at,left_out"));
    let shared = "2026-08-01,abc1234,NVIDIA H200,580.1,fwd,bf16,192,full,";
    assert_eq!(
        lines[1..],
        [
            format!("{shared},anchors,128,112,2,2,221280,168,0,1,400.0,600.0,489.9,0,4096,"),
            format!("{shared},anchors,128,96,3,2,221296,168,0,0,500.0,590.0,543.1,1,1024,"),
            format!("{shared},anchors,192,48,6,2,221344,128,24,0,,,,0,,12 bytes of spill stores"),
            format!("{shared},anchors,192,64,6,2,221344,,,0,,,,0,,uses local memory"),
        ]
    );
}

#[test]
fn all_built_variants_can_be_measured_in_turn() {
    for row in variants::Row::built_in() {
        let variant =
            fulgurite::internals::VARIANTS.iter().find(|variant| variant.entry == row.entry);
        let variant = variant.expect("a variant of this build");
        for cell in Cell::lengths(row.dtype, row.head_dim, row.mask == "causal", false) {
            assert!(cell.batch * cell.q_len * cell.heads * cell.head_dim <= TOKENS * HIDDEN);
            let call = ForwardCall { variant: Some(*variant), ..cell.call() };
            call.plan(&DeviceFacts::h200()).expect("the variant computes the cell");
        }
    }
}
#[test]
fn records_of_older_columns_can_be_read() {
    let records = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../xtask/record/h200");
    let old = |name: &str| records.join(format!("2026-11-22-83c56b5{name}.csv"));
    let all = measurement::read(&old("-all")).expect("it can be read");
    let lines = record::read(&old("")).expect("it can be read");
    assert_eq!(lines.len(), 72);
    let best = peers::best(&all);
    for line in lines.iter().filter(|line| line.peer != OURS) {
        let cell = line.cell().expect("a forward call");
        assert_eq!(best[&Called::plain(cell)].tflops, line.tflops, "{cell}");
    }
}

#[test]
fn a_record_becomes_a_section_of_the_page() {
    let text = section::markdown(&facts(&run_of_times()), &run_of_times());
    for part in [
        "| head dim 128 causal | 600 (1.20) | 600 (1.20) |",
        "| bf16 | 512 | 1k | 2k | 4k | 8k | 16k |",
        "fulgurite over the best peer, bf16, 36 cells: geometric mean 1.200, least 1.200",
        "cuBLAS on square bf16 matrices, between the cells: 219.9 to 610.8 TFLOP/s, median 549.8",
        "| bf16 d128 causal 1024x8192 | 600 (1.20) |",
        "* ahead of the best peer in every cell",
    ] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    let mut slower = run_of_times();
    for time in slower.iter_mut().filter(|time| time.peer == OURS).take(2) {
        time.tflops /= 1.25;
    }
    let text = section::markdown(&facts(&slower), &slower);
    assert!(text.contains("* behind the best peer in 2 cells: bf16 d64 full 512 (0.960 of fa3), "));
}

#[test]
fn what_is_printed_fits_100_columns() {
    let records = page::newest(&checkout()).expect("the records can be read");
    let mut all: Vec<Vec<Measurement>> = records.into_iter().map(|(_, times)| times).collect();
    // The longest names, and a peer that lacks most cells.
    let mut long = run_of_times();
    long.extend(
        long.clone().into_iter().filter(|time| time.seqlen == 512).map(|time| Measurement {
            peer: "sdpa-cudnn".to_owned(),
            tflops: 1234.5,
            ..time
        }),
    );
    all.push(long);
    for times in all {
        let text = table::text(&times);
        assert!(text.contains("geometric mean") && text.contains("best peer"), "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
}

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_page_of_the_records_is_up_to_date() {
    let records = page::newest(&checkout()).expect("the records can be read");
    let there = std::fs::read_to_string(checkout().join("BENCHMARKS.md")).expect("it is there");
    assert!(there == page::page(&records), "run `cargo xtask bench --page` and commit the file");
}

#[test]
fn the_readme_names_figures_of_the_newest_records() {
    let readme = std::fs::read_to_string(checkout().join("README.md")).expect("it is there");
    let first_screen: Vec<&str> = readme.lines().take(40).collect();
    let first_screen = first_screen.join("\n");
    let mut devices = 0;
    for (facts, times) in page::newest(&checkout()).expect("the records can be read") {
        let best = peers::best(&times);
        let counts = |cell: &Cell| cell.dtype == BF16 && cell.is_main();
        // The others are of 8 bits alone.
        let Some(sum) = peers::sum_up(&peers::ratios(&times, &best, counts)) else { continue };
        devices += 1;
        let ours = times.iter().filter(|time| time.peer == OURS);
        let fastest = ours.filter_map(|time| counts(&time.cell()?).then_some(time.tflops));
        let fastest = fastest.fold(0.0, f64::max);
        let gpu = &facts.origin.gpu;
        for figure in [
            format!("{:.3}", sum.geometric_mean),
            format!("{:.3}", sum.least),
            format!("{fastest:.0} TFLOP/s"),
        ] {
            let named = |line: &&str| line.contains(gpu) && line.contains(&figure);
            assert!(readme.lines().any(|line| named(&line)), "{gpu}: {figure} is not in README.md");
        }
        let picture = format!("xtask/record/{}/", record::folder(gpu));
        assert!(!gpu.contains("H200") || first_screen.contains(&picture), "no picture of {gpu}");
    }
    assert!(devices >= 2, "an H100 and an H200 were measured in bf16");
}

/// Options as the program reads them.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: bench::Options,
}

#[test]
fn a_budget_cuts_off_extra_cells_first_and_then_f16() {
    let wanted = |more: &[&str]| {
        let arguments = ["bench", "--peers-dir=.", "--extra"].iter().chain(more);
        bench::wanted_cells(&Cli::parse_from(arguments).options)
    };
    let cells = wanted(&[]);
    assert_eq!(cells, wanted(&["--dtype=f16,bf16,f16"]));
    assert_eq!(cells[..36], Cell::grid(BF16, false));
    assert_eq!(cells[36..72], Cell::grid(DtypeName::F16, false));
    let extra = [BF16, DtypeName::F16].map(|dtype| Cell::extra(dtype, false)).concat();
    assert_eq!(cells[72..], extra);
    assert!(wanted(&["--dtype=f16"]).iter().all(|cell| cell.dtype == DtypeName::F16));
}

/// Runs `bench` with a program in place of Python that says `events` for the one cell asked for.
#[cfg(unix)]
fn bench_with_harness(name: &str, events: &str) -> (Result<bool, String>, Vec<Measurement>) {
    use std::os::unix::fs::PermissionsExt;
    let directory = directory(name);
    let (program, csv) = (directory.join("python"), directory.join("times.csv"));
    let text = format!(
        "#!/bin/sh\nread -r job\ncase \"$job\" in *'\"head_dim\":128,\"causal\":true'*) ;; \
         *) exit 9 ;; esac\ntest -f \"$1\" || exit 8\ncat <<'EVENTS'\n{events}\nEVENTS\n"
    );
    std::fs::write(&program, text).expect("it can be written");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("it is ours");
    let options = Cli::parse_from([
        "bench",
        "--no-first-use",
        "--filter=d128 causal 512",
        "--dtype=bf16",
        &format!("--peers-dir={}", directory.display()),
        &format!("--library={}", program.display()),
        &format!("--python={}", program.display()),
        &format!("--csv={}", csv.display()),
    ])
    .options;
    let result = bench::run(&options);
    let times = measurement::read(&csv).unwrap_or_default();
    std::fs::remove_dir_all(&directory).expect("it can be removed");
    (result, times)
}

#[cfg(unix)]
const OUR_TIME: &str = r#"{"event":"time","cell":0,"peer":"fulgurite","ms":0.25,"calls":20,"late":3,
"error":0.00222,"clock_mhz":1980.0,"power_watts":null}"#;

#[test]
#[cfg(unix)]
fn what_the_harness_says_is_taken_down() {
    let ours = OUR_TIME.replace('\n', "");
    let peer = ours.replace("fulgurite", "fa3").replace("0.25", "0.26");
    let head = r#"{"event":"gpu","name":"a GPU","torch":"2"}
{"event":"absent","peer":"fa4","reason":"not here"}
{"event":"skip","cell":0,"peer":"sdpa-fa2","reason":"no"}
{"event":"cublas","size":8192,"ms":1.5}"#;
    let (result, times) =
        bench_with_harness("good", &format!("{head}\n{ours}\n{peer}\n{{\"event\":\"end\"}}"));
    assert_eq!(result, Ok(true));
    let peers: Vec<&str> = times.iter().map(|time| time.peer.as_str()).collect();
    assert_eq!(peers, ["cublas", OURS, "fa3"]);
    let cell = Cell::new(BF16, 128, true, 512);
    assert_eq!(times[1].cell(), Some(cell));
    assert_eq!((times[1].ms, times[1].calls, times[1].error), (0.25, Some(20), Some(0.00222)));
    assert_eq!(times[1].late, Some(3));
    assert_eq!((times[1].clock_mhz, times[1].power_watts), (Some(1980.0), None));
}

#[test]
#[cfg(unix)]
fn problems_of_the_harness_are_failures() {
    let ours = OUR_TIME.replace('\n', "");
    let end = r#"{"event":"end"}"#;
    let wrong = r#"{"event":"wrong","cell":0,"peer":"fa3","reason":"off by 1"}"#;
    for (name, events, measured) in [
        ("wrong", format!("{ours}\n{wrong}\n{end}"), 1),
        ("early", ours.clone(), 1),
        ("unreadable", format!("{ours}\nhello\n{end}"), 1),
        ("nothing", end.to_owned(), 0),
        ("failed", r#"{"event":"failed","reason":"no GPU"}"#.to_owned(), 0),
    ] {
        let (result, times) = bench_with_harness(name, &events);
        assert_eq!((result, times.len()), (Ok(false), measured), "{name}");
    }
}

#[test]
fn the_harness_is_python() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
    for file in std::fs::read_dir(directory).expect("it is there") {
        let path = file.expect("it can be listed").path();
        if path.extension().is_none_or(|extension| extension != "py") {
            continue;
        }
        let check = "import ast, sys; ast.parse(open(sys.argv[1]).read())";
        match Command::new("python3").args(["-c", check]).arg(&path).status() {
            Ok(status) => assert!(status.success(), "{}", path.display()),
            Err(_) => eprintln!("skipped: there is no python3 to read {}", path.display()),
        }
    }
}

#[test]
fn first_uses_are_summed_up() {
    let cell = Cell::new(BF16, 64, false, 128);
    let time =
        |kind: &str, ms| Measurement { kind: kind.to_owned(), ..Measurement::of(OURS, &cell, ms) };
    let all = [time("first-use-cold", 1234.0), time("first-use-warm", 234.0)];
    let lines = first_use::summary(&all);
    assert_eq!(lines.len(), 2);
    assert!(lines[0].ends_with("compiling the kernel: d64 1.23 s"), "{}", lines[0]);
    assert!(lines[1].ends_with("cache warm: d64 0.23 s"), "{}", lines[1]);
    assert!(first_use::summary(&run_of_times()).is_empty());
}
