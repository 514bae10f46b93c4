//! Operations that a warp or a warpgroup does together.

use super::block::{Block, ProductRequest, Request, Shuffle, State};
use super::clock::Clock;
use super::report::{Broken, Checked, FaultKind, Primitive, Site, broken, place};

impl Block {
    /// After the threads of a warp have run as far as they can: does what they have all come for.
    pub fn settle(&mut self, warp: usize) {
        let Some(thread) = self.first_collective(warp) else {
            return;
        };
        let (primitive, site) = (self.lanes[thread].primitive, self.lanes[thread].site);
        if let Err(broken) = self.try_settle(warp, thread) {
            self.fail(primitive, site, Some(thread), broken);
        }
    }

    fn first_collective(&self, warp: usize) -> Option<usize> {
        (warp * 32..warp * 32 + 32).find(|thread| self.lanes[*thread].state == State::Collective)
    }

    fn try_settle(&mut self, warp: usize, thread: usize) -> Checked {
        if !self.all_here(thread, warp * 32..warp * 32 + 32)? {
            return Ok(());
        }
        let wide = self.lanes[thread].request.as_ref().is_some_and(Request::is_warpgroup_wide);
        let first = warp / 4 * 128;
        if wide && !self.all_here(thread, first..first + 128)? {
            return Ok(());
        }
        let site = self.lanes[thread].site.expect("set with the state");
        let request = self.lanes[thread].request.clone().expect("set with the state");
        self.execute(warp, request, site)
    }

    /// Whether all of `threads` are at the operation that `thread` is at. An error if some of them
    /// cannot come any more.
    fn all_here(&self, thread: usize, threads: std::ops::Range<usize>) -> Checked<bool> {
        let mine = &self.lanes[thread];
        let mut all = true;
        for other in threads {
            let lane = &self.lanes[other];
            match lane.state {
                State::Collective => {
                    let agree = match (&mine.request, &lane.request) {
                        (Some(mine), Some(theirs)) => mine.agrees(theirs),
                        _ => false,
                    };
                    if lane.site == mine.site && agree {
                        continue;
                    }
                    // Another warp may still be at an operation of its own warp.
                    let narrow = lane.request.as_ref().is_some_and(|it| !it.is_warpgroup_wide());
                    if other / 32 != thread / 32 && narrow {
                        all = false;
                        continue;
                    }
                    return broken!(
                        Divergence,
                        "thread {other} is at {} at {} instead, or with other operands",
                        lane.primitive.name(),
                        lane.site.map_or(String::new(), place)
                    );
                }
                State::Done => {
                    return broken!(Divergence, "thread {other} has ended");
                }
                _ => all = false,
            }
        }
        Ok(all)
    }

    fn execute(&mut self, warp: usize, request: Request, site: Site) -> Checked {
        let threads = warp * 32..warp * 32 + 32;
        match request {
            Request::Shuffle { from, .. } => self.shuffle(warp, from),
            Request::Barrier { id, count, coming, .. } => {
                return self.barrier_arrive(warp, id, count, coming, site);
            }
            Request::Fence => {
                for thread in threads.clone() {
                    let lane = &mut self.lanes[thread];
                    lane.fenced = std::mem::take(&mut lane.pinned);
                }
            }
            Request::Commit => self.groups[warp].commit(),
            Request::Wait { pending, width, .. } => {
                let address = |thread: usize| match self.lanes[thread].request {
                    Some(Request::Wait { address, .. }) => address,
                    _ => 0,
                };
                let addresses: Vec<usize> = threads.clone().map(address).collect();
                self.wait_products(warp, pending, width, &addresses)?;
            }
            Request::Product(_) => return self.execute_product(warp / 4, site),
            Request::Registers { grow, count } => {
                return self.execute_registers(warp / 4, grow, count);
            }
            Request::LoadMatrices { transposed, .. } => self.load_matrices(warp, transposed)?,
            Request::StoreMatrices { transposed, .. } => {
                self.store_matrices(warp, transposed, site)?;
            }
        }
        threads.for_each(|thread| self.wake(thread));
        Ok(())
    }

    fn shuffle(&mut self, warp: usize, from: Shuffle) {
        let values: [u32; 32] =
            std::array::from_fn(|lane| match self.lanes[warp * 32 + lane].request {
                Some(Request::Shuffle { value, .. }) => value,
                _ => 0,
            });
        let bit = |(lane, value): (usize, &u32)| u32::from(*value != 0) << lane;
        let votes = values.iter().enumerate().map(bit).sum();
        for lane in 0..32 {
            self.lanes[warp * 32 + lane].result[0] = match from {
                Shuffle::Xor(bits) => values[(lane ^ bits as usize) % 32],
                Shuffle::First => values[0],
                Shuffle::Ballot => votes,
            };
        }
    }

    fn execute_product(&mut self, warpgroup: usize, site: Site) -> Checked {
        let threads = warpgroup * 128..warpgroup * 128 + 128;
        let take = |thread: usize| match self.lanes[thread].request.take() {
            Some(Request::Product(request)) => Some(request),
            _ => None,
        };
        let requests: Vec<ProductRequest> = threads.clone().filter_map(take).collect();
        self.issue_product(warpgroup, &requests, site)?;
        threads.for_each(|thread| self.wake(thread));
        Ok(())
    }

    fn execute_registers(&mut self, warpgroup: usize, grow: bool, count: u32) -> Checked {
        let now = self.budgets[warpgroup];
        if !count.is_multiple_of(8) || !(24..=256).contains(&count) {
            return broken!(
                Registers,
                "{count} registers: multiples of 8 from 24 to 256 are allowed"
            );
        }
        if grow && count < now || !grow && count > now {
            return broken!(Registers, "{count} registers, but the warpgroup has {now} now");
        }
        let threads = warpgroup * 128..warpgroup * 128 + 128;
        if grow {
            self.budgets[warpgroup] = count;
            self.spare_registers = match self.spare_registers.checked_sub((count - now) * 128) {
                Some(spare) => spare,
                None => {
                    self.budgets[warpgroup] = now;
                    threads.for_each(|thread| self.lanes[thread].state = State::OnRegisters);
                    return Ok(());
                }
            };
            threads.for_each(|thread| self.wake(thread));
            return Ok(());
        }
        self.budgets[warpgroup] = count;
        self.spare_registers += (now - count) * 128;
        threads.for_each(|thread| self.wake(thread));
        self.retry_registers()
    }

    /// Lets those grow who wait for registers and for whom there are enough now.
    fn retry_registers(&mut self) -> Checked {
        for warpgroup in 0..self.warpgroups.len() {
            let lane = &self.lanes[warpgroup * 128];
            if let (State::OnRegisters, Some(Request::Registers { grow, count })) =
                (lane.state, &lane.request)
            {
                let (grow, count) = (*grow, *count);
                self.execute_registers(warpgroup, grow, count)?;
            }
        }
        Ok(())
    }

    /// Nothing can take a step and not all threads have ended: who waits where.
    pub fn deadlock(&mut self) {
        let mut sites: Vec<(String, Vec<usize>)> = Vec::new();
        for (thread, lane) in self.lanes.iter().enumerate() {
            if lane.state == State::Done {
                continue;
            }
            let site = lane.site.map_or(String::new(), place);
            let text = format!("{} at {site}: {}", lane.primitive.name(), self.missing(thread));
            match sites.iter_mut().find(|(known, _)| *known == text) {
                Some((_, threads)) => threads.push(thread),
                None => sites.push((text, vec![thread])),
            }
        }
        let mut message = "nothing can go on;".to_owned();
        for (text, threads) in &sites {
            message += &format!("\n  {} in {text}", threads_name(threads));
        }
        let first = sites.first().and_then(|(_, threads)| threads.first().copied());
        let lane = first.map(|thread| &self.lanes[thread]);
        let primitive = lane.map_or(Primitive::Code, |lane| lane.primitive);
        let site = lane.and_then(|lane| lane.site);
        self.fail(primitive, site, first, Broken::new(FaultKind::Deadlock, message));
    }

    /// What a thread waits for.
    fn missing(&self, thread: usize) -> String {
        match self.lanes[thread].state {
            State::OnMbarrier { bar, parity } => {
                let (name, missing) = (self.mbarrier_name(bar), self.mbarrier_missing(bar));
                format!("parity {parity} of {name}, whose {missing}")
            }
            State::OnBarrier(id) => {
                let barrier = &self.named[id as usize];
                let name = self.barrier_name(id);
                let (arrived, count, phase) = (barrier.arrived, barrier.count, barrier.phase);
                format!("{name} phase {phase}, {arrived} of {count} threads have come")
            }
            State::OnStores { pending, .. } => {
                format!("all but the last {pending} groups of its stores")
            }
            State::OnRegisters => {
                format!("{} registers of the block are free", self.spare_registers)
            }
            State::Collective => "the rest of the warp or warpgroup has not come".to_owned(),
            State::Ready | State::Done => String::new(),
        }
    }

    /// After the last thread has ended: nothing may be left open.
    pub fn finish(&mut self) {
        let unseen = self.mbarriers.values().find_map(|barrier| {
            let (phase, site, thread) = barrier.last_copy?;
            let seen = |clock: &Clock| clock.time(barrier.agent) > phase;
            (!self.clocks.iter().any(seen)).then_some((site, thread))
        });
        if let Some((site, thread)) = unseen {
            let text = "the block has ended, and nobody has waited for this copy";
            let broken = Broken::new(FaultKind::Unfinished, text);
            return self.fail(Primitive::TmaLoad, Some(site), Some(thread), broken);
        }
        if let Some((thread, site)) = self.unread_store() {
            let text = "the block has ended, and its thread has not waited until this store had \
                        read shared memory";
            let broken = Broken::new(FaultKind::Unfinished, text);
            return self.fail(Primitive::TmaStore, Some(site), Some(thread), broken);
        }
        for warp in 0..self.ready.len() {
            if let Some(site) = self.warpgroups[warp / 4].unfinished(warp % 4) {
                let text = "the block has ended, and this product was never waited for";
                let broken = Broken::new(FaultKind::Unfinished, text);
                return self.fail(Primitive::WgmmaIssue, Some(site), Some(warp * 32), broken);
            }
        }
        for id in 0..16 {
            let (arrived, site) = (self.named[id].arrived, self.named[id].last);
            if arrived > 0 {
                let name = self.barrier_name(id as u32);
                let text = format!("the block has ended; {arrived} threads are left in {name}");
                let broken = Broken::new(FaultKind::Unfinished, text);
                return self.fail(Primitive::BarrierArrive, site, None, broken);
            }
        }
        self.end_stores();
    }
}

/// Threads in words: whole warps as such.
fn threads_name(threads: &[usize]) -> String {
    let mut warps: Vec<usize> = threads.iter().map(|thread| thread / 32).collect();
    warps.dedup();
    let list = warps.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    match threads {
        [thread] => format!("warp {}, lane {}", thread / 32, thread % 32),
        _ => format!("{} threads of warps {list}", threads.len()),
    }
}
