//! Ranks in one process: their memory, their lanes, and an exchange that delivers late and out of
//! order. Nothing happens at the same time; what happens next is drawn by a seed, so that a run can
//! be repeated.

use std::collections::VecDeque;

use fulgurite_parallel::program::{Action, Attend, Copy, Lane, Memory, Message, Program, Request};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The buffers of a rank, by the numbers of [`Memory`].
pub type Memories = [Vec<u8>; 6];

/// Computes a launch of a rank in its memory.
pub type Compute<'a> =
    dyn FnMut(usize, &Request, &Attend, &mut Memories) -> Result<(), String> + 'a;

/// A rank.
pub struct Rank {
    pub program: Program,
    pub memories: Memories,
    /// What the caller's lane holds before the program: it writes q, k and v.
    inputs: Option<[Vec<u8>; 3]>,
    /// Output and log-sum-exp as the caller's lane finds them behind the program.
    pub results: Option<[Vec<u8>; 2]>,
    /// Actions that each lane has yet to do.
    lanes: [VecDeque<Action>; 3],
    recorded: Vec<bool>,
    /// Messages of the exchange under way that have yet to arrive.
    under_way: Option<usize>,
    /// Does nothing any more.
    pub dead: bool,
}

/// A message that one side named.
struct Posted {
    exchange: usize,
    message: Message,
}

/// A message that both sides named, and that has yet to arrive.
struct Met {
    from: usize,
    to: usize,
    sent: Message,
    received: Message,
}

/// What can happen next.
enum Next {
    Step(usize, usize),
    Arrival(usize),
}

/// All ranks.
pub struct World {
    pub ranks: Vec<Rank>,
    random: ChaCha8Rng,
    /// How much more seldom messages arrive than other things happen.
    lateness: u32,
    /// The same of launches, and of everything on one lane of one rank.
    slowness: u32,
    slow_lane: (usize, usize),
    sends: Vec<Vec<VecDeque<Posted>>>,
    receives: Vec<Vec<VecDeque<Posted>>>,
    met: Vec<Met>,
}

impl Rank {
    pub fn new(program: Program, mut memories: Memories) -> Rank {
        let inputs = [Memory::Q, Memory::K, Memory::V].map(|memory| {
            let bytes = &mut memories[memory as usize];
            let nothing = vec![0xff; bytes.len()];
            std::mem::replace(bytes, nothing)
        });
        let mut lanes = [const { VecDeque::new() }; 3];
        for (lane, action) in &program.steps {
            lanes[*lane as usize].push_back(action.clone());
        }
        let recorded = vec![false; program.events];
        Rank {
            program,
            memories,
            inputs: Some(inputs),
            results: None,
            lanes,
            recorded,
            under_way: None,
            dead: false,
        }
    }

    /// What the caller's lane does before and behind the program; whether there was something.
    fn step_of_caller(&mut self) -> bool {
        if let Some([q, k, v]) = self.inputs.take() {
            let [to_q, to_k, to_v, ..] = &mut self.memories;
            (*to_q, *to_k, *to_v) = (q, k, v);
            return true;
        }
        let ends = self.lanes[Lane::Caller as usize].is_empty() && self.results.is_none();
        if ends {
            let results = [Memory::Out, Memory::Lse];
            self.results = Some(results.map(|memory| self.memories[memory as usize].clone()));
        }
        ends
    }

    fn can_step(&self, lane: usize) -> bool {
        let of_caller = self.inputs.is_some() || self.results.is_none();
        match self.lanes[lane].front() {
            None => lane == Lane::Caller as usize && of_caller,
            Some(Action::Wait(event)) => self.recorded[*event],
            Some(Action::Exchange(..)) => self.under_way.is_none(),
            Some(_) => true,
        }
    }

    fn copy(&mut self, copy: &Copy) {
        for line in 0..copy.lines {
            let at = |spot: u64, pitch: u64| {
                let start = (spot + line * pitch) as usize;
                start..start + copy.width as usize
            };
            let from = &self.memories[copy.from.memory as usize];
            let bytes = from[at(copy.from.offset_bytes, copy.from_pitch)].to_vec();
            let to = &mut self.memories[copy.to.memory as usize];
            to[at(copy.to.offset_bytes, copy.to_pitch)].copy_from_slice(&bytes);
        }
    }
}

impl World {
    /// Ranks with their programs and memory; what happens when is drawn by the seed.
    pub fn new(ranks: Vec<Rank>, seed: u64) -> World {
        let queues =
            || ranks.iter().map(|_| ranks.iter().map(|_| VecDeque::new()).collect()).collect();
        let (sends, receives) = (queues(), queues());
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let [lateness, slowness] = [0; 2].map(|_: u32| [0, 20, 1000][random.random_range(0..3)]);
        let slow_lane = (random.random_range(0..ranks.len()), random.random_range(0..4));
        World { ranks, random, lateness, slowness, slow_lane, sends, receives, met: Vec::new() }
    }

    /// Runs until all is done.
    ///
    /// # Errors
    /// What is stuck: on GPUs it would wait until its deadline. Or what is wrong with an exchange
    /// or a launch.
    pub fn run(&mut self, compute: &mut Compute) -> Result<(), String> {
        while let Some(next) = self.draw() {
            match next {
                Next::Step(rank, lane) => self.step(rank, lane, compute)?,
                Next::Arrival(index) => self.arrive(index)?,
            }
        }
        for (number, rank) in self.ranks.iter().enumerate().filter(|(_, rank)| !rank.dead) {
            for lane in Lane::ALL {
                if let Some(action) = rank.lanes[lane as usize].front() {
                    let action = format!("{action:?}").chars().take(60).collect::<String>();
                    return Err(format!("stuck: rank {number}, {lane:?}, at {action}"));
                }
            }
        }
        Ok(())
    }

    fn draw(&mut self) -> Option<Next> {
        let (mut steps, mut slow) = (Vec::new(), Vec::new());
        for (number, rank) in self.ranks.iter().enumerate().filter(|(_, rank)| !rank.dead) {
            for lane in (0..3).filter(|lane| rank.can_step(*lane)) {
                let is_launch = matches!(rank.lanes[lane].front(), Some(Action::Attend(_)));
                let is_slow = is_launch || (number, lane) == self.slow_lane;
                let list = if is_slow { &mut slow } else { &mut steps };
                list.push(Next::Step(number, lane));
            }
        }
        let arrivals = (0..self.met.len()).map(Next::Arrival).collect();
        let mut lists = [(steps, 0), (slow, self.slowness), (arrivals, self.lateness)];
        lists.shuffle(&mut self.random);
        let mut last = None;
        for (mut list, seldom) in lists {
            if !list.is_empty() {
                let drawn = list.swap_remove(self.random.random_range(0..list.len()));
                if self.random.random_range(0..=seldom) == 0 {
                    return Some(drawn);
                }
                last = Some(drawn);
            }
        }
        last
    }

    fn step(&mut self, number: usize, lane: usize, compute: &mut Compute) -> Result<(), String> {
        let rank = &mut self.ranks[number];
        if lane == Lane::Caller as usize && rank.step_of_caller() {
            return Ok(());
        }
        if let Some(Action::Exchange(exchange, messages)) = rank.lanes[lane].front() {
            let (exchange, messages) = (*exchange, messages.clone());
            rank.under_way = Some(messages.len());
            return self.post(number, exchange, messages);
        }
        match rank.lanes[lane].pop_front() {
            Some(Action::Copy(copy)) => rank.copy(&copy),
            Some(Action::Record(event)) => rank.recorded[event] = true,
            Some(Action::Attend(attend)) => {
                let request = rank.program.requests[attend.request].clone();
                compute(number, &request, &attend, &mut rank.memories)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Names the messages of an exchange; those that both sides have named may arrive from now on.
    fn post(&mut self, rank: usize, exchange: usize, messages: Vec<Message>) -> Result<(), String> {
        for message in messages {
            let (from, to) =
                if message.sends { (rank, message.peer) } else { (message.peer, rank) };
            let posted = Posted { exchange, message };
            let queues = if message.sends { &mut self.sends } else { &mut self.receives };
            queues[from][to].push_back(posted);
            let (sends, receives) = (&mut self.sends[from][to], &mut self.receives[from][to]);
            if let (Some(sent), Some(received)) = (sends.front(), receives.front()) {
                let sizes = (sent.message.bytes, received.message.bytes);
                if sizes.0 != sizes.1 || sent.exchange != received.exchange {
                    return Err(format!("rank {from} sends, rank {to} receives: {sizes:?} bytes"));
                }
                let (sent, received) = (sent.message, received.message);
                sends.pop_front();
                receives.pop_front();
                self.met.push(Met { from, to, sent, received });
            }
        }
        Ok(())
    }

    /// A message arrives: the bytes are those that its sender has now.
    fn arrive(&mut self, index: usize) -> Result<(), String> {
        let Met { from, to, sent, received } = self.met.swap_remove(index);
        let at = |message: &Message| {
            let start = message.at.offset_bytes as usize;
            start..start + message.bytes as usize
        };
        let source = &self.ranks[from].memories[sent.at.memory as usize];
        let bytes = source.get(at(&sent)).ok_or("sent from beyond a buffer")?.to_vec();
        let target = &mut self.ranks[to].memories[received.at.memory as usize];
        target.get_mut(at(&received)).ok_or("received beyond a buffer")?.copy_from_slice(&bytes);
        for rank in [from, to] {
            let rank = &mut self.ranks[rank];
            rank.under_way = rank.under_way.map(|left| left - 1);
            if rank.under_way == Some(0) {
                rank.under_way = None;
                rank.lanes[Lane::Transfer as usize].pop_front();
            }
        }
        Ok(())
    }
}

/// Empty memory of a rank: results and the workspace hold NaN.
pub fn memories(bytes: [usize; 6]) -> Memories {
    bytes.map(|bytes| vec![0xff; bytes])
}

/// A buffer of a rank.
pub fn memory(memories: &mut Memories, memory: Memory) -> &mut Vec<u8> {
    &mut memories[memory as usize]
}
