//! What is planned for a forward on tensors of 8 bits, without a GPU.

use fulgurite::internals::Launch;
use fulgurite::{
    Access, Descale, DeviceFacts, Dtype, Error, ErrorClass, Forward, ForwardArgs, Layout, Mask,
    Plan, RawWorkspace, Workspace,
};

/// A request with something changed.
fn with(mut forward: Forward, change: impl FnOnce(&mut Forward)) -> Forward {
    change(&mut forward);
    forward
}

/// 2 batch entries, 300 queries, 1000 keys, 8 heads on 2.
fn valid(head_dim: usize) -> Forward {
    let q = Layout::bshd(Dtype::E4m3, 2, 300, 8, head_dim);
    let kv = Layout::bshd(Dtype::E4m3, 2, 1000, 2, head_dim);
    let out = Layout::bshd(Dtype::F16, 2, 300, 8, head_dim);
    Forward::new(q, kv, kv, out, Mask::Causal)
}

fn all(descale: Descale) -> impl Fn(Forward) -> Forward {
    move |forward| forward.descale(descale, descale, descale)
}

const HEAD: Descale = Descale::PerHead { strides: [2, 1] };

fn plan(request: &Forward) -> Plan<Forward> {
    Plan::new(request, &DeviceFacts::h200()).unwrap()
}

#[track_caller]
fn refused(request: &Forward, class: ErrorClass, name: &str, parts: &[&str]) -> Error {
    let error = Plan::new(request, &DeviceFacts::h200()).expect_err("it should be refused");
    assert_eq!((error.class(), error.name()), (class, name));
    let text = error.to_string();
    parts.iter().for_each(|part| assert!(text.contains(part), "{part:?} is missing in: {text}"));
    error
}

#[test]
fn v_is_transposed_first() {
    let plan = plan(&all(HEAD)(valid(128)).with_lse());
    let launches: Vec<_> = plan.launches().iter().map(|it| (it.entry(), it.grid())).collect();
    // 2 entries of 2 KV heads have 8 blocks of 128 keys; 16 heads have 3 query tiles.
    assert_eq!(launches, [("transpose_e4m3_d128", 32), ("fwd_sm90_e4m3_d128_causal", 48)]);
    assert_eq!(plan.variant().unwrap().format(), "e4m3");
    let bytes = Workspace::HEAD_BYTES as u64 + 2 * 2 * 128 * 1024;
    assert_eq!(plan.workspace_bytes(), bytes);
    let maps: Vec<_> = plan.attention().unwrap().tensor_maps().collect();
    assert!(maps.iter().all(|map| map.dtype == Dtype::E4m3));
    // q and k where they are, v by its columns.
    assert_eq!([maps[0].dims[1], maps[1].dims[1]], [300, 1000]);
    assert_eq!((maps[1].stride_bytes[0], maps[2].dims[..2].to_vec()), (2 * 128, vec![1024, 128]));
    let text = plan.to_string();
    assert!(text.contains("  descale    q per head, k per head, v per head\n"), "{text}");
}

#[test]
fn every_head_dim_has_a_kernel() {
    for head_dim in (16..=256).step_by(16) {
        let width = [64, 96, 128, 192, 256].into_iter().find(|&width| width >= head_dim).unwrap();
        let plan = plan(&all(Descale::One)(valid(head_dim)));
        let entries: Vec<_> = plan.launches().iter().map(Launch::entry).collect();
        let forward = format!("fwd_sm90_e4m3_d{width}_causal");
        assert_eq!(entries, [format!("transpose_e4m3_d{width}"), forward]);
    }
}

/// Buffers are those that the descales have, of as many numbers.
#[test]
fn descales_have_buffers() {
    let elements = |q, k, v| {
        let plan = plan(&valid(64).descale(q, k, v));
        ["descale_q", "descale_k", "descale_v"].map(|name| {
            let need = plan.buffer(name)?;
            assert_eq!((need.dtype, need.access, need.align_bytes), (Dtype::F32, Access::Read, 4));
            Some(need.elements)
        })
    };
    let one = Descale::One;
    assert_eq!(elements(one, one, one), [None; 3]);
    assert_eq!(elements(Descale::PerTensor, HEAD, one), [Some(1), Some(4), None]);
    let strided = Descale::PerHead { strides: [7, 3] };
    assert_eq!(elements(Descale::PerRow, strided, HEAD), [Some(2 * 8 * 300), Some(11), Some(4)]);
    let shared = Descale::PerHead { strides: [0, 0] };
    assert_eq!(elements(shared, shared, shared), [Some(1); 3]);
}

#[test]
fn descales_are_said_exactly_for_8_bits() {
    let request = ErrorClass::Request;
    refused(&valid(64), request, "DescaleUnset", &["q, k and v are e4m3", "Forward::descale"]);
    let bf16 = Layout::bshd(Dtype::Bf16, 1, 10, 2, 64);
    let given = all(Descale::One)(Forward::new(bf16, bf16, bf16, bf16, Mask::Full));
    refused(&given, request, "DescaleUnexpected", &["q, k and v are bf16", "do not call"]);
    let rows = |k, v| valid(64).descale(Descale::PerRow, k, v);
    let parts = |tensor| [format!("the descale of {tensor} is per row"), "choose".to_owned()];
    for (k, v, tensor) in [(Descale::PerRow, HEAD, "k"), (HEAD, Descale::PerRow, "v")] {
        let parts = parts(tensor);
        refused(&rows(k, v), request, "DescaleShape", &[&parts[0], &parts[1]]);
    }
    let far = all(Descale::PerHead { strides: [usize::MAX / 2, usize::MAX] });
    refused(&far(valid(64)), request, "SpanOverflow", &["descale_q"]);
    assert_ne!(all(HEAD)(valid(64)), all(Descale::One)(valid(64)));
}

#[test]
fn types_and_strides_that_no_kernel_takes() {
    let one = all(Descale::One);
    let given = |dtype: Dtype, head_dim: usize| {
        let layout = Layout::bshd(dtype, 1, 10, 2, head_dim);
        Forward::new(layout, layout, layout, layout, Mask::Full)
    };
    let unsupported = ErrorClass::Unsupported;
    let text = "element type of out (e4m3 asked, bf16 or f16 there)";
    refused(&one(given(Dtype::E4m3, 64)), unsupported, "Unsupported", &[text, "16 bits"]);
    let text = "element type (e5m2 asked, bf16, f16 or e4m3 there)";
    refused(&given(Dtype::E5m2, 64), unsupported, "Unsupported", &[text]);
    let text = "head dim (72 asked, multiples of 16 from 16 to 256 there)";
    refused(&one(valid(72)), unsupported, "Unsupported", &[text, "pad q, k and v"]);
    let mixed = with(valid(64), |it| it.k = Layout::bshd(Dtype::Bf16, 2, 1000, 2, 64));
    refused(&one(mixed), ErrorClass::Request, "DtypeMix", &["k has elements of type bf16"]);
    let mut odd = valid(64);
    odd.k.strides[2] += 8;
    let text = "the rows stride of k is 136 elements: it must be a multiple of 16 elements";
    refused(&one(odd), ErrorClass::Request, "StrideAlignment", &[text]);
}

/// Heads that k and v share are one, unless their numbers are multiplied with others.
#[test]
fn shared_heads_keep_their_own_numbers() {
    let mut shared = valid(64);
    let kv = Layout::bshd(Dtype::E4m3, 2, 1000, 8, 64);
    (shared.k, shared.v) = (kv, kv);
    let one = Layout::bshd(Dtype::E4m3, 2, 1000, 1, 64);
    for layout in [&mut shared.k, &mut shared.v] {
        layout.strides = [one.strides[0], 0, one.strides[2], 1];
    }
    let plan = plan(&all(Descale::PerTensor)(shared.clone()));
    assert_eq!(plan.launches()[0].grid(), 2 * 8);
    let error = refused(&all(HEAD)(shared), ErrorClass::Request, "StrideZero", &["heads stride"]);
    assert!(matches!(error, Error::StrideZero { tensor: "k", .. }));
}

/// Zeros and -inf are those of kernels of 16 bits; no queries need no launch.
#[test]
fn nothing_is_transposed_without_keys_or_queries() {
    let none = Layout::bshd(Dtype::E4m3, 2, 0, 2, 64);
    let keyless = with(valid(64), |it| (it.k, it.v) = (none, none));
    for mask in [Mask::Full, Mask::Causal] {
        let plan = plan(&all(HEAD)(with(keyless.clone(), |it| it.mask = mask)).with_lse());
        assert_eq!((plan.launches().len(), plan.workspace_bytes()), (1, 0));
        assert_eq!(plan.variant().unwrap().dtype, Dtype::F16);
        // What launches bring is what was asked for.
        assert_eq!(plan.buffer("q").unwrap().dtype, Dtype::E4m3);
        assert!(plan.buffer("descale_k").is_some());
    }
    let q = Layout::bshd(Dtype::E4m3, 2, 0, 8, 64);
    let out = Layout::bshd(Dtype::Bf16, 2, 0, 8, 64);
    let nothing = plan(&all(HEAD)(with(valid(64), |it| (it.q, it.out) = (q, out))));
    assert!(nothing.is_noop() && nothing.workspace_bytes() == 0);
}

#[test]
fn a_launch_brings_descales_and_a_workspace() {
    let plan = plan(&valid(64).descale(HEAD, Descale::One, HEAD));
    let workspace = RawWorkspace { address: 256, bytes: plan.workspace_bytes() };
    let args = || ForwardArgs::new(16_u64, 32_u64, 48_u64, 64_u64).workspace(workspace);
    assert_eq!(plan.check_addresses(args().descale_q(4_u64).descale_v(8_u64)), Ok(()));
    let missing = plan.check_addresses(args().descale_q(4_u64));
    assert!(matches!(missing, Err(Error::Missing { buffer: "descale_v", .. })), "{missing:?}");
    let all = args().descale_q(4_u64).descale_v(8_u64).descale_k(12_u64);
    let unexpected = plan.check_addresses(all);
    assert!(matches!(unexpected, Err(Error::Unexpected { buffer: "descale_k" })));
    let misaligned = plan.check_addresses(args().descale_q(2_u64).descale_v(8_u64));
    assert!(matches!(misaligned, Err(Error::Misaligned { buffer: "descale_q", want: 4, .. })));
}
