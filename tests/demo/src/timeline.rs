//! What each warpgroup of a block did, step by step.

use std::collections::BTreeMap;
use std::ops::Range;

use fulgurite::emulator::{Doing, Event, Primitive};

use crate::source_line;

/// What a warpgroup is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Activity {
    /// Before its role begins, and after it.
    Idle,
    /// The producer: loads Q, K and V through TMA.
    Loads,
    /// Waits for a buffer: the producer for an empty one, a consumer for a full one.
    Waits,
    /// Waits until the consumer before it has issued its products.
    Turn,
    /// Issues the product of Q and K.
    Scores,
    /// Issues the product of probabilities and V.
    Output,
    /// Masks, takes maxima, exponentials and sums.
    Softmax,
    /// Normalises and stores its rows.
    Stores,
}

impl Activity {
    /// Those that a picture explains, in its order.
    pub const SHOWN: [Activity; 7] = [
        Activity::Loads,
        Activity::Scores,
        Activity::Output,
        Activity::Softmax,
        Activity::Stores,
        Activity::Turn,
        Activity::Waits,
    ];

    /// One character.
    pub const fn letter(self) -> char {
        match self {
            Activity::Idle => ' ',
            Activity::Loads => 'L',
            Activity::Waits => '.',
            Activity::Turn => '-',
            Activity::Scores => 'S',
            Activity::Output => 'O',
            Activity::Softmax => 'x',
            Activity::Stores => 'w',
        }
    }

    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Activity::Idle => "not at work",
            Activity::Loads => "loads by TMA",
            Activity::Waits => "waits for a buffer",
            Activity::Turn => "waits for its turn",
            Activity::Scores => "issues Q Kᵀ",
            Activity::Output => "issues P V",
            Activity::Softmax => "softmax",
            Activity::Stores => "writes out",
        }
    }
}

/// What a warpgroup did from one step to another.
pub type Span = (Range<u64>, Activity);

/// The warpgroups of a block: the producer, then the consumers. One warp speaks for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// Steps of the block's scheduler.
    pub steps: u64,
    /// What each warpgroup did: spans that follow each other, from step 0 to the last.
    pub rows: Vec<Vec<Span>>,
}

impl Timeline {
    /// Of block 0, from what was recorded.
    pub fn of(trace: &[Event], warpgroups: u32) -> Timeline {
        let block = || trace.iter().filter(|event| event.block == 0);
        let steps = block().map(|event| event.step).max().unwrap_or(0) + 1;
        let mut sources = Sources::default();
        let row = |warpgroup: u32| {
            let events = block().filter(|event| event.warp == 4 * warpgroup);
            let mut spans: Vec<Span> = vec![(0..steps, Activity::Idle)];
            for event in events {
                let before = spans.last().map_or(Activity::Idle, |(_, activity)| *activity);
                let activity = activity(event, warpgroup == 0, before, &mut sources);
                if activity != before {
                    if let Some((last, _)) = spans.last_mut() {
                        last.end = event.step;
                    }
                    spans.push((event.step..steps, activity));
                }
            }
            spans.retain(|(span, _)| !span.is_empty());
            spans
        };
        Timeline { steps, rows: (0..warpgroups).map(row).collect() }
    }

    /// Each row in so many characters: one for what it did most in its share of the steps.
    pub fn letters(&self, columns: usize) -> Vec<String> {
        let share = |column: usize| {
            let at = |column: usize| self.steps * column as u64 / columns as u64;
            at(column)..at(column + 1)
        };
        let row = |spans| -> String {
            (0..columns).map(|column| most(spans, share(column)).letter()).collect()
        };
        self.rows.iter().map(|spans| row(spans)).collect()
    }
}

/// What took most of some steps; a load, which takes few, if there is one.
fn most(spans: &[Span], steps: Range<u64>) -> Activity {
    let mut times: BTreeMap<Activity, u64> = BTreeMap::new();
    for (span, activity) in spans {
        let common = span.end.min(steps.end).saturating_sub(span.start.max(steps.start));
        let weight = if *activity == Activity::Loads { u64::from(u32::MAX) } else { 1 };
        *times.entry(*activity).or_default() += common * weight;
    }
    let longest = times.into_iter().max_by_key(|(_, time)| *time);
    longest.map_or(Activity::Idle, |(activity, _)| activity)
}

/// What a warp is at after a step of it; `before`: what it was at until then.
fn activity(event: &Event, produces: bool, before: Activity, sources: &mut Sources) -> Activity {
    let waits = event.doing == Doing::Waits;
    match event.primitive {
        _ if event.doing == Doing::Ended => Activity::Idle,
        Primitive::MbarrierWait if waits => Activity::Waits,
        Primitive::MbarrierWait if produces => Activity::Loads,
        Primitive::BarrierSync if event.barrier.is_some() => Activity::Turn,
        Primitive::BarrierAny if event.barrier.is_some_and(|(name, _)| name == "verdict") => {
            Activity::Waits
        }
        Primitive::WgmmaBegin | Primitive::WgmmaIssue | Primitive::WgmmaCommit => {
            if sources.names(event, "issue_out") { Activity::Output } else { Activity::Scores }
        }
        // Before its last shuffle the accumulator was waited for: that begins the end of a job.
        Primitive::Shuffle if event.site.is_some_and(|at| at.file().ends_with("epilogue.rs")) => {
            Activity::Stores
        }
        Primitive::Shuffle if before == Activity::Idle => Activity::Idle,
        Primitive::WgmmaWait | Primitive::Shuffle | Primitive::BarrierAny => Activity::Softmax,
        _ => before,
    }
}

/// Lines of source, read once.
#[derive(Default)]
struct Sources(BTreeMap<(&'static str, u32), String>);

impl Sources {
    /// Whether the line that an event comes from contains a text.
    fn names(&mut self, event: &Event, text: &str) -> bool {
        let Some(at) = event.site else { return false };
        let line = self.0.entry((at.file(), at.line()));
        line.or_insert_with(|| source_line(at.file(), at.line()).unwrap_or_default()).contains(text)
    }
}
