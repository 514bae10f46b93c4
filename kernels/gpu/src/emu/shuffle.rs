//! Shuffles and votes: values that the threads of a warp exchange.

/// Whose value a thread gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shuffle {
    /// That of the lane whose number differs in these bits.
    Xor(u32),
    /// That of the first lane.
    First,
    /// Not one's value but everyone's, a bit each.
    Ballot,
}

impl Shuffle {
    /// What each lane gets when all have given theirs.
    pub fn exchange(self, values: [u32; 32]) -> [u32; 32] {
        let bit = |(lane, value): (usize, &u32)| u32::from(*value != 0) << lane;
        match self {
            Shuffle::Xor(bits) => std::array::from_fn(|lane| values[(lane ^ bits as usize) % 32]),
            Shuffle::First => [values[0]; 32],
            Shuffle::Ballot => [values.iter().enumerate().map(bit).sum(); 32],
        }
    }
}
