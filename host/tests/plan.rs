//! What a plan decides, without a GPU.

use std::collections::HashSet;

use approx::assert_relative_eq;
use fulgurite::{
    DeviceFacts, Dtype, Forward, Layout, Mask, MaskKind, Plan, Pointers, TensorMap, TensorMapSpec,
    Tile, VARIANTS,
};

fn request(q: Layout, kv: Layout, mask: Mask) -> Forward {
    Forward { q, k: kv, v: kv, out: q, mask, scale: None, lse: false }
}

fn plan(request: &Forward) -> Plan {
    Plan::new(request, &DeviceFacts::h200()).unwrap()
}

#[test]
fn every_head_dim_gets_the_narrowest_kernel_that_holds_it() {
    for dtype in [Dtype::Bf16, Dtype::F16] {
        for (mask, kind) in [(Mask::Full, MaskKind::Full), (Mask::Causal, MaskKind::Causal)] {
            let lengths = [1, 300, 512, 513, 1024, 1025].into_iter();
            for (head_dim, q_len) in lengths.flat_map(|n| (8..=256).step_by(8).map(move |d| (d, n)))
            {
                let layout = Layout::bhsd(dtype, 1, 2, q_len, head_dim);
                let plan = plan(&request(layout, layout, mask));
                let variant = plan.variant();
                assert_eq!((variant.dtype, variant.mask), (dtype, kind));
                let want = [64, 96, 128, 192, 256].into_iter().find(|&width| width >= head_dim);
                assert_eq!(Some(variant.head_dim as usize), want);
                assert_eq!(plan.tile(), Tile::of(variant));
                // Some short calls have a kernel of their own.
                assert!(q_len <= variant.kv_len_limit as usize);
                let short = match (variant.head_dim, mask) {
                    (64, _) => q_len <= 512,
                    (128 | 256, Mask::Causal) => q_len <= 1024,
                    _ => false,
                };
                assert_eq!(variant.entry.ends_with("_short"), short, "{}", variant.entry);
            }
        }
    }
}

#[test]
fn grid_and_jobs() {
    let layout = Layout::bshd(Dtype::Bf16, 3, 1000, 4, 128);
    let full = plan(&request(layout, layout, Mask::Full));
    let q_tiles = 1000_u32.div_ceil(full.tile().q_rows());
    let params =
        full.params(&Pointers { q: 16, k: 32, v: 48, out: 64, lse: None }, [TensorMap([0; 16]); 3]);
    let order = params.scalars.order;
    assert_eq!((order.q_tile_count, order.batch_head_count), (q_tiles, 12));
    assert_eq!((order.section_heads, order.longest_first), (12, 0));
    // Never more blocks than jobs, never more than the device runs at once.
    assert_eq!(full.cta_count(), (q_tiles * 12).min(132));
    let one = Layout::bshd(Dtype::Bf16, 1, 1, 1, 128);
    assert_eq!(plan(&request(one, layout_like(one, 77), Mask::Causal)).cta_count(), 1);
}

#[test]
fn query_tiles_without_keys_are_no_jobs() {
    for head_dim in [64, 96, 128, 192, 256] {
        let q = |rows| Layout::bshd(Dtype::Bf16, 1, rows, 2, head_dim);
        let causal = |q_len, kv_len| plan(&request(q(q_len), q(kv_len), Mask::Causal));
        let order = |plan: &Plan| {
            let pointers = Pointers { q: 16, k: 32, v: 48, out: 64, lse: None };
            plan.params(&pointers, [TensorMap([0; 16]); 3]).scalars.order
        };
        let many = causal(2000, 100);
        let q_rows = many.tile().q_rows();
        assert!(many.variant().stores_keyless(), "{}", many.variant().entry);
        assert_eq!(many.variant().head_dim as usize, head_dim);
        assert_eq!(order(&many).keyless_q_tiles, 1900 / q_rows);
        let all = 2000_u32.div_ceil(q_rows);
        assert_eq!(order(&many).keyless_q_tiles + order(&many).q_tile_count, all);
        // Blocks without a job store keyless tiles.
        assert_eq!(many.cta_count(), (2 * all).min(132));

        // One row more makes a tile keyless.
        for (more, keyless) in [(q_rows - 1, 0), (q_rows, 1)] {
            let some = causal(1500 + more as usize, 1500);
            assert_eq!(order(&some).keyless_q_tiles, keyless);
        }
        // A kernel that does not store them computes them as jobs.
        for variant in VARIANTS.iter().filter(|v| v.mask == MaskKind::Causal) {
            let request = request(q(2000), q(100), Mask::Causal);
            if let Ok(plan) = Plan::with_variant(&request, &DeviceFacts::h200(), variant) {
                let keyless = if variant.stores_keyless() { 1900 / variant.q_rows } else { 0 };
                assert_eq!(order(&plan).keyless_q_tiles, keyless, "{}", variant.entry);
            }
        }
        let full = plan(&request(q(2000), q(100), Mask::Full));
        assert_eq!(order(&full).keyless_q_tiles, 0);
        assert!(!causal(1, 2000).variant().entry.ends_with("_short"));
    }
}

/// Zeros and -inf, under any mask, by a kernel that stores query tiles without keys.
#[test]
fn without_keys_all_query_tiles_are_keyless() {
    for (head_dim, q_len) in [8, 64, 96, 128, 200, 256]
        .into_iter()
        .flat_map(|d| [1, 63, 64, 192, 700].map(|q_len| (d, q_len)))
    {
        let q = Layout::bshd(Dtype::F16, 3, q_len, 4, head_dim);
        // As an empty tensor of another framework may come: its strides say nothing.
        let kv = Layout::strided(Dtype::F16, [3, 2, 0, head_dim], [0, 1, usize::MAX, 7]);
        for mask in [Mask::Full, Mask::Causal] {
            let request = Forward { lse: true, ..request(q, kv, mask) };
            let plan = plan(&request);
            assert!(plan.variant().stores_keyless() && !plan.is_noop());
            assert_eq!(plan.request(), &request);
            assert_eq!(plan.buffer_elements()[1..3], [0, 0]);
            // Addresses of empty tensors are not looked at, and their maps point to the output.
            let pointers = Pointers { q: 16, k: 0, v: 7, out: 32, lse: Some(4) };
            plan.check_pointers(&pointers).unwrap();
            assert_eq!(plan.map_addresses(&pointers), [16, 32, 32]);
            let order = plan.params(&pointers, [TensorMap([0; 16]); 3]).scalars.order;
            assert_eq!(order.q_tile_count, 0);
            let tiles = (q_len as u32).div_ceil(plan.tile().q_rows());
            assert_eq!((order.keyless_q_tiles, order.section_rounds), (tiles, 1));
        }
        let causal = request(q, kv, Mask::Causal);
        for variant in VARIANTS.iter().filter(|variant| !variant.stores_keyless()) {
            assert!(Plan::with_variant(&causal, &DeviceFacts::h200(), variant).is_err());
        }
    }
}

fn layout_like(layout: Layout, rows: usize) -> Layout {
    Layout::bshd(layout.dtype, layout.batch(), rows, layout.heads(), layout.head_dim())
}

#[test]
fn sections_of_a_causal_call_fit_l2() {
    let section = |kv_len: usize, heads: usize, kv_heads: usize, batch: usize| {
        let q = Layout::bshd(Dtype::F16, batch, kv_len, heads, 128);
        let kv = Layout::bshd(Dtype::F16, batch, kv_len, kv_heads, 128);
        let plan = plan(&request(q, kv, Mask::Causal));
        let pointers = Pointers { q: 16, k: 16, v: 16, out: 16, lse: None };
        plan.params(&pointers, [TensorMap([0; 16]); 3]).scalars.order.section_heads
    };
    for (kv_len, heads, kv_heads, batch) in [
        (16_384, 16, 16, 1),
        (16_384, 16, 4, 1),
        (16_384, 4, 4, 4),
        (4096, 32, 8, 4),
        (2048, 16, 16, 8),
    ] {
        let section = section(kv_len, heads, kv_heads, batch);
        let kv_heads = (section as usize).div_ceil(heads / kv_heads);
        assert!(section as usize <= heads * batch);
        assert!(kv_heads * kv_len * 128 * 2 * 2 <= 34 << 20, "{section} heads of {kv_len} rows");
        // One and a half rounds of the 132 blocks, if there are so many jobs.
        assert!(section as usize * kv_len.div_ceil(128) * 2 >= 132 * 3, "{section} x {kv_len}");
    }
    // One that fills more than L2 still is a section, and all heads of a short call are one.
    assert_eq!(section(131_072, 16, 16, 1), 1);
    assert_eq!(section(512, 6, 6, 1), 6);
    assert_eq!(section(512, 1, 1, 1), 1);
}

#[test]
fn params_carry_the_request() {
    let q = Layout::bhsd(Dtype::Bf16, 2, 12, 70, 80);
    let kv = Layout::bshd(Dtype::Bf16, 2, 90, 3, 80);
    let out = Layout::bshd(Dtype::Bf16, 2, 70, 12, 80);
    let request = Forward { q, k: kv, v: kv, out, mask: Mask::Full, scale: Some(0.5), lse: true };
    let maps = [TensorMap([1; 16]), TensorMap([2; 16]), TensorMap([3; 16])];
    let pointers = Pointers { q: 16, k: 32, v: 48, out: 0x700, lse: Some(0x904) };
    let params = plan(&request).params(&pointers, maps);
    assert_eq!([params.q, params.k, params.v], maps);
    let scalars = params.scalars;
    assert_eq!((scalars.out, scalars.lse), (0x700, 0x904));
    assert_eq!(
        [scalars.out_batch_stride, scalars.out_head_stride, scalars.out_row_stride],
        [70 * 12 * 80, 80, 12 * 80]
    );
    assert_eq!((scalars.q_len, scalars.kv_len, scalars.head_dim), (70, 90, 80));
    assert_eq!((scalars.head_count.value, scalars.group_size.value), (12, 4));
    assert_eq!(scalars.scale_log2, 0.5 * std::f32::consts::LOG2_E);

    let default = plan(&Forward { scale: None, ..request }).params(&pointers, maps);
    let want = (1.0 / 80_f64.sqrt()) * std::f64::consts::LOG2_E;
    let got = f64::from(default.scalars.scale_log2);
    assert_relative_eq!(got, want, max_relative = 1e-6);
}

#[test]
fn tensor_maps_follow_the_layouts() {
    // A packed qkv: [batch 2, rows 50, (q: 6 heads, k: 2, v: 2), head_dim 72].
    let row = 10 * 72;
    let part = |heads| Layout::strided(Dtype::F16, [2, heads, 50, 72], [50 * row, 72, row, 1]);
    let out = Layout::bshd(Dtype::F16, 2, 50, 6, 72);
    let request = Forward {
        q: part(6),
        k: part(2),
        v: part(2),
        out,
        mask: Mask::Causal,
        scale: None,
        lse: false,
    };
    let plan = plan(&request);
    let [q, k, v] = *plan.tensor_maps();
    let stride_bytes = [row, 72, 50 * row].map(|stride| 2 * stride as u64);
    let map = |heads, rows| TensorMapSpec {
        dtype: Dtype::F16,
        dims: [72, 50, heads, 2],
        stride_bytes,
        box_dims: [64, rows, 1, 1],
    };
    assert_eq!(q, map(6, 64));
    assert_eq!(k, map(2, plan.tile().kv_rows));
    assert_eq!(v, k);
}

#[test]
fn heads_that_k_and_v_share_are_one() {
    let q = Layout::bshd(Dtype::F16, 2, 100, 12, 64);
    let one = Layout::bshd(Dtype::F16, 2, 300, 1, 64);
    let expanded = |heads| {
        let [batch, _, row, column] = one.strides;
        Layout::strided(Dtype::F16, [2, heads, 300, 64], [batch, 0, row, column])
    };
    let plain = plan(&request(q, one, Mask::Causal));
    for heads in [1, 3, 12] {
        let request = request(q, expanded(heads), Mask::Causal);
        let shared = plan(&request);
        assert_eq!(shared.request(), &request);
        assert_eq!(shared.tensor_maps(), plain.tensor_maps());
        assert_eq!(shared.buffer_elements(), plain.buffer_elements());
        let pointers = Pointers { q: 16, k: 16, v: 16, out: 16, lse: None };
        let params = |plan: &Plan| plan.params(&pointers, [TensorMap([0; 16]); 3]);
        assert_eq!(params(&shared), params(&plain));
    }
    // The heads still have to be a multiple.
    assert!(Plan::new(&request(q, expanded(5), Mask::Full), &DeviceFacts::h200()).is_err());
}

#[test]
fn batch_entries_that_share_k_or_v_are_one() {
    let q = Layout::bshd(Dtype::F16, 3, 100, 12, 64);
    let own = Layout::bshd(Dtype::F16, 3, 300, 4, 64);
    let mut shared = own;
    shared.strides[0] = 0;
    for (k, v, masks) in [
        (own, own, [u32::MAX; 2]),
        (shared, own, [0, u32::MAX]),
        (own, shared, [u32::MAX, 0]),
        (shared, shared, [0, 0]),
    ] {
        let plan = plan(&Forward { k, v, ..request(q, own, Mask::Causal) });
        let pointers = Pointers { q: 16, k: 16, v: 16, out: 16, lse: None };
        let scalars = plan.params(&pointers, [TensorMap([0; 16]); 3]).scalars;
        assert_eq!(scalars.kv_batch_masks, masks);
        assert_eq!(
            plan.tensor_maps()[1..].iter().map(|map| map.dims[3]).collect::<Vec<_>>(),
            masks.map(|mask| if mask == 0 { 1 } else { 3 })
        );
        assert_eq!(plan.buffer_elements()[1..3], [k, v].map(|kv| kv.span_elements().unwrap()));
    }
    // No entry is none, also if it is shared.
    let (mut none_of_q, mut none_of_kv) = (q, shared);
    none_of_q.shape[0] = 0;
    none_of_kv.shape[0] = 0;
    let none = plan(&request(none_of_q, none_of_kv, Mask::Full));
    assert!(none.is_noop());
    assert_eq!(none.buffer_elements(), [0; 4]);
}

#[test]
fn strides_of_single_indices_do_not_matter() {
    for odd in [0, 1, 3, usize::MAX] {
        let layout = Layout::strided(Dtype::Bf16, [1, 1, 1, 40], [odd, odd, odd, 1]);
        let plan = plan(&request(layout, layout, Mask::Full));
        assert_eq!(plan.buffer_elements(), [40; 4]);
        for map in plan.tensor_maps() {
            assert!(map.stride_bytes.iter().all(|&stride| stride == 80));
        }
    }
}

#[test]
fn every_tensor_map_is_one_that_the_driver_takes() {
    for variant in VARIANTS {
        let head_dim = variant.head_dim as usize;
        let mask = variant.mask;
        for layout in [
            Layout::bshd(variant.dtype, 2, 333, 3, head_dim),
            Layout::bhsd(variant.dtype, 1, 1, 1, head_dim),
            Layout::bhsd(variant.dtype, 1, 3, 1, head_dim - 8),
        ] {
            let request = request(layout, layout, mask);
            let plan = Plan::with_variant(&request, &DeviceFacts::h200(), variant).unwrap();
            for map in plan.tensor_maps() {
                assert!(map.dims.iter().all(|&size| (1..=1 << 32).contains(&size)));
                let legal =
                    |stride: &u64| stride.is_multiple_of(16) && (1..1 << 40).contains(stride);
                assert!(map.stride_bytes.iter().all(legal));
                assert!(map.box_dims.iter().all(|size| (1..=256).contains(size)));
                // The 128-byte swizzle takes no wider rows.
                assert!(map.box_dims[0] * map.dtype.bytes() <= 128);
            }
        }
    }
}

#[test]
fn calls_without_work_are_valid() {
    for (batch, q_len) in [(0, 10), (3, 0), (0, 0)] {
        let q = Layout::bshd(Dtype::Bf16, batch, q_len, 4, 64);
        let kv = Layout::bshd(Dtype::Bf16, batch, 20, 2, 64);
        for mask in [Mask::Full, Mask::Causal] {
            let plan = plan(&Forward { lse: true, ..request(q, kv, mask) });
            assert!(plan.is_noop());
            assert_eq!((plan.cta_count(), plan.lse_elements()), (0, 0));
            assert_eq!((plan.buffer_elements()[0], plan.buffer_elements()[3]), (0, 0));
        }
    }
    let none = Layout::strided(Dtype::F16, [0, 2, 3, 64], [usize::MAX, usize::MAX, 1, 1]);
    assert!(plan(&request(none, none, Mask::Causal)).is_noop());
    let some = Layout::bshd(Dtype::Bf16, 1, 1, 1, 64);
    assert!(!plan(&request(some, some, Mask::Full)).is_noop());
}

#[test]
fn spans_beyond_32_bits_are_planned() {
    let layout = Layout::bshd(Dtype::Bf16, 8, 65_536, 64, 128);
    let plan = plan(&request(layout, layout, Mask::Causal));
    assert_eq!(plan.buffer_elements(), [1 << 32; 4]);
    // More heads and batch entries than a grid has in y and z.
    let many = Layout::bshd(Dtype::F16, 70_000, 1, 2, 64);
    assert_eq!(self::plan(&request(many, many, Mask::Full)).cta_count(), 132);
}

#[test]
fn span_is_the_last_element_and_one() {
    for strides in [[640, 64, 128, 1], [8, 80, 160, 1], [0, 0, 0, 1], [8, 8, 8, 1]] {
        let layout = Layout::strided(Dtype::Bf16, [2, 3, 4, 8], strides);
        assert_eq!(layout.span_elements(), addresses(&layout).into_iter().max().map(|a| a + 1));
    }
    assert_eq!(Layout::bshd(Dtype::Bf16, 0, 4, 2, 8).span_elements(), Some(0));
}

/// No layout that is accepted for the output has two elements at one address.
#[test]
fn accepted_outputs_never_overlap() {
    let (mut accepted, mut refused) = (0, 0);
    let steps = [8, 16, 24, 32, 48, 64, 96];
    for (shape, batch, heads) in steps.iter().flat_map(|&batch| {
        steps.iter().flat_map(move |&heads| {
            [[2, 3, 2, 8], [1, 2, 4, 8], [3, 1, 1, 16]].map(|shape| (shape, batch, heads))
        })
    }) {
        for rows in steps {
            let out = Layout::strided(Dtype::Bf16, shape, [batch, heads, rows, 1]);
            let q = Layout::bshd(Dtype::Bf16, shape[0], shape[2], shape[1], shape[3]);
            let request = Forward { out, ..request(q, q, Mask::Full) };
            if Plan::new(&request, &DeviceFacts::h200()).is_ok() {
                accepted += 1;
                let all = addresses(&out);
                assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len(), "{out:?}");
            } else {
                refused += 1;
            }
        }
    }
    assert!(accepted > 50 && refused > 50, "{accepted} accepted, {refused} refused");
}

fn addresses(layout: &Layout) -> Vec<usize> {
    let [batch, heads, rows, columns] = layout.shape;
    let mut all = Vec::new();
    for b in 0..batch {
        for h in 0..heads {
            for r in 0..rows {
                for c in 0..columns {
                    let index = [b, h, r, c];
                    all.push(index.iter().zip(layout.strides).map(|(i, s)| i * s).sum());
                }
            }
        }
    }
    all
}
