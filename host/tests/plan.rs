//! What a plan decides, without a GPU.

use std::collections::HashSet;

use approx::assert_relative_eq;
use fulgurite::internals::{
    Ends, FwdScalars, JobOrder, Launch, MaskClass, TensorMapSpec, Tile, VARIANTS, Variant,
};
use fulgurite::{DeviceFacts, Dtype, Forward, ForwardArgs, Layout, Mask, Plan, PlanOptions};

fn request(q: Layout, kv: Layout, mask: Mask) -> Forward {
    Forward::new(q, kv, kv, q, mask)
}

fn plan(request: &Forward) -> Plan<Forward> {
    Plan::new(request, &DeviceFacts::h200()).unwrap()
}

fn by(request: &Forward, variant: &Variant) -> Result<Plan<Forward>, fulgurite::Error> {
    Plan::with(request, &DeviceFacts::h200(), &PlanOptions::entry(variant.entry))
}

fn variant(plan: &Plan<Forward>) -> &'static Variant {
    plan.variant().expect("there is work")
}

fn tile(plan: &Plan<Forward>) -> Tile {
    plan.tile().expect("there is work")
}

fn grid(plan: &Plan<Forward>) -> u32 {
    plan.launches().first().map_or(0, Launch::grid)
}

fn scalars(plan: &Plan<Forward>) -> FwdScalars {
    plan.scalars().expect("there is work")
}

fn order(plan: &Plan<Forward>) -> JobOrder {
    scalars(plan).order
}

fn maps(plan: &Plan<Forward>) -> Vec<TensorMapSpec> {
    plan.launches().iter().flat_map(Launch::tensor_maps).copied().collect()
}

/// Elements of the buffers of q, k, v and out.
fn elements(plan: &Plan<Forward>) -> [usize; 4] {
    ["q", "k", "v", "out"].map(|name| plan.buffer(name).expect("planned").elements)
}

#[test]
fn every_head_dim_gets_the_narrowest_kernel_that_holds_it() {
    for dtype in [Dtype::Bf16, Dtype::F16] {
        for mask in [Mask::Full, Mask::Causal] {
            let lengths = [1, 300, 512, 513, 1024, 1025].into_iter();
            for (head_dim, q_len) in lengths.flat_map(|n| (8..=256).step_by(8).map(move |d| (d, n)))
            {
                let layout = Layout::bhsd(dtype, 1, 2, q_len, head_dim);
                let plan = plan(&request(layout, layout, mask));
                let variant = variant(&plan);
                assert_eq!((variant.dtype, variant.mask), (dtype, mask.class()));
                let want = [64, 96, 128, 192, 256].into_iter().find(|&width| width >= head_dim);
                assert_eq!(Some(variant.head_dim as usize), want);
                assert_eq!(tile(&plan), Tile::of(variant));
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
    let q_tiles = 1000_u32.div_ceil(tile(&full).q_rows());
    let order = order(&full);
    assert_eq!((order.q_tile_count, order.batch_head_count), (q_tiles, 12));
    assert_eq!((order.section_heads, order.longest_first), (12, 0));
    // Never more blocks than jobs, never more than the device runs at once.
    assert_eq!(grid(&full), (q_tiles * 12).min(132));
    let one = Layout::bshd(Dtype::Bf16, 1, 1, 1, 128);
    assert_eq!(grid(&plan(&request(one, layout_like(one, 77), Mask::Causal))), 1);
    // Nor more than the options allow.
    let options = PlanOptions::default().sm_limit(5);
    let request = request(layout, layout, Mask::Causal);
    let few = Plan::with(&request, &DeviceFacts::h200(), &options).unwrap();
    assert_eq!(grid(&few), 5);
}

#[test]
fn query_tiles_without_keys_are_no_jobs() {
    for head_dim in [64, 96, 128, 192, 256] {
        let q = |rows| Layout::bshd(Dtype::Bf16, 1, rows, 2, head_dim);
        let causal = |q_len, kv_len| plan(&request(q(q_len), q(kv_len), Mask::Causal));
        let many = causal(2000, 100);
        let q_rows = tile(&many).q_rows();
        assert!(variant(&many).stores_keyless(), "{}", variant(&many).entry);
        assert_eq!(variant(&many).head_dim as usize, head_dim);
        assert_eq!(order(&many).keyless_q_tiles, 1900 / q_rows);
        let all = 2000_u32.div_ceil(q_rows);
        assert_eq!(order(&many).keyless_q_tiles + order(&many).q_tile_count, all);
        // Blocks without a job store keyless tiles.
        assert_eq!(grid(&many), (2 * all).min(132));

        // One row more makes a tile keyless.
        for (more, keyless) in [(q_rows - 1, 0), (q_rows, 1)] {
            let some = causal(1500 + more as usize, 1500);
            assert_eq!(order(&some).keyless_q_tiles, keyless);
        }
        // A kernel that does not store them computes them as jobs.
        for variant in VARIANTS.iter().filter(|v| v.mask == MaskClass::Causal) {
            let request = request(q(2000), q(100), Mask::Causal);
            if let Ok(plan) = by(&request, variant) {
                let keyless = if variant.stores_keyless() { 1900 / variant.q_rows } else { 0 };
                assert_eq!(order(&plan).keyless_q_tiles, keyless, "{}", variant.entry);
            }
        }
        let full = plan(&request(q(2000), q(100), Mask::Full));
        assert_eq!(order(&full).keyless_q_tiles, 0);
        assert!(!variant(&causal(1, 2000)).entry.ends_with("_short"));
    }
}

#[test]
fn windows_get_kernels_of_their_own_where_they_are_narrower_than_the_call() {
    let q = |rows| Layout::bshd(Dtype::Bf16, 2, rows, 3, 128);
    let of = |left, right, q_len, kv_len| {
        let mask = Mask::Window { left, right };
        plan(&request(q(q_len), q(kv_len), mask))
    };
    for (left, right, class) in [
        (None, None, MaskClass::Full),
        (None, Some(0), MaskClass::Causal),
        (Some(999), Some(0), MaskClass::Causal),
        (Some(998), Some(0), MaskClass::Window),
        (None, Some(1), MaskClass::Window),
        (Some(999), Some(499), MaskClass::Full),
        (Some(999), Some(498), MaskClass::Window),
        (Some(-7), None, MaskClass::Window),
    ] {
        let plan = of(left, right, 500, 1000);
        assert_eq!(variant(&plan).mask, class, "{left:?}, {right:?}");
        let is_window = class == MaskClass::Window;
        let want = Ends { left: left.unwrap_or(i32::MAX), right: right.unwrap_or(i32::MAX) };
        assert_eq!(plan.ends(), Some(if is_window { want } else { Ends::NONE }));
    }
    // One row sees nothing behind it, and no keys are none under any mask.
    assert_eq!(variant(&of(Some(999), Some(0), 1, 1000)).mask, MaskClass::Full);
    assert_eq!(variant(&of(Some(9), Some(0), 1, 1000)).mask, MaskClass::Window);
    assert_eq!(variant(&of(Some(9), Some(3), 700, 0)).mask, MaskClass::Causal);
    // Rows in front of the first with a key are stored beside the jobs, those behind the last not.
    assert_eq!(order(&of(Some(300), Some(-200), 700, 700)).keyless_q_tiles, 1);
    assert_eq!(order(&of(Some(300), Some(-200), 100, 100)).q_tile_count, 0);
    assert_eq!(order(&of(Some(-200), Some(300), 700, 700)).keyless_q_tiles, 0);
    let text = of(Some(7), None, 500, 1000).to_string();
    assert!(text.contains("mask       window, 7 to the left, all to the right, bottom right"));
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
            let request = request(q, kv, mask).with_lse();
            let plan = plan(&request);
            assert!(variant(&plan).stores_keyless() && !plan.is_noop());
            assert_eq!(plan.request(), &request);
            assert_eq!(elements(&plan)[1..3], [0, 0]);
            // Addresses of empty tensors are not looked at.
            let args = ForwardArgs::new(16_u64, 0_u64, 7_u64, 32_u64).lse(4_u64);
            plan.check_addresses(args).unwrap();
            let order = order(&plan);
            assert_eq!(order.q_tile_count, 0);
            let tiles = (q_len as u32).div_ceil(tile(&plan).q_rows());
            assert_eq!((order.keyless_q_tiles, order.section_rounds), (tiles, 1));
        }
        let causal = request(q, kv, Mask::Causal);
        for variant in VARIANTS.iter().filter(|variant| !variant.stores_keyless()) {
            assert!(by(&causal, variant).is_err());
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
        order(&plan).section_heads
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
    let mut request = Forward::new(q, kv, kv, out, Mask::Full).scale(0.5).with_lse();
    let scalars = scalars(&plan(&request));
    // Addresses come with a launch.
    assert_eq!((scalars.out, scalars.lse), (0, 0));
    assert_eq!(
        [scalars.out_batch_stride, scalars.out_head_stride, scalars.out_row_stride],
        [70 * 12 * 80, 80, 12 * 80]
    );
    assert_eq!((scalars.q_len, scalars.kv_len, scalars.head_dim), (70, 90, 80));
    assert_eq!((scalars.head_count.value, scalars.group_size.value), (12, 4));
    assert_eq!(scalars.scale_log2, 0.5 * std::f32::consts::LOG2_E);

    request.scale = None;
    let default = self::scalars(&plan(&request));
    let want = (1.0 / 80_f64.sqrt()) * std::f64::consts::LOG2_E;
    let got = f64::from(default.scale_log2);
    assert_relative_eq!(got, want, max_relative = 1e-6);
}

#[test]
fn tensor_maps_follow_the_layouts() {
    // A packed qkv: [batch 2, rows 50, (q: 6 heads, k: 2, v: 2), head_dim 72].
    let row = 10 * 72;
    let part = |heads| Layout::strided(Dtype::F16, [2, heads, 50, 72], [50 * row, 72, row, 1]);
    let out = Layout::bshd(Dtype::F16, 2, 50, 6, 72);
    let plan = plan(&Forward::new(part(6), part(2), part(2), out, Mask::Causal));
    let [q, k, v] = maps(&plan).try_into().unwrap();
    let stride_bytes = [row, 72, 50 * row].map(|stride| 2 * stride as u64);
    let map = |heads, rows| TensorMapSpec {
        dtype: Dtype::F16,
        dims: [72, 50, heads, 2],
        stride_bytes,
        box_dims: [64, rows, 1, 1],
    };
    assert_eq!(q, map(6, 64));
    assert_eq!(k, map(2, tile(&plan).kv_rows));
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
        assert_eq!(shared.launches(), plain.launches());
        assert_eq!(shared.buffers(), plain.buffers());
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
        let plan = plan(&Forward::new(q, k, v, q, Mask::Causal));
        let scalars = scalars(&plan);
        assert_eq!(scalars.kv_batch_masks, masks);
        assert_eq!(
            maps(&plan)[1..].iter().map(|map| map.dims[3]).collect::<Vec<_>>(),
            masks.map(|mask| if mask == 0 { 1 } else { 3 })
        );
        assert_eq!(elements(&plan)[1..3], [k, v].map(|kv| kv.span_elements().unwrap()));
    }
    // No entry is none, also if it is shared.
    let (mut none_of_q, mut none_of_kv) = (q, shared);
    none_of_q.shape[0] = 0;
    none_of_kv.shape[0] = 0;
    let none = plan(&request(none_of_q, none_of_kv, Mask::Full));
    assert!(none.is_noop());
    assert_eq!(elements(&none), [0; 4]);
}

#[test]
fn strides_of_single_indices_do_not_matter() {
    for odd in [0, 1, 3, usize::MAX] {
        let layout = Layout::strided(Dtype::Bf16, [1, 1, 1, 40], [odd, odd, odd, 1]);
        let plan = plan(&request(layout, layout, Mask::Full));
        assert_eq!(elements(&plan), [40; 4]);
        for map in maps(&plan) {
            assert!(map.stride_bytes.iter().all(|&stride| stride == 80));
        }
    }
}

#[test]
fn every_tensor_map_is_one_that_the_driver_takes() {
    for variant in VARIANTS {
        let head_dim = variant.head_dim as usize;
        let mask = variant.mask.example();
        for layout in [
            Layout::bshd(variant.dtype, 2, 333, 3, head_dim),
            Layout::bhsd(variant.dtype, 1, 1, 1, head_dim),
            Layout::bhsd(variant.dtype, 1, 3, 1, head_dim - 8),
        ] {
            let request = request(layout, layout, mask);
            let plan = by(&request, variant).unwrap();
            for map in maps(&plan) {
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
            let plan = plan(&request(q, kv, mask).with_lse());
            assert!(plan.is_noop());
            assert_eq!((grid(&plan), plan.buffer("lse").unwrap().elements), (0, 0));
            assert_eq!((elements(&plan)[0], elements(&plan)[3]), (0, 0));
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
    assert_eq!(elements(&plan), [1 << 32; 4]);
    // More heads and batch entries than a grid has in y and z.
    let many = Layout::bshd(Dtype::F16, 70_000, 1, 2, 64);
    assert_eq!(grid(&self::plan(&request(many, many, Mask::Full))), 132);
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
            let request = Forward::new(q, q, q, out, Mask::Full);
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
