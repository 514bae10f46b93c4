//! Positions in a ring of buffers.

/// Where one side of a ring stands: the buffer in turn and the parity of its barriers' phase.
///
/// The side that fills starts at [`Cursor::fill`], the side that reads at [`Cursor::read`]: a
/// fresh barrier answers the wait for parity 1 at once, so the first round of filling does not
/// wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Index of the buffer in turn.
    pub stage: u32,
    /// Parity to wait for.
    pub parity: u32,
}

impl Cursor {
    /// Start of the side that reads, at buffer `stage`: waits for the first filling.
    #[inline(always)]
    pub const fn read(stage: u32) -> Self {
        Cursor { stage, parity: 0 }
    }

    /// Start of the side that fills.
    #[inline(always)]
    pub const fn fill() -> Self {
        Cursor { stage: 0, parity: 1 }
    }

    /// Goes on by `step` of `stages` buffers, at most one round.
    #[inline(always)]
    pub const fn advance(&mut self, step: u32, stages: u32) {
        self.stage += step;
        if self.stage >= stages {
            self.stage -= stages;
            self.parity ^= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parity_turns_with_every_round() {
        for (step, stages) in [(1, 1), (1, 3), (2, 2), (2, 3), (3, 6)] {
            let mut cursor = Cursor::read(0);
            for turn in (0..12 * step).step_by(step as usize) {
                assert_eq!((cursor.stage, cursor.parity), (turn % stages, turn / stages % 2));
                cursor.advance(step, stages);
            }
        }
        assert_eq!(Cursor::fill().parity, 1);
    }
}
