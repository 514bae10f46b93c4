//! Single primitives on the emulator, and planted errors in the probes' synchronisation.

use std::collections::BTreeSet;

use check::probes::cases::{all, check_exponentials, cover_the_table};
use check::probes::process::Remote;
use check::probes::{Case, Expected};
use fulgurite::emulator::{Mutation, Primitive};
use fulgurite_spec::PROBES;
use rayon::prelude::*;

/// Schedules that each probe and each planted error is run under.
const SEEDS: u64 = 16;

#[test]
fn every_probe_is_right_on_the_emulator() {
    let cases = all();
    for probe in PROBES {
        assert!(cases.iter().any(|case| case.entry == *probe), "{probe} has no case");
    }
    let titles: BTreeSet<String> = cases.iter().map(Case::title).collect();
    assert_eq!(titles.len(), cases.len(), "cases are found by their titles");
    assert!(cover_the_table(), "a kernel multiplies with a width that no probe has");
    cases.par_iter().for_each(|case| {
        for seed in 0..SEEDS {
            let checked = case.check_emulated(seed);
            checked.unwrap_or_else(|wrong| panic!("{}, seed {seed}: {wrong}", case.title()));
        }
    });
}

/// Whether the emulator reports it, or the result shows it, under one of the schedules.
fn is_noticed(case: &Case, mutation: Mutation) -> bool {
    (0..SEEDS).any(|seed| match case.emulate(seed, Some(mutation), false) {
        Err(_) => true,
        Ok((seen, _)) => case.check(&seen).is_err(),
    })
}

/// Why a planted error changes nothing, if that is so.
fn equivalent(case: &Case, mutation: &Mutation) -> Option<&'static str> {
    match (case.entry, mutation.site.primitive) {
        ("probe_relay", Primitive::BarrierSync) => {
            Some("the thread that initialises the barriers is the only one to use them")
        }
        ("probe_store", Primitive::TmaStoreWait) => Some(
            "nothing follows it, and the end of the grid completes what has read shared memory",
        ),
        _ => None,
    }
}

#[test]
fn planted_errors_are_noticed() {
    let mut jobs: Vec<(Case, Mutation)> = Vec::new();
    let mut entries = BTreeSet::new();
    // Probes of other widths synchronise in the same places.
    let widths = ["bf16_n176", "e4m3_n96", "s8_n96"];
    let left_out =
        |entry: &str| entry.contains("_n") && !widths.iter().any(|width| entry.ends_with(width));
    for case in all().into_iter().filter(|case| !left_out(case.entry)) {
        if entries.insert(case.entry) {
            let (_, outcome) = case.emulate(0, None, true).expect("the probe is right");
            let mutations = outcome.sites.iter().flat_map(|site| site.mutations());
            jobs.extend(mutations.map(|mutation| (case.clone(), mutation)));
        }
    }
    let survived: Vec<_> =
        jobs.par_iter().filter(|(case, mutation)| !is_noticed(case, *mutation)).collect();
    println!("{} planted errors, {} not noticed", jobs.len(), survived.len());
    for (case, mutation) in &survived {
        let reason = equivalent(case, mutation).unwrap_or("NO REASON");
        println!("{} {mutation:?}: {reason}", case.entry);
    }
    assert!(jobs.len() > 80, "only {} errors were planted", jobs.len());
    let unknown = survived.iter().filter(|(case, it)| equivalent(case, it).is_none());
    assert_eq!(unknown.count(), 0, "survivors that are not known as equivalent");
}

#[test]
fn a_case_that_must_be_refused_is_wrong_if_it_runs() {
    let cases = all();
    let right = |case: &&Case| case.title() == "probe_load None at [0, 0, 0, 0]";
    let right = cases.iter().find(right).expect("a case");
    let Expected::Bits(seen) = right.expected.clone() else {
        panic!("{:?}", right.expected);
    };
    let refused = Case { expected: Expected::Refused(seen), ..right.clone() };
    let wrong = refused.check_emulated(0).expect_err("the emulator does not refuse it");
    assert!(wrong.contains("not refused, the bits are right"), "{wrong}");
    assert!(refused.is_refusal("CUDA_ERROR_ILLEGAL_INSTRUCTION"));
    assert!(!right.is_refusal("CUDA_ERROR_ILLEGAL_INSTRUCTION"));
}

#[test]
fn a_store_writes_whole_units_at_the_end_of_a_row() {
    let title = "probe_store None at [56, 3, 1, 1]";
    let case = all().into_iter().find(|case| case.title() == title).expect("a case");
    let (seen, _) = case.emulate(0, None, false).expect("the probe is right");
    // Seen on an H200: of columns 68 and 69, in bytes 3592 to 3595, the second is padding.
    assert_eq!(seen.target[3592..3596], [0xb6, 0x31, 0x8e, 0x3c]);
    assert_eq!(seen.target[3600..3712], case.target.bytes[3600..3712], "between the boxes' rows");
}

#[cfg(unix)]
#[test]
fn a_new_process_takes_over_after_a_failure() {
    const ANSWERS: &str = r#"
        count=0
        while read title; do
            count=$((count + 1))
            case $title in
                fails) echo '{"Err": "illegal"}' ;;
                dies) exit 7 ;;
                *) echo '{"Ok": {"out": ['$count'], "target": []}}' ;;
            esac
        done"#;
    let mut remote = Remote::of("sh".into(), &["-c", ANSWERS]);
    let mut run = |title| remote.run(title).map(|seen| seen.out);
    assert_eq!([run("a"), run("b")], [Ok(vec![1]), Ok(vec![2])]);
    assert_eq!([run("fails"), run("c")], [Err("illegal".to_owned()), Ok(vec![1])]);
    assert!(run("dies").is_err_and(|error| error.contains("it ended with")));
    assert_eq!(run("d"), Ok(vec![1]));
}

#[test]
fn errors_of_approximate_functions_are_seen() {
    let case = all().into_iter().find(|case| case.entry == "probe_exponentials").expect("a case");
    let (mut seen, _) = case.emulate(0, None, false).expect("the probe is right");
    for word in 100..104 {
        let place = 4 * word..4 * word + 4;
        let bits = u32::from_le_bytes(seen.out[place.clone()].try_into().expect("four bytes"));
        let right_value = f32::from_bits(bits);
        let off = right_value + 5e-6 * right_value.abs().max(1.0);
        let right = seen.out[place.clone()].to_vec();
        seen.out[place.clone()].copy_from_slice(&off.to_le_bytes());
        assert!(check_exponentials(&case.input, &seen.out).is_err(), "word {word}");
        seen.out[place].copy_from_slice(&right);
    }
}
