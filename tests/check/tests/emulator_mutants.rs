//! Planted errors in the kernels' synchronisation: the emulator must report them.
//!
//! Every site where a kernel waits, arrives, fences, commits, expects bytes or sets a count is
//! dropped or altered, one at a time, and the kernel is run up to 16 times, each time under another
//! schedule.

use std::collections::{BTreeMap, BTreeSet};

use check::call::Launch;
use check::emulator::{function_of, run_once};
use check::forward::cases::{ForwardCase, mutation_cases};
use fulgurite::emulator::{Change, Mutation, Options, Primitive, Summary};
use fulgurite::internals::{MaskClass, Tile, VARIANTS, Variant};
use rayon::prelude::*;

/// Runs of a mutant at most, each under a schedule of its own.
const SEEDS: u64 = 16;

/// Why a mutant computes the same and breaks no rule, if that is so.
fn equivalent(variant: &Variant, mutation: &Mutation) -> Option<&'static str> {
    let Mutation { site, change } = *mutation;
    let tile = Tile::of(variant);
    // Where no row is lost there is no second pass, and with a full mask no job but the block's
    // last ends alone.
    let ends_once = variant.mask == MaskClass::Full && !variant.softmax.loses();
    match (site.primitive, site.name, change) {
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
        // A warpgroup skips a tile by giving it back unread. It takes part in the turns meanwhile:
        // where it could run ahead, the one whose turn it waits for has given back the tile before
        // in the same buffer, so that an early arrival does not count for an older phase.
        (Primitive::MbarrierWait, "k_full" | "v_full", Change::Drop)
            if function_of(&site) == "start" =>
        {
            Some("nothing is read, and the turns keep the skipping warpgroup within a round")
        }
        (Primitive::MbarrierArrive, "v_empty", Change::Drop | Change::More)
            if ends_once && function_of(&site) == "finish_alone" =>
        {
            Some("after the block's last product nobody waits for its buffer")
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

/// The variants whose kernels differ in more than the type: one for each softmax, mask and tile.
/// All of them take two minutes on two cores and are run if `FULGURITE_MUTANTS` is `all`; else
/// three that have between them every site: three consumers with a causal mask, two with a full
/// one, and one that follows maxima everywhere and whose producer is one thread.
fn families() -> impl Iterator<Item = &'static Variant> {
    const USUAL: [&str; 3] =
        ["fwd_sm90_bf16_d64_causal", "fwd_sm90_bf16_d128_full", "fwd_sm90_bf16_d256_full"];
    let all = std::env::var_os("FULGURITE_MUTANTS").is_some_and(|value| value == "all");
    every_family().filter(move |variant| all || USUAL.contains(&variant.entry))
}

fn every_family() -> impl Iterator<Item = &'static Variant> {
    let mut seen = Vec::new();
    VARIANTS.iter().filter(move |variant| {
        let family = (variant.mask, variant.softmax, Tile::of(variant));
        let new = !seen.contains(&family);
        seen.push(family);
        new
    })
}

fn run(fresh: &Launch, options: Options) -> (Launch, Result<Summary, String>) {
    let mut launch = fresh.clone();
    let (_, result) = run_once(&mut launch, options).expect("the case is planned");
    (launch, result.map_err(|fault| fault.to_string()))
}

fn judge(launches: &[(Launch, Launch)], mutation: Mutation) -> Verdict {
    for seed in 0..SEEDS {
        // The cases in turn, each with schedules of every kind.
        let (round, place) = (seed as usize / launches.len(), seed as usize % launches.len());
        let (fresh, right) = &launches[(place + round) % launches.len()];
        let options =
            Options { seed, mutation: Some(mutation), record_sites: false, ..Options::default() };
        match run(fresh, options) {
            (_, Err(report)) => return Verdict::Reported(report),
            (launch, Ok(_)) if launch.memory.written_bits() != right.memory.written_bits() => {
                return Verdict::WrongResult;
            }
            _ => {}
        }
    }
    Verdict::Survived
}

fn launch_of(case: &ForwardCase) -> Launch {
    case.launch(&case.clean_inputs())
}

#[test]
fn planted_errors_are_reported() {
    let mut jobs: Vec<(&Variant, Mutation)> = Vec::new();
    let mut launches: BTreeMap<&str, Vec<(Launch, Launch)>> = BTreeMap::new();
    for variant in families() {
        let mut sites = BTreeSet::new();
        for case in mutation_cases(variant) {
            let fresh = launch_of(&case);
            let options =
                Options { seed: 0, mutation: None, record_sites: true, ..Options::default() };
            let (right, outcome) = run(&fresh, options);
            sites.extend(outcome.expect("the kernel is right").sites);
            launches.entry(variant.entry).or_default().push((fresh, right));
        }
        assert!(sites.len() > 20, "{}: only {} sites", variant.entry, sites.len());
        for site in sites {
            jobs.extend(site.mutations().map(|mutation| (variant, mutation)));
        }
    }
    let verdicts: Vec<Verdict> = jobs
        .par_iter()
        .map(|(variant, mutation)| judge(&launches[variant.entry], *mutation))
        .collect();
    let mut survivors = Vec::new();
    let mut wrong = 0;
    for ((variant, mutation), verdict) in jobs.iter().zip(&verdicts) {
        println!("{} {mutation:?}: {verdict:?}", variant.entry);
        wrong += usize::from(*verdict == Verdict::WrongResult);
        if *verdict == Verdict::Survived {
            survivors.push((variant, mutation, equivalent(variant, mutation)));
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
