//! Devices that were opened, once each.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use fulgurite::{DeviceFacts, Error, FlashAttention, Plan, PlanOptions, Prepared, Request};

use crate::outcome::Failure;

/// Attention on each device that was opened.
static OPENED: Mutex<BTreeMap<u32, FlashAttention>> = Mutex::new(BTreeMap::new());

/// The devices that are open. The lock is never held while the driver is called.
fn opened() -> MutexGuard<'static, BTreeMap<u32, FlashAttention>> {
    // A panic cannot leave the map half written: it is only inserted into.
    OPENED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Plans a call on a device.
pub(crate) fn plan<R: Request>(
    ordinal: u32,
    request: &R,
    options: &PlanOptions,
) -> Result<Prepared<R>, Failure> {
    let plan = |attention: &FlashAttention| {
        if *options == PlanOptions::default() {
            attention.plan(request)
        } else {
            attention.plan_with(request, options)
        }
    };
    // What is wrong with a request whatever the device is told first, for those who have none.
    let check = || Plan::with(request, &DeviceFacts::h200(), options).map(|_| ());
    on(ordinal, check, plan)
}

/// Does something on a device, which is opened on its first use and kept, and opened again where
/// its context was reset and nobody has used it since. Where it cannot be opened, an error of
/// `unopened` comes before that one.
pub(crate) fn on<T>(
    ordinal: u32,
    unopened: impl FnOnce() -> Result<(), Error>,
    act: impl Fn(&FlashAttention) -> Result<T, Error>,
) -> Result<T, Failure> {
    // In a forked process the lock may be one that nobody will ever release.
    fulgurite::check_fork()?;
    let known = opened().get(&ordinal).cloned();
    if let Some(attention) = known {
        match act(&attention) {
            Err(Error::ContextGone { .. }) => {}
            done => return Ok(done?),
        }
    }
    let attention = match open(ordinal) {
        Ok(attention) => attention,
        Err(failure) => {
            unopened()?;
            return Err(failure);
        }
    };
    opened().insert(ordinal, attention.clone());
    Ok(act(&attention)?)
}

/// Opening makes the device's primary context current. That happens on a thread of its own, so
/// that the caller's thread, and a framework's idea of its current device, stay as they were.
fn open(ordinal: u32) -> Result<FlashAttention, Failure> {
    let opener = thread::Builder::new()
        .spawn(move || FlashAttention::open(ordinal as usize))
        .map_err(|error| Failure::internal(format!("no thread to open the device: {error}")))?;
    Ok(opener.join().map_err(|panic| Failure::panic(&*panic))??)
}

/// Whether some kernel runs on a device; no context is made.
pub(crate) fn check(ordinal: u32) -> Result<(), Failure> {
    let devices = fulgurite::devices()?;
    let (ordinal, count) = (ordinal as usize, devices.len());
    let facts = devices.get(ordinal).ok_or(Error::NoDevice { ordinal, count })?;
    Ok(facts.check_any()?)
}
