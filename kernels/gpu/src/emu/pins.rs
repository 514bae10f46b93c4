//! Registers that a thread names to the tensor core, and the fence that makes them ready for it.

use super::report::{Checked, broken};

/// Registers and what they held when they were named.
#[derive(Debug)]
struct Pin {
    address: usize,
    words: Vec<u32>,
}

/// The registers that one thread has named.
#[derive(Debug, Default)]
pub struct Pins {
    /// Since its last fence.
    pinned: Vec<Pin>,
    /// Those that its last fence covers.
    fenced: Vec<Pin>,
}

impl Pins {
    /// Names registers, which hold `words`.
    pub fn pin(&mut self, address: usize, words: Vec<u32>) {
        self.pinned.push(Pin { address, words });
    }

    /// The fence: covers what was named since the last one.
    pub fn fence(&mut self) {
        self.fenced = std::mem::take(&mut self.pinned);
    }

    /// Whether a fence covers four registers of an A operand as they are now.
    pub fn check_operand(&self, words: [u32; 4]) -> Checked {
        let covers = |pin: &Pin| pin.words.chunks_exact(4).any(|chunk| chunk == words);
        if !self.fenced.iter().any(covers) {
            return broken!(
                Fragment,
                "no wgmma::begin_rs covers the registers of A since they were written"
            );
        }
        Ok(())
    }

    /// What an accumulator holds, if a fence covers it as it is now; it is covered no longer.
    pub fn take(
        &mut self,
        address: usize,
        registers: impl Iterator<Item = u32> + Clone,
    ) -> Checked<Vec<u32>> {
        let same = |pin: &Pin| {
            let mut pairs = pin.words.iter().zip(registers.clone());
            pin.address == address && pairs.all(|(old, new)| *old == new)
        };
        let Some(pin) = self.fenced.iter().position(same) else {
            return broken!(
                Fragment,
                "no wgmma::begin covers the accumulator's registers since they were written"
            );
        };
        Ok(self.fenced.swap_remove(pin).words)
    }
}
