//! One test per error of a request: that it is found, and that its message says what was got, what
//! is allowed and what to do.

use fulgurite::internals::{MaskClass, VARIANTS};
use fulgurite::{
    DeviceFacts, Dtype, Error, ErrorClass, Form, Forward, Layout, Mask, Plan, PlanOptions,
    Precision,
};

fn request(q: Layout, kv: Layout) -> Forward {
    Forward::new(q, kv, kv, q, Mask::Causal)
}

/// 2 batch entries, 100 queries, 200 keys, 8 heads on 2, head dim 64.
fn valid() -> Forward {
    request(Layout::bshd(Dtype::Bf16, 2, 100, 8, 64), Layout::bshd(Dtype::Bf16, 2, 200, 2, 64))
}

fn refused(request: &Forward) -> Error {
    Plan::new(request, &DeviceFacts::h200()).expect_err("the request should be refused")
}

#[track_caller]
fn says(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

fn with_q_stride(axis: usize, stride: usize) -> Forward {
    let mut request = valid();
    request.q.strides[axis] = stride;
    request
}

#[test]
fn the_base_of_these_tests_is_valid() {
    Plan::new(&valid(), &DeviceFacts::h200()).unwrap();
}

#[test]
fn dtype_mix() {
    let mut request = valid();
    request.v.dtype = Dtype::F16;
    let error = refused(&request);
    assert_eq!(error, Error::DtypeMix { tensor: "v", got: Dtype::F16, want: Dtype::Bf16 });
    says(&error, &["v has elements of type f16", "q of type bf16", "convert v"]);
}

#[test]
fn shape() {
    // (tensor, axis) of every size that must agree with another tensor's.
    let axes = ["batch", "heads", "rows", "head_dim"];
    for (tensor, checked) in [("k", [0, 3].as_slice()), ("v", &[0, 1, 2]), ("out", &[0, 1, 2, 3])] {
        for &axis in checked {
            let mut request = valid();
            let layout = match tensor {
                "k" => &mut request.k,
                "v" => &mut request.v,
                _ => &mut request.out,
            };
            layout.shape[axis] += 8;
            let got = layout.shape[axis];
            if tensor == "k" && axis == 3 {
                request.v.shape[3] = got;
            }
            let error = refused(&request);
            says(&error, &[&format!("{tensor} has {} {got}", axes[axis]), "must be equal"]);
            assert!(matches!(error, Error::Shape { want, .. } if want == got - 8));
        }
    }
}

#[test]
fn empty() {
    let q = Layout::bshd(Dtype::F16, 2, 100, 8, 64);
    for (q, kv, text) in [
        (q, Layout::bshd(Dtype::F16, 2, 9, 0, 64), "k has heads 0"),
        (
            Layout::bshd(Dtype::F16, 2, 100, 0, 64),
            Layout::bshd(Dtype::F16, 2, 100, 2, 64),
            "q has heads 0",
        ),
    ] {
        let error = refused(&request(q, kv));
        assert!(matches!(error, Error::Empty { .. }));
        says(&error, &[text, "at least 1", "skip the call"]);
    }
}

#[test]
fn head_groups() {
    let q = Layout::bshd(Dtype::F16, 2, 100, 8, 64);
    let error = refused(&request(q, Layout::bshd(Dtype::F16, 2, 100, 3, 64)));
    assert_eq!(error, Error::HeadGroups { q_heads: 8, kv_heads: 3 });
    says(&error, &["q has 8 heads", "k and v have 3", "multiple", "regroup"]);
    // More KV heads than query heads divide no better.
    let error = refused(&request(q, Layout::bshd(Dtype::F16, 2, 100, 16, 64)));
    assert_eq!(error, Error::HeadGroups { q_heads: 8, kv_heads: 16 });
}

#[test]
fn head_dim() {
    for head_dim in [0, 1, 4, 60, 100, 255, 264, 512] {
        let layout = Layout::bshd(Dtype::Bf16, 1, 10, 2, head_dim);
        let error = refused(&request(layout, layout));
        assert_eq!(error.class(), ErrorClass::Unsupported);
        let text = format!("head dim ({head_dim} asked, multiples of 8 from 8 to 256 there)");
        let nearest = if head_dim > 200 { "d256_causal_short" } else { "bf16_d" };
        says(&error, &["no kernel for bf16", &text, nearest, "causal", "zero columns"]);
    }
}

#[test]
fn head_dims_differ() {
    let mut request = valid();
    request.v = Layout::bshd(Dtype::Bf16, 2, 200, 2, 128);
    let error = refused(&request);
    assert_eq!(error.class(), ErrorClass::Unsupported);
    says(
        &error,
        &["fwd_sm90_bf16_d64_causal", "v's head dim (128 asked, 64 there)", "zero columns"],
    );
}

#[test]
fn element_types_without_kernels() {
    for dtype in [Dtype::F32, Dtype::E5m2, Dtype::I8] {
        let layout = Layout::bshd(dtype, 1, 10, 2, 96);
        let error = refused(&request(layout, layout));
        assert_eq!((error.class(), error.name()), (ErrorClass::Unsupported, "Unsupported"));
        let text = format!("element type ({} asked, bf16, f16 or e4m3 there)", dtype.name());
        says(&error, &[&text, "d96_causal", "convert"]);
    }
}

#[test]
fn form() {
    for (layout, name) in [
        (Layout::packed(Dtype::Bf16, 3, 100, 8, 64), "packed"),
        (Layout::pages_nhd(Dtype::Bf16, 2, 16, 8, 64), "paged"),
        (Layout::pages_hnd(Dtype::Bf16, 2, 8, 16, 64), "paged"),
    ] {
        let mut request = valid();
        request.k = layout;
        let error = refused(&request);
        assert_eq!(error, Error::Form { tensor: "k", got: layout.form });
        assert_ne!(layout.form, Form::Batched);
        says(&error, &[&format!("k is {name}"), "takes batched tensors", "Layout::bshd"]);
    }
}

#[test]
fn last_stride() {
    let error = refused(&with_q_stride(3, 2));
    assert_eq!(error, Error::LastStride { tensor: "q", got: 2 });
    says(&error, &["head_dim stride of q is 2", "must be 1", "copy q"]);
}

#[test]
fn stride_alignment() {
    for (axis, name) in [(0, "batch"), (1, "heads"), (2, "rows")] {
        let error = refused(&with_q_stride(axis, 516));
        assert_eq!(error, Error::StrideAlignment { tensor: "q", axis: name, got: 516, want: 8 });
        says(&error, &[&format!("{name} stride of q is 516"), "multiple of 8", "copy"]);
    }
}

#[test]
fn stride_zero() {
    // The heads of k alone, of v alone; rows, even of both; and q.
    for (changed, tensor, axis, name, size) in [
        (&["k"][..], "k", 1, "heads", 2),
        (&["v"], "v", 1, "heads", 2),
        (&["k", "v"], "k", 2, "rows", 200),
        (&["q"], "q", 0, "batch", 2),
        (&["q"], "q", 1, "heads", 8),
    ] {
        let mut request = valid();
        let Forward { q, k, v, .. } = &mut request;
        for (tensor, layout) in [("q", q), ("k", k), ("v", v)] {
            if changed.contains(&tensor) {
                layout.strides[axis] = 0;
            }
        }
        let error = refused(&request);
        assert_eq!(error, Error::StrideZero { tensor, axis: name, size });
        let text = format!("{name} stride of {tensor} is 0 along {size} indices");
        says(&error, &[&text, "only batch entries of k and v", "memory of its own"]);
    }
}

#[test]
fn stride_too_large() {
    let error = refused(&with_q_stride(0, 1 << 39));
    assert_eq!(error, Error::StrideTooLarge { tensor: "q", axis: "batch", got_bytes: 1 << 40 });
    says(&error, &["1099511627776 bytes", "below 2^40", "denser"]);
    Plan::new(&with_q_stride(0, (1 << 39) - 8), &DeviceFacts::h200()).unwrap();
    // Not only in 64 bits.
    let error = refused(&with_q_stride(0, usize::MAX - 7));
    assert!(matches!(error, Error::StrideTooLarge { .. }));
}

#[test]
fn output_overlaps() {
    let mut request = valid();
    request.out.strides[2] = 64;
    let error = refused(&request);
    assert_eq!(
        error,
        Error::OutputOverlaps { tensor: "out", axis: "rows", got: 64, want: 64 + 7 * 64 }
    );
    says(&error, &["rows stride of out is 64", "less than the 512", "its own memory"]);
    // The inputs may overlap.
    let mut request = valid();
    request.k.strides[2] = 64;
    Plan::new(&request, &DeviceFacts::h200()).unwrap();
}

#[test]
fn too_large() {
    let rows = Layout::bshd(Dtype::F16, 1, 1 << 31, 1, 8);
    let error = refused(&request(rows, rows));
    let limit = (1 << 31) - 512;
    assert_eq!(error, Error::TooLarge { tensor: "q", axis: "rows", got: 1 << 31, limit });
    says(&error, &["q has rows 2147483648", "at most 2147483136", "split"]);
    let batch = Layout::bshd(Dtype::F16, 1 << 32, 1, 1, 8);
    says(&refused(&request(batch, batch)), &["q has batch 4294967296", "at most 4294967295"]);
}

#[test]
fn span_overflow() {
    // Strides are each below 2^40 bytes, but there are very many rows of them.
    let mut request = valid();
    let wide = (1 << 39) - 8;
    request.q = Layout::strided(Dtype::Bf16, [2, 8, 1 << 30, 64], [wide, wide, wide, 1]);
    request.out = Layout::bshd(Dtype::Bf16, 2, 1 << 30, 8, 64);
    let error = refused(&request);
    assert!(matches!(error, Error::SpanOverflow { tensor: "q", .. }));
    says(&error, &["q spans 2^63 bytes or more", "1073741824", "strides"]);
    // A product that does not even fit the layout.
    let huge = Layout::bhsd(Dtype::Bf16, 1 << 30, 1 << 30, 1 << 30, 64);
    assert_eq!(huge.span_elements(), None);
    refused(&self::request(huge, huge));
}

#[test]
fn too_many_jobs() {
    let layout = Layout::bshd(Dtype::Bf16, 1 << 20, 1, 1 << 12, 8);
    let error = refused(&request(layout, layout));
    assert_eq!(error, Error::TooManyJobs { got: 1 << 32, limit: i32::MAX as u32 });
    says(&error, &["4294967296 tiles of rows", "at most 2147483647", "split the batch"]);
}

#[test]
fn windows_without_keys() {
    let layout = Layout::bshd(Dtype::F16, 1, 500, 2, 64);
    let windowed = |left, right| {
        let mask = Mask::Window { left: Some(left), right: Some(right) };
        Forward::new(layout, layout, layout, layout, mask)
    };
    for (left, right) in [(0, -1), (7, -8), (-5, 4), (i32::MIN, i32::MAX), (i32::MIN, i32::MIN)] {
        let error = refused(&windowed(left, right));
        assert_eq!(error, Error::Window { left, right });
        let given = format!("from {left} keys before a row's position to {right} behind it");
        says(&error, &[&given, "left + right must be at least 0", "None is unbounded"]);
    }
    for (left, right) in [(0, 0), (7, -7), (-5, 5), (i32::MAX, i32::MIN + 1), (i32::MAX, 0)] {
        Plan::new(&windowed(left, right), &DeviceFacts::h200()).unwrap();
    }
}

#[test]
fn windows_in_8_bits() {
    let layout = Layout::bshd(Dtype::F16, 1, 500, 2, 64);
    let mask = |left| Mask::Window { left: Some(left), right: Some(0) };
    let forward = |left| {
        Forward::new(layout, layout, layout, layout, mask(left)).precision(Precision::S8E4m3)
    };
    let error = refused(&forward(100));
    assert!(matches!(error, Error::Unsupported { .. }));
    says(&error, &["head dim 64, window", "mask (window asked, full or causal there)", "16 bits"]);
    // As wide as the call it is the causal mask.
    Plan::new(&forward(499), &DeviceFacts::h200()).unwrap();
}

#[test]
fn scale() {
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40, f32::MAX] {
        let error = refused(&valid().scale(scale));
        assert!(matches!(error, Error::Scale { .. }));
        says(&error, &[&format!("softmax scale {scale}"), "positive normal", "None"]);
    }
    for scale in [f32::MIN_POSITIVE, 1.0, 1e38] {
        Plan::new(&valid().scale(scale), &DeviceFacts::h200()).unwrap();
    }
}

#[test]
fn architecture() {
    for got in [(3, 7), (6, 1), (7, 0), (7, 5)] {
        let device = DeviceFacts::new("Other GPU", got, 132, 232_448);
        let error = Plan::new(&valid(), &device).unwrap_err();
        let device = "Other GPU".to_owned();
        assert_eq!(error, Error::Architecture { device, got, want: (8, 0) });
        let capability = format!("compute capability {}.{}", got.0, got.1);
        says(&error, &["Other GPU", &capability, "need 8.0", "A100"]);
    }
}

#[test]
fn shared_memory() {
    let device = DeviceFacts::new("NVIDIA H200", (9, 0), 132, 16_384);
    let error = Plan::new(&valid(), &device).unwrap_err();
    assert!(matches!(error, Error::SharedMemory { got_bytes: 16_384, .. }));
    says(&error, &["NVIDIA H200 offers 16384 bytes", "fwd_sm90_", "needs"]);
}

#[test]
fn a_kernel_chosen_by_hand_must_fit() {
    let request = valid();
    for variant in VARIANTS {
        let plan = Plan::with(&request, &DeviceFacts::h200(), &PlanOptions::entry(variant.entry));
        let fits = variant.dtype == request.q.dtype
            && variant.mask == MaskClass::Causal
            && variant.head_dim as usize >= request.q.head_dim();
        match plan {
            Ok(plan) => assert!(fits && plan.variant() == Some(variant)),
            Err(error) => {
                assert!(!fits);
                says(
                    &error,
                    &[variant.entry, "choose a row of internals::VARIANTS", "let the plan choose"],
                );
            }
        }
    }
}

/// What only a GPU can provoke is provoked in `gpu/`; here the wording.
#[test]
fn messages_of_errors_that_need_a_gpu() {
    let error = Error::WrongDevice { what: "q", got: 1, want: 0 };
    says(&error, &["q belongs to another CUDA context (device 1)", "FlashAttention::context"]);
    says(&Error::CaptureWithEvents, &["being captured", "disable_event_tracking", "launch_raw"]);
    let error = Error::NoDevice { ordinal: 3, count: 2 };
    says(&error, &["no device 3", "shows 2", "CUDA_VISIBLE_DEVICES"]);
    let error = Error::Driver {
        call: "cuLaunchKernel",
        code: 1,
        name: "CUDA_ERROR_INVALID_VALUE".to_owned(),
        detail: format!("kernel {}", VARIANTS[0].entry),
        advice: "do this",
    };
    says(&error, &["cuLaunchKernel failed with CUDA_ERROR_INVALID_VALUE (1)", VARIANTS[0].entry]);
    says(&error, &["; do this"]);
    says(&Error::NoDevice { ordinal: 0, count: 0 }, &["no device 0", "shows no GPU", "--gpus all"]);
    says(&Error::ContextGone { ordinal: 1 }, &["of device 1 was reset", "make the plan again"]);
    says(&Error::Forked { pid: 7 }, &["process 7 was forked", "\"spawn\""]);
    let error = Error::StubDriver { path: "/stubs/libcuda.so".to_owned() };
    says(&error, &["/stubs/libcuda.so is a CUDA toolkit's stub", "LD_LIBRARY_PATH"]);
}

/// A `main` that returns an error prints its `Debug`: it must say no less than `Display`.
#[test]
fn debug_is_the_message() {
    let error = Error::HeadGroups { q_heads: 3, kv_heads: 2 };
    assert_eq!(format!("{error:?}"), error.to_string());
    assert_eq!(format!("{:?}", Err::<(), _>(&error)), format!("Err({error})"));
}
