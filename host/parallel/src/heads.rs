//! All to all: rows go to the ranks of their heads, which compute whole sequences, and the output
//! comes back. Fewer bytes than a gather where there are many ranks or many KV heads.

use std::ops::Range;

use fulgurite::{Forward, Layout};

use crate::call::{Call, LSE_BYTES, Room, Rows, WORKSPACE_START};
use crate::program::{Lane, Memory, Message, Program, Request};
use crate::scheme::Scheme;

/// What is decided, the same on all ranks.
#[derive(Debug)]
pub(crate) struct AllToAll<'a> {
    call: &'a Call,
    /// KV heads of a rank.
    own_heads: usize,
    /// KV heads of a group; the last one may have fewer.
    group_heads: usize,
}

/// A tensor that moves, by its number in [`TENSORS`].
type Tensor = usize;

/// Those that go to the ranks of their heads, and the one that comes back.
const TENSORS: [Memory; 4] = [Memory::Q, Memory::K, Memory::V, Memory::Out];

/// The output's number.
const OUT: Tensor = 3;

fn is_of_queries(tensor: Tensor) -> bool {
    tensor == 0 || tensor == OUT
}

/// Where everything is in a rank's workspace.
struct Places {
    /// Each tensor's rows of the rank, where the rows of a head lie one after another.
    packed: [Rows; 4],
    /// Whether that is in the workspace.
    copied: [bool; 4],
    /// For each group the whole sequence of each tensor, and of the log-sum-exp.
    groups: Vec<([Rows; 4], Rows)>,
    /// Bytes of it all.
    end: u64,
}

impl<'a> AllToAll<'a> {
    /// `None` where the ranks cannot have the same number of KV heads.
    pub fn new(call: &'a Call, groups: usize) -> Option<Self> {
        let world = call.shards.world();
        if !call.kv_heads.is_multiple_of(world) {
            return None;
        }
        let own_heads = call.kv_heads / world;
        Some(AllToAll { call, own_heads, group_heads: own_heads.div_ceil(groups.min(own_heads)) })
    }

    /// Heads of a tensor that a rank computes in a group.
    fn heads(&self, rank: usize, group: usize, tensor: Tensor) -> Range<usize> {
        let start = group * self.group_heads;
        let end = (start + self.group_heads).min(self.own_heads);
        let each = if is_of_queries(tensor) { self.call.group_size() } else { 1 };
        (rank * self.own_heads + start) * each..(rank * self.own_heads + end) * each
    }

    /// With a rank's own strides, or with those that need the most room.
    fn places(&self, rank: usize, local: Option<&Forward>) -> Places {
        let call = self.call;
        let rows = call.shards.local_rows(rank);
        let mut room = Room(WORKSPACE_START);
        let mut dense = |heads: usize, rows: usize, row_bytes: u64| {
            let bytes = (call.batch * heads * rows) as u64 * row_bytes;
            Rows::dense(room.take(bytes), heads, rows, row_bytes)
        };
        let layouts = local.map(|local| [local.q, local.k, local.v, local.out]);
        let given = [0, 1, 2, 3].map(|tensor: Tensor| layouts.map(|layouts| layouts[tensor]));
        // Rows that lie one after another are sent from where they are.
        let given = given.map(|it| it.filter(|it| it.strides[2] == call.head_dim || rows <= 1));
        let packed = [0, 1, 2, 3].map(|tensor: Tensor| {
            let heads = if is_of_queries(tensor) { call.heads } else { call.kv_heads };
            given[tensor].map_or_else(
                || dense(heads, rows, call.row_bytes()),
                |layout| Rows::of(TENSORS[tensor], &layout),
            )
        });
        let copied = given.map(|given| given.is_none());
        let of_group = |group| {
            let heads = |tensor| self.heads(rank, group, tensor).len();
            let tensors = [0, 1, 2, 3]
                .map(|tensor| dense(heads(tensor), call.shards.rows(), call.row_bytes()));
            let lse_rows = if call.lse { call.shards.rows() } else { 0 };
            (tensors, dense(heads(OUT), lse_rows, LSE_BYTES))
        };
        let groups = (0..self.groups()).map(of_group).collect();
        Places { packed, copied, groups, end: room.0 }
    }

    /// The messages of some heads, from and to where the rows of a rank's pieces lie: one for each
    /// batch entry, head and piece.
    fn messages(
        &self,
        peer: usize,
        sends: bool,
        heads: usize,
        pieces: Vec<(usize, usize)>,
        rows: Rows,
        row_bytes: u64,
    ) -> impl Iterator<Item = Message> {
        let places =
            (0..self.call.batch).flat_map(move |batch| (0..heads).map(move |head| (batch, head)));
        places.flat_map(move |(batch, head)| {
            let message = move |(start, count): (usize, usize)| {
                let at = rows.spot(batch, head, start);
                Message { peer, sends, at, bytes: count as u64 * row_bytes }
            };
            pieces.clone().into_iter().map(message)
        })
    }

    /// Where a rank's pieces begin among its own rows, and how long they are.
    fn among_own(&self, rank: usize) -> Vec<(usize, usize)> {
        let mut row = 0;
        let pieces = self.call.shards.pieces(rank).iter();
        let start = |piece: &Range<usize>| {
            row += piece.len();
            (row - piece.len(), piece.len())
        };
        pieces.map(start).collect()
    }

    /// Where a rank's pieces begin in the sequence, and how long they are.
    fn among_all(&self, rank: usize) -> Vec<(usize, usize)> {
        let pieces = self.call.shards.pieces(rank).iter();
        pieces.map(|piece| (piece.start, piece.len())).collect()
    }

    fn peers(&self, rank: usize) -> impl Iterator<Item = usize> {
        (0..self.call.shards.world()).filter(move |peer| *peer != rank)
    }

    /// A group's rows to where they are computed.
    fn go(
        &self,
        program: &mut Program,
        rank: usize,
        group: usize,
        places: &Places,
        local: &Forward,
    ) {
        let row_bytes = self.call.row_bytes();
        let layouts = [&local.q, &local.k, &local.v];
        let mut messages = Vec::new();
        for tensor in 0..OUT {
            let whole = places.groups[group].0[tensor];
            let own = self.heads(rank, group, tensor);
            let given = Rows::of(TENSORS[tensor], layouts[tensor]);
            for (from, to) in self.among_own(rank).into_iter().zip(self.among_all(rank)) {
                let shape = [self.call.batch, own.len(), to.1];
                let from = given.from(own.start, from.0);
                program
                    .copy_all(Lane::Transfer, from.copies(whole.from(0, to.0), shape, row_bytes));
            }
            for peer in self.peers(rank) {
                let theirs = self.heads(peer, group, tensor);
                let packed = places.packed[tensor].from(theirs.start, 0);
                let pieces = self.among_own(rank);
                messages.extend(self.messages(peer, true, theirs.len(), pieces, packed, row_bytes));
                let pieces = self.among_all(peer);
                messages.extend(self.messages(peer, false, own.len(), pieces, whole, row_bytes));
            }
        }
        program.exchange(messages);
    }

    /// A group's output back to who holds its rows, and from there to where it is wanted.
    fn come_back(
        &self,
        program: &mut Program,
        rank: usize,
        group: usize,
        places: &Places,
        local: &Forward,
    ) {
        let (call, row_bytes) = (self.call, self.call.row_bytes());
        let (tensors, whole_lse) = &places.groups[group];
        let rows = call.shards.local_rows(rank);
        let out = Rows::of(Memory::Out, &local.out);
        let lse = Rows {
            at: crate::program::Spot::new(Memory::Lse, 0),
            ..Rows::dense(0, call.heads, rows, LSE_BYTES)
        };
        let own = self.heads(rank, group, OUT);
        let mut moved = vec![(tensors[OUT], places.packed[OUT], out, row_bytes)];
        if call.lse {
            moved.push((*whole_lse, lse, lse, LSE_BYTES));
        }
        let mut messages = Vec::new();
        let mut unpacked = Vec::new();
        for (whole, packed, given, row_bytes) in moved {
            for (from, to) in self.among_all(rank).into_iter().zip(self.among_own(rank)) {
                let shape = [call.batch, own.len(), to.1];
                let to = given.from(own.start, to.0);
                program
                    .copy_all(Lane::Transfer, whole.from(0, from.0).copies(to, shape, row_bytes));
            }
            for peer in self.peers(rank) {
                let theirs = self.heads(peer, group, OUT);
                let pieces = self.among_all(peer);
                messages.extend(self.messages(peer, true, own.len(), pieces, whole, row_bytes));
                let packed = packed.from(theirs.start, 0);
                let pieces = self.among_own(rank);
                messages.extend(self.messages(
                    peer,
                    false,
                    theirs.len(),
                    pieces,
                    packed,
                    row_bytes,
                ));
                if places.copied[OUT] && row_bytes == call.row_bytes() {
                    let shape = [call.batch, theirs.len(), rows];
                    unpacked.extend(packed.copies(given.from(theirs.start, 0), shape, row_bytes));
                }
            }
        }
        program.exchange(messages);
        program.copy_all(Lane::Transfer, unpacked);
    }

    /// A group's launch, which is that of one GPU with fewer heads.
    fn launch(
        &self,
        program: &mut Program,
        lane: Lane,
        rank: usize,
        group: usize,
        places: &Places,
    ) {
        let call = self.call;
        let (tensors, lse) = &places.groups[group];
        let layout = |tensor| {
            let heads = self.heads(rank, group, tensor).len();
            Layout::bhsd(call.dtype, call.batch, heads, call.shards.rows(), call.head_dim)
        };
        let [q, k, v, out] = [0, 1, 2, OUT].map(layout);
        let mut forward = Forward::new(q, k, v, out, call.mask);
        (forward.scale, forward.lse) = (call.scale, call.lse);
        let request = Request { forward, entry: call.entry };
        program.attend(lane, request, tensors.map(|rows| rows.at), call.lse.then_some(lse.at));
    }
}

impl Scheme for AllToAll<'_> {
    fn groups(&self) -> usize {
        self.own_heads.div_ceil(self.group_heads)
    }

    fn slots(&self) -> usize {
        self.groups()
    }

    fn bytes(&self, from: usize, to: usize) -> [u64; 2] {
        let call = self.call;
        let queries = (call.batch * self.own_heads * call.group_size()) as u64;
        let rows = |rank| if from == to { 0 } else { call.shards.local_rows(rank) as u64 };
        let lse = if call.lse { LSE_BYTES } else { 0 };
        let there = queries * call.row_bytes() + call.kv_bytes(self.own_heads);
        [rows(from) * there, rows(to) * queries * (call.row_bytes() + lse)]
    }

    fn pairs(&self, _rank: usize) -> f64 {
        let whole = self.call.pairs(&(0..self.call.shards.rows()));
        whole * (self.own_heads * self.call.group_size()) as f64
    }

    fn workspace_bytes(&self, rank: usize) -> u64 {
        self.places(rank, None).end
    }

    fn program(&self, rank: usize, local: &Forward) -> Program {
        let places = self.places(rank, Some(local));
        let mut program = Program { workspace_bytes: places.end, ..Program::default() };
        program.fork();
        let layouts = [&local.q, &local.k, &local.v];
        for tensor in (0..OUT).filter(|tensor| places.copied[*tensor]) {
            let layout = layouts[tensor];
            let shape = [layout.batch(), layout.heads(), layout.rows()];
            let from = Rows::of(TENSORS[tensor], layout);
            let copies = from.copies(places.packed[tensor], shape, self.call.row_bytes());
            program.copy_all(Lane::Transfer, copies);
        }
        let groups = self.groups();
        (0..groups).for_each(|group| self.go(&mut program, rank, group, &places, local));
        let mut done = Vec::new();
        for group in 0..groups {
            let lane = Lane::COMPUTE[group % 2];
            program.wait(lane, program.exchanged[group]);
            self.launch(&mut program, lane, rank, group, &places);
            done.push(program.record(lane));
        }
        for (group, done) in done.into_iter().enumerate() {
            program.wait(Lane::Transfer, done);
            self.come_back(&mut program, rank, group, &places, local);
        }
        program.join();
        program
    }
}
