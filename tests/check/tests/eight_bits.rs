//! The rules for kernels of 8 bits: a right answer passes in every case, and each planted error of
//! quantiser or kernel is seen.

use std::collections::HashSet;

use check::case::check;
use check::device::Model;
use check::forward::cases::ForwardCase;
use check::forward::cases::eight_bits::{cases, emulated_cases};
use check::forward::compare::Answer;
use check::forward::judge::{eight_bits::Known, problem};
use check::rules::{Finding, Rule};
use fulgurite::Dtype;
use fulgurite::internals::{VARIANTS_8BIT, Variant};
use rayon::prelude::*;
use reference::forward::eight_bits::{EightBits, Quantised};
use reference::forward::lowprec::Arithmetic;
use reference::forward::values::Inputs;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// A KV tile has the scale of the next one.
    KScaleOfNextTile,
    /// K's scales are 1% too large.
    KScaleOff,
    /// A row of q has the scale of the same row of the next head.
    QScaleOfNextHead,
    /// V's scale is that of the next KV head.
    VScaleOfNextHead,
    /// V's mean does not come back.
    NoVShift,
    /// What K's mean took from the log-sum-exp does not come back.
    NoQShift,
    /// Keys of V lie in their own order, where the kernel reads permuted ones.
    NotPermuted,
    /// K's last tile is rotated with other signs.
    OtherSigns,
    /// Anchors stay while sums are below 2¹⁵, so that probabilities are cut off at 448.
    Saturated,
}

impl Bug {
    /// Every bug, the beginning of the name of a case that shows it, and the rule that must.
    const ALL: &[(Bug, &str, Rule)] = &[
        (Bug::KScaleOfNextTile, "bf16: outliers", Rule::Rms),
        (Bug::KScaleOff, "f16: length b1 h2/1 513x513", Rule::Lse),
        (Bug::QScaleOfNextHead, "bf16: unlike heads", Rule::Rms),
        (Bug::VScaleOfNextHead, "bf16: unlike heads", Rule::Rms),
        (Bug::NoVShift, "f16: means of k and v", Rule::Rms),
        (Bug::NoVShift, "bf16: constant columns of v", Rule::Constant),
        (Bug::NoQShift, "bf16: means of k and v", Rule::Lse),
        (Bug::NotPermuted, "bf16: length b1 h2/1 15x17", Rule::Rms),
        (Bug::OtherSigns, "bf16: outliers", Rule::Lse),
        (Bug::Saturated, "bf16: sinks b1", Rule::Bound),
    ];

    /// Makes it in what the quantiser left, as far as it lies there.
    fn alter(self, case: &ForwardCase, all: &mut Quantised) {
        let tiles = case.kv_len.div_ceil(all.shape.kv_rows);
        let head_dim = all.shape.head_dim;
        match self {
            Bug::KScaleOfNextTile => all.k.scales[..tiles].rotate_left(1),
            Bug::KScaleOff => all.k.scales.iter_mut().for_each(|scale| *scale *= 1.01),
            Bug::QScaleOfNextHead => all.q.scales.rotate_left(case.q_len),
            Bug::VScaleOfNextHead => all.v_scale.rotate_left(1),
            Bug::NoVShift => all.v_shift.fill(0.0),
            Bug::NoQShift => all.q_shift.fill(0.0),
            Bug::NotPermuted => {
                let kv_len = case.kv_len;
                for entry in 0..case.batch * case.heads.1 {
                    let stored =
                        &all.v8[entry * kv_len * head_dim..(entry + 1) * kv_len * head_dim];
                    let stored = stored.to_vec();
                    for key in 0..kv_len / 16 * 16 {
                        let from = key / 16 * 16 + KEY_ORDER[key % 16];
                        let to = (entry * kv_len + key) * head_dim;
                        all.v8[to..to + head_dim]
                            .copy_from_slice(&stored[from * head_dim..(from + 1) * head_dim]);
                    }
                }
            }
            Bug::OtherSigns => {
                let first = (tiles - 1) * all.shape.kv_rows;
                let rows =
                    all.k.elements[..case.kv_len * head_dim].chunks_mut(head_dim).skip(first);
                rows.for_each(|row| row[3] = -row[3]);
                let rows =
                    all.k.elements[..case.kv_len * head_dim].chunks_mut(head_dim).skip(first);
                rows.for_each(|row| row[4..20].iter_mut().for_each(|x| *x = -*x));
            }
            Bug::Saturated => {}
        }
    }

    /// The arithmetic of the kernel that has it.
    fn arithmetic(self, kv_rows: usize) -> Arithmetic {
        // From 2³ at the anchor to 2¹⁵.
        let rescale_threshold = if self == Bug::Saturated { 12.0 } else { 0.0 };
        Arithmetic { kv_rows, rescale_threshold, ..Arithmetic::EIGHT_BITS }
    }
}

/// Where each key of 16 lies.
const KEY_ORDER: [usize; 16] = [0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15];

fn variant(entry: &str) -> &'static Variant {
    VARIANTS_8BIT.iter().find(|row| row.entry == entry).expect("the table has it")
}

fn case(variant: &Variant, name: &str) -> ForwardCase {
    cases(variant).into_iter().find(|case| case.name.starts_with(name)).expect("a case of the name")
}

/// The findings of an answer that has a bug, or none.
fn findings(case: &ForwardCase, inputs: &Inputs, known: &Known, bug: Option<Bug>) -> Vec<Finding> {
    let problem = problem(case, inputs);
    let altered = EightBits::altered(&problem, &known.quantised, |all| {
        bug.into_iter().for_each(|bug| bug.alter(case, all));
    });
    let arithmetic = bug.map_or(Arithmetic::EIGHT_BITS, |bug| bug.arithmetic(128));
    let arithmetic = Arithmetic { kv_rows: known.quantised.shape.kv_rows, ..arithmetic };
    let answer = altered.model(&problem.rows(), arithmetic);
    known.judge(case, Answer { out: &answer.out, lse: Some(&answer.lse) })
}

#[test]
fn planted_errors_are_seen_by_the_rules_that_are_for_them() {
    for entry in ["fwd_sm90_s8e4m3_d64_full", "fwd_sm90_s8e4m3_d96_causal"] {
        let variant = variant(entry);
        for &(bug, name, rule) in Bug::ALL {
            let case = case(variant, name);
            let inputs = case.clean_inputs();
            let known = Known::of(&case, &inputs);
            let right = findings(&case, &inputs, &known, None);
            assert!(right.iter().all(Finding::passed), "{entry} {name}: {right:?}");
            let wrong = findings(&case, &inputs, &known, Some(bug));
            let seen = wrong.iter().filter(|finding| !finding.passed());
            let seen: Vec<&str> = seen.map(|finding| finding.rule.name()).collect();
            println!("{entry} {bug:?} in {name}: {seen:?}");
            assert!(seen.contains(&rule.name()), "{entry} {bug:?} in {name}: {wrong:?}");
        }
    }
}

#[test]
fn a_right_kernel_passes_every_case() {
    let jobs: Vec<ForwardCase> = ["fwd_sm90_s8e4m3_d64_causal", "fwd_sm90_s8f16_d64_causal"]
        .into_iter()
        .flat_map(|entry| cases(variant(entry)))
        .filter(|case| case.batch * case.heads.0 * case.q_len * case.kv_len < 250_000)
        .chain(VARIANTS_8BIT.iter().flat_map(emulated_cases))
        .collect();
    let failed: Vec<String> = jobs
        .par_iter()
        .map(|case| (case, check(case, &Model)))
        .filter(|(_, outcome)| !outcome.passed())
        .map(|(case, outcome)| format!("{}: {}", case.name, outcome.complaint()))
        .collect();
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

/// What the scheme is for, on the data of the FlashAttention-3 paper.
#[test]
fn the_error_is_that_of_the_scheme() {
    let variant = variant("fwd_sm90_s8e4m3_d128_full");
    let mut case = case(variant, "bf16: outliers");
    (case.heads, case.q_len, case.kv_len) = ((4, 4), 64, 2048);
    let inputs = case.clean_inputs();
    let known = Known::of(&case, &inputs);
    let findings = findings(&case, &inputs, &known, None);
    let rms = findings.iter().find(|finding| finding.rule == Rule::Rms).expect("the rule");
    // Relative to outputs of 0.0455 or so: 5.3e-3.
    println!("{rms:?}");
    assert!(rms.passed() && (0.02..0.2).contains(&rms.value), "{rms:?}");
}

#[test]
fn every_kernel_has_every_kind_under_names_of_their_own() {
    for variant in VARIANTS_8BIT {
        let all = cases(variant);
        let names: HashSet<&str> = all.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names.len(), all.len(), "{}", variant.entry);
        // Of one type at least; kernels with values of e4m3 are given tensors of two.
        let types = if variant.dtype == Dtype::E4m3 { 2 } else { 1 };
        for kv_len in [1, 15, 17, 127, 129, 200, 513] {
            let found = all.iter().filter(|case| case.kv_len == kv_len).count();
            assert!(found >= types, "{}: no case of {kv_len} keys for each type", variant.entry);
        }
        let padded = all.iter().filter(|case| case.head_dim < variant.head_dim as usize).count();
        assert!(padded >= types, "{}: no padded head dim for each type", variant.entry);
    }
}
