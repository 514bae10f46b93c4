//! The interface as C sees it: every error that needs no GPU, and that a failure writes nothing.

use std::ffi::CStr;
use std::ptr::{null, null_mut};

use fulgurite_c::{
    Plan, Request, Status, Strides, fulgurite_last_error, fulgurite_launch, fulgurite_plan_create,
    fulgurite_plan_destroy, fulgurite_plan_is_noop, fulgurite_plan_variant,
};

/// What no call writes.
const UNTOUCHED: *mut Plan = std::ptr::dangling_mut();

fn request() -> Request {
    let strides =
        |heads: u64, rows: u64| Strides { batch: rows * heads * 64, head: 64, row: heads * 64 };
    Request {
        size_bytes: size_of::<Request>() as u32,
        dtype: 0,
        mask: 1,
        lse: 0,
        scale: 0.0,
        device: 0,
        batch: 2,
        heads: 8,
        heads_kv: 2,
        q_len: 100,
        kv_len: 200,
        head_dim: 64,
        q: strides(8, 100),
        k: strides(2, 200),
        v: strides(2, 200),
        out: strides(8, 100),
    }
}

#[track_caller]
fn says(parts: &[&str]) {
    // SAFETY: the string of this thread, valid until its next failure.
    let text = unsafe { CStr::from_ptr(fulgurite_last_error()) }.to_string_lossy().into_owned();
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

#[track_caller]
fn refuses(request: &Request, status: Status, parts: &[&str]) {
    let mut plan = UNTOUCHED;
    // SAFETY: both are references.
    assert_eq!(unsafe { fulgurite_plan_create(request, &raw mut plan) }, status);
    assert_eq!(plan, UNTOUCHED);
    says(parts);
}

#[test]
fn null_pointers() {
    let mut plan = UNTOUCHED;
    let mut name = null();
    let mut is_noop = 7;
    let argument = Status::Argument;
    // SAFETY: null, or references.
    unsafe {
        assert_eq!(fulgurite_plan_create(null(), &raw mut plan), argument);
        says(&["`request` is null"]);
        assert_eq!(fulgurite_plan_create(&request(), null_mut()), argument);
        says(&["`plan` is null"]);
        assert_eq!(fulgurite_plan_variant(null(), &raw mut name), argument);
        assert_eq!(fulgurite_plan_is_noop(null(), &raw mut is_noop), argument);
        let (none, out) = (null(), null_mut());
        assert_eq!(fulgurite_launch(null(), null_mut(), none, none, none, out, out), argument);
        says(&["`plan` is null"]);
        assert_eq!(fulgurite_plan_destroy(null_mut()), Status::Ok);
    }
    assert_eq!((plan, name, is_noop), (UNTOUCHED, null(), 7));
}

#[test]
fn numbers_that_stand_for_nothing() {
    let argument = Status::Argument;
    let other_size = Request { size_bytes: 8, ..request() };
    refuses(&other_size, argument, &["size_bytes is 8", "sizeof(fulgurite_request)"]);
    let dtypes = "must be 0 (FULGURITE_BF16) or 1 (FULGURITE_F16)";
    refuses(&Request { dtype: 2, ..request() }, argument, &["request.dtype is 2", dtypes]);
    let masks = "must be 0 (FULGURITE_MASK_FULL) or 1 (FULGURITE_MASK_CAUSAL)";
    refuses(&Request { mask: 99, ..request() }, argument, &["request.mask is 99", masks]);
    let lses = "must be 0 (without) or 1 (with log-sum-exp)";
    refuses(&Request { lse: 2, ..request() }, argument, &["request.lse is 2", lses]);
}

#[test]
fn requests_that_make_no_sense() {
    let wrong = Status::Request;
    refuses(&Request { head_dim: 60, ..request() }, wrong, &["head_dim 60", "multiples of 8"]);
    refuses(&Request { heads: 7, ..request() }, wrong, &["q has 7 heads"]);
    refuses(&Request { heads_kv: 0, ..request() }, wrong, &["k has heads 0"]);
    refuses(&Request { scale: -1.0, ..request() }, wrong, &["softmax scale -1"]);
    refuses(&Request { scale: -0.0, ..request() }, wrong, &["softmax scale -0"]);
    refuses(&Request { scale: f32::NAN, ..request() }, wrong, &["softmax scale NaN"]);
    let narrow = Strides { row: 8, ..request().out };
    refuses(&Request { out: narrow, ..request() }, wrong, &["of out is 8", "overlap"]);
    let odd = Strides { row: 513, ..request().q };
    refuses(&Request { q: odd, ..request() }, wrong, &["row", "of q is 513"]);
    let endless = Request { q_len: u64::MAX, ..request() };
    refuses(&endless, wrong, &["q has rows 18446744073709551615"]);
}

#[test]
fn a_device_that_is_not_there() {
    let nowhere = Request { device: u32::MAX, ..request() };
    // Without a driver that is said instead.
    let no_keys = Request { kv_len: 0, ..nowhere };
    refuses(&no_keys, Status::Device, &["no "]);
    refuses(&nowhere, Status::Device, &["no "]);
}
