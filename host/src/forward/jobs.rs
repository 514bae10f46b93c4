//! The order of a plan's jobs: how many heads share the L2 cache at a time, so that all blocks get
//! nearly the same work.

use fulgurite_spec::mask::AnyGeometry;
use fulgurite_spec::{Arch, ForwardRow as Variant, JobCursor, JobOrder, Tile};

use super::Forward;
use crate::{DeviceFacts, Error};

/// Jobs that the kernels count with 32-bit integers, a round of the grid beyond the last included.
const JOB_LIMIT: u32 = i32::MAX as u32;

/// L2 cache that the K and V of one section of heads may fill.
const SECTION_BYTES: u128 = 34 << 20;

/// Blocks of a grid at most. No GPU has as many multiprocessors, and finding an order takes time
/// and memory in proportion.
const CTA_LIMIT: u32 = 1024;

/// Jobs of a section beyond which larger ones are not tried: they share the work no better.
const SECTION_JOBS: u32 = 1200;

/// What a job costs beside its KV tiles, in KV tiles: 1 to 3 on an H200, by head dim.
const JOB_OVERHEAD: u64 = 2;

/// How much more even the larger of two sections must be to be worth its room in L2. With 17 MB of
/// K and V instead of 34, an H200 is 5 to 8 % faster at head dim 128 and 512 tokens.
const EVENNESS_STEP: f64 = 0.005;

/// Query tiles of a head up to which causal calls go head by head where a head has more than 64
/// columns. Such calls wait for memory: with all query tiles of a head at work at the same time, K
/// and V come from it evenly instead of in bursts. On an H100 that is 1 to 12 % faster at 512
/// tokens, 1 to 4 % at 1024, and slower from 4096 on (the record `h100/2026-11-26-order.csv`).
const FEW_Q_TILES: u32 = 8;

/// Jobs of each block from which on the order of few query tiles does not matter to evenness.
const MANY_ROUNDS: u64 = 32;

/// How much less even the order head by head may be to be taken nevertheless.
const EVENNESS_LOSS: f64 = 0.03;

/// Blocks of the grid and the order in which they take the jobs.
pub(super) fn job_order(
    request: &Forward,
    variant: &Variant,
    device: &DeviceFacts,
    sm_limit: Option<u32>,
) -> Result<(u32, JobOrder), Error> {
    let tile = &Tile::of(variant);
    let Forward { q, mask, .. } = request;
    let q_tile_count = q.rows().div_ceil(tile.q_rows() as usize) as u128;
    // Sizes are below 2^32, so that the products fit 128 bits.
    let batch_head_count = q.batch() as u128 * q.heads() as u128;
    let got = q_tile_count * batch_head_count;
    if got > u128::from(JOB_LIMIT) || batch_head_count > u128::from(JOB_LIMIT) {
        return Err(Error::TooManyJobs { got: got.max(batch_head_count), limit: JOB_LIMIT });
    }
    let keyless_q_tiles = if variant.stores_keyless() { keyless_q_tiles(request, tile) } else { 0 };
    let q_tile_count = q_tile_count as u32 - keyless_q_tiles;
    let batch_head_count = batch_head_count as u32;
    if variant.arch == Arch::Sm80 {
        let jobs = Jobs {
            request,
            tile,
            q_tile_count,
            keyless_q_tiles,
            batch_head_count,
            cta_count: device.sm_count.clamp(1, CTA_LIMIT),
        };
        let order = jobs.order_of_blocks(device.l2_bytes).behind(keyless_q_tiles);
        return Ok((got as u32, order));
    }
    // Blocks without a job have query tiles without keys to store.
    let sm_count = device.sm_count.min(sm_limit.unwrap_or(u32::MAX));
    let cta_count = (got as u32).min(sm_count.clamp(1, CTA_LIMIT));
    if cta_count == 0 {
        return Ok((0, JobOrder::even(0, 0, 1)));
    }
    let order = if mask.class().rows_differ() && q_tile_count > 0 {
        Jobs { request, tile, q_tile_count, keyless_q_tiles, batch_head_count, cta_count }.order()
    } else {
        JobOrder::even(q_tile_count, batch_head_count, cta_count)
    };
    Ok((cta_count, order.behind(keyless_q_tiles)))
}

/// Query tiles of a head in front of the first one with a row that sees a key.
pub(super) fn keyless_q_tiles(request: &Forward, tile: &Tile) -> u32 {
    let q_len = request.q.rows() as u32;
    let keyless_rows = geometry(request).keyless_rows(q_len);
    if keyless_rows == q_len {
        // Not even the last row sees a key, so that the last tile may be a partial one.
        q_len.div_ceil(tile.q_rows())
    } else {
        keyless_rows / tile.q_rows()
    }
}

/// Which keys each row sees.
fn geometry(request: &Forward) -> AnyGeometry {
    request.mask.geometry(request.q.rows() as u32, request.k.rows() as u32)
}

/// The jobs of a call whose rows see different keys.
struct Jobs<'a> {
    request: &'a Forward,
    tile: &'a Tile,
    q_tile_count: u32,
    keyless_q_tiles: u32,
    batch_head_count: u32,
    cta_count: u32,
}

impl Jobs<'_> {
    fn order(&self) -> JobOrder {
        let Jobs { q_tile_count, batch_head_count, cta_count, .. } = *self;
        let even = JobOrder::even(q_tile_count, batch_head_count, cta_count);
        if self.nearly_equal() || self.waits_for_memory() && self.has_many_rounds() {
            return even;
        }
        let section_heads = self.section_heads();
        if self.waits_for_memory() && self.is_as_even(&even, section_heads) {
            return even;
        }
        JobOrder::growing(q_tile_count, batch_head_count, section_heads, cta_count)
    }

    /// The order where each job has a block of its own, which start in their order when there is
    /// room: longest first, in sections of as many heads as K and V have room for in two thirds of
    /// the L2 cache. How even that is, is the block scheduler's.
    fn order_of_blocks(&self, l2_bytes: u32) -> JobOrder {
        let Jobs { q_tile_count, batch_head_count, cta_count, .. } = *self;
        if q_tile_count == 0 || batch_head_count == 0 {
            return JobOrder::even(q_tile_count, batch_head_count, cta_count);
        }
        if !self.request.mask.class().rows_differ() {
            return JobOrder::even(q_tile_count, batch_head_count, cta_count);
        }
        let group_size = (self.request.q.heads() / self.request.k.heads()) as u128;
        let kv_heads = u128::from(l2_bytes) * 2 / 3 / self.kv_head_bytes().max(1);
        let heads = (kv_heads * group_size).clamp(1, u128::from(batch_head_count)) as u32;
        JobOrder::growing(q_tile_count, batch_head_count, heads, cta_count)
    }

    /// Whether the call is so short that loads decide, not the order of work.
    fn waits_for_memory(&self) -> bool {
        self.tile.head_dim > 64 && (2..=FEW_Q_TILES).contains(&self.q_tile_count)
    }

    /// Whether each block has so many jobs that any order shares them evenly.
    fn has_many_rounds(&self) -> bool {
        let jobs = u64::from(self.q_tile_count) * u64::from(self.batch_head_count);
        jobs >= MANY_ROUNDS * u64::from(self.cta_count)
    }

    /// Whether the blocks share the work about as evenly head by head as by sections.
    fn is_as_even(&self, even: &JobOrder, section_heads: u32) -> bool {
        let costs: Vec<u64> = (0..self.q_tile_count).map(|q_tile| self.cost(q_tile)).collect();
        self.walked_evenness(even) + EVENNESS_LOSS >= self.evenness(section_heads, &costs)
    }

    /// The mean block's work over the busiest one's, by walking every block's jobs.
    fn walked_evenness(&self, order: &JobOrder) -> f64 {
        let load = |cta| {
            let mut cursor = JobCursor::new();
            let jobs = std::iter::from_fn(|| cursor.next(order, cta, self.cta_count));
            jobs.map(|job| self.cost(job.q_tile - order.keyless_q_tiles)).sum::<u64>()
        };
        let loads: Vec<u64> = (0..self.cta_count).map(load).collect();
        let total: u64 = loads.iter().sum();
        let most = loads.iter().max().copied().unwrap_or(0).max(1);
        total as f64 / (loads.len() as f64 * most as f64)
    }

    /// Whether the first query tile costs nearly as much as the last: few queries behind many keys.
    /// Then the K and V that neighbours share are worth more than longest first.
    fn nearly_equal(&self) -> bool {
        self.q_tile_count > 1 && self.cost(0) * 4 >= self.cost(self.q_tile_count - 1) * 3
    }

    /// Heads of a section: those that share the work most evenly, of the counts whose K and V lie
    /// in L2 together, and of the least that gives every block work.
    fn section_heads(&self) -> u32 {
        let costs: Vec<u64> = match self.q_tile_count {
            SECTION_JOBS.. => return 1,
            count => (0..count).map(|q_tile| self.cost(q_tile)).collect(),
        };
        let mut best = (0.0, 1);
        for heads in self.candidates() {
            let evenness = self.evenness(heads, &costs);
            if evenness > best.0 + EVENNESS_STEP {
                best = (evenness, heads);
            }
        }
        best.1
    }

    /// Counts of heads worth a try, ascending: those that fill whole rounds of the grid, and powers
    /// of two; at least one and a half rounds, if there are so many heads.
    fn candidates(&self) -> Vec<u32> {
        let jobs = u64::from(self.cta_count) * 3;
        let least = jobs.div_ceil(u64::from(self.q_tile_count) * 2);
        let least = least.min(u64::from(self.batch_head_count)) as u32;
        let rounds = (1..=SECTION_JOBS / self.cta_count).map(|r| r * self.cta_count);
        let mut heads: Vec<u32> = rounds.map(|jobs| jobs / self.q_tile_count).collect();
        heads.extend((0..16).map(|bits| 1 << bits));
        heads.retain(|heads| {
            (least..=self.batch_head_count).contains(heads) && self.fits_section(*heads)
        });
        heads.push(least);
        heads.sort_unstable();
        heads.dedup();
        heads
    }

    fn fits_section(&self, heads: u32) -> bool {
        let Forward { q, k, .. } = self.request;
        let group_size = (q.heads() / k.heads()) as u128;
        u128::from(heads).div_ceil(group_size) * self.kv_head_bytes() <= SECTION_BYTES
            && heads <= SECTION_JOBS / self.q_tile_count
    }

    /// Bytes of K and V of one head.
    fn kv_head_bytes(&self) -> u128 {
        let k = &self.request.k;
        let element_bytes = self.tile.scores.bytes() + self.tile.values.bytes();
        k.rows() as u128 * k.head_dim() as u128 * u128::from(element_bytes)
    }

    /// What a query tile costs, in KV tiles; the first one with keys is number 0.
    fn cost(&self, q_tile: u32) -> u64 {
        let q_rows = self.tile.q_rows();
        let first_row = (self.keyless_q_tiles + q_tile) * q_rows;
        let rows = first_row..(first_row + q_rows).min(self.request.q.rows() as u32);
        let segments = geometry(self.request).segments(rows, self.tile.kv_rows);
        u64::from(segments.end - segments.begin) + JOB_OVERHEAD
    }

    /// The mean block's work over the busiest one's, for sections of `heads` heads.
    fn evenness(&self, heads: u32, costs: &[u64]) -> f64 {
        let whole = u64::from(self.batch_head_count / heads);
        let section = self.section_loads(heads, costs);
        let last = self.section_loads(self.batch_head_count % heads, costs);
        // Every other section deals in the opposite direction.
        let ahead = whole.div_ceil(2);
        let load = |cta: usize| {
            let mirrored = section.len() - 1 - cta;
            let in_last = if whole % 2 == 0 { last[cta] } else { last[mirrored] };
            ahead * section[cta] + (whole - ahead) * section[mirrored] + in_last
        };
        let loads = (0..section.len()).map(load);
        let total: u64 = loads.clone().sum();
        total as f64 / (section.len() as f64 * loads.max().unwrap_or(1) as f64)
    }

    /// What each block gets of a section whose first round goes upwards.
    fn section_loads(&self, heads: u32, costs: &[u64]) -> Vec<u64> {
        let mut loads = vec![0; self.cta_count as usize];
        let mut place = 0;
        let mut descending = false;
        for cost in costs.iter().rev() {
            for _ in 0..heads {
                let cta = if descending { loads.len() - 1 - place } else { place };
                loads[cta] += cost;
                place += 1;
                if place == loads.len() {
                    place = 0;
                    descending = !descending;
                }
            }
        }
        loads
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dtype, Layout, Mask, Plan};
    use approx::assert_abs_diff_eq;

    fn causal(batch: usize, rows: usize, heads: usize, head_dim: usize) -> Forward {
        let layout = Layout::bshd(Dtype::Bf16, batch, rows, heads, head_dim);
        Forward::new(layout, layout, layout, layout, Mask::Causal)
    }

    fn ordered(request: &Forward, device: &DeviceFacts) -> (u32, JobOrder) {
        let plan = Plan::new(request, device).expect("a valid request");
        let variant = plan.variant().expect("there is work");
        job_order(request, variant, device, None).expect("few jobs")
    }

    /// The mean block's work over the busiest one's, by walking every block's jobs.
    fn walked(request: &Forward) -> f64 {
        let device = DeviceFacts::h200();
        let plan = Plan::new(request, &device).expect("a valid request");
        let tile = plan.tile().expect("there is work");
        let (cta_count, order) = ordered(request, &device);
        let jobs = Jobs {
            request,
            tile: &tile,
            q_tile_count: order.q_tile_count,
            keyless_q_tiles: order.keyless_q_tiles,
            batch_head_count: order.batch_head_count,
            cta_count,
        };
        let evenness = jobs.walked_evenness(&order);
        if order.longest_first != 0 {
            let costs: Vec<u64> = (0..order.q_tile_count).map(|tile| jobs.cost(tile)).collect();
            let predicted = jobs.evenness(order.section_heads, &costs);
            assert_abs_diff_eq!(evenness, predicted, epsilon = 1e-12);
        }
        evenness
    }

    #[test]
    fn causal_work_is_shared_evenly() {
        for head_dim in [64, 128, 256] {
            for rows in [512, 1024, 2048, 4096, 8192, 16384] {
                let evenness = walked(&causal(16384 / rows, rows, 2048 / head_dim, head_dim));
                assert!(evenness >= 0.96, "head dim {head_dim}, {rows} rows: {evenness}");
            }
        }
    }

    #[test]
    fn few_queries_behind_many_keys_go_head_by_head() {
        let device = DeviceFacts::h200();
        for (q_rows, kv_rows, even) in [(1024, 8192, true), (2048, 2048, false), (128, 8192, false)]
        {
            let q = Layout::bshd(Dtype::Bf16, 2, q_rows, 16, 128);
            let k = Layout::bshd(Dtype::Bf16, 2, kv_rows, 16, 128);
            let request = Forward::new(q, k, k, q, Mask::Causal);
            let (_, order) = ordered(&request, &device);
            assert_eq!(order.longest_first == 0, even, "{q_rows} x {kv_rows}");
        }
    }

    #[test]
    fn short_calls_go_head_by_head_unless_that_is_uneven() {
        let device = DeviceFacts::h200();
        for (batch, rows, heads, head_dim, even) in [
            (32, 512, 16, 128, true),
            (32, 512, 8, 256, true),
            (16, 1024, 16, 128, true),
            (32, 512, 32, 64, false),
            (4, 4096, 16, 128, false),
            // 160 jobs for 132 blocks: the longest must come first.
            (1, 1024, 20, 128, false),
        ] {
            let request = causal(batch, rows, heads, head_dim);
            let (_, order) = ordered(&request, &device);
            assert_eq!(order.longest_first == 0, even, "{batch} x {rows} x {heads} x {head_dim}");
        }
    }

    #[test]
    fn work_behind_keyless_tiles_is_shared_evenly() {
        let q = Layout::bshd(Dtype::Bf16, 4, 4096, 16, 128);
        let k = Layout::bshd(Dtype::Bf16, 4, 1000, 16, 128);
        let evenness = walked(&Forward::new(q, k, k, q, Mask::Causal));
        assert!(evenness >= 0.9, "{evenness}");
    }

    #[test]
    fn odd_sizes_have_an_order() {
        for (batch, rows, heads) in [(1, 1, 1), (1, 300, 1), (3, 129, 7), (1, 1 << 18, 1)] {
            assert!(walked(&causal(batch, rows, heads, 64)) > 0.0);
        }
    }
}
