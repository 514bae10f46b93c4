//! Requests at random through the C interface: each ends with a status, and nothing panics on the
//! way, not even where a panic would be caught.

use std::panic;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};

use fulgurite_c::{Request, Status, Strides, fulgurite_plan_create, fulgurite_plan_destroy};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Random requests.
const REQUESTS: usize = 200_000;

/// Panics of this process, caught or not.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn any(rng: &mut ChaCha8Rng) -> u64 {
    match rng.random_range(0..6) {
        0 => 0,
        1 => 1,
        2 => rng.random_range(0..1 << 33),
        3 => u64::MAX - rng.random_range(0..9),
        4 => rng.random(),
        _ => 8 * rng.random_range(0..99),
    }
}

/// Either `usual` or, now and then, any number.
fn mostly(rng: &mut ChaCha8Rng, usual: u64) -> u64 {
    if rng.random_range(0..12) == 0 { any(rng) } else { usual }
}

fn request(rng: &mut ChaCha8Rng) -> Request {
    let [heads_kv, group] = [rng.random_range(1..9), rng.random_range(1..9)];
    let [batch, q_len, kv_len, head_dim] =
        [rng.random_range(0..9), any(rng), any(rng), 8 * rng.random_range(1..34)];
    let heads_kv = mostly(rng, heads_kv);
    let heads = mostly(rng, heads_kv.saturating_mul(group));
    let (batch, head_dim) = (mostly(rng, batch), mostly(rng, head_dim));
    let strides = |rng: &mut ChaCha8Rng, heads: u64, rows: u64| {
        let row = heads.saturating_mul(head_dim);
        let [batch, head, row] = [rows.saturating_mul(row), head_dim, row];
        Strides { batch: mostly(rng, batch), head: mostly(rng, head), row: mostly(rng, row) }
    };
    let scale = if rng.random() { 0.0 } else { f32::from_bits(rng.random()) };
    Request {
        size_bytes: size_of::<Request>() as u32,
        dtype: mostly(rng, 1) as u32,
        mask: mostly(rng, 1) as u32,
        lse: mostly(rng, 1) as u32,
        scale,
        // One that is nowhere, so that no kernel is loaded where there is a driver.
        device: u32::MAX,
        batch,
        heads,
        heads_kv,
        q_len,
        kv_len,
        head_dim,
        q: strides(rng, heads, q_len),
        k: strides(rng, heads_kv, kv_len),
        v: strides(rng, heads_kv, kv_len),
        out: strides(rng, heads, q_len),
    }
}

#[test]
fn every_request_ends_with_a_status() {
    let standard = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        standard(info);
    }));
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let (mut refused, mut accepted) = (0, 0);
    for _ in 0..REQUESTS {
        let request = request(&mut rng);
        let mut plan = null_mut();
        // SAFETY: both are references.
        match unsafe { fulgurite_plan_create(&request, &raw mut plan) } {
            Status::Argument | Status::Request => refused += 1,
            // The request is right, but the device is nowhere.
            Status::Device => accepted += 1,
            other => panic!("{other:?} for {request:?}"),
        }
        // SAFETY: null, as nothing was planned.
        assert_eq!(unsafe { fulgurite_plan_destroy(plan) }, Status::Ok);
    }
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
    assert!(refused > REQUESTS / 100 && accepted > REQUESTS / 100, "{refused}, {accepted}");
}
