//! Single primitives on the emulator, and planted errors in the probes' synchronisation.

use std::collections::BTreeSet;

use fulgurite::emulator::{Mutation, Primitive};
use fulgurite_spec::PROBES;
use rayon::prelude::*;
use tests::probes::Case;
use tests::probes::cases::{all, check_exponentials, cover_the_table};

/// Schedules that each probe and each planted error is run under.
const SEEDS: u64 = 16;

#[test]
fn every_probe_is_right_on_the_emulator() {
    let cases = all();
    for probe in PROBES {
        assert!(cases.iter().any(|case| case.entry == *probe), "{probe} has no case");
    }
    assert!(cover_the_table(), "a kernel multiplies with a width that no probe has");
    cases.par_iter().for_each(|case| {
        for seed in 0..SEEDS {
            let (seen, _) = case
                .emulate(seed, None, false)
                .unwrap_or_else(|fault| panic!("{}: {fault}", case.title()));
            let checked = case.check(&seen);
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
    let product = |entry: &str| entry.contains("_n") && !entry.ends_with("bf16_n176");
    for case in all().into_iter().filter(|case| !product(case.entry)) {
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
