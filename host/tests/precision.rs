//! What is planned for a forward in 8 bits, without a GPU.

use fulgurite::internals::{Launch, TensorMapSpec, VARIANTS, VARIANTS_8BIT};
use fulgurite::{
    Descale, DeviceFacts, Dtype, Error, ErrorClass, Forward, ForwardArgs, Layout, Mask, Plan,
    PlanOptions, Precision, RawWorkspace, Workspace,
};

fn quantised(q: Layout, kv: Layout, mask: Mask) -> Forward {
    Forward::new(q, kv, kv, q, mask).precision(Precision::S8E4m3)
}

/// 2 batch entries, 300 queries, 1000 keys, 8 heads on 2.
fn valid(head_dim: usize) -> Forward {
    let q = Layout::bshd(Dtype::F16, 2, 300, 8, head_dim);
    quantised(q, Layout::bshd(Dtype::F16, 2, 1000, 2, head_dim), Mask::Causal)
}

fn plan(request: &Forward) -> Plan<Forward> {
    Plan::new(request, &DeviceFacts::h200()).unwrap()
}

fn refused(request: &Forward) -> Error {
    Plan::new(request, &DeviceFacts::h200()).expect_err("the request should be refused")
}

fn launches(plan: &Plan<Forward>) -> Vec<(&'static str, u32)> {
    plan.launches().iter().map(|launch| (launch.entry(), launch.grid())).collect()
}

/// Bytes of a region of these arrays, each from a multiple of 256 on.
fn region(arrays: &[u64]) -> u64 {
    arrays.iter().map(|bytes| bytes.next_multiple_of(256)).sum()
}

#[test]
fn three_launches_prepare_the_fourth() {
    let plan = plan(&valid(128).with_lse());
    let [statistics, means, quantise, forward] = launches(&plan).try_into().unwrap();
    // 2 entries of 2 KV heads: 2 chunks of 512 keys each.
    assert_eq!(statistics, ("statistics_f16_d128", 8));
    assert_eq!(means, ("means_d128", 4));
    // 16 heads of 3 blocks of 128 queries; 4 of 8 KV tiles of k, and of 8 blocks of v.
    assert_eq!(quantise, ("quantise_f16_d128", 16 * 3 + 4 * 8 + 4 * 8));
    assert_eq!(forward, ("fwd_sm90_s8e4m3_d128_causal", 16 * 3));
    let variant = plan.variant().unwrap();
    assert_eq!((variant.entry, variant.format()), (forward.0, "s8e4m3"));
    assert_eq!(plan.scalars().unwrap().kv_len, 1000);

    let (q_rows, kv_heads, kv_tiles) = (2 * 8 * 300, 4, 8);
    let bytes = Workspace::HEAD_BYTES as u64
        + region(&[kv_heads * 2 * 3 * 128 * 4])
        + region(&[q_rows * 128, q_rows * 4, q_rows * 4])
        + region(&[kv_heads * 1000 * 128, kv_heads * kv_tiles * 4, kv_heads * 128 * 4])
        + region(&[kv_heads * 128 * 1024, kv_heads * 4, kv_heads * 128 * 4]);
    assert_eq!(plan.workspace_bytes(), bytes);
    let text = plan.to_string();
    for line in [
        "  precision  s8e4m3\n",
        "  kernel     means_d128: 4 blocks of 256 threads, 1024 bytes of shared memory\n",
        &format!("  workspace  {bytes} bytes"),
    ] {
        assert!(text.contains(line), "{line:?} is missing in: {text}");
    }
}

#[test]
fn tensors_keep_their_own_types_unless_asked() {
    let layout = Layout::bshd(Dtype::Bf16, 1, 100, 2, 64);
    let given = Forward::new(layout, layout, layout, layout, Mask::Full);
    assert_eq!(given.precision, Precision::Given);
    let plan = plan(&given);
    assert_eq!((plan.launches().len(), plan.workspace_bytes()), (1, 0));
    assert!(plan.to_string().contains("  precision  given, by default\n"));
    let asked = given.clone().precision(Precision::S8E4m3);
    assert_ne!(asked, given);
    assert_eq!(asked.precision(Precision::Given), given);
}

#[test]
fn every_head_dim_gets_the_narrowest_kernel_that_holds_it() {
    for head_dim in (16..=256).step_by(16) {
        let width = [64, 96, 128, 192, 256].into_iter().find(|&width| width >= head_dim).unwrap();
        for (dtype, mask) in [(Dtype::Bf16, Mask::Full), (Dtype::F16, Mask::Causal)] {
            let layout = Layout::bhsd(dtype, 1, 2, 700, head_dim);
            let plan = plan(&quantised(layout, layout, mask));
            let (name, mask) = (dtype.name(), mask.name());
            let want = [
                format!("statistics_{name}_d{width}"),
                format!("means_d{width}"),
                format!("quantise_{name}_d{width}"),
                format!("fwd_sm90_s8e4m3_d{width}_{mask}"),
            ];
            let entries: Vec<_> = plan.launches().iter().map(Launch::entry).collect();
            assert_eq!(entries, want);
            assert_eq!(plan.scalars().unwrap().head_dim as usize, head_dim);
            check_maps(&plan);
        }
    }
}

/// Values that stay in 16 bits are read from where they are, and no workspace holds them.
#[test]
fn values_of_16_bits_stay_where_they_are() {
    let plan = plan(&valid(128).with_lse().precision(Precision::S8x16));
    let [statistics, means, quantise, forward] = launches(&plan).try_into().unwrap();
    assert_eq!((statistics.1, means.1), (8, 4));
    assert_eq!(quantise, ("quantise_f16_d128", 16 * 3 + 4 * 8));
    assert_eq!(forward, ("fwd_sm90_s8f16_d128_causal", 16 * 3));
    assert_eq!(plan.variant().unwrap().format(), "s8x16");
    let (q_rows, kv_heads, kv_tiles) = (2 * 8 * 300, 4, 8);
    let bytes = Workspace::HEAD_BYTES as u64
        + region(&[kv_heads * 2 * 3 * 128 * 4])
        + region(&[q_rows * 128, q_rows * 4, q_rows * 4])
        + region(&[kv_heads * 1000 * 128, kv_heads * kv_tiles * 4, kv_heads * 128 * 4]);
    assert_eq!(plan.workspace_bytes(), bytes);
    let [q, k, v]: [TensorMapSpec; 3] =
        plan.attention().unwrap().tensor_maps().copied().collect::<Vec<_>>().try_into().unwrap();
    assert_eq!((q.dtype, k.dtype, v.dtype), (Dtype::I8, Dtype::I8, Dtype::F16));
    assert_eq!(v.dims[..2], [128, 1000]);
    assert_eq!(v.stride_bytes[0], 2 * 2 * 128);
    // Every head dim, by the narrowest kernel that holds it.
    for head_dim in (16..=256).step_by(16) {
        let width = [64, 128, 256].into_iter().find(|&width| width >= head_dim).unwrap();
        for (dtype, mask) in [(Dtype::Bf16, Mask::Full), (Dtype::F16, Mask::Causal)] {
            let layout = Layout::bhsd(dtype, 1, 2, 700, head_dim);
            let request = quantised(layout, layout, mask).precision(Precision::S8x16);
            let entry =
                Plan::new(&request, &DeviceFacts::h200()).unwrap().attention().unwrap().entry();
            assert_eq!(entry, format!("fwd_sm90_s8{}_d{width}_{}", dtype.name(), mask.name()));
        }
    }
}

#[test]
fn eight_bits_are_those_that_suit_the_head_dim() {
    for (head_dim, values) in [(16, "s8x16"), (64, "s8x16"), (80, "s8e4m3"), (256, "s8e4m3")] {
        let chosen = plan(&valid(head_dim).precision(Precision::Bits8));
        assert_eq!(chosen.variant().unwrap().format(), values, "head dim {head_dim}");
        assert!(chosen.to_string().contains("  precision  bits8\n"));
    }
}

/// The maps are those of the tile's panels, as the driver takes them.
fn check_maps(plan: &Plan<Forward>) {
    let tile = plan.tile().unwrap();
    let kv_len = u64::from(plan.scalars().unwrap().kv_len);
    let [q, k, v]: [TensorMapSpec; 3] =
        plan.attention().unwrap().tensor_maps().copied().collect::<Vec<_>>().try_into().unwrap();
    let width = u64::from(tile.head_dim);
    assert_eq!((q.dtype, k.dtype, v.dtype), (Dtype::I8, Dtype::I8, Dtype::E4m3));
    assert_eq!((k.dims[0], k.dims[1]), (width, kv_len));
    assert_eq!((v.dims[0], v.dims[1]), (kv_len.next_multiple_of(128), width));
    assert_eq!(q.box_dims, [tile.score_panel_columns(), 64, 1, 1]);
    assert_eq!(k.box_dims, [tile.score_panel_columns(), tile.kv_rows, 1, 1]);
    assert_eq!(v.box_dims, [tile.value_panel_columns(), tile.head_dim, 1, 1]);
    for (map, swizzle) in [
        (q, tile.score_panel_bytes()),
        (k, tile.score_panel_bytes()),
        (v, tile.value_panel_bytes()),
    ] {
        assert_eq!(map.swizzle_bytes(), swizzle);
        assert!(map.stride_bytes.iter().all(|stride| stride % 16 == 0));
    }
}

#[test]
fn shared_keys_are_quantised_once() {
    let q = Layout::bshd(Dtype::Bf16, 3, 200, 4, 64);
    let own = Layout::bshd(Dtype::Bf16, 3, 300, 2, 64);
    let mut shared = own;
    shared.strides[0] = 0;
    // Blocks of 200 queries, 300 keys and values in tiles of 128 rows.
    for (k, v, entries, blocks) in [
        (own, own, 6, 12 * 2 + 6 * 3 + 6 * 3),
        (shared, own, 6, 12 * 2 + 2 * 3 + 6 * 3),
        (own, shared, 6, 12 * 2 + 6 * 3 + 2 * 3),
        (shared, shared, 2, 12 * 2 + 2 * 3 + 2 * 3),
    ] {
        let request = Forward::new(q, k, v, q, Mask::Full).precision(Precision::S8E4m3);
        let grids: Vec<_> = plan(&request).launches()[..3].iter().map(Launch::grid).collect();
        assert_eq!(grids, [entries, entries, blocks]);
    }
    // Heads that k and v share are one.
    let mut expanded = Layout::bshd(Dtype::Bf16, 3, 300, 4, 64);
    let one = Layout::bshd(Dtype::Bf16, 3, 300, 1, 64);
    expanded.strides = [one.strides[0], 0, one.strides[2], 1];
    let [expanded, plain] = [expanded, one].map(|kv| plan(&quantised(q, kv, Mask::Full)));
    assert_eq!(expanded.launches(), plain.launches());
    assert_eq!(expanded.workspace_bytes(), plain.workspace_bytes());
}

/// Zeros and -inf need no scales; no queries need no launch.
#[test]
fn nothing_is_quantised_without_keys_or_queries() {
    let (some, none) = (Layout::bshd(Dtype::F16, 2, 70, 4, 64), |batch, rows| {
        Layout::bshd(Dtype::F16, batch, rows, 4, 64)
    });
    for mask in [Mask::Full, Mask::Causal] {
        let keyless = plan(&quantised(some, none(2, 0), mask).with_lse());
        assert_eq!(launches(&keyless).len(), 1);
        assert!(keyless.variant().unwrap().stores_keyless());
        assert_eq!(keyless.workspace_bytes(), 0);
        for (q, kv) in [(none(2, 0), some), (none(0, 70), none(0, 70))] {
            let nothing = plan(&quantised(q, kv, mask));
            assert!(nothing.is_noop() && nothing.workspace_bytes() == 0);
        }
    }
}

#[test]
fn what_no_kernel_computes_is_refused() {
    for (layout, parts) in [
        (
            Layout::bshd(Dtype::Bf16, 1, 10, 2, 72),
            ["head dim (72 asked, multiples of 16 from 16 to 256 there)", "pad q, k and v"],
        ),
        (
            Layout::bshd(Dtype::Bf16, 1, 10, 2, 272),
            ["head dim (272 asked, multiples of 16 from 16 to 256 there)", "d256_causal"],
        ),
        (
            Layout::bshd(Dtype::F32, 1, 10, 2, 64),
            ["element type (f32 asked, bf16 or f16 there)", "convert q, k and v"],
        ),
    ] {
        let error = refused(&quantised(layout, layout, Mask::Causal));
        assert_eq!(error.class(), ErrorClass::Unsupported);
        let text = error.to_string();
        for part in parts.into_iter().chain(["nearest is fwd_sm90_s8e4m3_d"]) {
            assert!(text.contains(part), "{part:?} is missing in: {text}");
        }
    }
    // What has 8 bits already is not quantised.
    let (given, out) =
        (Layout::bshd(Dtype::E4m3, 1, 10, 2, 64), Layout::bshd(Dtype::Bf16, 1, 10, 2, 64));
    let request = Forward::new(given, given, given, out, Mask::Causal);
    let one = Descale::One;
    let text = refused(&request.descale(one, one, one).precision(Precision::S8E4m3)).to_string();
    let parts = ["element type (e4m3 asked, bf16 or f16 there)", "e4m3, precision s8e4m3"];
    parts.iter().for_each(|part| assert!(text.contains(part), "{part:?} is missing in: {text}"));
}

#[test]
fn kernels_of_another_precision_are_refused() {
    let device = DeviceFacts::h200();
    let (asked, given) = (valid(128), valid(128).precision(Precision::Given));
    for (request, right, wrong) in
        [(&asked, VARIANTS_8BIT, VARIANTS), (&given, VARIANTS, VARIANTS_8BIT)]
    {
        let by = |entry| Plan::with(request, &device, &PlanOptions::entry(entry));
        assert!(right.iter().any(|row| by(row.entry).is_ok()));
        assert!(wrong.iter().all(|row| matches!(by(row.entry), Err(Error::WrongEntry { .. }))));
    }
}

#[test]
fn workspaces_beyond_any_device_are_refused() {
    let layout = Layout::bshd(Dtype::Bf16, 1 << 14, 1 << 14, 32, 128);
    let error = refused(&quantised(layout, layout, Mask::Full));
    assert_eq!(error, Error::WorkspaceTooLarge { limit: 1 << 40 });
    assert!(error.to_string().contains("more than 1099511627776 bytes: split the batch"));
    // The options allow less.
    let options = PlanOptions::default().workspace_limit_bytes(10_000);
    let error = Plan::with(&valid(64), &DeviceFacts::h200(), &options).unwrap_err();
    assert!(matches!(error, Error::Limit { got, limit: 10_000 } if got > 10_000));
}

#[test]
fn a_launch_brings_a_workspace() {
    let plan = plan(&valid(64));
    let want = plan.workspace_bytes();
    let check = |workspace: Option<RawWorkspace>| {
        let args = ForwardArgs::new(16_u64, 32_u64, 48_u64, 64_u64);
        plan.check_addresses(match workspace {
            Some(workspace) => args.workspace(workspace),
            None => args,
        })
    };
    let at = |address, bytes| Some(RawWorkspace { address, bytes });
    assert_eq!(check(None), Err(Error::WorkspaceShort { got: 0, want }));
    assert_eq!(check(at(256, want - 1)), Err(Error::WorkspaceShort { got: want - 1, want }));
    assert_eq!(check(at(0, want)), Err(Error::NullPointer { buffer: "workspace" }));
    let (buffer, address) = ("workspace", 128);
    assert_eq!(check(at(128, want)), Err(Error::Misaligned { buffer, address, want: 256 }));
    assert_eq!(check(at(256, want)), Ok(()));
}
