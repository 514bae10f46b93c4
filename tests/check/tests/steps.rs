//! How kernels with anchors spend their steps, as the emulator counts them: few follow the maxima,
//! the others keep the anchors, and hardly any of those moves one.

use std::collections::BTreeMap;

use check::emulator::run_once;
use check::forward::cases::{ForwardCase, mutation_cases, wide};
use fulgurite::emulator::Options;
use fulgurite::internals::{Tile, VARIANTS, Variant};
use rayon::prelude::*;
use reference::forward::values::Values;

/// Keys of a row: a dozen tiles of the widest and more.
const KEYS: usize = 2048;

/// Warps of a consumer, each of which counts its steps.
const WARPS: u64 = 4;

/// Query heads, a job each.
const HEADS: u64 = 4;

/// Events of a launch of one query tile a head.
fn events(variant: &Variant, values: Values) -> BTreeMap<&'static str, u64> {
    let q_len = Tile::of(variant).q_rows() as usize;
    let first = wide(mutation_cases(variant).swap_remove(0));
    let (heads, name) = ((HEADS as usize, 1), "steps".to_owned());
    let case = ForwardCase { name, heads, q_len, kv_len: KEYS, values, ..first };
    let mut launch = case.launch(&case.clean_inputs());
    let (_, result) = run_once(&mut launch, Options::default()).expect("the case is planned");
    result.expect("the kernel is right").stats.events
}

/// Tiles of the first consumer, the second and so on, and those of them that follow the maxima: the
/// first, those with rows that may have no key yet, and three more to settle in.
fn expected(variant: &Variant) -> Vec<(u64, u64)> {
    let tile = Tile::of(variant);
    let mask = wide(mutation_cases(variant).swap_remove(0)).mask;
    let mask = mask.geometry(tile.q_rows(), KEYS as u32);
    let of_consumer = |consumer: u32| {
        let segments = mask.segments(64 * consumer..64 * (consumer + 1), tile.kv_rows);
        let young = segments.end - 1 - segments.anchored;
        ((segments.end - segments.begin).into(), (4 + young).into())
    };
    (0..tile.consumers).map(of_consumer).collect()
}

fn anchored() -> Vec<&'static Variant> {
    VARIANTS.iter().filter(|variant| variant.softmax.keeps_anchors()).collect()
}

#[test]
fn few_steps_follow_maxima_and_fewer_move_anchors() {
    anchored().into_par_iter().for_each(|variant| {
        let entry = variant.entry;
        let events = events(variant, Values::Normal);
        let count = |name| events.get(name).copied().unwrap_or(0);
        let all: u64 = expected(variant).iter().map(|(steps, _)| steps).sum();
        let least: u64 = expected(variant).iter().map(|(_, followed)| followed).sum();
        let warps = WARPS * HEADS;
        assert_eq!(count("followed") + count("kept"), warps * all, "{entry}: {events:?}");
        // A consumer now and then has a row that takes some tiles more.
        let followed = warps * least..=warps * least * 3 / 2;
        assert!(followed.contains(&count("followed")), "{entry}: {events:?}, not {followed:?}");
        assert!(100 * count("moved") < count("kept"), "{entry}: {events:?}");
        assert_eq!(count("again"), 0, "{entry}: no row is lost");
    });
}

#[test]
fn a_row_that_does_not_settle_keeps_its_consumer_following() {
    anchored().into_par_iter().for_each(|variant| {
        let events = events(variant, Values::LoneStart(30.0));
        let count = |name| events.get(name).copied().unwrap_or(0);
        let expected = expected(variant);
        let least: u64 = expected.iter().map(|(_, followed)| followed).sum();
        let (steps, followed) = expected[0];
        let least = WARPS * (HEADS * least + steps - followed);
        assert!(count("followed") >= least, "{}: {events:?}, not {least}", variant.entry);
        assert!(count("kept") > 0, "{}: the others settle", variant.entry);
    });
}

#[test]
fn jobs_with_a_lost_row_alone_are_computed_again() {
    anchored().into_par_iter().for_each(|variant| {
        let warps = WARPS * u64::from(Tile::of(variant).consumers);
        let again = |values| events(variant, values).get("again").copied();
        // Heads share the keys; their rows have them or not.
        assert_eq!(again(Values::LoneSink(130.0)), Some(warps), "{}: one row", variant.entry);
        let all = again(Values::Sinks(130.0));
        assert_eq!(all, Some(warps * HEADS), "{}: rows of all heads", variant.entry);
    });
}
