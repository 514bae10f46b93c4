//! One thread for each rank.

use std::time::Duration;

use fulgurite::FlashAttention;
use fulgurite_parallel::{ConnectOptions, Parallel};

/// How long ranks wait for each other here.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The first devices of the machine, connected.
///
/// # Errors
/// A message if there are not as many, or they do not connect.
pub fn connect(gpus: usize, max_blocks: Option<u32>) -> Result<Vec<Parallel>, String> {
    let devices: Vec<FlashAttention> = (0..gpus)
        .map(|ordinal| FlashAttention::open(ordinal).map_err(|error| error.to_string()))
        .collect::<Result<_, _>>()?;
    let mut options = ConnectOptions::default().deadline(DEADLINE);
    if let Some(blocks) = max_blocks {
        options = options.max_blocks(blocks);
    }
    Parallel::all(&devices, &options).map_err(|error| error.to_string())
}

/// Has each rank do something in a thread of its own; all results, in the order of the ranks.
///
/// # Errors
/// The first rank's message.
pub fn each<T: Send>(
    ranks: &[Parallel],
    work: impl Fn(&Parallel) -> Result<T, String> + Sync,
) -> Result<Vec<T>, String> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = ranks.iter().map(|rank| scope.spawn(move || work(rank))).collect();
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect()
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn too_few_gpus_are_a_message() {
        let error = super::connect(100, None).expect_err("so many there are nowhere");
        assert!(error.contains("no ") && error.contains("device") || error.contains("driver"));
    }
}
