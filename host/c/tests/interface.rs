//! The interface as C sees it: every error that needs no GPU, and that a failure writes nothing.

mod common;

use std::ptr::{null, null_mut};

use common::{args, backward, backward_args, bshd, options, request, said, says};
use fulgurite_c::{
    BackwardArgs, BackwardRequest, Descale, ForwardRequest, Layout, Plan, PlanOptions, Status,
    fulgurite_backward, fulgurite_device_supported, fulgurite_forward, fulgurite_launch_forward,
    fulgurite_plan_backward, fulgurite_plan_buffers, fulgurite_plan_describe,
    fulgurite_plan_destroy, fulgurite_plan_entry, fulgurite_plan_forward, fulgurite_plan_is_noop,
    fulgurite_plan_workspace_bytes, fulgurite_preload_backward, fulgurite_preload_forward,
    fulgurite_workspace_reset,
};

/// What no call writes.
const UNTOUCHED: *mut Plan = std::ptr::dangling_mut();

#[track_caller]
fn refuses_with(
    request: &ForwardRequest,
    options: *const PlanOptions,
    status: Status,
    parts: &[&str],
) {
    let mut plan = UNTOUCHED;
    // SAFETY: request and plan are references, the options null or one.
    assert_eq!(unsafe { fulgurite_plan_forward(request, options, &raw mut plan) }, status);
    assert_eq!(plan, UNTOUCHED);
    says(parts);
}

#[track_caller]
fn refuses(request: &ForwardRequest, status: Status, parts: &[&str]) {
    refuses_with(request, null(), status, parts);
    // With a plan that the library keeps it is the same.
    let refused = said();
    // SAFETY: both are references; nothing is launched.
    assert_eq!(unsafe { fulgurite_forward(request, null_mut(), &args()) }, status);
    assert_eq!(said(), refused);
}

#[test]
fn null_pointers() {
    let argument = Status::Argument;
    let mut plan = UNTOUCHED;
    let (mut text, mut number, mut buffers, mut is_noop) = (null(), 7, null(), 7);
    // SAFETY: null, or references.
    unsafe {
        assert_eq!(fulgurite_plan_forward(null(), null(), &raw mut plan), argument);
        says(&["`request` is null"]);
        assert_eq!(fulgurite_plan_forward(&request(), null(), null_mut()), argument);
        says(&["`plan` is null"]);
        assert_eq!(fulgurite_preload_forward(null()), argument);
        says(&["`request` is null"]);
        assert_eq!(fulgurite_forward(null(), null_mut(), &args()), argument);
        says(&["`request` is null"]);
        assert_eq!(fulgurite_forward(&request(), null_mut(), null()), argument);
        says(&["`args` is null"]);
        for status in [
            fulgurite_launch_forward(null(), null_mut(), &args()),
            fulgurite_plan_describe(null(), &raw mut text),
            fulgurite_plan_entry(null(), &raw mut text),
            fulgurite_plan_workspace_bytes(null(), &raw mut number),
            fulgurite_plan_buffers(null(), &raw mut buffers, &raw mut number),
            fulgurite_plan_is_noop(null(), &raw mut is_noop),
        ] {
            assert_eq!(status, argument);
            says(&["`plan` is null"]);
        }
        assert_eq!(fulgurite_plan_destroy(null_mut()), Status::Ok);
    }
    assert_eq!((plan, text, number, is_noop), (UNTOUCHED, null(), 7, 7));
    assert!(buffers.is_null());
}

#[test]
fn sizes_that_no_version_had() {
    let argument = Status::Argument;
    for bytes in [0, 8, 343, 348, 4097, u64::MAX] {
        // Nothing else of the request is looked at.
        let request = ForwardRequest { size_bytes: bytes, mask: 99, ..request() };
        let text =
            format!("request.size_bytes is {bytes}, this library expects 344 or 352 or 424 or 432");
        refuses(&request, argument, &[&text, "set it to sizeof(fulgurite_forward_request)"]);
    }
    let off = PlanOptions { size_bytes: 31, ..options() };
    let text = "options.size_bytes is 31, this library expects 32";
    refuses_with(&request(), &off, argument, &[text, "sizeof(fulgurite_plan_options)"]);
    let off = fulgurite_c::ForwardArgs { size_bytes: 63, ..args() };
    // SAFETY: both are references; nothing is launched.
    assert_eq!(unsafe { fulgurite_forward(&request(), null_mut(), &off) }, argument);
    says(&[
        "args.size_bytes is 63, this library expects 64 or 88",
        "sizeof(fulgurite_forward_args)",
    ]);
}

/// A request of this version with `surplus` behind it, as a later version's.
#[repr(C)]
struct Later {
    request: ForwardRequest,
    surplus: [u64; 3],
}

#[test]
fn a_later_version_asks_for_nothing_new_or_is_refused() {
    let wrong = ForwardRequest { size_bytes: size_of::<Later>() as u64, mask: 99, ..request() };
    for (surplus, text) in [
        ([0; 3], "request.mask is 99"),
        ([0, 0, 1], "request.size_bytes is 456, and its bytes from 432 on are not zero"),
    ] {
        let later = Later { request: wrong, surplus };
        let mut plan = UNTOUCHED;
        let given = (&raw const later).cast();
        // SAFETY: as many bytes as it says are there; the plan is a reference.
        let status = unsafe { fulgurite_plan_forward(given, null(), &raw mut plan) };
        assert_eq!((status, plan), (Status::Argument, UNTOUCHED));
        says(&[text]);
    }
}

#[test]
fn requests_from_before_precision_are_read_without_it() {
    // What lies behind the size that is said is not looked at.
    let before = ForwardRequest { size_bytes: 344, precision: 99, mask: 99, ..request() };
    refuses(&before, Status::Argument, &["request.mask is 99"]);
    let mut before = ForwardRequest { mask: 2, ..before };
    before.q.shape[3] = 72;
    before.k.shape[3] = 64;
    refuses(&before, Status::Request, &["k has head_dim 64"]);
}

#[test]
fn numbers_that_stand_for_nothing() {
    let argument = Status::Argument;
    let masks = "must be one of 1 (FULGURITE_MASK_FULL), 2 (FULGURITE_MASK_CAUSAL), 3 (";
    refuses(&ForwardRequest { mask: 99, ..request() }, argument, &["request.mask is 99", masks]);
    let flags = "it must be 0 (no) or 1 (yes)";
    let lse = ForwardRequest { with_lse: 2, ..request() };
    refuses(&lse, argument, &["request.with_lse is 2", flags]);
    let precision = ForwardRequest { precision: 5, ..request() };
    let precisions = "1 (FULGURITE_PRECISION_GIVEN), 2 (FULGURITE_PRECISION_S8E4M3)";
    refuses(&precision, argument, &["request.precision is 5", precisions]);
    let ends = ForwardRequest { window_ends: 1, ..request() };
    refuses(&ends, argument, &["request.window_ends is 1: it must be FULGURITE_WINDOW_LEFT (1)"]);
    let window = ForwardRequest { mask: 3, ..request() };
    let ends = ForwardRequest { window_ends: 4, ..window };
    refuses(
        &ends,
        argument,
        &["request.window_ends is 4", "both (3) or 0 with FULGURITE_MASK_WIN"],
    );
    let left = ForwardRequest { window_left: 5, window_ends: 2, ..window };
    refuses(&left, argument, &["request.window_left is 5", "lacks FULGURITE_WINDOW_LEFT (1)"]);
    let right = ForwardRequest { window_right: -1, ..request() };
    refuses(&right, argument, &["request.window_right is -1", "lacks FULGURITE_WINDOW_RIGHT (2)"]);
    let none = ForwardRequest { window_right: -1, window_ends: 3, ..window };
    refuses(&none, Status::Request, &["a window from 0 keys before", "to -1 behind it"]);
    let kind = |kind| Descale { kind, ..Descale::default() };
    let descale = ForwardRequest { descale_k: kind(5), descale_q: kind(1), ..request() };
    let kinds = "1 (FULGURITE_DESCALE_ONE), 2 (FULGURITE_DESCALE_PER_TENSOR), 3";
    refuses(&descale, argument, &["request.descale_k.kind is 5", kinds]);
    let descale = ForwardRequest { descale_k: kind(1), ..request() };
    refuses(&descale, argument, &["request.descale_q.kind is 0", kinds]);
    let strided = Descale { strides: [0, 7], ..kind(2) };
    let descale = ForwardRequest { descale_q: strided, ..request() };
    let text = "request.descale_q.strides is {0, 7}, but request.descale_q.kind is not";
    refuses(&descale, argument, &[text, "FULGURITE_DESCALE_PER_HEAD: set them to 0"]);
    let reserved = Descale { reserved: 1, ..kind(1) };
    let descale = ForwardRequest { descale_q: reserved, ..request() };
    refuses(&descale, argument, &["request.descale_q.reserved is 1: set it to 0"]);
    let one =
        ForwardRequest { descale_q: kind(1), descale_k: kind(1), descale_v: kind(1), ..request() };
    refuses(&one, Status::Request, &["q, k and v are bf16, whose numbers are meant as"]);
    let q = |q| ForwardRequest { q, ..request() };
    let base = request().q;
    let dtypes = "must be one of 1 (FULGURITE_BF16), 2 (FULGURITE_F16), 3 (FULGURITE_F32), 4";
    let dtype = q(Layout { dtype: 10, ..base });
    refuses(&dtype, argument, &["request.q.dtype is 10", dtypes, "9 (FULGURITE_I64)"]);
    let forms = "one of 1 (FULGURITE_BATCHED), 2 (FULGURITE_PACKED), 3 (FULGURITE_PAGED)";
    refuses(&q(Layout { form: 4, ..base }), argument, &["request.q.form is 4", forms]);
    let sequences = q(Layout { sequences: 3, ..base });
    refuses(&sequences, argument, &["request.q.sequences is 3", "not FULGURITE_PACKED"]);
    let arch = PlanOptions { arch: 3, ..options() };
    refuses_with(&request(), &arch, argument, &["options.arch is 3", "2 (FULGURITE_SM80)"]);
    let entry = PlanOptions { entry: c"fwd_sm90".as_ptr(), ..options() };
    refuses_with(&request(), &entry, argument, &["options.entry is \"fwd_sm90\"", "fwd_sm90_"]);
}

#[test]
fn what_was_left_at_zero() {
    let none = Layout { dtype: 0, form: 0, sequences: 0, shape: [0; 4], strides: [0; 4] };
    let zero = ForwardRequest { mask: 0, q: none, k: none, v: none, out: none, ..request() };
    let argument = Status::Argument;
    refuses(&zero, argument, &["request.mask is 0 (not set)"]);
    let zero = ForwardRequest { mask: 1, ..zero };
    refuses(&zero, argument, &["request.q.dtype is 0 (not set)"]);
    let zero = ForwardRequest { q: Layout { dtype: 1, ..none }, ..zero };
    refuses(&zero, argument, &["request.q.form is 0 (not set)"]);
    let zero = ForwardRequest { q: request().q, k: request().k, v: request().v, ..zero };
    refuses(&zero, argument, &["request.out.dtype is 0 (not set)"]);
}

#[test]
fn requests_that_make_no_sense() {
    let wrong = Status::Request;
    let with = |change: fn(&mut ForwardRequest)| {
        let mut request = request();
        change(&mut request);
        request
    };
    let heads = with(|it| {
        it.q.shape[1] = 7;
        it.out.shape[1] = 7;
    });
    refuses(&heads, wrong, &["q has 7 heads"]);
    let headless = with(|it| {
        it.k.shape[1] = 0;
        it.v.shape[1] = 0;
    });
    refuses(&headless, wrong, &["k has heads 0"]);
    for (scale, text) in [(-1.0, "softmax scale -1"), (-0.0, "softmax scale -0")] {
        refuses(&ForwardRequest { scale, ..request() }, wrong, &[text]);
    }
    refuses(&ForwardRequest { scale: f32::NAN, ..request() }, wrong, &["softmax scale NaN"]);
    refuses(&with(|it| it.out.strides[2] = 8), wrong, &["of out is 8", "overlap"]);
    refuses(&with(|it| it.q.strides[2] = 513), wrong, &["rows stride of q is 513"]);
    refuses(&with(|it| it.q.strides[3] = 2), wrong, &["head_dim stride of q is 2"]);
    refuses(&with(|it| it.v.dtype = 2), wrong, &["v has elements of type f16"]);
    let endless = with(|it| {
        it.q.shape[2] = u64::MAX;
        it.out.shape[2] = u64::MAX;
    });
    refuses(&endless, wrong, &["q has rows 18446744073709551615"]);
    let packed = with(|it| (it.q.form, it.q.sequences) = (2, 3));
    refuses(&packed, wrong, &["q is packed"]);
    refuses(&with(|it| it.k.form = 3), wrong, &["k is paged"]);
}

#[test]
fn requests_that_no_kernel_computes() {
    let narrow = |head_dim| ForwardRequest {
        q: bshd(1, 1, 1, head_dim),
        k: bshd(1, 1, 1, head_dim),
        v: bshd(1, 1, 1, head_dim),
        out: bshd(1, 1, 1, head_dim),
        ..request()
    };
    let head_dims = ["head dim (60 asked, multiples of 8 from 8 to 256 there)"];
    refuses(&narrow(60), Status::Unsupported, &head_dims);
    let eight_bits = ForwardRequest { precision: 2, ..narrow(72) };
    refuses(&eight_bits, Status::Unsupported, &["72 asked, multiples of 16", "s8e4m3"]);
    let full = PlanOptions { entry: c"fwd_sm90_bf16_d64_full".as_ptr(), ..options() };
    let text = "the kernel fwd_sm90_bf16_d64_full does not compute bf16 with a Causal mask";
    refuses_with(&request(), &full, Status::Unsupported, &[text]);
}

/// The whole text of one failure of each status that needs no driver.
#[test]
fn texts_say_what_was_got_what_is_allowed_and_what_to_do() {
    let text = |request: &ForwardRequest, status| {
        refuses(request, status, &[]);
        said()
    };
    assert_eq!(
        text(&ForwardRequest { mask: 0, ..request() }, Status::Argument),
        "request.mask is 0 (not set): it must be one of 1 (FULGURITE_MASK_FULL), 2 \
         (FULGURITE_MASK_CAUSAL), 3 (FULGURITE_MASK_WINDOW)"
    );
    assert_eq!(
        text(&ForwardRequest { v: bshd(2, 100, 2, 64), ..request() }, Status::Request),
        "v has rows 100, but k has 200: they must be equal"
    );
    let [q, k, v, out] = [(100, 8), (200, 2), (200, 2), (100, 8)]
        .map(|(rows, heads)| Layout { dtype: 3, ..bshd(2, rows, heads, 64) });
    let unsupported = text(&ForwardRequest { q, k, v, out, ..request() }, Status::Unsupported);
    let (what, differs) = unsupported.split_once(", which differs in ").expect("it says so");
    assert!(what.starts_with("no kernel for f32, head dim 64, causal; nearest is fwd_sm90_"));
    assert_eq!(differs, "element type (f32 asked, bf16, f16 or e4m3 there): convert q, k and v");
}

#[test]
fn a_device_that_is_not_there() {
    let nowhere = ForwardRequest { device: u32::MAX, ..request() };
    // Without a driver that is said instead.
    let no_keys = bshd(2, 0, 2, 64);
    refuses(&ForwardRequest { k: no_keys, v: no_keys, ..nowhere }, Status::Device, &["no "]);
    refuses(&nowhere, Status::Device, &["no "]);
    let options = PlanOptions { sm_limit: 1, workspace_limit_bytes: 1, arch: 1, ..options() };
    refuses_with(&nowhere, &options, Status::Device, &["no "]);
    assert_eq!(fulgurite_device_supported(u32::MAX), Status::Device);
    says(&["no "]);
    // SAFETY: there is no such device.
    let reset = unsafe { fulgurite_workspace_reset(u32::MAX, null_mut(), null_mut(), 1) };
    assert_eq!(reset, Status::Device);
}

#[track_caller]
fn refuses_gradients(request: &BackwardRequest, status: Status, parts: &[&str]) {
    let mut plan = UNTOUCHED;
    // SAFETY: request and plan are references, what the request points to is null or lives.
    let got = unsafe { fulgurite_plan_backward(request, null(), &raw mut plan) };
    assert_eq!((got, plan), (status, UNTOUCHED));
    says(parts);
    let refused = said();
    // SAFETY: as above; nothing is launched.
    unsafe {
        assert_eq!(fulgurite_backward(request, null_mut(), &backward_args()), status);
        assert_eq!(said(), refused);
        assert_eq!(fulgurite_preload_backward(request), status);
    }
    assert_eq!(said(), refused);
}

#[test]
fn gradients_that_make_no_sense() {
    let forward = ForwardRequest { with_lse: 1, ..request() };
    let right = backward(&forward);
    let off = BackwardRequest { forward: null(), ..right };
    refuses_gradients(&off, Status::Argument, &["`request.forward` is null"]);
    let short = ForwardRequest { size_bytes: 343, ..forward };
    let off = BackwardRequest { forward: &raw const short, ..right };
    refuses_gradients(&off, Status::Argument, &["request.forward.size_bytes is 343"]);
    let off = BackwardRequest { size_bytes: 343, ..right };
    let text = "request.size_bytes is 343, this library expects 344";
    refuses_gradients(&off, Status::Argument, &[text, "sizeof(fulgurite_backward_request)"]);
    for (off, text) in [
        (BackwardRequest { with_d_lse: 2, ..right }, "request.with_d_lse is 2"),
        (BackwardRequest { reserved: 2, ..right }, "request.reserved is 2"),
    ] {
        refuses_gradients(&off, Status::Argument, &[text]);
    }
    let off = BackwardRequest { dk: right.dq, ..right };
    refuses_gradients(&off, Status::Request, &["dk has heads 8, but k has 2"]);
    let without = ForwardRequest { with_lse: 0, ..forward };
    let off = BackwardRequest { forward: &raw const without, ..right };
    refuses_gradients(&off, Status::Request, &["no log-sum-exp"]);
    let off = BackwardArgs { size_bytes: 103, ..backward_args() };
    // SAFETY: both are references; nothing is launched.
    assert_eq!(unsafe { fulgurite_backward(&right, null_mut(), &off) }, Status::Argument);
    says(&["args.size_bytes is 103", "sizeof(fulgurite_backward_args)"]);
}
