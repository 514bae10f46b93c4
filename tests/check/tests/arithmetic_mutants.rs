//! Planted errors in the kernels' arithmetic: the rules of comparison must see them.
//!
//! Every site where a kernel multiplies, takes maxima, exponentiates, sums, scales, masks, votes,
//! rounds, loads or stores is altered, one at a time, and so are constants that guard ranges. Each
//! mutant is run on a few cases, and its results are judged as any kernel's are; in addition it
//! must follow maxima, keep and move anchors and repeat jobs as often as the right kernel.

use std::collections::{BTreeMap, BTreeSet};

use check::call::Launch;
use check::emulator::{function_of, run_once};
use check::forward::cases::{ForwardCase, mutation_cases};
use check::forward::compare::{Answer, compare};
use check::forward::judge::{expected, results};
use check::rules::Rule;
use fulgurite::Dtype;
use fulgurite::emulator::{Change, Mutation, MutationSite, Options, Primitive, Rows, Summary};
use fulgurite::internals::{MaskClass, SoftmaxKind, Tile, VARIANTS, Variant};
use rayon::prelude::*;
use reference::forward::lowprec::LowPrecision;
use reference::forward::oracle::Reference;
use reference::forward::values::{Inputs, Values};
use reference::tensor::encode;

/// A case with all that a mutant is judged by.
struct Prepared {
    case: ForwardCase,
    fresh: Launch,
    reference: Reference,
    model: LowPrecision,
    /// Rules that the right kernel keeps.
    rules: BTreeSet<&'static str>,
    events: BTreeMap<&'static str, u64>,
}

/// The kernels whose arithmetic is altered: one each with anchors, with maxima, and with maxima
/// whose differences are taken first; with `FULGURITE_MUTANTS=all` one for each softmax, mask and
/// tile. f16 then, because its range is the narrower one.
fn families() -> impl Iterator<Item = &'static Variant> {
    const USUAL: [&str; 3] = [
        "fwd_sm90_f16_d64_causal",
        "fwd_sm90_bf16_d64_full_short",
        "fwd_sm90_bf16_d64_causal_short",
    ];
    let all = std::env::var_os("FULGURITE_MUTANTS").is_some_and(|value| value == "all");
    VARIANTS
        .iter()
        .filter(move |variant| USUAL.contains(&variant.entry) || all && variant.dtype == Dtype::F16)
}

/// The cases, the cheapest first. Some have the scores that [`scores`] gives.
fn cases(variant: &Variant) -> Vec<ForwardCase> {
    let tile = Tile::of(variant);
    let (q_rows, kv_rows) = (tile.q_rows() as usize, tile.kv_rows as usize);
    let case = |name: &str, batch, heads, (q_len, kv_len), values| {
        let name = name.to_owned();
        let first = mutation_cases(variant).swap_remove(0);
        ForwardCase { name, batch, heads, q_len, kv_len, values, ..first }
    };
    let one = |name, tiles: usize| case(name, 1, (1, 1), (64, tiles * kv_rows), Values::Normal);
    let mut all = vec![
        case("plain", 2, (4, 2), (70, 2 * kv_rows + 5), Values::Normal),
        one("high start", 3),
        one("early rise", 3),
        one("rise", 8),
        one("far", 7),
        one("leap", 8),
        one("crowd", 8),
        // One of several jobs of a block.
        case(FAR_CROWD, 1, (6, 2), (q_rows - 9, 3 * kv_rows - 3), Values::Normal),
        case("several query tiles", 1, (2, 1), (2 * q_rows - 9, 6 * kv_rows - 5), Values::Normal),
        case("moving anchors", 1, (1, 1), (q_rows - 9, 6 * kv_rows - 3), Values::Sinks(25.0)),
        case("lost rows", 1, (2, 1), (q_rows - 9, 8 * kv_rows - 3), Values::Sinks(130.0)),
        // One row of one of several jobs of a block.
        case("lone sink", 1, (6, 2), (q_rows - 9, 8 * kv_rows - 3), Values::LoneSink(130.0)),
        case("dominant key", 1, (2, 2), (q_rows - 9, 6 * kv_rows - 3), Values::DominantKey),
        case("lone start", 1, (1, 1), (q_rows - 3, 8 * kv_rows - 3), Values::LoneStart(30.0)),
    ];
    if variant.mask == MaskClass::Causal {
        all.push(case("keyless", 1, (2, 1), (2 * q_rows + 70, 40), Values::Normal));
    }
    if variant.dtype == Dtype::F16 && variant.softmax.keeps_anchors() {
        all.push(one(CLIMB, 25));
    }
    all
}

/// A climb: the keys of a tile weigh 0.9 times as much as all before, so that every row outgrows
/// f16 unless the sums say so in time.
const CLIMB: &str = "slow climb";

/// Scores of 30,000 and more that lie near each other, in the first three heads.
const FAR_CROWD: &str = "far crowd";

/// Scores of all rows in natural units, by key, of the cases of some names; keys are visited in
/// tiles of `kv_rows`, the last tile first.
fn scores(name: &str, kv_len: usize, kv_rows: usize) -> Option<Vec<f64>> {
    // Keys above all others. Every row sees them, and they are even columns of their tile.
    let peaks = |places: &[usize], height| {
        let mut scores = vec![0.0; kv_len];
        places.iter().for_each(|place| scores[*place] = height);
        Some(scores)
    };
    // In the last tile but one, in two steps of its product.
    let late = [kv_rows + 4, kv_rows + 20];
    match name {
        // In the first tile, beyond what float32 holds relative to the keys that follow.
        "high start" => peaks(&[kv_len - 64], 130.0),
        // In the second tile, which follows the maxima.
        "early rise" => peaks(&[kv_len - 2 * kv_rows + 4], 25.0),
        // In a tile that keeps anchors, beyond f16 and then float32, with another behind it.
        "rise" => peaks(&late, 25.0),
        "leap" => peaks(&late, 130.0),
        // In the first tile's place, beyond what a kept anchor bears, with unlike keys.
        "crowd" => {
            let crowd = |key: usize| 130.0 - 0.37 * (key % 7) as f64;
            Some((0..kv_len).map(|key| if key < kv_rows { crowd(key) } else { 0.0 }).collect())
        }
        CLIMB => {
            let mut scores = vec![0.0; kv_len];
            let mut before = 1.0;
            for tile in scores.rchunks_mut(kv_rows).skip(1) {
                let weight: f64 = 0.9 * before;
                tile.fill(weight.ln());
                before += weight;
            }
            Some(scores)
        }
        _ => None,
    }
}

fn inputs(case: &ForwardCase) -> Inputs {
    let mut inputs = case.clean_inputs();
    let kv_rows = case.variant.map_or(1, |variant| Tile::of(&variant).kv_rows as usize);
    if let Some(scores) = scores(&case.name, case.kv_len, kv_rows) {
        let dtype = case.dtype;
        inputs.q.bits.fill(0);
        for row in 0..case.q_len {
            inputs.q.row_mut([0, 0, row])[0] = encode(dtype, 1.0);
        }
        for (key, score) in scores.iter().enumerate() {
            inputs.k.row_mut([0, 0, key])[0] = encode(dtype, score / case.scale());
        }
    }
    if case.name == FAR_CROWD {
        let dtype = case.dtype;
        for (head, row) in (0..case.heads.0).flat_map(|h| (0..case.q_len).map(move |r| (h, r))) {
            let (columns, weight) = if head < 3 { (case.head_dim, 4.0) } else { (2, 0.0) };
            // Exact in float32: no other columns.
            inputs.q.row_mut([0, head, row])[..columns].fill(0);
            inputs.q.row_mut([0, head, row])[..2].fill(encode(dtype, weight));
        }
        for key in 0..case.kv_len {
            // Maxima that rise from tile to tile, and unlike keys.
            let steps = 3.0 * ((case.kv_len - 1 - key) / kv_rows) as f64 - (key % 7) as f64;
            let columns = [60_000.0, 0.375 * steps].map(|x| encode(dtype, x));
            inputs.k.row_mut([0, 0, key])[..2].copy_from_slice(&columns);
        }
    }
    if case.name == "far" {
        // Scaled scores that a float32 cannot hold to within the range of an exponent.
        let large = encode(case.dtype, 40_000.0);
        inputs.q.bits.fill(large);
        for key in [kv_rows + 4, case.kv_len - 64] {
            inputs.k.row_mut([0, 0, key]).fill(large);
        }
    }
    inputs
}

fn run(
    fresh: &Launch,
    mutation: Option<Mutation>,
    record: bool,
) -> Result<(Launch, Summary), String> {
    let mut launch = fresh.clone();
    let options = Options { seed: 0, mutation, record_sites: record, ..Options::default() };
    let (_, result) = run_once(&mut launch, options).expect("the case is planned");
    result.map(|outcome| (launch, outcome)).map_err(|fault| fault.to_string())
}

/// The rules that a launch's results break; all of them are broken by results that cannot be read.
fn broken(prepared: &Prepared, launch: &Launch) -> Result<Vec<Rule>, String> {
    launch.memory.check_written()?;
    let (out, lse) = results(&launch.memory);
    let answer = Answer { out: &out.bits, lse: lse.as_deref() };
    let (reference, model) = (&prepared.reference, &prepared.model);
    let findings = compare(prepared.case.dtype, reference, model, answer, None);
    Ok(findings.iter().filter(|finding| !finding.passed()).map(|finding| finding.rule).collect())
}

fn prepare(case: ForwardCase) -> (Prepared, BTreeSet<MutationSite>) {
    let inputs = inputs(&case);
    let fresh = case.launch(&inputs);
    let (launch, outcome) = run(&fresh, None, true).expect("the kernel is right");
    let (reference, model) = expected(&case, &inputs);
    let events = outcome.stats.events;
    let mut prepared = Prepared { case, fresh, reference, model, rules: BTreeSet::new(), events };
    let wrong = broken(&prepared, &launch).expect("the kernel is right");
    // Rows of a climb may have more error than the model's, whose maxima are all exact.
    let allowed = [Rule::Rms, Rule::Element];
    assert!(
        wrong.is_empty()
            || prepared.case.name == CLIMB && wrong.iter().all(|it| allowed.contains(it)),
        "{}: {wrong:?}",
        prepared.case.name
    );
    prepared.rules = wrong.iter().map(|rule| rule.name()).collect();
    (prepared, outcome.sites)
}

/// Why the counts of a mutant are not those of the right kernel, if they are not.
fn miscounted(prepared: &Prepared, outcome: &Summary) -> Option<String> {
    let count =
        |events: &BTreeMap<&'static str, u64>, name: &str| events.get(name).copied().unwrap_or(0);
    let (want, got) = (&prepared.events, &outcome.stats.events);
    let differ = ["followed", "kept", "again"]
        .into_iter()
        .find(|name| count(want, name) != count(got, name))
        .or_else(|| {
            let slack = count(want, "kept") / 100;
            (count(got, "moved") > count(want, "moved") + slack).then_some("moved")
        });
    differ.map(|name| format!("{name} {} times, not {}", count(got, name), count(want, name)))
}

/// How a mutant is found out, if it is.
fn judge(all: &[Prepared], mutation: Mutation) -> Option<String> {
    all.iter().find_map(|prepared| {
        let name = &prepared.case.name;
        let (launch, outcome) = match run(&prepared.fresh, Some(mutation), false) {
            Ok(done) => done,
            Err(report) => return Some(format!("{name}: {}", report.lines().next()?)),
        };
        match broken(prepared, &launch) {
            Err(error) => Some(format!("{name}: {error}")),
            Ok(rules) => {
                let new = rules.iter().find(|rule| !prepared.rules.contains(rule.name()));
                let rule = new.map(|rule| format!("{name}: rule {}", rule.name()));
                rule.or_else(|| miscounted(prepared, &outcome).map(|why| format!("{name}: {why}")))
            }
        }
    })
}

/// What else constants are: those that guard a range too large, those that say when to begin
/// at once and too late.
fn constants(site: &MutationSite) -> &'static [u16] {
    match (site.primitive, site.name) {
        (Primitive::Constant, "GROWTH") => &[40],
        (Primitive::Constant, "SETTLING_TILES") => &[0, 1, 6],
        _ => &[],
    }
}

/// Constants are those of anchors, which kernels of maxima do not have.
fn mutations(variant: &Variant, site: MutationSite) -> Vec<Mutation> {
    let has_anchors = variant.softmax.keeps_anchors();
    let constants = if has_anchors { constants(&site) } else { &[] };
    let constants = constants.iter().map(|number| Change::Is(*number));
    let constants = constants.map(|change| Mutation { site, change });
    site.arithmetic_mutations().chain(constants).collect()
}

/// Why a mutant's results are as right as the kernel's, if they are.
fn equivalent(variant: &Variant, mutation: &Mutation) -> Option<&'static str> {
    let Mutation { site, change } = *mutation;
    match (site.primitive, function_of(&site).as_str()) {
        (Primitive::Fma, "shift_to_max") if !variant.softmax.loses() => {
            Some("differences are taken first, which leaves the headroom to shift by")
        }
        (Primitive::Exp2 | Primitive::Rows(Rows::Floor), "run_job") => {
            Some("before the first tile there is nothing to rescale, and no maximum")
        }
        (Primitive::Rows(Rows::Floor), "keep_anchors") => {
            Some("any anchor will do; the floor saves moving one down")
        }
        (Primitive::Rows(Rows::Held), "mask_tile") if variant.mask == MaskClass::Full => {
            Some("all rows end at the same key")
        }
        (Primitive::Rows(Rows::End), "mask_tile")
            if variant.mask == MaskClass::Full && change == Change::Swap =>
        {
            Some("all rows end at the same key")
        }
        (Primitive::GlobalStoreFloat, "store_keyless") if change == Change::More => {
            Some("-inf is the same in every unit")
        }
        (Primitive::BarrierAny | Primitive::Ballot, "consume") if change == Change::Vote(true) => {
            Some("a second pass asks every job whether it has lost rows")
        }
        (Primitive::Ballot, "run_job" | "step")
            if variant.softmax == SoftmaxKind::Maxima && change == Change::Vote(true) =>
        {
            Some("rows that are not far keep every bit where a warp asks which are")
        }
        (Primitive::Ballot, "store") if change != Change::Vote(false) => {
            Some("that a row may be lost costs time; which it is, is asked again")
        }
        _ => None,
    }
}

#[test]
fn planted_errors_of_arithmetic_are_noticed() {
    let mut jobs: Vec<(&Variant, Mutation)> = Vec::new();
    let mut prepared: BTreeMap<&str, Vec<Prepared>> = BTreeMap::new();
    for variant in families() {
        let mut sites = BTreeSet::new();
        for (case, found) in cases(variant).into_par_iter().map(prepare).collect::<Vec<_>>() {
            sites.extend(found);
            prepared.entry(variant.entry).or_default().push(case);
        }
        let planted: Vec<Mutation> =
            sites.into_iter().flat_map(|site| mutations(variant, site)).collect();
        assert!(planted.len() >= 60, "{}: only {} mutants", variant.entry, planted.len());
        jobs.extend(planted.into_iter().map(|mutation| (variant, mutation)));
    }
    let verdicts: Vec<Option<String>> = jobs
        .par_iter()
        .map(|(variant, mutation)| judge(&prepared[variant.entry], *mutation))
        .collect();
    let mut survivors = Vec::new();
    for ((variant, mutation), verdict) in jobs.iter().zip(&verdicts) {
        println!("{} {mutation:?}: {}", variant.entry, verdict.as_deref().unwrap_or("SURVIVED"));
        if verdict.is_none() {
            survivors.push((variant, mutation));
        }
    }
    println!("{} mutants, {} survived", jobs.len(), survivors.len());
    let mut unknown = 0;
    for (variant, mutation) in &survivors {
        let reason = equivalent(variant, mutation);
        unknown += usize::from(reason.is_none());
        println!("survived: {} {mutation:?}: {}", variant.entry, reason.unwrap_or("NO REASON"));
    }
    assert_eq!(unknown, 0, "survivors that are not known as equivalent");
    assert!(survivors.len() * 20 <= jobs.len(), "more than 5% survived");
}
