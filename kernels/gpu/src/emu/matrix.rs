//! `ldmatrix` and `stmatrix`: four 8×8 matrices of 16-bit elements between shared memory and the
//! registers of a warp.
//!
//! A row belongs to the thread that gives its address, but all threads share in it: each of them
//! must know what the access has to come after.

use super::block::{Block, Request};
use super::report::{Checked, Site};
use super::shared::{Load, Proxy, Write};

/// Which thread of the warp holds an element, and at which bit of its register.
fn place(row: usize, column: usize, transposed: bool) -> (usize, u32) {
    let (row, column) = if transposed { (column, row) } else { (row, column) };
    (row * 4 + column / 2, column as u32 % 2 * 16)
}

impl Block {
    /// The warp's 32 row addresses have come: gives every thread its four words.
    pub fn load_matrices(&mut self, warp: usize, transposed: bool) -> Checked {
        let threads = warp * 32..warp * 32 + 32;
        let mut words = [[0_u32; 4]; 32];
        for (index, thread) in threads.clone().enumerate() {
            let Some(Request::LoadMatrices { row, .. }) = self.lanes[thread].request else {
                continue;
            };
            let granule = self.shared_granule(row)?;
            for clock in &self.clocks[threads.clone()] {
                self.shared.check_load(granule, clock)?;
            }
            let (agent, time) = self.event(thread);
            self.shared.add_load(granule, Load { agent, time, store: None });
            for (column, pair) in self.shared.bytes(granule).chunks_exact(2).enumerate() {
                let (holder, shift) = place(index % 8, column, transposed);
                let element = u32::from(u16::from_le_bytes([pair[0], pair[1]]));
                words[holder][index / 8] |= element << shift;
            }
        }
        for (thread, words) in threads.zip(words) {
            self.lanes[thread].result = words;
        }
        Ok(())
    }

    /// The warp's 32 row addresses and its words have come: writes the rows.
    pub fn store_matrices(&mut self, warp: usize, transposed: bool, site: Site) -> Checked {
        let threads = warp * 32..warp * 32 + 32;
        let words: Vec<[u32; 4]> = threads.clone().map(|thread| self.words(thread)).collect();
        for (index, thread) in threads.clone().enumerate() {
            let Some(Request::StoreMatrices { row, .. }) = self.lanes[thread].request else {
                continue;
            };
            let granule = self.shared_granule(row)?;
            for clock in &self.clocks[threads.clone()] {
                if let Err(busy) = self.shared.check_write(granule, clock) {
                    return self.slot_in_use(row, busy);
                }
            }
            let (agent, time) = self.event(thread);
            let write = Write { agent, time, site, proxy: Proxy::Generic };
            if let Err(busy) = self.shared.will_write(granule, &self.clocks[thread], write) {
                return self.slot_in_use(row, busy);
            }
            for (column, pair) in self.shared.bytes_mut(granule).chunks_exact_mut(2).enumerate() {
                let (holder, shift) = place(index % 8, column, transposed);
                let element = (words[holder][index / 8] >> shift) as u16;
                pair.copy_from_slice(&element.to_le_bytes());
            }
        }
        Ok(())
    }

    fn words(&self, thread: usize) -> [u32; 4] {
        match self.lanes[thread].request {
            Some(Request::StoreMatrices { words, .. }) => words,
            _ => [0; 4],
        }
    }
}
