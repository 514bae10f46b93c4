//! What one rank does for a call: a list of actions on three lanes, as plain data. The same list
//! runs on a GPU and, in tests, on emulated ones.

use fulgurite::Forward;

/// A queue of actions, each of which begins when the one before it has ended: a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// The caller's stream, which computes too: the program begins and ends on it.
    Caller,
    /// A second stream that computes, so that a launch's last blocks have company.
    Second,
    /// Copies and transfers, before everything else where multiprocessors are short.
    Transfer,
}

impl Lane {
    /// All lanes, by their numbers.
    pub const ALL: [Lane; 3] = [Lane::Caller, Lane::Second, Lane::Transfer];

    /// Those that compute.
    pub const COMPUTE: [Lane; 2] = [Lane::Caller, Lane::Second];
}

/// A buffer of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Memory {
    /// The rank's queries.
    Q,
    /// Its keys.
    K,
    /// Its values.
    V,
    /// Its output.
    Out,
    /// Its log-sum-exp.
    Lse,
    /// Memory that the launch works in.
    Workspace,
}

impl Memory {
    /// All of them, by their numbers.
    pub const ALL: [Memory; 6] =
        [Memory::Q, Memory::K, Memory::V, Memory::Out, Memory::Lse, Memory::Workspace];

    /// The name of the launch's argument.
    pub const fn name(self) -> &'static str {
        match self {
            Memory::Q => "q",
            Memory::K => "k",
            Memory::V => "v",
            Memory::Out => "out",
            Memory::Lse => "lse",
            Memory::Workspace => "workspace",
        }
    }
}

/// A place in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The buffer.
    pub memory: Memory,
    /// Bytes behind its first element.
    pub offset_bytes: u64,
}

impl Spot {
    /// So many bytes into a buffer.
    pub const fn new(memory: Memory, offset_bytes: u64) -> Spot {
        Spot { memory, offset_bytes }
    }
}

/// A run of bytes that one rank sends and another receives. The messages from one rank to another
/// meet in the order of their lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The other rank.
    pub peer: usize,
    /// Whether this rank sends.
    pub sends: bool,
    /// Where the bytes are, or go.
    pub at: Spot,
    /// How many; not 0.
    pub bytes: u64,
}

/// A copy of lines of bytes from one place to another on the same device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The first line.
    pub from: Spot,
    /// From one line's start to the next, in bytes.
    pub from_pitch: u64,
    /// Where the first line goes.
    pub to: Spot,
    /// As `from_pitch`.
    pub to_pitch: u64,
    /// Bytes of a line.
    pub width: u64,
    /// Lines.
    pub lines: u64,
}

/// A launch of attention on one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attend {
    /// Which of [`Program::requests`].
    pub request: usize,
    /// Where its tensors begin: q, k, v, out.
    pub tensors: [Spot; 4],
    /// Where its log-sum-exp goes, if it is wanted.
    pub lse: Option<Spot>,
}

/// What is done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A copy on the device.
    Copy(Copy),
    /// Messages, all at once: the exchange of this number, the same on all ranks.
    Exchange(usize, Vec<Message>),
    /// A launch.
    Attend(Attend),
    /// Says that all before it on its lane is done.
    Record(usize),
    /// Waits until that was said.
    Wait(usize),
}

/// A launch's request, and the kernel that computes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The request.
    pub forward: Forward,
    /// The kernel, if the choice is not left to the request.
    pub entry: Option<&'static str>,
}

/// All that one rank does for one call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    /// The actions in the order in which they are enqueued.
    pub steps: Vec<(Lane, Action)>,
    /// The different requests of the launches.
    pub requests: Vec<Request>,
    /// Events that are recorded.
    pub events: usize,
    /// The event behind each exchange, by its number.
    pub exchanged: Vec<usize>,
    /// Bytes of the workspace.
    pub workspace_bytes: u64,
}

impl Program {
    pub(crate) fn push(&mut self, lane: Lane, action: Action) {
        self.steps.push((lane, action));
    }

    /// Records a new event on a lane.
    pub(crate) fn record(&mut self, lane: Lane) -> usize {
        let event = self.events;
        self.events += 1;
        self.push(lane, Action::Record(event));
        event
    }

    pub(crate) fn wait(&mut self, lane: Lane, event: usize) {
        self.push(lane, Action::Wait(event));
    }

    /// The number of a request, which is added if it is a new one.
    pub(crate) fn request(&mut self, request: Request) -> usize {
        let known = self.requests.iter().position(|other| *other == request);
        known.unwrap_or_else(|| {
            self.requests.push(request);
            self.requests.len() - 1
        })
    }

    /// The beginning: the other lanes wait for what is before the program on the caller's.
    pub(crate) fn fork(&mut self) {
        let start = self.record(Lane::Caller);
        self.wait(Lane::Second, start);
        self.wait(Lane::Transfer, start);
    }

    /// The end: the caller's lane waits for the others.
    pub(crate) fn join(&mut self) {
        for lane in [Lane::Second, Lane::Transfer] {
            let end = self.record(lane);
            self.wait(Lane::Caller, end);
        }
    }

    /// An exchange on the transfers' lane, and the event behind it. Without messages it is none.
    pub(crate) fn exchange(&mut self, messages: Vec<Message>) -> usize {
        let number = self.exchanged.len();
        if !messages.is_empty() {
            self.push(Lane::Transfer, Action::Exchange(number, messages));
        }
        let event = self.record(Lane::Transfer);
        self.exchanged.push(event);
        event
    }

    /// Has the second lane's actions done on the caller's.
    pub(crate) fn join_lanes(&mut self) {
        for (lane, _) in &mut self.steps {
            if *lane == Lane::Second {
                *lane = Lane::Caller;
            }
        }
    }

    /// All messages of one direction.
    pub fn messages(&self, sends: bool) -> impl Iterator<Item = &Message> {
        let exchanges = self.steps.iter().filter_map(|(_, action)| match action {
            Action::Exchange(_, messages) => Some(messages),
            _ => None,
        });
        exchanges.flatten().filter(move |message| message.sends == sends)
    }
}
