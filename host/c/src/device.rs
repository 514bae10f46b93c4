//! Devices that were opened, once each.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::thread;

use fulgurite::FlashAttention;

use crate::outcome::Failure;

/// Attention on a device, opened on its first use and kept.
///
/// Opening makes the device's primary context current. That happens on a thread of its own, so
/// that the caller's thread, and a framework's idea of its current device, stay as they were.
pub(crate) fn open(ordinal: u32) -> Result<FlashAttention, Failure> {
    static OPENED: Mutex<BTreeMap<u32, FlashAttention>> = Mutex::new(BTreeMap::new());
    // A panic cannot leave the map half written: it is only inserted into.
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(attention) = opened.get(&ordinal) {
        return Ok(attention.clone());
    }
    let opener = thread::Builder::new()
        .spawn(move || FlashAttention::open(ordinal as usize))
        .map_err(|error| Failure::internal(format!("no thread to open the device: {error}")))?;
    let attention = opener.join().map_err(|panic| Failure::panic(&*panic))??;
    opened.insert(ordinal, attention.clone());
    Ok(attention)
}
