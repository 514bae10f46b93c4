//! What holds for every plan, by simple formulas in wide integers.

use fulgurite::internals::{FwdScalars, JobOrder, Launch, MaskClass, TensorMapSpec, Tile, Variant};
use fulgurite::{
    Arch, Descale, DeviceFacts, Dtype, Error, Forward, ForwardArgs, Layout, Mask, Plan, Precision,
    RawWorkspace, Workspace,
};
use fulgurite_spec::JobCursor;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Jobs up to which a plan's order is walked.
const WALKED_JOBS: u128 = 64;

fn scalars(plan: &Plan<Forward>) -> FwdScalars {
    plan.scalars().expect("there is work")
}

fn variant(plan: &Plan<Forward>) -> &'static Variant {
    plan.variant().expect("there is work")
}

fn grid(plan: &Plan<Forward>) -> u32 {
    plan.attention().map_or(0, Launch::grid)
}

/// Elements of the buffers of q, k, v and out.
fn elements(plan: &Plan<Forward>) -> [usize; 4] {
    ["q", "k", "v", "out"].map(|name| plan.buffer(name).expect("planned").elements)
}

/// Elements from the first to the last one; `None` beyond 128 bits.
fn span(layout: &Layout) -> Option<u128> {
    if layout.shape.contains(&0) {
        return Some(0);
    }
    let mut axes = layout.shape.iter().zip(layout.strides);
    axes.try_fold(1_u128, |elements, (&size, stride)| {
        elements.checked_add((size - 1) as u128 * stride as u128)
    })
}

/// What may be asked of a layout that no plan has looked at.
pub fn check_layout(layout: &Layout, variant: &Variant) {
    let elements = layout.span_elements();
    assert!(elements.is_none_or(|elements| span(layout) == Some(elements as u128)));
    let boxed = |rows| TensorMapSpec::boxed(layout, [64, rows]);
    let (of_q, of_kv) = (boxed(64), boxed(Tile::of(variant).kv_rows));
    assert_eq!((of_q.dims, of_q.stride_bytes), (of_kv.dims, of_kv.stride_bytes));
}

/// Grid, jobs, spans, maps and scalars of an accepted request.
pub fn check_plan(plan: &Plan<Forward>, request: &Forward, facts: &DeviceFacts) {
    let [batch, heads, q_len, head_dim] = request.q.shape.map(|size| size as u128);
    assert_eq!(plan.is_noop(), batch * heads * q_len == 0);
    let layouts = [&request.q, &request.k, &request.v, &request.out];
    let spans = elements(plan).map(|elements| elements as u128);
    assert_eq!(spans.map(Some), layouts.map(span));
    assert!(spans.iter().all(|elements| elements * 2 <= i64::MAX as u128));
    let lse = plan.buffer("lse").map(|need| need.elements as u128);
    assert_eq!(lse, request.lse.then_some(batch * heads * q_len));
    if plan.is_noop() {
        return;
    }
    let variant = variant(plan);
    let no_keys = request.k.rows() == 0;
    let mask = request.mask.simplest(request.q.rows(), request.k.rows());
    let mask = match variant.mask {
        _ if no_keys => Mask::Causal,
        // Also where the kernel was chosen by hand.
        MaskClass::Window => request.mask,
        _ => mask,
    };
    let given = request.precision == Precision::Given;
    let is_quantised = !given && !no_keys;
    let is_e4m3 = request.q.dtype == Dtype::E4m3 && !no_keys;
    // What is not read has the output's type.
    let own = [if no_keys { request.out.dtype } else { request.q.dtype }; 2];
    let keeps_values = match request.precision {
        Precision::Bits8 => head_dim <= 64,
        other => other == Precision::S8x16,
    };
    let values = if keeps_values { request.q.dtype } else { Dtype::E4m3 };
    let operands = if is_quantised { [Dtype::I8, values] } else { own };
    assert_eq!(([variant.scores, variant.dtype], variant.mask), (operands, mask.class()));
    assert!(!no_keys || variant.stores_keyless());
    let unit = if given && request.q.dtype != Dtype::E4m3 { 8 } else { 16 };
    assert!(u128::from(variant.head_dim) >= head_dim && head_dim > 0 && head_dim % unit == 0);

    let tiles = q_len.div_ceil(u128::from(variant.q_rows)) * batch * heads;
    assert!(tiles <= i32::MAX as u128);
    // A grid of more blocks than any device has multiprocessors would gain nothing.
    let blocks = u128::from(facts.sm_count.clamp(1, 1024));
    let is_sm80 = variant.arch == Arch::Sm80;
    assert_eq!(u128::from(grid(plan)), if is_sm80 { tiles } else { tiles.min(blocks) });
    if is_quantised || is_e4m3 {
        check_workspace(plan, if is_e4m3 { 2 } else { 4 });
    } else if request.q.dtype == Dtype::E4m3 {
        assert_eq!((plan.launches().len(), plan.workspace_bytes()), (1, 0));
    } else {
        assert_eq!((plan.launches().len(), plan.workspace_bytes()), (1, 0));
        if !is_sm80 {
            check_maps(plan, &spans);
        }
    }
    check_scalars(plan, request);
    let order = &scalars(plan).order;
    if is_sm80 {
        let keyless = u128::from(order.keyless_q_tiles) * batch * heads;
        assert_eq!(u128::from(order.job_count()) + keyless, tiles);
    } else {
        check_order(order, plan, request);
    }
}

/// A map is one that the driver takes.
fn check_map(map: &TensorMapSpec) {
    assert!(map.dims.iter().all(|size| (1..=1 << 32).contains(size)), "{map:?}");
    let legal = |stride: &u64| stride.is_multiple_of(16) && (1..1 << 40).contains(stride);
    assert!(map.stride_bytes.iter().all(legal), "{map:?}");
    assert!(map.box_dims.iter().all(|size| (1..=256).contains(size)), "{map:?}");
    assert!(map.box_dims[0] * map.dtype.bytes() <= map.swizzle_bytes(), "{map:?}");
}

/// Grids of launches in front of the forward, and tensors that fit into the workspace.
fn check_workspace(plan: &Plan<Forward>, launches: usize) {
    assert_eq!(plan.launches().len(), launches);
    let grids = plan.launches().iter().map(Launch::grid);
    assert!(grids.clone().all(|grid| (1..=i32::MAX as u32).contains(&grid)));
    let maps = plan.launches().iter().flat_map(Launch::tensor_maps);
    let bytes = maps.enumerate().map(|(index, map)| {
        check_map(map);
        // Values of 16 bits stay where they are, and so do q and k of the caller's.
        let in_workspace = u128::from(map.dtype.bytes() == 1 && (launches > 2 || index == 2));
        in_workspace * map.dims.iter().map(|&size| u128::from(size)).product::<u128>()
    });
    let room = u128::from(plan.workspace_bytes()) - Workspace::HEAD_BYTES as u128;
    assert!(bytes.sum::<u128>() <= room && plan.workspace_bytes() <= 1 << 40);
}

/// Every map ends where its tensor does.
fn check_maps(plan: &Plan<Forward>, spans: &[u128; 4]) {
    for (map, &span) in plan.launches()[0].tensor_maps().zip(spans) {
        check_map(map);
        let strides = map.stride_bytes.iter().map(|&bytes| u128::from(bytes));
        let last =
            map.dims[1..].iter().zip(strides).map(|(&size, stride)| u128::from(size - 1) * stride);
        let bytes = last.sum::<u128>() + u128::from(map.dims[0]) * 2;
        // Nobody loads from the map of an empty tensor, whose address is that of another.
        assert!(bytes == span * 2 || span == 0, "{map:?}");
    }
}

fn check_scalars(plan: &Plan<Forward>, request: &Forward) {
    let Forward { q, k, v, out, .. } = request;
    let scalars = scalars(plan);
    let sizes = [scalars.q_len, scalars.kv_len, scalars.head_dim].map(|size| size as usize);
    assert_eq!(sizes, [q.rows(), k.rows(), q.head_dim()]);
    assert!(scalars.scale_log2 > 0.0 && scalars.scale_log2.is_normal());
    // The last element of the output, as the kernel finds it.
    let strides = [scalars.out_batch_stride, scalars.out_head_stride, scalars.out_row_stride];
    let last = q.shape.iter().zip(strides);
    let last: u128 = last.map(|(&size, stride)| (size - 1) as u128 * u128::from(stride)).sum();
    assert_eq!(Some(last + q.head_dim() as u128), span(out));
    // Which head of which batch entry the last query tile belongs to, and which KV head it reads.
    let last = (q.batch() * q.heads() - 1) as u32;
    let batch = scalars.head_count.divide(last);
    let head = last - batch * scalars.head_count.value;
    assert_eq!((batch as usize, head as usize), (q.batch() - 1, q.heads() - 1));
    let masks = [k, v].map(|kv| if kv.batch() > 1 && kv.strides[0] == 0 { 0 } else { u32::MAX });
    assert_eq!(scalars.kv_batch_masks, masks);
    let differs = |it: &Descale| matches!(it, Descale::PerHead { strides: [_, head] } if *head > 0);
    let differ = request.descale.iter().flatten().any(differs);
    let shared = k.strides[1] == 0 && v.strides[1] == 0 && !differ;
    let kv_heads = if shared { 1 } else { k.heads() };
    assert_eq!(scalars.group_size.divide(head) as usize, kv_heads - 1);
}

fn check_order(order: &JobOrder, plan: &Plan<Forward>, request: &Forward) {
    let [batch, heads, q_len, _] = request.q.shape.map(|size| size as u128);
    let q_rows = u128::from(variant(plan).q_rows);
    let (tiles, kv_len) = (q_len.div_ceil(q_rows), request.k.rows() as u128);
    // The first row with a key ends its keys at the last one before its position plus this.
    let right = match request.mask {
        Mask::Causal => Some(0),
        Mask::Window { right, .. } => right,
        _ => None,
    };
    let before = right.map_or(0, |right| q_len as i128 - kv_len as i128 - i128::from(right));
    let keyless = match before.clamp(0, q_len as i128) as u128 {
        _ if kv_len == 0 => tiles,
        _ if !variant(plan).stores_keyless() => 0,
        rows if rows == q_len => tiles,
        rows => rows / q_rows,
    };
    assert_eq!(u128::from(order.keyless_q_tiles), keyless);
    assert_eq!(u128::from(order.q_tile_count), tiles - keyless);
    assert_eq!(u128::from(order.batch_head_count), batch * heads);
    assert!((1..=order.batch_head_count).contains(&order.section_heads), "{order:?}");
    let section = u128::from(order.q_tile_count) * u128::from(order.section_heads);
    let rounds = section.div_ceil(u128::from(grid(plan))).max(1);
    assert_eq!(u128::from(order.section_rounds), rounds);

    let jobs = u128::from(order.q_tile_count) * batch * heads;
    if jobs > WALKED_JOBS || grid(plan) > 200 {
        return;
    }
    let mut seen = vec![0; jobs as usize];
    for cta in 0..grid(plan) {
        let mut cursor = JobCursor::new();
        while let Some(job) = cursor.next(order, cta, grid(plan)) {
            let q_tile = job.q_tile - order.keyless_q_tiles;
            seen[(job.batch_head * order.q_tile_count + q_tile) as usize] += 1;
        }
    }
    assert!(seen.iter().all(|&count| count == 1), "{order:?}");
}

/// A launch's checks, on lengths and addresses that suit the plan and on others.
pub fn check_uses(plan: &Plan<Forward>, rng: &mut ChaCha8Rng) {
    let lse = plan.buffer("lse").is_some();
    let offer = |lengths: [usize; 4]| {
        let mut offer: Vec<(&str, Dtype, usize)> =
            plan.buffers().iter().map(|need| (need.name, need.dtype, need.elements)).collect();
        offer.iter_mut().zip(lengths).for_each(|(one, length)| one.2 = length);
        offer
    };
    let wanted = elements(plan);
    plan.check_buffers(&offer(wanted)).expect("these are long enough");
    if let Some(short) = wanted[3].checked_sub(1) {
        let [q, k, v, _] = wanted;
        let short = plan.check_buffers(&offer([q, k, v, short]));
        assert!(matches!(short, Err(Error::BufferTooShort { buffer: "out", .. })), "{short:?}");
    }
    let any = |rng: &mut ChaCha8Rng| rng.random::<u64>() << rng.random_range(0..64);
    let lengths = [any(rng), any(rng), any(rng), any(rng)].map(|length| length as usize >> 3);
    let enough = lengths.iter().zip(wanted).all(|(&got, want)| got >= want);
    assert_eq!(plan.check_buffers(&offer(lengths)).is_ok(), enough);

    let addresses = [any(rng), any(rng), any(rng), any(rng)];
    let [q, k, v, out] = addresses;
    // Addresses of empty tensors are not looked at.
    let mut needed = addresses.iter().zip(wanted).filter(|(_, span)| *span > 0);
    let legal = needed.all(|(address, _)| *address != 0 && address % 16 == 0);
    let args = ForwardArgs::new(q, k, v, out);
    let args = if lse { args.lse(4_u64) } else { args };
    let [of_q, of_k, of_v] =
        ["descale_q", "descale_k", "descale_v"].map(|name| plan.buffer(name).is_some());
    let args = if of_q { args.descale_q(4_u64) } else { args };
    let args = if of_k { args.descale_k(8_u64) } else { args };
    let args = if of_v { args.descale_v(12_u64) } else { args };
    let args = args.workspace(RawWorkspace { address: 256, bytes: plan.workspace_bytes() });
    assert_eq!(plan.check_addresses(args).is_ok(), legal);
}
