//! Gradients: right answers pass, planted errors fail; their bits depend on nothing outside of a
//! head; errors in the kernels' synchronisation are noticed.

use std::collections::BTreeSet;

use check::backward::cases::{BackwardCase, cases, emulated_cases, mutation_cases};
use check::call::Launch;
use check::case::{Case, Needs, Summary, check};
use check::device::{Device, Model, Ran};
use check::emulator::run_once;
use check::rules::{Gradient, Measure, Rule};
use fulgurite::emulator::{Change, Mutation, Options, Primitive};
use fulgurite::internals::{BACKWARD, BackwardRow, BackwardTile};
use rayon::prelude::*;
use reference::tensor::{Tensor, decode, encode};

fn row(entry: &str) -> &'static BackwardRow {
    BACKWARD.iter().find(|row| row.entry == entry).expect("the table has it")
}

fn case(entry: &str, start: &str) -> BackwardCase {
    let is_it = |case: &BackwardCase| case.name.starts_with(&format!("gradients, {start}"));
    let found = cases(row(entry)).into_iter().find(is_it);
    found.unwrap_or_else(|| panic!("no case starts with `{start}`"))
}

#[test]
fn the_model_passes_every_case() {
    let all: Vec<BackwardCase> = ["bf16_d64_full", "bf16_d64_causal", "f16_d128_causal"]
        .iter()
        .flat_map(|name| cases(row(&format!("bwd_dkdv_sm90_{name}"))))
        .filter(|case| case.needs == Needs::Nothing && case.poison.is_none())
        .collect();
    all.par_iter().for_each(|case| {
        let outcome = check(case, &Model);
        assert!(outcome.passed(), "{} {}: {}", case.entry, case.name, outcome.complaint());
    });
}

/// The model, whose answer is then made wrong.
struct Planted(fn(&mut Launch));

impl Device for Planted {
    fn name(&self) -> String {
        "planted".to_owned()
    }

    fn run(&self, launch: &mut Launch) -> Result<Ran, String> {
        launch.call.model(&mut launch.memory);
        (self.0)(launch);
        Ok(Ran::Done)
    }
}

/// Changes every element of a gradient, by its index.
fn change(launch: &mut Launch, gradient: Gradient, to: impl Fn(usize, f32) -> f32) {
    let name = gradient.name();
    let Tensor { layout, bits } = launch.memory.tensor(name);
    let one = |(index, bits): (usize, &u16)| {
        encode(layout.dtype, f64::from(to(index, decode(layout.dtype, *bits))))
    };
    launch.memory.store(name, bits.iter().enumerate().map(one).collect());
}

/// Which rules find out an error.
fn failing(entry: &str, start: &str, error: fn(&mut Launch)) -> Vec<Rule> {
    match check(&case(entry, start), &Planted(error)) {
        Summary::Ran(all) => {
            all.iter().filter(|finding| !finding.passed()).map(|finding| finding.rule).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_rule_finds_its_errors() {
    const CAUSAL: &str = "bwd_dkdv_sm90_bf16_d64_causal";
    use Gradient::{Dk, Dq, Dv};
    use Measure::{Element, Places, Rms};
    let off = |launch: &mut Launch| {
        Gradient::ALL.iter().for_each(|it| change(launch, *it, |_, x| x * 1.01));
    };
    let found = failing(CAUSAL, "grouped heads", off);
    for gradient in [Dq, Dk, Dv] {
        assert!(found.contains(&Rule::Of(Rms, gradient)), "{gradient:?}: {found:?}");
    }
    let one = |launch: &mut Launch| {
        change(launch, Dk, |index, x| if index == 777 { x + 0.1 } else { x });
    };
    let found = failing(CAUSAL, "grouped heads", one);
    assert!(found.contains(&Rule::Of(Element, Dk)), "{found:?}");
    assert!(found.iter().all(|rule| matches!(rule, Rule::Of(_, Dk))), "{found:?}");
    let keyless = |launch: &mut Launch| {
        change(launch, Dq, |index, x| if index == 5 { 1e-5 } else { x });
    };
    assert_eq!(failing(CAUSAL, "length b1 h2/2 700x90", keyless), [Rule::Of(Places, Dq)]);
    let nan = |launch: &mut Launch| {
        change(launch, Dv, |index, x| if index == 5 { f32::NAN } else { x });
    };
    assert!(failing(CAUSAL, "scale 0.5", nan).contains(&Rule::Of(Places, Dv)));
}

#[test]
fn what_a_kernel_may_forget_is_seen() {
    const CAUSAL: &str = "bwd_dkdv_sm90_f16_d64_causal";
    // Without the sum of d_out · out.
    let delta = |launch: &mut Launch| {
        let out = launch.memory.tensor("out");
        launch.memory.store("out", vec![0; out.bits.len()]);
        launch.call.model(&mut launch.memory);
        launch.memory.store("out", out.bits);
    };
    let found = failing(CAUSAL, "grouped heads", delta);
    assert!(found.contains(&Rule::Of(Measure::Rms, Gradient::Dq)));
    assert!(found.contains(&Rule::Of(Measure::Rms, Gradient::Dk)));
    assert!(!found.contains(&Rule::Of(Measure::Rms, Gradient::Dv)));
    // Without the last query head of each group.
    let head = |launch: &mut Launch| {
        let d_out = launch.memory.tensor("d_out");
        let [_, _, rows, head_dim] = d_out.layout.shape;
        let mut less = d_out.clone();
        for (index, bits) in less.bits.iter_mut().enumerate() {
            *bits = if index / (rows * head_dim) % 4 == 3 { 0 } else { *bits };
        }
        launch.memory.store("d_out", less.bits);
        launch.call.model(&mut launch.memory);
        launch.memory.store("d_out", d_out.bits);
    };
    let found = failing(CAUSAL, "grouped heads", head);
    assert!(found.contains(&Rule::Of(Measure::Rms, Gradient::Dk)));
    assert!(found.contains(&Rule::Of(Measure::Rms, Gradient::Dv)));
}

#[test]
fn a_row_that_is_not_written_is_seen() {
    struct Nothing;
    impl Device for Nothing {
        fn name(&self) -> String {
            "nothing".to_owned()
        }
        fn run(&self, _: &mut Launch) -> Result<Ran, String> {
            Ok(Ran::Done)
        }
    }
    let outcome = check(&case("bwd_dkdv_sm90_bf16_d64_full", "odd heads"), &Nothing);
    assert!(matches!(outcome, Summary::Failed(reason) if reason.contains("left unwritten")));
}

fn emulated(fresh: &Launch, seed: u64, mutation: Option<Mutation>) -> Result<Launch, String> {
    let mut launch = fresh.clone();
    let options = Options { seed, mutation, ..Options::default() };
    let (_, outcome) = run_once(&mut launch, options).map_err(|error| error.to_string())?;
    outcome.map_err(|fault| fault.to_string())?;
    Ok(launch)
}

#[test]
fn bits_are_the_same_under_every_schedule_and_alone() {
    for entry in ["bwd_dkdv_sm90_bf16_d64_causal", "bwd_dkdv_sm90_f16_d192_full"] {
        let together = emulated_cases(row(entry));
        let together = together.iter().find(|case| case.batch == 2).expect("one of two entries");
        let fresh = together.launches().remove(0);
        let runs: Vec<_> = [0, 1, 2, 3]
            .map(|seed| emulated(&fresh, seed, None).expect("the kernels are right"))
            .map(|launch| launch.memory.written_bits())
            .into();
        assert!(runs.iter().all(|bits| *bits == runs[0]), "{entry}");
        for entry_alone in 0..2 {
            let alone = together.entry_alone(&fresh, entry_alone);
            let alone = emulated(&alone, 0, None).expect("the kernels are right");
            let whole = emulated(&fresh, 0, None).expect("the kernels are right");
            for gradient in Gradient::ALL {
                let [alone, whole] =
                    [&alone, &whole].map(|launch| launch.memory.tensor(gradient.name()).bits);
                let size = alone.len();
                assert_eq!(alone, whole[entry_alone * size..][..size], "{entry} {gradient:?}");
            }
        }
    }
}

/// Why a mutant computes the same and breaks no rule, if that is so.
fn equivalent(row: &BackwardRow, mutation: &Mutation) -> Option<&'static str> {
    let Mutation { site, change } = *mutation;
    let tile = BackwardTile::of(row);
    match (site.primitive, site.name, change) {
        (Primitive::RegistersGrow, _, Change::Drop) => Some(
            "registers are ptxas's: without the call it would compile the role for the launch's \
             share; the result is the same",
        ),
        // Both rings have as many buffers, and a consumer with both duties gives that of the second
        // back before that of the first, whose wait comes first.
        (Primitive::MbarrierWait, "second_empty", Change::Drop)
        | (Primitive::BarrierInit, "second_empty", Change::Less)
            if !tile.shares_rows() && tile.first_stages == tile.second_stages =>
        {
            Some("the ring of what is multiplied twice already orders the loads of the other")
        }
        _ => None,
    }
}

/// Every wait, arrival, fence, commit, count and byte count dropped or altered, one at a time.
#[test]
fn planted_errors_of_synchronisation_are_noticed() {
    const SEEDS: u64 = 12;
    for entry in ["bwd_dkdv_sm90_bf16_d64_causal", "bwd_dkdv_sm90_bf16_d192_full"] {
        let mut sites = BTreeSet::new();
        let mut launches = Vec::new();
        for case in mutation_cases(row(entry)) {
            let fresh = case.launches().remove(0);
            let mut right = fresh.clone();
            let options = Options { record_sites: true, ..Options::default() };
            let (_, outcome) = run_once(&mut right, options).expect("the case is planned");
            sites.extend(outcome.expect("the kernels are right").sites);
            launches.push((fresh, right.memory.written_bits()));
        }
        let mutants: Vec<Mutation> = sites.into_iter().flat_map(|it| it.mutations()).collect();
        assert!(mutants.len() > 50, "{entry}: only {} mutants", mutants.len());
        let is_noticed = |mutation: &Mutation| {
            (0..SEEDS).any(|seed| {
                let (fresh, right) = &launches[seed as usize % launches.len()];
                emulated(fresh, seed, Some(*mutation))
                    .map_or(true, |launch| launch.memory.written_bits() != *right)
            })
        };
        let survived: Vec<Mutation> = mutants
            .par_iter()
            .filter(|it| equivalent(row(entry), it).is_none() && !is_noticed(it))
            .copied()
            .collect();
        println!("{entry}: {} mutants, {} survived", mutants.len(), survived.len());
        assert!(survived.is_empty(), "{entry}: {survived:#?}");
    }
}
