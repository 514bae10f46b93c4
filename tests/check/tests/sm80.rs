//! The kernels for GPUs from Ampere on, on the emulator: a sample of them and of the cases, and
//! planted errors in their synchronisation.

use std::collections::BTreeSet;

use check::call::Launch;
use check::case::Job;
use check::emulator::{Emulated, run_once};
use check::forward::cases::mutation_cases;
use check::verify::{every_emulated_case, run_jobs};
use fulgurite::Arch;
use fulgurite::emulator::{Change, Mutation, Options, Primitive, Summary};
use fulgurite::internals::{VARIANTS_SM80, Variant};
use fulgurite_kernels::entry::SAMPLE_SM80;
use rayon::prelude::*;

/// Cases that go through every branch between them.
const CASES: [&str; 8] = [
    "one row, several tiles",
    "more queries than keys",
    "skipped tiles",
    "grouped heads",
    "moving anchors",
    "lost rows",
    "keyless tiles, padded, sliced",
    "padded, sliced",
];

/// Schedules that a planted error is run under at most: the cases in turn, each under several.
const SEEDS: u64 = 8;

fn sample() -> impl Iterator<Item = &'static Variant> {
    let names = || SAMPLE_SM80.split(' ');
    VARIANTS_SM80.iter().filter(move |variant| names().any(|name| name == variant.entry))
}

#[test]
fn a_sample_of_kernels_on_the_emulator() {
    let mut jobs = every_emulated_case(Arch::Sm80);
    jobs.retain(|job: &Job| CASES.iter().any(|case| job.name().starts_with(case)));
    assert_eq!(jobs.len(), CASES.len() * sample().count());
    // The late copies of schedule 0, and others.
    for (place, seed) in [0, 3].into_iter().enumerate() {
        let part = jobs.iter().skip(place).step_by(2).cloned().collect::<Vec<_>>();
        let failed: Vec<String> = run_jobs(&part, &Emulated::new(vec![seed]))
            .iter()
            .filter(|record| !record.outcome.passed())
            .map(|record| format!("{} {}", record.case, record.outcome.complaint()))
            .collect();
        assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
    }
}

fn run(fresh: &Launch, options: Options) -> (Launch, Result<Summary, String>) {
    let mut launch = fresh.clone();
    let (_, result) = run_once(&mut launch, options).expect("the case is planned");
    (launch, result.map_err(|fault| fault.to_string()))
}

/// Whether the emulator reports it, or the result shows it.
fn is_noticed(launches: &[(Launch, Launch)], mutation: Mutation) -> bool {
    (0..SEEDS).any(|seed| {
        let (fresh, right) = &launches[seed as usize % launches.len()];
        let options = Options { seed, mutation: Some(mutation), ..Options::default() };
        match run(fresh, options) {
            (_, Err(_)) => true,
            (launch, Ok(_)) => launch.memory.written_bits() != right.memory.written_bits(),
        }
    })
}

/// Why a mutant computes the same and breaks no rule, if that is so.
fn equivalent(variant: &Variant, mutation: &Mutation) -> Option<&'static str> {
    match (mutation.site.primitive, mutation.change) {
        // The copies behind it then belong to the next group, which the same wait covers.
        (Primitive::CopyCommit, Change::Drop) if variant.kv_stages == 1 => {
            Some("another group is closed before the wait, and the wait is for all of them")
        }
        _ => None,
    }
}

#[test]
fn planted_errors_are_noticed() {
    let mut survivors = Vec::new();
    let mut count = 0;
    for variant in sample().filter(|variant| variant.kv_stages == 2 || variant.head_dim == 192) {
        // Several tiles with rows that see different ones, and rows that are lost.
        let cases = mutation_cases(variant);
        let cases = [cases[0].clone(), cases[6].clone()];
        let mut sites = BTreeSet::new();
        let mut launches = Vec::new();
        for case in &cases {
            let fresh = case.launch(&case.clean_inputs());
            let (right, ran) = run(&fresh, Options { record_sites: true, ..Options::default() });
            sites.extend(ran.expect("the kernel is right").sites);
            launches.push((fresh, right));
        }
        let jobs: Vec<Mutation> = sites.into_iter().flat_map(|site| site.mutations()).collect();
        count += jobs.len();
        let of_variant: Vec<Mutation> =
            jobs.into_par_iter().filter(|mutation| !is_noticed(&launches, *mutation)).collect();
        survivors.extend(of_variant.into_iter().map(|mutation| (variant, mutation)));
    }
    println!("{count} planted errors, {} not noticed", survivors.len());
    for (variant, mutation) in &survivors {
        let reason = equivalent(variant, mutation).unwrap_or("NO REASON");
        println!("{} {mutation:?}: {reason}", variant.entry);
    }
    assert!(count > 30, "only {count} errors were planted");
    assert!(survivors.iter().all(|(variant, it)| equivalent(variant, it).is_some()));
    assert!(survivors.len() * 33 <= count, "more than 3% are not noticed");
}
