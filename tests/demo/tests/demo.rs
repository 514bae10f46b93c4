//! The first look says what is so: in process, each of its parts.

use std::path::Path;
use std::sync::LazyLock;

use demo::{Activity, Demo, SEEDS, Style};
use fulgurite::emulator::{Change, FaultKind};
use output::WIDTH;

static DEMO: LazyLock<Demo> = LazyLock::new(|| Demo::run().expect("the kernel is right"));

#[test]
fn the_kernel_is_as_near_as_16_bits_allow() {
    let computed = &DEMO.computed;
    let (error, unavoidable) = (computed.error, computed.unavoidable);
    assert!(error.rms > 0.0 && error.rms <= 1.05 * unavoidable.rms, "{error:?}, {unavoidable:?}");
    assert!(error.largest <= 2.0 * unavoidable.largest, "{error:?}, {unavoidable:?}");
    assert_eq!(computed.shown.len(), 4);
    for &(row, column, got, exact) in &computed.shown {
        let off = (f64::from(got) - exact).abs();
        assert!(exact != 0.0 && off <= error.largest, "row {row}, column {column}: {got} {exact}");
    }
}

#[test]
fn schedules_differ_and_bits_do_not() {
    let schedules = &DEMO.schedules;
    assert_eq!(schedules.iter().map(|run| run.seed).collect::<Vec<_>>(), SEEDS);
    assert!(schedules.iter().all(|run| run.hash == schedules[0].hash), "{schedules:?}");
    let mut steps: Vec<u64> = schedules.iter().map(|run| run.steps).collect();
    steps.sort_unstable();
    steps.dedup();
    assert_eq!(steps.len(), SEEDS.len(), "the same schedule twice: {schedules:?}");
}

#[test]
fn the_race_is_named_by_both_its_sides() {
    let race = &DEMO.race;
    assert_eq!((race.fault.kind, race.fault.primitive.name()), (FaultKind::Race, "tma::load"));
    let (here, line) = (race.fault.to_string(), race.line.as_deref().unwrap_or_default());
    assert!(here.contains("kernels/src/forward/sm90"), "{here}");
    assert!(here.contains("which a product issued at kernels/src/forward/sm90"), "{here}");
    assert!(line.contains("mbarrier::wait"), "{line}");
    assert!(race.site.mutations().any(|mutation| mutation.change == Change::Drop));
}

#[test]
fn the_timeline_has_every_role_at_its_work() {
    let timeline = &DEMO.timeline;
    assert_eq!(timeline.rows.len(), 4, "a producer and three consumers");
    for (number, spans) in timeline.rows.iter().enumerate() {
        assert_eq!((spans[0].0.start, spans[spans.len() - 1].0.end), (0, timeline.steps));
        assert!(spans.windows(2).all(|pair| pair[0].0.end == pair[1].0.start), "{spans:?}");
        let does = |activity| spans.iter().any(|(_, other)| *other == activity);
        let consumes =
            [Activity::Scores, Activity::Output, Activity::Softmax, Activity::Stores].map(does);
        assert_eq!(consumes, [number > 0; 4], "warpgroup {number}: {spans:?}");
        assert_eq!(does(Activity::Loads), number == 0, "warpgroup {number}");
        assert!(does(Activity::Waits), "warpgroup {number}");
    }
    for letters in timeline.letters(84) {
        assert_eq!(letters.chars().count(), 84);
    }
    let svg = timeline.svg("title");
    let spans = timeline.rows.iter().flatten().filter(|(_, it)| *it != Activity::Idle).count();
    assert_eq!(svg.matches("<rect").count(), 1 + Activity::SHOWN.len() + spans);
}

#[test]
fn the_text_fits_and_says_it_all() {
    let text = DEMO.text(Style::Plain);
    for line in text.lines() {
        assert!(line.chars().count() <= WIDTH, "{line}");
    }
    assert!(!text.contains('\x1b'), "colours without a terminal");
    for part in ["float64", "largest error", "seed 2", "data race", "consumer 3", "cargo xtask"] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    let colored = DEMO.text(Style::Colored);
    let mut bare = String::new();
    for (index, part) in colored.split('\x1b').enumerate() {
        bare += if index == 0 { part } else { part.split_once('m').map_or("", |(_, rest)| rest) };
    }
    assert_eq!(bare, text, "colours change no word");
}

/// A text block of a README of the checkout, by the language of its fence.
fn readme_block(readme: &str, language: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(readme);
    let text = std::fs::read_to_string(path).expect("it is there");
    let (_, rest) = text.split_once(&format!("```{language}\n")).expect("it has such a block");
    rest.split_once("```").expect("the block ends").0.to_owned()
}

#[test]
fn the_readme_shows_this_timeline() {
    let text = DEMO.text(Style::Plain);
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    for line in readme_block("README.md", "text").lines() {
        assert!(lines.contains(&line), "{line:?} is in README.md, and not in:\n{text}");
    }
}

#[test]
fn the_readmes_show_the_basic_example() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../host/examples/basic.rs");
    let example = std::fs::read_to_string(path).expect("it is there");
    for readme in ["README.md", "host/README.md"] {
        let shown = readme_block(readme, "rust");
        assert!(example.ends_with(&shown), "{readme} shows another basic.rs");
    }
}
