use super::super::sass::Counts;
use super::*;

fn report(entry: &str, counts: [u32; 5]) -> Report {
    Report {
        entry: entry.to_string(),
        label: entry.to_string(),
        registers: 168,
        stack_bytes: 0,
        spill_store_bytes: 0,
        spill_load_bytes: 0,
        notes: Vec::new(),
        sass: Some(Counts::from_numbers(counts)),
        ptx: format!("of-{entry}"),
    }
}

fn makers(ptxas: &str, compiler: &str) -> Makers {
    Makers { ptxas: ptxas.to_string(), compiler: compiler.to_string() }
}

/// Instructions, R2UR, MUFU, HGMMA, code bytes.
const COUNTS: [u32; 5] = [4000, 60, 300, 80, 64_000];

fn golden() -> Golden {
    let mut golden = Golden::default();
    let reports = [report("fwd_b", COUNTS), report("fwd_a", COUNTS)];
    golden.absorb(&makers("13.0", "rustc 1"), &reports, |_| true).expect("nothing was there");
    golden
}

#[test]
fn the_file_is_read_back() {
    assert_eq!(Golden::parse(&golden().write()), Ok(golden()));
    for line in ["fwd_a 168 0 0", "fwd_a 1 2 3 4 5 6 7 8 9 ptx", "fwd_a 1 2 3 4 5 6 7 x ptx"] {
        assert_eq!(Golden::parse(line), Err(line.to_string()));
    }
}

#[test]
fn every_number_may_fall_and_none_may_rise() {
    let (golden, makers) = (golden(), makers("13.0", "rustc 1"));
    let worse = |report: Report| golden.compare(&makers, &[report]).worse;
    assert_eq!(worse(report("fwd_a", COUNTS.map(|count| count - 1))), Vec::<String>::new());
    for (which, name) in sass::NAMES.iter().enumerate() {
        let mut counts = COUNTS;
        counts[which] += 1;
        let text = format!("{} {name}, golden {}", counts[which], COUNTS[which]);
        let worse = worse(report("fwd_a", counts));
        assert!(worse.len() == 1 && worse[0].contains(&text), "{worse:?}");
    }
    let more = Report { registers: 169, ..report("fwd_a", COUNTS) };
    assert!(worse(more)[0].contains("169 registers, golden 168"));
    let spills = Report { spill_load_bytes: 4, ..report("fwd_a", COUNTS) };
    assert!(worse(spills)[0].contains("4 spill_bytes, golden 0"));
    assert!(worse(report("fwd_c", COUNTS))[0].contains("fwd_c: no golden numbers"));
}

#[test]
fn other_ptx_of_the_same_compiler_is_told() {
    let (golden, other) = (golden(), Report { ptx: "other".into(), ..report("fwd_a", COUNTS) });
    let all = [report("fwd_b", COUNTS), other];
    let found = golden.compare(&makers("13.0", "rustc 1"), &all);
    assert_eq!((found.other_ptx, found.worse.len()), (vec!["fwd_a".to_string()], 0));
    let found = golden.compare(&makers("13.0", "rustc 2"), &all);
    assert_eq!((found.other_ptx.len(), found.notes.len()), (0, 1));
}

#[test]
fn of_another_compiler_only_what_it_cannot_excuse_fails() {
    let counts = [4001, 61, 300, 80, 64_016];
    let found = golden().compare(&makers("13.0", "rustc 2"), &[report("fwd_a", counts)]);
    assert_eq!((found.worse.len(), found.notes.len()), (0, 4), "{found:?}");
    let found =
        golden().compare(&makers("13.0", "rustc 2"), &[report("fwd_a", [1, 1, 301, 81, 1])]);
    assert_eq!(found.worse.len(), 2, "{found:?}");
}

#[test]
fn another_ptxas_is_not_compared() {
    let found = golden().compare(&makers("12.8", "rustc 1"), &[report("fwd_a", [9999; 5])]);
    assert_eq!((found.worse.len(), found.notes.len()), (0, 1));
}

#[test]
fn what_was_not_counted_is_said_and_not_blessed() {
    let uncounted = Report { sass: None, ..report("fwd_a", COUNTS) };
    let found = golden().compare(&makers("13.0", "rustc 1"), std::slice::from_ref(&uncounted));
    assert_eq!((found.worse.len(), found.notes.len()), (0, 1));
    let error = golden().absorb(&makers("13.0", "rustc 1"), &[uncounted], |_| true);
    assert!(error.is_err_and(|text| text.contains("nvdisasm")));
}

#[test]
fn a_bless_drops_what_is_gone_and_mixes_no_makers() {
    let mut golden = golden();
    let reports = [report("fwd_c", COUNTS)];
    golden.absorb(&makers("13.0", "rustc 1"), &reports, |entry| entry != "fwd_a").expect("same");
    let entries: Vec<&str> = golden.lines.iter().map(|line| line.entry.as_str()).collect();
    assert_eq!(entries, ["fwd_b", "fwd_c"]);
    let error = golden.absorb(&makers("13.0", "rustc 2"), &reports, |_| true);
    assert!(error.is_err_and(|text| text.contains("without --variant")));
    golden.absorb(&makers("13.0", "rustc 2"), &reports, |entry| entry == "fwd_c").expect("all");
    assert_eq!(golden.makers.compiler, "rustc 2");
}
