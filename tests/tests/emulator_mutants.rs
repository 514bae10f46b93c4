//! Planted errors in the kernels' synchronisation: the emulator must report them.
//!
//! Every site where a kernel waits, arrives, fences, commits, expects bytes or sets a count is
//! dropped or altered, one at a time, and the kernel is run under up to 16 schedules.

use std::collections::BTreeMap;

use fulgurite::emulator::{Change, Mutation, Options, Outcome, Primitive};
use fulgurite::{Tile, VARIANTS, Variant};
use rayon::prelude::*;
use tests::cases::{Case, mutation_case};
use tests::emulator::run_once;
use tests::memory::Launch;

/// Schedules that a mutant is run under at most.
const SEEDS: u64 = 16;

/// Why a mutant computes the same and breaks no rule, if that is so.
fn equivalent(tile: &Tile, mutation: &Mutation) -> Option<&'static str> {
    let Mutation { site, change } = *mutation;
    match (site.primitive, site.barrier, change) {
        (Primitive::RegistersGrow, _, Change::Drop) => Some(
            "registers are ptxas's: without the call it would compile the role for the launch's \
             share; the result is the same",
        ),
        // Q of job n goes where that of job n - 2 was. Before it the producer loads the first K of
        // job n, which waits until the product two loads before is complete: that is the last of
        // job n - 2 or a later one.
        (Primitive::MbarrierWait, "q_empty", Change::Drop)
        | (Primitive::BarrierInit, "q_empty", Change::Less)
            if tile.q_parts >= 2 * tile.consumers && tile.kv_stages <= 2 =>
        {
            Some("with room for the Q of two jobs, the ring of K already orders the loads of Q")
        }
        _ => None,
    }
}

/// How a mutant was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// The emulator broke off with a report.
    Reported(String),
    /// It ran to its end, with another result.
    WrongResult,
    /// Nothing was noticed.
    Survived,
}

/// The variants whose kernels differ in more than the type: one for each head dim and mask.
fn families() -> impl Iterator<Item = &'static Variant> {
    let mut seen: Vec<(u32, fulgurite::MaskKind)> = Vec::new();
    VARIANTS.iter().filter(move |variant| {
        let family = (variant.head_dim, variant.mask);
        let new = !seen.contains(&family);
        seen.push(family);
        new
    })
}

fn run(fresh: &Launch, options: Options) -> (Launch, Result<Outcome, String>) {
    let mut launch = fresh.clone();
    let (_, result) = run_once(&mut launch, options).expect("the case is planned");
    (launch, result.map_err(|fault| fault.to_string()))
}

fn bits(launch: &Launch) -> (Vec<u16>, Vec<u32>) {
    let regions = &launch.allocations[launch.out.allocation].regions;
    let lse = launch.lse.iter().flatten().map(|value| value.to_bits());
    (regions.iter().flat_map(|region| region.bits.clone()).collect(), lse.collect())
}

fn judge(fresh: &Launch, right: &Launch, mutation: Mutation) -> Verdict {
    for seed in 0..SEEDS {
        let options = Options { seed, mutation: Some(mutation), record_sites: false };
        match run(fresh, options) {
            (_, Err(report)) => return Verdict::Reported(report),
            (launch, Ok(_)) if bits(&launch) != bits(right) => return Verdict::WrongResult,
            _ => {}
        }
    }
    Verdict::Survived
}

fn launch_of(case: &Case) -> Launch {
    case.launch(&case.clean_inputs())
}

#[test]
fn planted_errors_are_reported() {
    let mut jobs: Vec<(&Variant, Mutation)> = Vec::new();
    let mut launches: BTreeMap<&str, (Launch, Launch)> = BTreeMap::new();
    for variant in families() {
        let fresh = launch_of(&mutation_case(variant));
        let options = Options { seed: 0, mutation: None, record_sites: true };
        let (right, outcome) = run(&fresh, options);
        let sites = outcome.expect("the kernel is right").sites;
        assert!(sites.len() > 20, "{}: only {} sites", variant.entry, sites.len());
        for site in sites {
            jobs.extend(site.mutations().map(|mutation| (variant, mutation)));
        }
        launches.insert(variant.entry, (fresh, right));
    }
    let verdicts: Vec<Verdict> = jobs
        .par_iter()
        .map(|(variant, mutation)| {
            let (fresh, right) = &launches[variant.entry];
            judge(fresh, right, *mutation)
        })
        .collect();
    let mut survivors = Vec::new();
    let mut wrong = 0;
    for ((variant, mutation), verdict) in jobs.iter().zip(&verdicts) {
        println!("{} {mutation:?}: {verdict:?}", variant.entry);
        wrong += usize::from(*verdict == Verdict::WrongResult);
        if *verdict == Verdict::Survived {
            survivors.push((variant, mutation, equivalent(&Tile::of(variant), mutation)));
        }
    }
    let (all, lost) = (jobs.len(), survivors.len());
    let reported = all - wrong - lost;
    println!("{all} mutants: {reported} reported, {wrong} by their result, {lost} survived");
    for (variant, mutation, reason) in &survivors {
        println!("survived: {} {mutation:?}: {}", variant.entry, reason.unwrap_or("NO REASON"));
    }
    let unknown = survivors.iter().filter(|(.., reason)| reason.is_none()).count();
    assert_eq!(unknown, 0, "survivors that are not known as equivalent");
    assert!(lost * 20 <= all, "more than 5% survived");
}
