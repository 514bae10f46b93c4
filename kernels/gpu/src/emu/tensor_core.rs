//! The tensor core: products of a warpgroup, computed when they are waited for or at any step
//! before, and the registers they keep busy meanwhile.
//!
//! A result is kept here until a wait names the registers it belongs to (the same array, at the
//! same place: an accumulator must not be moved while a product into it is in flight). Until then
//! the registers hold NaN.

use fulgurite_spec::Dtype;

use super::block::{Block, ProductRequest};
use super::operand::{self, K, Major};
use super::report::{Checked, Site, broken, place};

/// What registers hold while a product into them is in flight: a NaN that no arithmetic makes.
pub const POISON: u32 = 0x7fff_dead;

/// Rows of a product.
const ROWS: usize = 64;

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
    dtype: Dtype,
}

#[derive(Debug)]
enum OperandA {
    Shared(Vec<usize>),
    Registers(Vec<f32>),
}

/// An accumulator with products in flight.
#[derive(Debug)]
struct Flight {
    id: usize,
    /// Where the registers of each of the 128 threads lie.
    addresses: Vec<usize>,
    width: usize,
    values: Vec<f32>,
    /// The last product into it.
    last: u32,
    site: Site,
    /// Warps that have their results.
    delivered: [bool; 4],
}

/// Products of one warpgroup.
#[derive(Debug, Default)]
pub struct Warpgroup {
    /// Where each product was issued; product `n` is at `n - 1`.
    pub sites: Vec<Site>,
    waiting: std::collections::VecDeque<Product>,
    flights: Vec<Flight>,
    flight_count: usize,
}

impl Warpgroup {
    pub fn has_products(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The flight of the registers at `address` of thread `index` of the warpgroup.
    fn flight(&self, index: usize, address: usize) -> Option<&Flight> {
        let same =
            |flight: &&Flight| flight.addresses[index] == address && !flight.delivered[index / 32];
        self.flights.iter().find(same)
    }

    pub fn in_flight(&self, index: usize, address: usize) -> Option<Site> {
        self.flight(index, address).map(|flight| flight.site)
    }

    /// Where the first product was issued that `warp` has not waited for.
    pub fn unfinished(&self, warp: usize) -> Option<Site> {
        let open = |flight: &&Flight| !flight.delivered[warp];
        self.flights.iter().find(open).map(|flight| flight.site)
    }
}

/// Groups of products, as one warp sees them.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    /// Last product of each closed group that is not known to be complete.
    closed: std::collections::VecDeque<u32>,
    /// The last product issued.
    pub issued: u32,
    /// The last product of a closed group.
    closed_to: u32,
    /// The last product that was waited for.
    complete: u32,
}

impl Groups {
    pub fn commit(&mut self) {
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

impl Block {
    /// Issues a product for which all threads of a warpgroup have come; `requests` are theirs.
    pub fn issue_product(
        &mut self,
        warpgroup: usize,
        requests: &[ProductRequest],
        site: Site,
    ) -> Checked {
        let first = &requests[0];
        let (width, major) =
            (first.width, if first.registers.is_some() { Major::N } else { Major::K });
        let number = self.warpgroups[warpgroup].sites.len() as u32 + 1;
        self.stats.products += 1;
        let a = match first.registers {
            None => OperandA::Shared(operand::granules(&self.shared, first.a, Major::K, ROWS)?),
            Some(_) => OperandA::Registers(gather_a(requests, first.dtype)),
        };
        let b = operand::granules(&self.shared, first.b, major, width)?;
        let warps = warpgroup * 4..warpgroup * 4 + 4;
        if let OperandA::Shared(granules) = &a {
            // Each warp reads the rows it owns.
            for (index, granule) in granules.iter().enumerate() {
                let warp = warps.start + index / (granules.len() / 4);
                self.read_for_product(*granule, warp..warp + 1, number, warpgroup)?;
            }
        }
        for granule in &b {
            self.read_for_product(*granule, warps.clone(), number, warpgroup)?;
        }
        let flight = self.join_flight(warpgroup, requests, number, site)?;
        let group = &mut self.warpgroups[warpgroup];
        group.sites.push(site);
        let (add, dtype) = (first.add, first.dtype);
        group.waiting.push_back(Product { number, flight, a, b, major, width, add, dtype });
        for warp in warps {
            self.groups[warp].issued = number;
        }
        Ok(())
    }

    fn read_for_product(
        &mut self,
        granule: usize,
        warps: std::ops::Range<usize>,
        product: u32,
        warpgroup: usize,
    ) -> Checked {
        let clocks = &self.clocks[warpgroup * 128..(warpgroup + 1) * 128];
        let known = &mut self.known[warpgroup];
        let visible = |agent, time| {
            if known.get() == (agent, time) {
                return true;
            }
            let seen = clocks.iter().all(|clock| clock.time(agent) >= time);
            if seen {
                known.set((agent, time));
            }
            seen
        };
        self.shared.will_read(granule, warps, product, visible)
    }

    /// Adds a product to the flight of its accumulator, or opens one.
    fn join_flight(
        &mut self,
        warpgroup: usize,
        requests: &[ProductRequest],
        number: u32,
        site: Site,
    ) -> Checked<usize> {
        let group = &mut self.warpgroups[warpgroup];
        let width = requests[0].width;
        let same = |flight: &&mut Flight| {
            let mut pairs = flight.addresses.iter().zip(requests);
            pairs.any(|(address, request)| *address == request.address)
                && flight.delivered != [true; 4]
        };
        if let Some(flight) = group.flights.iter_mut().find(same) {
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
        group.flights.retain(|flight| flight.delivered != [true; 4]);
        let mut values = vec![0.0; ROWS * width];
        for (index, request) in requests.iter().enumerate() {
            let Some(registers) = &request.loaded else {
                return broken!(Fragment, "thread {index} of the warpgroup gives other registers");
            };
            for (register, value) in registers.iter().enumerate() {
                values[place_of(index, register, width)] = f32::from_bits(*value);
            }
        }
        group.flight_count += 1;
        let id = group.flight_count;
        let addresses = requests.iter().map(|request| request.address).collect();
        let delivered = [false; 4];
        group.flights.push(Flight { id, addresses, width, values, last: number, site, delivered });
        Ok(id)
    }

    /// Computes the oldest product.
    pub fn do_product(&mut self, warpgroup: usize) {
        let group = &mut self.warpgroups[warpgroup];
        let Some(product) = group.waiting.pop_front() else {
            return;
        };
        let a = match product.a {
            OperandA::Shared(granules) => operand::floats(&self.shared, &granules, product.dtype),
            OperandA::Registers(values) => values,
        };
        let b = operand::floats(&self.shared, &product.b, product.dtype);
        let b = operand::rows_of_b(b, product.major, product.width);
        let flight = group.flights.iter_mut().find(|flight| flight.id == product.flight);
        let flight = flight.expect("a flight lasts until its last product is computed");
        if !product.add {
            flight.values.fill(0.0);
        }
        self.accumulator.multiply(&mut flight.values, &a, &b, product.width);
    }

    /// A warp waits until `pending` of its groups are in flight and gets the results for the
    /// registers of `width` at `addresses`, one for each of its threads.
    pub fn wait_products(
        &mut self,
        warp: usize,
        pending: u32,
        width: usize,
        addresses: &[usize],
    ) -> Checked {
        let warpgroup = warp / 4;
        let complete = self.groups[warp].wait(pending as usize);
        while self.warpgroups[warpgroup].waiting.front().is_some_and(|p| p.number <= complete) {
            self.do_product(warpgroup);
        }
        for clock in &mut self.clocks[warp * 32..(warp + 1) * 32] {
            clock.raise(warp as u32, complete);
        }
        let quarter = warp % 4;
        let group = &mut self.warpgroups[warpgroup];
        let named = |flight: &&mut Flight| {
            flight.addresses[quarter * 32] == addresses[0] && !flight.delivered[quarter]
        };
        let Some(flight) = group.flights.iter_mut().find(named) else {
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

/// Puts results into the registers of a thread, which must not have been touched meanwhile.
fn deliver(flight: &Flight, index: usize, address: usize) -> Checked {
    if flight.addresses[index] != address {
        return broken!(Fragment, "thread {index} of the warpgroup waits for other registers");
    }
    // SAFETY: the thread is suspended inside its wait, which was given these registers
    // exclusively and exposed their provenance; there are `width / 2` of them at least.
    let registers = unsafe {
        let first = std::ptr::with_exposed_provenance_mut::<f32>(address);
        std::slice::from_raw_parts_mut(first, flight.width / 2)
    };
    for (register, value) in registers.iter_mut().enumerate() {
        if value.to_bits() != POISON {
            return broken!(
                Fragment,
                "register {register} of thread {index} of the warpgroup was written while the \
                 product issued at {} was in flight",
                place(flight.site)
            );
        }
        *value = flight.values[place_of(index, register, flight.width)];
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

/// The 64×16 matrix A from the four registers of each thread.
fn gather_a(requests: &[ProductRequest], dtype: Dtype) -> Vec<f32> {
    let mut bits = vec![0; ROWS * K];
    for (index, request) in requests.iter().enumerate() {
        for (register, word) in request.registers.unwrap_or_default().iter().enumerate() {
            let at = place_of(index, 2 * register, K);
            bits[at] = *word as u16;
            bits[at + 1] = (*word >> 16) as u16;
        }
    }
    operand::to_floats(&bits, dtype)
}
