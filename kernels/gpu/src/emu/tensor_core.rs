//! The tensor core: products of a warpgroup, computed when they are waited for or at any step
//! before, and the registers they keep busy meanwhile.
//!
//! A result is kept here until a wait names the registers it belongs to (the same array, at the
//! same place: an accumulator must not be moved while a product into it is in flight). Until then
//! the registers hold NaN.

use std::cell::Cell;
use std::ops::Range;

use super::accumulator::{Accumulator, multiply_integers};
use super::clock::{Agent, Clock};
use super::format::Format;
use super::operand::{self, Major};
use super::report::{Checked, Site, broken, place};
use super::shared::Shared;

/// What registers hold while a product into them is in flight: a NaN that no arithmetic makes.
pub const POISON: u32 = 0x7fff_dead;

/// Rows of a product.
const ROWS: usize = 64;

/// One thread's part in a product.
#[derive(Clone, Debug)]
pub struct ProductRequest {
    /// Where its accumulator's registers lie.
    pub address: usize,
    pub width: usize,
    /// Descriptor of A, unless A is in registers.
    pub a: u64,
    pub registers: Option<[u32; 4]>,
    pub b: u64,
    pub add: bool,
    /// How B lies in shared memory; A lies K-major.
    pub major: Major,
    pub format: Format,
    /// What the accumulator held, if no product into it was in flight.
    pub loaded: Option<Vec<u32>>,
}

impl ProductRequest {
    /// Whether both are the same instruction with the same uniform operands.
    pub fn agrees(&self, other: &ProductRequest) -> bool {
        let same_type = (self.width, self.major, self.format, self.registers.is_some())
            == (other.width, other.major, other.format, other.registers.is_some());
        same_type && (self.a, self.b, self.add) == (other.a, other.b, other.add)
    }
}

/// A product that has been issued.
#[derive(Debug)]
struct Product {
    number: u32,
    flight: usize,
    a: OperandA,
    b: Vec<usize>,
    major: Major,
    width: usize,
    add: bool,
    format: Format,
}

#[derive(Debug)]
enum OperandA {
    Shared(Vec<usize>),
    /// Its contents, row by row, 16 bits at a time.
    Registers(Vec<u16>),
}

/// The elements of an accumulator, row by row.
#[derive(Debug)]
enum Sums {
    Floats(Vec<f32>),
    Integers(Vec<i32>),
}

impl Sums {
    fn new(format: Format, len: usize) -> Sums {
        match format {
            Format::S8 => Sums::Integers(vec![0; len]),
            Format::Bf16 | Format::F16 | Format::E4m3 => Sums::Floats(vec![0.0; len]),
        }
    }

    fn set(&mut self, place: usize, bits: u32) {
        match self {
            Sums::Floats(values) => values[place] = f32::from_bits(bits),
            Sums::Integers(values) => values[place] = bits as i32,
        }
    }

    fn bits(&self, place: usize) -> u32 {
        match self {
            Sums::Floats(values) => values[place].to_bits(),
            Sums::Integers(values) => values[place] as u32,
        }
    }

    fn clear(&mut self) {
        match self {
            Sums::Floats(values) => values.fill(0.0),
            Sums::Integers(values) => values.fill(0),
        }
    }
}

/// An accumulator with products in flight.
#[derive(Debug)]
struct Flight {
    id: usize,
    /// Where the registers of each of the 128 threads lie.
    addresses: Vec<usize>,
    width: usize,
    sums: Sums,
    /// The last product into it.
    last: u32,
    site: Site,
    /// Warps that have their results.
    delivered: [bool; 4],
}

/// Products of one warpgroup.
#[derive(Debug, Default)]
struct Warpgroup {
    waiting: std::collections::VecDeque<Product>,
    flights: Vec<Flight>,
    flight_count: usize,
}

impl Warpgroup {
    /// The flight of the registers at `address` of thread `index` of the warpgroup.
    fn flight(&self, index: usize, address: usize) -> Option<&Flight> {
        let same =
            |flight: &&Flight| flight.addresses[index] == address && !flight.delivered[index / 32];
        self.flights.iter().find(same)
    }

    /// Adds a product to the flight of its accumulator, or opens one.
    fn join_flight(
        &mut self,
        requests: &[ProductRequest],
        number: u32,
        site: Site,
    ) -> Checked<usize> {
        let (width, format) = (requests[0].width, requests[0].format);
        let same = |flight: &&mut Flight| {
            let mut pairs = flight.addresses.iter().zip(requests);
            pairs.any(|(address, request)| *address == request.address)
                && flight.delivered != [true; 4]
        };
        if let Some(flight) = self.flights.iter_mut().find(same) {
            let whole = flight.addresses.iter().zip(requests).all(|(a, r)| *a == r.address);
            if !whole || flight.delivered != [false; 4] || flight.width != width {
                return broken!(
                    Fragment,
                    "the accumulator's product issued at {} has been waited for by some warps \
                     only, or had another width",
                    place(flight.site)
                );
            }
            flight.last = number;
            flight.site = site;
            return Ok(flight.id);
        }
        self.flights.retain(|flight| flight.delivered != [true; 4]);
        let mut sums = Sums::new(format, ROWS * width);
        for (index, request) in requests.iter().enumerate() {
            let Some(registers) = &request.loaded else {
                return broken!(Fragment, "thread {index} of the warpgroup gives other registers");
            };
            for (register, value) in registers.iter().enumerate() {
                sums.set(place_of(index, register, width), *value);
            }
        }
        self.flight_count += 1;
        let id = self.flight_count;
        let addresses = requests.iter().map(|request| request.address).collect();
        let delivered = [false; 4];
        self.flights.push(Flight { id, addresses, width, sums, last: number, site, delivered });
        Ok(id)
    }

    /// Computes the oldest product.
    fn compute(&mut self, shared: &Shared, accumulator: Accumulator) {
        let Some(product) = self.waiting.pop_front() else {
            return;
        };
        let Product { major, width, format, .. } = product;
        let a = match product.a {
            OperandA::Shared(granules) => operand::words(shared, &granules),
            OperandA::Registers(words) => words,
        };
        let (a, b) = (format.floats(&a), format.floats(&operand::words(shared, &product.b)));
        let b = operand::rows_of_b(b, major, width);
        let flight = self.flights.iter_mut().find(|flight| flight.id == product.flight);
        let flight = flight.expect("a flight lasts until its last product is computed");
        if !product.add {
            flight.sums.clear();
        }
        match &mut flight.sums {
            Sums::Floats(sums) => accumulator.multiply(format, sums, &a, &b, width),
            Sums::Integers(sums) => multiply_integers(sums, &a, &b, width),
        }
    }

    /// Gives the warp `quarter` the results of products up to `complete` for the registers of
    /// `width` at `addresses`, one for each of its threads.
    fn deliver(
        &mut self,
        quarter: usize,
        complete: u32,
        width: usize,
        addresses: &[usize],
    ) -> Checked {
        let named = |flight: &&mut Flight| {
            flight.addresses[quarter * 32] == addresses[0] && !flight.delivered[quarter]
        };
        let Some(flight) = self.flights.iter_mut().find(named) else {
            return Ok(());
        };
        if flight.last > complete {
            return Ok(());
        }
        if flight.width != width {
            return broken!(
                Fragment,
                "waits for {width} columns, the product issued at {} has {}",
                place(flight.site),
                flight.width
            );
        }
        flight.delivered[quarter] = true;
        for (lane, address) in addresses.iter().enumerate() {
            deliver(flight, quarter * 32 + lane, *address)?;
        }
        Ok(())
    }
}

/// Groups of products, as one warp sees them.
#[derive(Clone, Debug, Default)]
struct Groups {
    /// Last product of each closed group that is not known to be complete.
    closed: std::collections::VecDeque<u32>,
    /// The last product issued.
    issued: u32,
    /// The last product of a closed group.
    closed_to: u32,
    /// The last product that was waited for.
    complete: u32,
}

impl Groups {
    fn commit(&mut self) {
        self.closed_to = self.issued;
        self.closed.push_back(self.issued);
    }

    /// Leaves `pending` groups and returns the last product of the others.
    fn wait(&mut self, pending: usize) -> u32 {
        while self.closed.len() > pending {
            self.complete = self.closed.pop_front().unwrap_or(self.complete).max(self.complete);
        }
        self.complete
    }
}

/// The tensor core of a block.
#[derive(Debug)]
pub struct TensorCore {
    warpgroups: Vec<Warpgroup>,
    /// By warp.
    groups: Vec<Groups>,
    /// By warpgroup: a write that all of its threads are known to have seen.
    known: Vec<Cell<(Agent, u32)>>,
    /// How it adds.
    pub accumulator: Accumulator,
}

impl TensorCore {
    pub fn new(warps: usize, accumulator: Accumulator) -> TensorCore {
        let warpgroups = warps.div_ceil(4);
        TensorCore {
            warpgroups: (0..warpgroups).map(|_| Warpgroup::default()).collect(),
            groups: vec![Groups::default(); warps],
            known: vec![Cell::new((0, 0)); warpgroups],
            accumulator,
        }
    }

    /// The warpgroups with products that are not computed yet.
    pub fn busy(&self) -> impl Iterator<Item = usize> {
        let busy = |(_, group): &(usize, &Warpgroup)| !group.waiting.is_empty();
        self.warpgroups.iter().enumerate().filter(busy).map(|(warpgroup, _)| warpgroup)
    }

    /// Where the last product was issued into the registers at `address` of a thread, if it is in
    /// flight.
    pub fn in_flight(&self, thread: usize, address: usize) -> Option<Site> {
        let flight = self.warpgroups[thread / 128].flight(thread % 128, address);
        flight.map(|flight| flight.site)
    }

    /// The first warp that has not waited for some product, and where that was issued.
    pub fn unfinished(&self) -> Option<(usize, Site)> {
        (0..self.groups.len()).find_map(|warp| {
            let open = |flight: &&Flight| !flight.delivered[warp % 4];
            let flight = self.warpgroups[warp / 4].flights.iter().find(open)?;
            Some((warp, flight.site))
        })
    }

    /// A warp closes its group of products.
    pub fn commit(&mut self, warp: usize) {
        self.groups[warp].commit();
    }

    /// Issues a product for which all threads of a warpgroup have come; `requests` are theirs, and
    /// they know `clocks`.
    pub fn issue(
        &mut self,
        shared: &mut Shared,
        clocks: &[Clock],
        warpgroup: usize,
        requests: &[ProductRequest],
        site: Site,
    ) -> Checked {
        let first = &requests[0];
        let (width, major) = (first.width, first.major);
        let a = match first.registers {
            None => OperandA::Shared(operand::granules(shared, first.a, Major::K, ROWS)?),
            Some(_) => OperandA::Registers(gather_a(requests)),
        };
        let b = operand::granules(shared, first.b, major, width)?;
        let number = shared.begin_product(warpgroup, site);
        let warps = warpgroup * 4..warpgroup * 4 + 4;
        let known = &self.known[warpgroup];
        let mut read = |granule: usize, warps: Range<usize>| {
            shared.will_read(granule, warps, number, |agent, time| {
                all_know(known, clocks, agent, time)
            })
        };
        if let OperandA::Shared(granules) = &a {
            // Each warp reads the rows it owns.
            for (index, granule) in granules.iter().enumerate() {
                let warp = warps.start + index / (granules.len() / 4);
                read(*granule, warp..warp + 1)?;
            }
        }
        for granule in &b {
            read(*granule, warps.clone())?;
        }
        let group = &mut self.warpgroups[warpgroup];
        let flight = group.join_flight(requests, number, site)?;
        let (add, format) = (first.add, first.format);
        group.waiting.push_back(Product { number, flight, a, b, major, width, add, format });
        for warp in warps {
            self.groups[warp].issued = number;
        }
        Ok(())
    }

    /// Computes the oldest product of a warpgroup.
    pub fn compute(&mut self, shared: &Shared, warpgroup: usize) {
        self.warpgroups[warpgroup].compute(shared, self.accumulator);
    }

    /// A warp waits until `pending` of its groups are in flight and gets the results for the
    /// registers of `width` at `addresses`, one for each of its threads. Returns the last product
    /// that it knows to be over.
    pub fn wait(
        &mut self,
        shared: &Shared,
        warp: usize,
        pending: u32,
        width: usize,
        addresses: &[usize],
    ) -> Checked<u32> {
        let complete = self.groups[warp].wait(pending as usize);
        let group = &mut self.warpgroups[warp / 4];
        while group.waiting.front().is_some_and(|product| product.number <= complete) {
            group.compute(shared, self.accumulator);
        }
        group.deliver(warp % 4, complete, width, addresses)?;
        Ok(complete)
    }
}

/// Whether all of a warpgroup know of an agent's time; `known` is the last such thing asked for.
fn all_know(known: &Cell<(Agent, u32)>, clocks: &[Clock], agent: Agent, time: u32) -> bool {
    if known.get() == (agent, time) {
        return true;
    }
    let seen = clocks.iter().all(|clock| clock.time(agent) >= time);
    if seen {
        known.set((agent, time));
    }
    seen
}

/// Puts results into the registers of a thread, which must not have been touched meanwhile.
fn deliver(flight: &Flight, index: usize, address: usize) -> Checked {
    if flight.addresses[index] != address {
        return broken!(Fragment, "thread {index} of the warpgroup waits for other registers");
    }
    // SAFETY: the thread is suspended inside its wait, which was given these registers
    // exclusively and exposed their provenance; there are `width / 2` of them at least, floats
    // or integers of 4 bytes, and any bits are a value of either.
    let registers = unsafe {
        let first = std::ptr::with_exposed_provenance_mut::<u32>(address);
        std::slice::from_raw_parts_mut(first, flight.width / 2)
    };
    for (register, value) in registers.iter_mut().enumerate() {
        if *value != POISON {
            return broken!(
                Fragment,
                "register {register} of thread {index} of the warpgroup was written while the \
                 product issued at {} was in flight",
                place(flight.site)
            );
        }
        *value = flight.sums.bits(place_of(index, register, flight.width));
    }
    Ok(())
}

/// Where register `register` of thread `index` of the warpgroup lies in a 64×`width` matrix.
fn place_of(index: usize, register: usize, width: usize) -> usize {
    let (warp, lane) = (index / 32, index % 32);
    let row = 16 * warp + lane / 4 + 8 * (register / 2 % 2);
    let column = register / 4 * 8 + 2 * (lane % 4) + register % 2;
    row * width + column
}

/// A, 64 rows of 16 times 16 bits, from the four registers of each thread.
fn gather_a(requests: &[ProductRequest]) -> Vec<u16> {
    let mut words = vec![0; ROWS * 16];
    for (index, request) in requests.iter().enumerate() {
        for (register, word) in request.registers.unwrap_or_default().iter().enumerate() {
            // Elements of 16 bits lie as those of an accumulator; of 8 bits, pairs of them.
            let at = place_of(index, 2 * register, 16);
            words[at] = *word as u16;
            words[at + 1] = (*word >> 16) as u16;
        }
    }
    words
}
