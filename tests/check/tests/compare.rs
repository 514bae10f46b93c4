//! The rules of comparison: right answers pass, planted errors fail, each by the rule meant for it.

use approx::assert_abs_diff_eq;
use check::case::{Summary, check};
use check::device::Model;
use check::forward::cases::{ForwardCase, cases};
use check::forward::compare::{Answer, compare};
use check::forward::judge::{expected, problem};
use check::forward::model::ModelOf;
use check::forward::mutants::{Bug, Mutant};
use check::rules::{Rule, sampling_slack};
use fulgurite::internals::{VARIANTS, Variant};
use fulgurite::{Dtype, Mask};
use reference::forward::lowprec::{self, Arithmetic};
use reference::forward::values::Poison;

fn variant(dtype: Dtype, mask: Mask) -> &'static Variant {
    let wanted = |v: &&Variant| (v.dtype, v.mask, v.head_dim) == (dtype, mask.class(), 64);
    VARIANTS.iter().find(wanted).expect("the table has head dim 64")
}

fn case(variant: &Variant, start: &str) -> ForwardCase {
    let found = cases(variant).into_iter().find(|case| case.name.starts_with(start));
    found.unwrap_or_else(|| panic!("no case starts with `{start}`"))
}

#[test]
fn every_planted_error_is_seen() {
    for dtype in [Dtype::Bf16, Dtype::F16] {
        for mask in [Mask::Full, Mask::Causal] {
            let variant = variant(dtype, mask);
            for (bug, start) in Bug::ALL.iter().filter(|(bug, _)| bug.applies_to(mask.class())) {
                let case = case(variant, start);
                let outcome = check(&case, &Mutant { bug: *bug });
                assert!(outcome.failed(), "{bug:?} passes: {} {}", variant.entry, case.name);
            }
        }
    }
}

#[test]
fn the_cases_of_planted_errors_pass_without_them() {
    for mask in [Mask::Full, Mask::Causal] {
        let variant = variant(Dtype::Bf16, mask);
        for (_, start) in Bug::ALL {
            let case = case(variant, start);
            let outcome = check(&case, &Model);
            assert!(outcome.passed(), "{} {}: {outcome:?}", variant.entry, case.name);
        }
    }
}

/// Each rule fails on an error that is its own.
#[test]
fn each_rule_fails_alone() {
    let variant = variant(Dtype::Bf16, Mask::Causal);
    let failing = |start: &str, bug: Bug| -> Vec<Rule> {
        match check(&case(variant, start), &Mutant { bug }) {
            Summary::Ran(all) => {
                all.iter().filter(|finding| !finding.passed()).map(|finding| finding.rule).collect()
            }
            other => panic!("{bug:?}: {other:?}"),
        }
    };
    assert_eq!(failing("many rows", Bug::Truncated), [Rule::Rms, Rule::Bound]);
    assert_eq!(failing("many rows", Bug::LseLow), [Rule::Lse]);
    assert_eq!(failing("v all 1", Bug::ConstantOff), [Rule::Constant]);
    assert_eq!(failing("length b1 h2/2 700x90", Bug::EmptyRowNotZero)[0], Rule::Places);
    assert!(failing("nan in q", Bug::NanSpreads).contains(&Rule::Untouched));
    assert!(failing("many rows", Bug::WrongRow).contains(&Rule::Element));
    assert_eq!(failing("outliers", Bug::ElementOff), [Rule::Bound]);
    assert!(failing("scale 1e4 ", Bug::DominantOff).contains(&Rule::Dominant));
    assert_eq!(failing("settled, small", Bug::LastBitSpreads), [Rule::Untouched]);
    assert!(failing("scale 1e12 ", Bug::SilentZeros).contains(&Rule::Dominant));
}

/// On a climb a softmax whose anchors stay is as good as one that follows maxima, by the yardstick
/// for climbs and by no other; truncation and stale anchors by whole powers are still seen.
#[test]
fn climbs_have_a_yardstick_of_their_own() {
    for dtype in [Dtype::Bf16, Dtype::F16] {
        let variant = variant(dtype, Mask::Full);
        let climb = case(variant, "climb of 12, ratio 0.99");
        let inputs = climb.clean_inputs();
        // Their mean is the yardstick: those below it pass, and so does what mixes them.
        let passes =
            |arithmetic: &Arithmetic| check(&climb, &ModelOf { arithmetic: *arithmetic }).passed();
        let good = Arithmetic::PEER.phases().iter().filter(|phase| passes(phase)).count();
        assert!(good >= 4, "{}: {good} of 8 phases pass", variant.entry);
        let outcome = check(&climb, &Mutant { bug: Bug::Truncated });
        assert!(outcome.failed(), "{}: truncation passes", variant.entry);
        // The worst phase by the yardstick for other data.
        let (reference, model) = expected(&climb, &inputs);
        let problem = problem(&climb, &inputs);
        let ratio = |arithmetic| {
            let answer = lowprec::attention(&problem, &reference.rows, arithmetic);
            let answer = Answer { out: &answer.out, lse: None };
            let findings = compare(dtype, &reference, &model, answer, None);
            findings.iter().find(|f| f.rule == Rule::Rms).expect("applied").severity()
        };
        let worst = Arithmetic::PEER.phases().into_iter().map(ratio).fold(0.0, f64::max);
        assert!(worst > ratio(Arithmetic::PEER) * 1.2, "{}: {worst}", variant.entry);
    }
}

/// Where all probabilities are rounded one way, the error is what the bound grants them, which is
/// half of it (the other half is for the output), less by where in its binade a probability lies.
#[test]
fn aligned_climbs_come_near_the_bound() {
    for dtype in [Dtype::Bf16, Dtype::F16] {
        let variant = variant(dtype, Mask::Full);
        let climb = case(variant, "aligned climb of 12, ratio 0.99");
        let severity = |arithmetic: Arithmetic| match check(&climb, &ModelOf { arithmetic }) {
            Summary::Ran(findings) => {
                findings.iter().find(|f| f.rule == Rule::Bound).expect("applied").severity()
            }
            other => panic!("{other:?}"),
        };
        // Anchors that stay at the first key that counts.
        let stay = Arithmetic { rescale_threshold: 20.0, ..Arithmetic::PEER };
        let attained = severity(stay);
        assert!((0.25..=1.0).contains(&attained), "{}: {attained}", variant.entry);
    }
}

/// A log-sum-exp that float32 cannot hold is infinite, and one that it can hold is not.
#[test]
fn log_sum_exps_end_where_float32_does() {
    let variant = variant(Dtype::Bf16, Mask::Full);
    let case = case(variant, "scale 1e36, large row");
    let outcome = check(&case, &Model);
    assert!(outcome.passed(), "{outcome:?}");
    let mut inputs = case.clean_inputs();
    Poison::RowHuge.plant(&mut inputs);
    let (reference, model) = expected(&case, &inputs);
    let beyond = reference.lse.iter().filter(|lse| lse.abs() > f64::from(f32::MAX)).count();
    assert!(beyond > 0 && beyond < reference.lse.len(), "{beyond} rows are beyond float32");
    let passes = |lse: &[f32]| {
        let answer = Answer { out: &model.out, lse: Some(lse) };
        let findings = compare(Dtype::Bf16, &reference, &model, answer, None);
        findings.iter().all(|finding| finding.passed())
    };
    assert!(passes(&model.lse));
    let turned: Vec<f32> =
        model.lse.iter().map(|&x| if x.is_infinite() { -x } else { x }).collect();
    assert!(!passes(&turned), "infinity of the wrong sign");
    assert!(!passes(&vec![f32::INFINITY; turned.len()]), "infinity where a number fits");
}

/// One wrong element hides in the mean of many, but not from the element rule.
#[test]
fn a_single_element_is_seen() {
    let case = case(variant(Dtype::F16, Mask::Full), "many rows");
    let inputs = case.clean_inputs();
    let (reference, model) = expected(&case, &inputs);
    let mut out = model.out.clone();
    let right = Answer { out: &out, lse: None };
    assert!(compare(Dtype::F16, &reference, &model, right, None).iter().all(|f| f.passed()));
    out[12_345] = reference::tensor::encode(Dtype::F16, reference.out[12_345] + 4e-3);
    let wrong = Answer { out: &out, lse: None };
    let findings = compare(Dtype::F16, &reference, &model, wrong, None);
    let element = findings.iter().find(|finding| finding.rule == Rule::Element);
    assert!(!element.expect("the rule was applied").passed());
}

/// Another online softmax whose probabilities are rounded relative to a stale maximum is worse
/// than the peers where one key dominates: the rms rule sees even that.
#[test]
fn a_stale_maximum_is_seen() {
    let variant = variant(Dtype::Bf16, Mask::Full);
    let arithmetic = Arithmetic { rescale_threshold: 8.0, ..Arithmetic::PEER };
    let outcome = check(&case(variant, "dominant key"), &ModelOf { arithmetic });
    assert!(outcome.failed(), "{outcome:?}");
}

#[test]
fn slack_shrinks_with_the_number_of_rows() {
    assert_eq!(sampling_slack(&[]), 0.0);
    assert_eq!(sampling_slack(&[0.0; 4]), 0.0);
    let one = sampling_slack(&[3.0]);
    assert_abs_diff_eq!(one, 2f64.sqrt(), epsilon = 1e-12);
    assert_abs_diff_eq!(sampling_slack(&[3.0; 10_000]), one / 100.0, epsilon = 1e-12);
    // A row that has all the error is one row, however many others there are.
    let mut uneven = vec![0.0; 10_000];
    uneven[0] = 1.0;
    assert_abs_diff_eq!(sampling_slack(&uneven), one, epsilon = 1e-12);
}
