//! Gather by heads: every rank receives the keys and values that its rows see, one group of KV
//! heads after another, and computes its rows as one GPU would. With a window that is a halo.

use std::ops::Range;

use fulgurite::{Forward, Layout};

use crate::call::{Call, LSE_BYTES, Room, Rows, WORKSPACE_START};
use crate::program::{Copy, Lane, Memory, Message, Program, Spot};
use crate::scheme::Scheme;

/// What is decided, the same on all ranks.
#[derive(Debug)]
pub(crate) struct Gather<'a> {
    call: &'a Call,
    /// KV heads of a group; the last one may have fewer.
    group_heads: usize,
    groups: usize,
    /// Groups whose keys and values have room at the same time.
    slots: usize,
    /// For each rank the runs of rows that it stages, in order.
    segments: Vec<Vec<Range<usize>>>,
}

impl<'a> Gather<'a> {
    pub fn new(call: &'a Call, groups: usize, slots: usize) -> Self {
        let group_heads = call.kv_heads.div_ceil(groups.max(1));
        let groups = call.kv_heads.div_ceil(group_heads);
        let segments = (0..call.shards.world()).map(|rank| segments(call, rank)).collect();
        Gather { call, group_heads, groups, slots: slots.clamp(1, groups), segments }
    }

    fn heads(&self, group: usize) -> Range<usize> {
        let start = group * self.group_heads;
        start..(start + self.group_heads).min(self.call.kv_heads)
    }

    /// Rows that a rank has room for.
    fn staged_rows(&self, rank: usize) -> usize {
        self.segments[rank].iter().map(ExactSizeIterator::len).sum()
    }

    fn slot_bytes(&self, rank: usize) -> u64 {
        let mut room = Room(0);
        room.take(self.call.kv_bytes(self.group_heads) * self.staged_rows(rank) as u64);
        room.0
    }

    /// Where a rank stages a group's keys (0) or values (1) from a row on, and the end of the run
    /// of rows there.
    fn staged(&self, rank: usize, group: usize, tensor: usize, row: usize) -> Rows {
        let (call, heads) = (self.call, self.heads(group).len());
        let mut at = WORKSPACE_START + (group % self.slots) as u64 * self.slot_bytes(rank);
        for segment in &self.segments[rank] {
            let bytes = call.kv_bytes(heads) / 2 * segment.len() as u64;
            if segment.contains(&row) || segment.end == row {
                let at = at + tensor as u64 * bytes;
                let rows = Rows::dense(at, heads, segment.len(), call.row_bytes());
                return rows.from(0, row - segment.start);
            }
            at += 2 * bytes;
        }
        // Only rows of segments are asked for; a launch without keys has none, and looks nowhere.
        Rows::dense(at, heads, 0, call.row_bytes())
    }

    /// The runs of rows that go from one rank to another, in the order of the messages.
    fn runs(&self, from: usize, to: usize) -> impl Iterator<Item = Range<usize>> {
        let pieces = self.call.shards.pieces(from).iter().filter(move |_| from != to);
        pieces.flat_map(move |piece| {
            let common = |segment: &Range<usize>| {
                let run = segment.start.max(piece.start)..segment.end.min(piece.end);
                (!run.is_empty()).then_some(run)
            };
            self.segments[to].iter().filter_map(common)
        })
    }

    /// A rank's messages with a peer, of one group and one direction.
    fn messages(
        &self,
        rank: usize,
        peer: usize,
        group: usize,
        sends: bool,
    ) -> impl Iterator<Item = Message> {
        let (from, to) = if sends { (rank, peer) } else { (peer, rank) };
        let heads = self.heads(group).len();
        let row_bytes = self.call.row_bytes();
        self.runs(from, to).flat_map(move |run| {
            let bytes = run.len() as u64 * row_bytes;
            let places = (0..2).flat_map(move |tensor| {
                let rows = self.staged(rank, group, tensor, run.start);
                let of_batch = move |batch| (0..heads).map(move |head| rows.spot(batch, head, 0));
                (0..self.call.batch).flat_map(of_batch)
            });
            places.map(move |at| Message { peer, sends, at, bytes })
        })
    }

    /// The groups of each exchange. With room for all of them an exchange is as large as all those
    /// before it: few transfers, each behind the computation of as much.
    fn batches(&self) -> Vec<Range<usize>> {
        let mut batches = Vec::new();
        let mut start = 0;
        while start < self.groups {
            let size = if self.slots == self.groups { start.max(1) } else { 1 };
            let end = (start + size).min(self.groups);
            batches.push(start..end);
            start = end;
        }
        batches
    }

    /// Copies the rank's own rows of a group to where they are sent and read from.
    fn stage_own(
        &self,
        program: &mut Program,
        lane: Lane,
        rank: usize,
        group: usize,
        local: &Forward,
    ) {
        let heads = self.heads(group);
        for (tensor, memory, layout) in [(0, Memory::K, &local.k), (1, Memory::V, &local.v)] {
            let mut row = 0;
            for piece in self.call.shards.pieces(rank) {
                let from = Rows::of(memory, layout).from(heads.start, row);
                let to = self.staged(rank, group, tensor, piece.start);
                let shape = [self.call.batch, heads.len(), piece.len()];
                let copies = from.copies(to, shape, self.call.row_bytes());
                program.copy_all(lane, copies);
                row += piece.len();
            }
        }
    }

    /// The exchange of some groups, behind the launches whose room they take.
    fn send(
        &self,
        program: &mut Program,
        rank: usize,
        batch: &Range<usize>,
        local: &Forward,
        empty: &[[usize; 2]],
    ) -> usize {
        let mut messages = Vec::new();
        for group in batch.clone() {
            if group >= self.slots {
                for event in empty[group - self.slots] {
                    program.wait(Lane::Transfer, event);
                }
                self.stage_own(program, Lane::Transfer, rank, group, local);
            }
            for peer in 0..self.call.shards.world() {
                messages.extend(self.messages(rank, peer, group, true));
                messages.extend(self.messages(rank, peer, group, false));
            }
        }
        program.exchange(messages)
    }

    /// Copies the rank's own rows of all groups that have room: those of the first group at once,
    /// the others while it is transferred. A copy that has to wait for launches would find no
    /// multiprocessor, and the transfer behind it neither. Returns the event behind the others.
    fn stage_first(&self, program: &mut Program, rank: usize, local: &Forward) -> usize {
        self.stage_own(program, Lane::Transfer, rank, 0, local);
        for group in 1..self.slots {
            self.stage_own(program, Lane::Second, rank, group, local);
        }
        program.record(Lane::Second)
    }

    /// The launches of a group: the pieces with the most work first, on both lanes in turn. Returns
    /// what is to be copied behind them all: in between it would keep the next launch from filling
    /// multiprocessors that become free.
    fn launch(
        &self,
        program: &mut Program,
        rank: usize,
        group: usize,
        local: &Forward,
    ) -> Vec<(Lane, Vec<Copy>)> {
        let mut later = Vec::new();
        let call = self.call;
        let heads = self.heads(group);
        let q_head = heads.start * call.group_size();
        let mut row = 0;
        let mut pieces = Vec::new();
        for piece in call.shards.pieces(rank) {
            pieces.push((row, piece));
            row += piece.len();
        }
        pieces.sort_by(|(_, one), (_, other)| call.pairs(other).total_cmp(&call.pairs(one)));
        for (index, (row, piece)) in pieces.into_iter().enumerate() {
            let lane = Lane::COMPUTE[index % 2];
            let keys = call.keys(piece);
            let [k, v] = [0, 1].map(|tensor| self.staged(rank, group, tensor, keys.start));
            let row_elements = k.strides.map(|bytes| (bytes / call.row_bytes()) as usize);
            let [batch_stride, head_stride, _] = row_elements.map(|rows| rows * call.head_dim);
            let shape = [call.batch, heads.len(), keys.len(), call.head_dim];
            let strides = [batch_stride, head_stride, call.head_dim, 1];
            let kv = Layout::strided(call.dtype, shape, strides);
            let q = Rows::of(Memory::Q, &local.q).spot(0, q_head, row);
            let out = Rows::of(Memory::Out, &local.out).spot(0, q_head, row);
            let request = call.request(piece, local.q, kv, local.out);
            let lse = call.lse.then(|| self.lse_scratch(rank, &heads, row));
            program.attend(lane, request, [q, k.at, v.at, out], lse);
            if let Some(lse) = lse {
                let shape = [heads.len() * call.group_size(), piece.len()];
                later.push((lane, self.lse_copies(rank, lse, [q_head, row], shape)));
            }
        }
        later
    }

    /// Where the log-sum-exp of a launch goes, which is dense of the launch's own rows.
    fn lse_scratch(&self, rank: usize, heads: &Range<usize>, row: usize) -> Spot {
        let call = self.call;
        let start = WORKSPACE_START + self.slots as u64 * self.slot_bytes(rank);
        let before = heads.start * call.shards.local_rows(rank) + heads.len() * row;
        let bytes = (call.batch * call.group_size() * before) as u64 * LSE_BYTES;
        Spot::new(Memory::Workspace, start + bytes)
    }

    /// From there to where it is wanted: a line is the rows of a head.
    fn lse_copies(
        &self,
        rank: usize,
        from: Spot,
        [q_head, row]: [usize; 2],
        [heads, rows]: [usize; 2],
    ) -> Vec<Copy> {
        let (call, width) = (self.call, rows as u64 * LSE_BYTES);
        let pitch = call.shards.local_rows(rank) as u64 * LSE_BYTES;
        let at = Spot::new(Memory::Lse, q_head as u64 * pitch + row as u64 * LSE_BYTES);
        let to = Rows { at, strides: [call.heads as u64 * pitch, 0, pitch] };
        let from = Rows { at: from, strides: [heads as u64 * width, 0, width] };
        from.copies(to, [call.batch, 1, heads], width)
    }
}

/// What a rank stages: the keys of its pieces and its own rows, in runs that do not touch.
fn segments(call: &Call, rank: usize) -> Vec<Range<usize>> {
    let pieces = call.shards.pieces(rank);
    let mut all: Vec<_> =
        pieces.iter().cloned().chain(pieces.iter().map(|it| call.keys(it))).collect();
    all.retain(|run| !run.is_empty());
    all.sort_unstable_by_key(|run| run.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for run in all {
        match merged.last_mut() {
            Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
            _ => merged.push(run),
        }
    }
    merged
}

impl Scheme for Gather<'_> {
    fn groups(&self) -> usize {
        self.groups
    }

    fn slots(&self) -> usize {
        self.slots
    }

    fn bytes(&self, from: usize, to: usize) -> [u64; 2] {
        let rows: usize = self.runs(from, to).map(|run| run.len()).sum();
        [rows as u64 * self.call.kv_bytes(self.call.kv_heads), 0]
    }

    fn pairs(&self, rank: usize) -> f64 {
        let pieces = self.call.shards.pieces(rank).iter();
        pieces.map(|piece| self.call.pairs(piece)).sum::<f64>() * self.call.heads as f64
    }

    fn workspace_bytes(&self, rank: usize) -> u64 {
        let rows = if self.call.lse { self.call.shards.local_rows(rank) } else { 0 };
        let lse = (self.call.batch * self.call.heads * rows) as u64 * LSE_BYTES;
        WORKSPACE_START + self.slots as u64 * self.slot_bytes(rank) + lse
    }

    fn program(&self, rank: usize, local: &Forward) -> Program {
        let workspace_bytes = self.workspace_bytes(rank);
        let mut program = Program { workspace_bytes, ..Program::default() };
        program.fork();
        let batches = self.batches();
        let staged = self.stage_first(&mut program, rank, local);
        let (mut full, mut empty, mut later) = (Vec::new(), Vec::new(), Vec::new());
        for (index, batch) in batches.iter().enumerate() {
            // Transfers before the launches that hide them: behind these they would find no
            // multiprocessor.
            while let Some(next) =
                batches.get(full.len()).filter(|it| it.end <= batch.start + self.slots)
            {
                if full.len() == 1 {
                    program.wait(Lane::Transfer, staged);
                }
                full.push(self.send(&mut program, rank, next, local, &empty));
            }
            for lane in Lane::COMPUTE {
                program.wait(lane, full[index]);
            }
            for group in batch.clone() {
                later.extend(self.launch(&mut program, rank, group, local));
                if self.slots < self.groups {
                    empty.push(Lane::COMPUTE.map(|lane| program.record(lane)));
                }
            }
        }
        for (lane, copies) in later {
            program.copy_all(lane, copies);
        }
        program.join();
        program
    }
}
