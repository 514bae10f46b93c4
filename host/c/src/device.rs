//! Devices that were opened, once each.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use fulgurite::{Error, FlashAttention, Forward, Prepared};

use crate::outcome::Failure;

/// Attention on each device that was opened.
static OPENED: Mutex<BTreeMap<u32, FlashAttention>> = Mutex::new(BTreeMap::new());

/// The devices that are open. The lock is never held while the driver is called.
fn opened() -> MutexGuard<'static, BTreeMap<u32, FlashAttention>> {
    // A panic cannot leave the map half written: it is only inserted into.
    OPENED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Plans a call on a device, which is opened on its first use and kept, and opened again where
/// its context was reset and nobody has used it since.
pub(crate) fn plan(ordinal: u32, request: &Forward) -> Result<Prepared, Failure> {
    // In a forked process the lock may be one that nobody will ever release.
    fulgurite::check_fork()?;
    let known = opened().get(&ordinal).cloned();
    if let Some(attention) = known {
        match attention.plan(request) {
            Err(Error::ContextGone { .. }) => {}
            planned => return Ok(planned?),
        }
    }
    let attention = open(ordinal)?;
    opened().insert(ordinal, attention.clone());
    Ok(attention.plan(request)?)
}

/// Opening makes the device's primary context current. That happens on a thread of its own, so
/// that the caller's thread, and a framework's idea of its current device, stay as they were.
fn open(ordinal: u32) -> Result<FlashAttention, Failure> {
    let opener = thread::Builder::new()
        .spawn(move || FlashAttention::open(ordinal as usize))
        .map_err(|error| Failure::internal(format!("no thread to open the device: {error}")))?;
    Ok(opener.join().map_err(|panic| Failure::panic(&*panic))??)
}
