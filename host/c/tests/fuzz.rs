//! Structs at random through the C interface: each call ends with a status, and nothing panics on
//! the way, not even where a panic would be caught.

mod common;

use std::panic;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{BATCHED, options};
use fulgurite_c::{
    Descale, ForwardRequest, Layout, PlanOptions, Status, fulgurite_plan_destroy,
    fulgurite_plan_forward,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Random requests.
const REQUESTS: usize = 200_000;

/// Bytes of the largest struct that is believed.
const BYTES_MOST: usize = 4096;

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
    if rng.random_range(0..24) == 0 { any(rng) } else { usual }
}

fn layout(rng: &mut ChaCha8Rng, dtype: u64, [batch, heads, rows, head_dim]: [u64; 4]) -> Layout {
    let row = heads.saturating_mul(head_dim);
    Layout {
        dtype: mostly(rng, dtype) as u32,
        form: mostly(rng, u64::from(BATCHED)) as u32,
        sequences: mostly(rng, 0),
        shape: [batch, heads, rows, mostly(rng, head_dim)],
        strides: [rows.saturating_mul(row), head_dim, row, 1].map(|it| mostly(rng, it)),
    }
}

/// Mostly one of a kind for tensors of 8 bits, and none for others.
fn descale(rng: &mut ChaCha8Rng, dtype: u64) -> Descale {
    let kind = if dtype == 4 { rng.random_range(1..5) } else { 0 };
    let strides = if kind == 3 { [any(rng), any(rng)] } else { [0; 2] };
    Descale { kind: mostly(rng, kind) as u32, reserved: mostly(rng, 0) as u32, strides }
}

fn request(rng: &mut ChaCha8Rng) -> ForwardRequest {
    let [kv_heads, group] = [rng.random_range(1..9), rng.random_range(1..9)];
    let [batch, q_len, kv_len, head_dim] =
        [rng.random_range(0..9), any(rng), any(rng), 8 * rng.random_range(1..34)];
    let kv_heads = mostly(rng, kv_heads);
    let heads = mostly(rng, kv_heads.saturating_mul(group));
    let (batch, dtype) = (mostly(rng, batch), rng.random_range(1..5));
    let precision = rng.random_range(0..5);
    let scale = if rng.random() { 0.0 } else { f32::from_bits(rng.random()) };
    let (qo, kv) = ([batch, heads, q_len, head_dim], [batch, kv_heads, kv_len, head_dim]);
    ForwardRequest {
        size_bytes: mostly(rng, size_of::<ForwardRequest>() as u64),
        // One that is nowhere, so that no kernel is loaded where there is a driver.
        device: u32::MAX,
        mask: {
            let mask = rng.random_range(1..4);
            mostly(rng, mask) as u32
        },
        with_lse: mostly(rng, 1) as u32,
        scale,
        q: layout(rng, dtype, qo),
        k: layout(rng, dtype, kv),
        v: layout(rng, dtype, kv),
        out: layout(rng, dtype.min(2), qo),
        precision: mostly(rng, precision) as u32,
        window_ends: mostly(rng, 0) as u32,
        descale_q: descale(rng, dtype),
        descale_k: descale(rng, dtype),
        descale_v: descale(rng, dtype),
        window_left: mostly(rng, 0) as i32,
        window_right: mostly(rng, 0) as i32,
    }
}

/// Counts panics from now on.
fn count_panics() {
    let standard = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        standard(info);
    }));
}

/// Room for a struct of any size that is believed, in which its caller's lies.
#[repr(C)]
struct Room {
    request: ForwardRequest,
    rest: [u8; BYTES_MOST - size_of::<ForwardRequest>()],
}

#[test]
fn every_request_ends_with_a_status() {
    count_panics();
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let (mut refused, mut accepted) = (0, 0);
    let mut room =
        Room { request: common::request(), rest: [0; BYTES_MOST - size_of::<ForwardRequest>()] };
    for _ in 0..REQUESTS {
        room.request = request(&mut rng);
        let options = PlanOptions {
            size_bytes: if rng.random_range(0..99) == 0 { any(&mut rng) % 33 } else { 32 },
            workspace_limit_bytes: any(&mut rng),
            sm_limit: any(&mut rng) as u32,
            arch: rng.random_range(0..64) / 31,
            ..options()
        };
        let options = if rng.random() { &raw const options } else { null() };
        let mut plan = null_mut();
        let given = (&raw const room).cast();
        // SAFETY: there are as many bytes as any size that is believed; the options are null or
        // say at most what they have; the plan is a reference.
        match unsafe { fulgurite_plan_forward(given, options, &raw mut plan) } {
            Status::Argument | Status::Request | Status::Unsupported => refused += 1,
            // The request is right, but the device is nowhere.
            Status::Device => accepted += 1,
            other => panic!("{other:?} for {:?}", room.request),
        }
        // SAFETY: null, as nothing was planned.
        assert_eq!(unsafe { fulgurite_plan_destroy(plan) }, Status::Ok);
    }
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
    assert!(refused > REQUESTS / 100 && accepted > REQUESTS / 100, "{refused}, {accepted}");
}

#[test]
fn garbage_ends_with_a_status() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for step in 0..20_000_u64 {
        let mut words = [0_u64; BYTES_MOST / 8];
        for word in &mut words {
            *word = rng.random();
        }
        words[0] = if step % 2 == 0 { step % 5000 } else { words[0] | 1 << 40 };
        let mut plan = null_mut();
        // SAFETY: there are as many bytes as any size that is believed; the plan is a reference.
        let status =
            unsafe { fulgurite_plan_forward(words.as_ptr().cast(), null(), &raw mut plan) };
        assert_eq!((status, plan), (Status::Argument, null_mut()));
    }
}
