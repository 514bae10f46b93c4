//! The rules of comparison: right answers pass, planted errors fail, each by the rule meant for it.

use fulgurite::MaskKind;
use fulgurite::{Dtype, VARIANTS, Variant};
use tests::backend::Model;
use tests::cases::{Case, cases};
use tests::check::{Outcome, check, expected};
use tests::compare::{Answer, Rule, compare, sampling_slack};
use tests::lowprec::Arithmetic;
use tests::mutants::{Bug, Mutant};

fn variant(dtype: Dtype, mask: MaskKind) -> &'static Variant {
    let wanted = |v: &&Variant| (v.dtype, v.mask, v.head_dim) == (dtype, mask, 64);
    VARIANTS.iter().find(wanted).expect("the table has head dim 64")
}

fn case(variant: &Variant, start: &str) -> Case {
    let found = cases(variant).into_iter().find(|case| case.name.starts_with(start));
    found.unwrap_or_else(|| panic!("no case starts with `{start}`"))
}

#[test]
fn every_planted_error_is_seen() {
    for dtype in [Dtype::Bf16, Dtype::F16] {
        for mask in [MaskKind::Full, MaskKind::Causal] {
            let variant = variant(dtype, mask);
            for (bug, start) in Bug::ALL.iter().filter(|(bug, _)| bug.applies_to(mask)) {
                let case = case(variant, start);
                let outcome = check(&case, &Mutant { bug: *bug });
                assert!(outcome.failed(), "{bug:?} passes: {} {}", variant.entry, case.name);
            }
        }
    }
}

#[test]
fn the_cases_of_planted_errors_pass_without_them() {
    for mask in [MaskKind::Full, MaskKind::Causal] {
        let variant = variant(Dtype::Bf16, mask);
        for (_, start) in Bug::ALL {
            let case = case(variant, start);
            let outcome = check(&case, &Model::of(variant));
            assert!(outcome.passed(), "{} {}: {outcome:?}", variant.entry, case.name);
        }
    }
}

/// Each rule fails on an error that is its own.
#[test]
fn each_rule_fails_alone() {
    let variant = variant(Dtype::Bf16, MaskKind::Causal);
    let failing = |start: &str, bug: Bug| -> Vec<Rule> {
        match check(&case(variant, start), &Mutant { bug }) {
            Outcome::Ran(all) => {
                all.iter().filter(|finding| !finding.passed()).map(|finding| finding.rule).collect()
            }
            other => panic!("{bug:?}: {other:?}"),
        }
    };
    assert_eq!(failing("many rows", Bug::Truncated), [Rule::Rms]);
    assert_eq!(failing("many rows", Bug::LseLow), [Rule::Lse]);
    assert_eq!(failing("v all 1", Bug::ConstantOff), [Rule::Constant]);
    assert_eq!(failing("length b1 h2/2 700x90", Bug::EmptyRowNotZero)[0], Rule::Places);
    assert!(failing("nan in q", Bug::NanSpreads).contains(&Rule::Untouched));
    assert!(failing("many rows", Bug::WrongRow).contains(&Rule::Element));
}

/// One wrong element hides in the mean of many, but not from the element rule.
#[test]
fn a_single_element_is_seen() {
    let case = case(variant(Dtype::F16, MaskKind::Full), "many rows");
    let inputs = case.clean_inputs();
    let (reference, model) = expected(&case, &inputs);
    let mut out = model.out.clone();
    let right = Answer { out: &out, lse: None };
    assert!(compare(Dtype::F16, &reference, &model, right, None).iter().all(|f| f.passed()));
    out[12_345] = tests::tensor::encode(Dtype::F16, reference.out[12_345] + 4e-3);
    let wrong = Answer { out: &out, lse: None };
    let findings = compare(Dtype::F16, &reference, &model, wrong, None);
    let element = findings.iter().find(|finding| finding.rule == Rule::Element);
    assert!(!element.expect("the rule was applied").passed());
}

/// Another online softmax whose probabilities are rounded relative to a stale maximum is worse
/// than the peers where one key dominates: the rms rule sees even that.
#[test]
fn a_stale_maximum_is_seen() {
    let variant = variant(Dtype::Bf16, MaskKind::Full);
    let arithmetic = Arithmetic { kv_rows: 128, rescale_threshold: 8.0 };
    let outcome = check(&case(variant, "dominant key"), &Model { arithmetic });
    assert!(outcome.failed(), "{outcome:?}");
}

#[test]
fn slack_shrinks_with_the_number_of_rows() {
    assert_eq!(sampling_slack(&[]), 0.0);
    assert_eq!(sampling_slack(&[0.0; 4]), 0.0);
    let one = sampling_slack(&[3.0]);
    assert!((one - 2f64.sqrt()).abs() < 1e-12);
    assert!((sampling_slack(&[3.0; 10_000]) - one / 100.0).abs() < 1e-12);
    // A row that has all the error is one row, however many others there are.
    let mut uneven = vec![0.0; 10_000];
    uneven[0] = 1.0;
    assert!((sampling_slack(&uneven) - one).abs() < 1e-12);
}
