//! The backward: what a plan decides, and one test per error of a request.

use fulgurite::internals::{BACKWARD, MaskClass, Part};
use fulgurite::{
    Access, Arch, Backward, BackwardArgs, DeviceFacts, Dtype, Error, ErrorClass, Forward, Layout,
    Mask, Plan, PlanOptions, Precision, Raw, RawWorkspace, Workspace,
};

/// 2 batch entries, 100 queries, 200 keys, 8 heads on 2, head dim 64.
fn valid() -> Backward {
    let q = Layout::bshd(Dtype::Bf16, 2, 100, 8, 64);
    let kv = Layout::bshd(Dtype::Bf16, 2, 200, 2, 64);
    Backward::new(&Forward::new(q, kv, kv, q, Mask::Causal).with_lse(), q, q, kv, kv)
}

fn plan(request: &Backward) -> Plan<Backward> {
    Plan::new(request, &DeviceFacts::h200()).expect("a valid request")
}

fn refused(request: &Backward) -> Error {
    Plan::new(request, &DeviceFacts::h200()).expect_err("the request should be refused")
}

#[track_caller]
fn says(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

#[test]
fn a_call_has_three_launches() {
    let plan = plan(&valid());
    let launches: Vec<(&str, u32)> =
        plan.launches().iter().map(|launch| (launch.entry(), launch.grid())).collect();
    // 384 rows with padding of 16 heads, 64 a block; 2 tiles of 4 KV heads; a tile of 16 heads.
    assert_eq!(
        launches,
        [
            ("bwd_delta_bf16", 96),
            ("bwd_dkdv_sm90_bf16_d64_causal", 8),
            ("bwd_dq_sm90_bf16_d64_causal", 16),
        ]
    );
    assert_eq!(plan.workspace_bytes(), Workspace::HEAD_BYTES as u64 + 2 * 4 * 16 * 384);
    let text = plan.to_string();
    for part in ["backward", "d_out", "dv", "causal, bottom right", "1/sqrt(64), by default"] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}

#[test]
fn buffers_are_those_of_the_arguments() {
    let plan = plan(&valid());
    let written: Vec<&str> = plan
        .buffers()
        .iter()
        .filter(|need| need.access == Access::Write)
        .map(|need| need.name)
        .collect();
    assert_eq!(written, ["dq", "dk", "dv"]);
    let lse = plan.buffer("lse").expect("it is read");
    assert_eq!((lse.dtype, lse.elements, lse.access), (Dtype::F32, 1600, Access::Read));
    let args = |d_out: u64, bytes: u64| {
        let at = 0x1000_u64;
        let args = BackwardArgs::<Raw>::new(at, at, at, at, at, d_out, at, at, at);
        args.workspace(RawWorkspace { address: at, bytes })
    };
    let bytes = plan.workspace_bytes();
    assert_eq!(plan.check_addresses(args(0x1000, bytes)), Ok(()));
    let error = plan.check_addresses(args(0, bytes)).expect_err("null");
    assert_eq!(error, Error::NullPointer { buffer: "d_out" });
    let error = plan.check_addresses(args(0x1000, bytes - 1)).expect_err("too short");
    assert_eq!(error, Error::WorkspaceShort { got: bytes - 1, want: bytes });
}

#[test]
fn every_kernel_is_planned_for_its_head_dims() {
    for row in BACKWARD {
        for head_dim in [row.head_dim - 8, row.head_dim] {
            let layout = Layout::bshd(row.dtype, 1, 300, 2, head_dim as usize);
            let forward = Forward::new(layout, layout, layout, layout, row.mask.example());
            let forward = forward.with_lse();
            let plan = plan(&Backward::new(&forward, layout, layout, layout, layout));
            let entries: Vec<&str> = plan.launches().iter().map(|it| it.entry()).collect();
            assert!(entries.contains(&row.entry), "{}: {entries:?}", row.entry);
        }
    }
}

#[test]
fn empty_calls() {
    let call = |batch, rows, keys| {
        let q = Layout::bshd(Dtype::F16, batch, rows, 2, 64);
        let kv = Layout::bshd(Dtype::F16, batch, keys, 2, 64);
        plan(&Backward::new(&Forward::new(q, kv, kv, q, Mask::Full).with_lse(), q, q, kv, kv))
    };
    assert!(call(0, 5, 5).is_noop());
    assert_eq!(call(0, 5, 5).workspace_bytes(), 0);
    assert!(call(3, 0, 0).is_noop());
    let parts = |plan: Plan<Backward>| -> Vec<&'static str> {
        plan.launches().iter().map(|launch| launch.entry()).collect()
    };
    // Gradients are zeros then, which kernels store.
    assert_eq!(parts(call(1, 0, 9)), ["bwd_dkdv_sm90_f16_d64_full"]);
    assert_eq!(parts(call(1, 9, 0)), ["bwd_delta_f16", "bwd_dq_sm90_f16_d64_full"]);
}

#[test]
fn lse_of_the_forward() {
    let mut request = valid();
    request.forward.lse = false;
    let error = refused(&request);
    assert_eq!(error, Error::LseOfForward);
    assert_eq!(error.class(), ErrorClass::Request);
    says(&error, &["no log-sum-exp", "with_lse"]);
}

#[test]
fn what_kernels_do_not_compute() {
    let mut request = valid();
    request.forward.precision = Precision::S8E4m3;
    let error = refused(&request);
    assert_eq!(error.class(), ErrorClass::Unsupported);
    says(&error, &["no kernel for backward of bf16", "precision", "given there", "bwd_"]);
    let layout = Layout::bshd(Dtype::E4m3, 1, 9, 1, 64);
    let forward = Forward::new(layout, layout, layout, layout, Mask::Full).with_lse();
    let error = refused(&Backward::new(&forward, layout, layout, layout, layout));
    assert_eq!(error.class(), ErrorClass::Unsupported);
    says(&error, &["element type (e4m3 asked, bf16 or f16 there)"]);
    let options = PlanOptions::default().sm_limit(7);
    let error = Plan::with(&valid(), &DeviceFacts::h200(), &options).expect_err("a limit");
    assert_eq!(error.class(), ErrorClass::Unsupported);
    says(&error, &["at most 7 asked", "leave `sm_limit` out"]);
    assert!(
        Plan::with(&valid(), &DeviceFacts::h200(), &PlanOptions::default().arch(Arch::Sm90))
            .is_ok()
    );
}

#[test]
fn windows_as_wide_as_the_call_are_computed_without_one() {
    let dq = |left, right| {
        let mut request = valid();
        request.forward.mask = Mask::Window { left, right };
        let plan = plan(&request);
        plan.launches().last().expect("there is work").entry()
    };
    assert_eq!(dq(Some(50), Some(0)), "bwd_dq_sm90_bf16_d64_window");
    assert_eq!(dq(Some(1000), Some(0)), "bwd_dq_sm90_bf16_d64_causal");
    assert_eq!(dq(None, None), "bwd_dq_sm90_bf16_d64_full");
    let mut request = valid();
    request.forward.mask = Mask::Window { left: Some(-3), right: Some(2) };
    assert_eq!(refused(&request), Error::Window { left: -3, right: 2 });
}

#[test]
fn a_gradient_of_the_log_sum_exp_is_a_buffer_where_it_is_asked_for() {
    let names = |request: &Backward| -> Vec<&str> {
        plan(request).buffers().iter().map(|need| need.name).collect()
    };
    let all = ["q", "k", "v", "out", "d_out", "lse", "dq", "dk", "dv"];
    assert_eq!(names(&valid()), all);
    assert_eq!(names(&valid().with_d_lse()), [&all[..], &["d_lse"]].concat());
}

#[test]
fn kernels_by_hand() {
    let wide = "bwd_dkdv_sm90_bf16_d128_causal";
    let with = |entry| Plan::with(&valid(), &DeviceFacts::h200(), &PlanOptions::entry(entry));
    let plan = with(wide).expect("a wider kernel pads");
    let entries: Vec<&str> = plan.launches().iter().map(|launch| launch.entry()).collect();
    assert_eq!(entries, ["bwd_delta_bf16", wide, "bwd_dq_sm90_bf16_d64_causal"]);
    let full = BACKWARD.iter().find(|row| row.part == Part::Dq && row.mask == MaskClass::Full);
    for entry in [full.expect("there is one").entry, "fwd_sm90_bf16_d64_causal"] {
        assert!(matches!(with(entry), Err(Error::WrongEntry { .. })), "{entry}");
    }
}

#[test]
fn types_shapes_and_strides_of_gradients() {
    type Change = fn(&mut Backward);
    let cases: [(Change, &[&str]); 6] = [
        (|it| it.dk.dtype = Dtype::F16, &["dk has elements of type f16", "q of type bf16"]),
        (|it| it.d_out.shape[2] += 1, &["d_out has rows 101, but out has 100"]),
        (|it| it.dv.shape[1] = 8, &["dv has heads 8, but v has 2"]),
        (|it| it.dq.strides[3] = 2, &["the head_dim stride of dq is 2"]),
        (|it| it.d_out.strides[1] = 0, &["the heads stride of d_out is 0"]),
        (|it| it.dk.strides[2] = 64, &["stride of dk is 64", "rows would overlap", "give dk"]),
    ];
    for (change, parts) in cases {
        let mut request = valid();
        change(&mut request);
        let error = refused(&request);
        assert_eq!(error.class(), ErrorClass::Request);
        says(&error, parts);
    }
    let mut request = valid();
    request.dq = Layout::packed(Dtype::Bf16, 2, 200, 8, 64);
    says(&refused(&request), &["dq is packed", "takes batched tensors"]);
}

#[test]
fn what_is_wrong_with_the_forward_is_said() {
    let mut request = valid();
    request.forward.k.shape[3] = 72;
    assert!(matches!(refused(&request), Error::Unsupported { .. } | Error::Shape { .. }));
    let mut request = valid();
    request.forward.scale = Some(-1.0);
    assert_eq!(refused(&request), Error::Scale { got: -1.0 });
    let q = Layout::bshd(Dtype::Bf16, 1 << 20, 1 << 12, 1 << 8, 64);
    let forward = Forward::new(q, q, q, q, Mask::Full).with_lse();
    let error = refused(&Backward::new(&forward, q, q, q, q));
    assert!(matches!(error, Error::WorkspaceTooLarge { .. } | Error::TooManyJobs { .. }));
}

#[test]
fn keys_and_values_may_be_expanded() {
    let mut request = valid();
    for layout in [&mut request.forward.k, &mut request.forward.v] {
        layout.strides[0] = 0;
        layout.strides[1] = 0;
    }
    let plan = plan(&request);
    assert_eq!(plan.buffer("k").map(|need| need.elements), Some(199 * 128 + 64));
    assert_eq!(plan.buffer("dk").map(|need| need.elements), Some(2 * 200 * 128));
}
