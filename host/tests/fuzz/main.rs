//! Requests at random: a plan is made or refused, and never panics; one that is made keeps the
//! bounds that the kernels, TMA and the driver rely on. Test builds check integers for overflow.

mod invariants;
mod requests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use fulgurite::internals::{VARIANTS, VARIANTS_8BIT, Variant};
use fulgurite::{DeviceFacts, Forward, Plan, PlanOptions};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::invariants::{check_layout, check_plan, check_uses};

/// Random requests, over all threads.
const REQUESTS: u64 = 1_000_000;

/// Threads that share them; each has its own seed, so that a failure can be repeated.
const THREADS: u64 = 8;

/// How many requests of a run were planned and how many refused.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    planned: u64,
    refused: u64,
}

impl Count {
    fn plus(self, other: Count) -> Count {
        Count { planned: self.planned + other.planned, refused: self.refused + other.refused }
    }
}

/// Kernels of both tables.
const VARIANT_COUNT: usize = VARIANTS.len() + VARIANTS_8BIT.len();

/// One of these.
fn any_variant(index: usize) -> &'static Variant {
    VARIANTS.iter().chain(VARIANTS_8BIT).nth(index).expect("the index is below their number")
}

/// Plans a request in both ways and looks at what came out.
fn try_request(rng: &mut ChaCha8Rng, request: &Forward, facts: &DeviceFacts) -> Count {
    let variant = any_variant(rng.random_range(0..VARIANT_COUNT));
    let mut count = Count::default();
    for layout in [&request.q, &request.k, &request.v, &request.out] {
        check_layout(layout, variant);
    }
    let by = PlanOptions::entry(variant.entry);
    let plans = [Plan::new(request, facts), Plan::with(request, facts, &by)];
    for plan in plans {
        match plan {
            Ok(plan) => {
                check_plan(&plan, request, facts);
                check_uses(&plan, rng);
                count.planned += 1;
            }
            Err(error) => {
                assert!(rng.random_range(0..16) > 0 || !error.to_string().is_empty());
                count.refused += 1;
            }
        }
    }
    count
}

fn run(seed: u64, requests: u64) -> Count {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut count = Count::default();
    for index in 0..requests {
        let (request, facts) = (requests::request(&mut rng), requests::facts(&mut rng));
        let tried = catch_unwind(AssertUnwindSafe(|| try_request(&mut rng, &request, &facts)));
        let tried = tried.unwrap_or_else(|_| panic!("seed {seed}, number {index}: {request:?}"));
        count = count.plus(tried);
    }
    count
}

#[test]
fn a_million_requests_are_planned_or_refused() {
    let threads: Vec<_> =
        (0..THREADS).map(|seed| thread::spawn(move || run(seed, REQUESTS / THREADS))).collect();
    let counts = threads.into_iter().map(|thread| thread.join().expect("no request panics"));
    let all = counts.fold(Count::default(), Count::plus);
    // Neither side of the checks may go untried.
    assert!(all.planned > REQUESTS / 10 && all.refused > REQUESTS / 10, "{all:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Small requests, so that one that fails shrinks to the least that does.
    #[test]
    fn small_requests_keep_the_bounds(
        request in requests::small(),
        sm_count in 0_u32..200,
        variant in 0..VARIANT_COUNT,
    ) {
        let mut facts = DeviceFacts::h200();
        facts.sm_count = sm_count;
        let by = PlanOptions::entry(any_variant(variant).entry);
        let plans = [Plan::new(&request, &facts), Plan::with(&request, &facts, &by)];
        for plan in plans.into_iter().flatten() {
            check_plan(&plan, &request, &facts);
        }
    }
}
