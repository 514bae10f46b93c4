//! The register file: what each warpgroup may use, and what `setmaxnreg` moves between them.

use super::report::{Checked, broken};

/// Registers of one multiprocessor.
const REGISTER_FILE: u32 = 65_536;

/// Registers of a block.
#[derive(Debug)]
pub struct RegisterFile {
    /// Registers per thread of each warpgroup.
    budgets: Vec<u32>,
    /// Those that nobody has.
    spare: u32,
}

impl RegisterFile {
    /// That of a block of `threads` at its start: an equal share per thread, in steps of 8.
    pub fn new(threads: u32) -> RegisterFile {
        let share = REGISTER_FILE / threads / 8 * 8;
        RegisterFile {
            budgets: vec![share.min(255); threads.div_ceil(128) as usize],
            spare: share.saturating_sub(255) * threads,
        }
    }

    /// Registers of the block that are free.
    pub fn spare(&self) -> u32 {
        self.spare
    }

    /// Gives a warpgroup `count` registers per thread; `false`: there are not enough yet.
    pub fn resize(&mut self, warpgroup: usize, grow: bool, count: u32) -> Checked<bool> {
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
        let spare = if grow {
            self.spare.checked_sub((count - now) * 128)
        } else {
            Some(self.spare + (now - count) * 128)
        };
        let Some(spare) = spare else {
            return Ok(false);
        };
        (self.budgets[warpgroup], self.spare) = (count, spare);
        Ok(true)
    }
}
