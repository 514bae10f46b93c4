//! The order of the jobs: which query tile of which head a CTA takes next.
//!
//! A *job* is one query tile of one head of one batch entry. A persistent grid shares the jobs
//! without atomics, in *rounds*: in each, every CTA takes one job or none. The list runs section
//! by section; a *section* is a number of neighbouring heads whose K and V fit into the L2 cache
//! together, and it starts a new round. Inside it the heads' longest query tiles come first.
//! CTAs are dealt to ascending and descending in turn, and the sections start with alternating
//! directions, so that who gets a long job in one round gets a short one in the next: where the
//! cost falls evenly along the list, as for causal masks, all CTAs get nearly the same sum.

use crate::divisor::Divisor;

/// How rounds map to jobs. Part of the kernel's parameters.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobOrder {
    /// Query tiles of one head that have keys.
    pub q_tile_count: u32,
    /// Query tiles of one head in front of these, whose rows see no key; they are no jobs. Where
    /// all are, the last may be a partial one.
    pub keyless_q_tiles: u32,
    /// Heads of all batch entries together.
    pub batch_head_count: u32,
    /// Heads of one section; the last section may have fewer.
    pub section_heads: u32,
    /// Rounds of one section.
    pub section_rounds: u32,
    /// 1: a section's longest query tiles come first; 0: its heads come one after another.
    pub longest_first: u32,
    /// Jobs of a section that lie together: heads if the longest come first, else query tiles.
    run: Divisor,
    /// The same for the last section.
    last_run: Divisor,
}

/// One query tile of one head: a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryTile {
    /// Index of the query tile.
    pub q_tile: u32,
    /// `batch * head_count + head`.
    pub batch_head: u32,
}

impl JobOrder {
    /// For jobs of equal cost: head after head, so that neighbours share K and V. At most 2³² - 1
    /// jobs, and at least one CTA.
    pub const fn even(q_tile_count: u32, batch_head_count: u32, cta_count: u32) -> JobOrder {
        let run = Divisor::new(q_tile_count);
        let rounds = (q_tile_count * batch_head_count).div_ceil(cta_count);
        JobOrder {
            q_tile_count,
            keyless_q_tiles: 0,
            batch_head_count,
            section_heads: batch_head_count,
            // A cursor leaves a section after its last round: one without jobs needs one too.
            section_rounds: if rounds == 0 { 1 } else { rounds },
            longest_first: 0,
            run,
            last_run: run,
        }
    }

    /// For jobs whose cost grows with the query tile: longest first inside sections of
    /// `section_heads` heads. At least one of everything, at most 2³² - 1 jobs, and no more heads
    /// in a section than there are.
    pub const fn growing(
        q_tile_count: u32,
        batch_head_count: u32,
        section_heads: u32,
        cta_count: u32,
    ) -> JobOrder {
        let last = batch_head_count - (batch_head_count - 1) / section_heads * section_heads;
        JobOrder {
            q_tile_count,
            keyless_q_tiles: 0,
            batch_head_count,
            section_heads,
            section_rounds: (q_tile_count * section_heads).div_ceil(cta_count),
            longest_first: 1,
            run: Divisor::new(section_heads),
            last_run: Divisor::new(last),
        }
    }

    /// Query tiles of all heads that are jobs.
    #[inline(always)]
    pub const fn job_count(&self) -> u32 {
        self.q_tile_count * self.batch_head_count
    }

    /// The job of this number, below [`job_count`](Self::job_count), where a grid has a block for
    /// each: section after section without gaps, so that blocks that start in their order find the
    /// longest of a section first.
    #[inline(always)]
    pub const fn nth(&self, number: u32) -> QueryTile {
        let section = number / (self.section_heads * self.q_tile_count);
        let first_head = section * self.section_heads;
        self.ranked(first_head, number - first_head * self.q_tile_count)
    }

    /// Of the section of heads from `first_head` on, the job of this rank.
    #[inline(always)]
    const fn ranked(&self, first_head: u32, rank: u32) -> QueryTile {
        let last = self.batch_head_count - first_head <= self.section_heads;
        let run = if last { self.last_run } else { self.run };
        let runs_before = run.divide(rank);
        let inside = rank - runs_before * run.value;
        let (tiles_before, head) =
            if self.longest_first != 0 { (runs_before, inside) } else { (inside, runs_before) };
        let q_tile = self.keyless_q_tiles + self.q_tile_count - 1 - tiles_before;
        QueryTile { q_tile, batch_head: first_head + head }
    }

    /// The same jobs, each so many query tiles further down its head.
    pub const fn behind(self, keyless_q_tiles: u32) -> JobOrder {
        JobOrder { keyless_q_tiles, ..self }
    }
}

/// Where one CTA stands in its list of jobs.
///
/// Directions are kept as numbers, 1 for descending: a `bool` carried round a loop becomes a
/// 16-bit register in PTX, for which ptxas has no uniform form, and all that depends on it loses
/// its uniform registers too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobCursor {
    first_head: u32,
    round: u32,
    /// The direction of this section's first round; the other rounds alternate.
    descending: u32,
}

impl JobCursor {
    /// Before the first job.
    #[inline(always)]
    pub const fn new() -> JobCursor {
        JobCursor { first_head: 0, round: 0, descending: 0 }
    }

    /// The next job of CTA `cta` of a grid of `cta_count`, if there is one.
    #[inline(always)]
    pub const fn next(&mut self, order: &JobOrder, cta: u32, cta_count: u32) -> Option<QueryTile> {
        while self.first_head < order.batch_head_count {
            let first_head = self.first_head;
            let descending = (self.descending ^ self.round) & 1 != 0;
            let place = if descending { cta_count - 1 - cta } else { cta };
            let rank = self.round * cta_count + place;
            self.advance(order);
            let left = order.batch_head_count - first_head;
            let last = left <= order.section_heads;
            let heads = if last { left } else { order.section_heads };
            if rank < heads * order.q_tile_count {
                let run = if last { order.last_run } else { order.run };
                let runs_before = run.divide(rank);
                let inside = rank - runs_before * run.value;
                let (tiles_before, head) = if order.longest_first != 0 {
                    (runs_before, inside)
                } else {
                    (inside, runs_before)
                };
                let q_tile = order.keyless_q_tiles + order.q_tile_count - 1 - tiles_before;
                return Some(QueryTile { q_tile, batch_head: first_head + head });
            }
        }
        None
    }

    #[inline(always)]
    const fn advance(&mut self, order: &JobOrder) {
        self.round += 1;
        if self.round == order.section_rounds {
            self.round = 0;
            self.first_head += order.section_heads;
            self.descending ^= 1;
        }
    }
}

impl Default for JobCursor {
    fn default() -> Self {
        JobCursor::new()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::{vec, vec::Vec};

    /// Jobs of each CTA, in its order.
    fn deal(order: &JobOrder, cta_count: u32) -> Vec<Vec<QueryTile>> {
        let jobs = |cta| {
            let mut cursor = JobCursor::new();
            core::iter::from_fn(move || cursor.next(order, cta, cta_count)).collect()
        };
        (0..cta_count).map(jobs).collect()
    }

    #[test]
    fn every_job_is_dealt_once() {
        for cta_count in [1, 2, 7, 132] {
            for q_tiles in [0, 1, 2, 3, 8, 131] {
                for heads in [1, 2, 5, 12, 33] {
                    let mut orders = vec![JobOrder::even(q_tiles, heads, cta_count)];
                    orders.extend(
                        [1, 2, 4, 7, 33]
                            .iter()
                            .filter(|s| **s <= heads && q_tiles > 0)
                            .map(|section| JobOrder::growing(q_tiles, heads, *section, cta_count)),
                    );
                    for (index, order) in orders.into_iter().enumerate() {
                        let keyless = index as u32;
                        let order = order.behind(keyless);
                        let mut seen = vec![0; (q_tiles * heads) as usize];
                        for job in deal(&order, cta_count).into_iter().flatten() {
                            let q_tile = job.q_tile - keyless;
                            seen[(job.batch_head * q_tiles + q_tile) as usize] += 1;
                        }
                        assert!(seen.iter().all(|count| *count == 1), "{order:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn blocks_find_each_job_once_and_the_longest_of_a_section_first() {
        for (q_tiles, heads, section) in [(1, 1, 1), (3, 7, 2), (5, 6, 6), (4, 5, 1)] {
            for order in [
                JobOrder::growing(q_tiles, heads, section, 3).behind(2),
                JobOrder::even(q_tiles, heads, 3).behind(2),
            ] {
                let jobs: Vec<QueryTile> = (0..order.job_count()).map(|n| order.nth(n)).collect();
                let mut seen = vec![0; (q_tiles * heads) as usize];
                for job in &jobs {
                    seen[(job.batch_head * q_tiles + job.q_tile - 2) as usize] += 1;
                }
                assert!(seen.iter().all(|count| *count == 1), "{order:?}: {jobs:?}");
                let falls = |two: &[QueryTile]| {
                    let [a, b] = [two[0].batch_head, two[1].batch_head].map(|it| it / section);
                    a < b || two[0].q_tile >= two[1].q_tile
                };
                let growing = order.longest_first != 0;
                assert!(!growing || jobs.windows(2).all(falls), "{order:?}: {jobs:?}");
            }
        }
    }

    #[test]
    fn causal_cost_is_shared_evenly() {
        // (query tiles, heads, heads of a section): 2k, 4k and 16k tokens at head dims 64 to 256.
        for (q_tiles, heads, section) in [(16, 128, 32), (32, 64, 16), (128, 16, 4), (128, 8, 2)] {
            let order = JobOrder::growing(q_tiles, heads, section, 132);
            let cost = |job: &QueryTile| u64::from(job.q_tile) + 2;
            let loads: Vec<u64> =
                deal(&order, 132).iter().map(|jobs| jobs.iter().map(cost).sum()).collect();
            let most = *loads.iter().max().unwrap() as f64;
            let share = loads.iter().sum::<u64>() as f64 / 132.0 / most;
            assert!(share > 0.955, "{order:?}: {share}");
        }
    }
}
