//! From a forward request to the work of a launch.

use std::mem::offset_of;

use fulgurite_spec::launch::WARPGROUP_ROWS;
use fulgurite_spec::{
    Arch, Divisor, ForwardRow as Variant, FwdMmaParams, FwdParams, FwdScalars, JobOrder, Mask,
    Source, Tile,
};

use super::check::{
    check_dtypes, check_mask, check_shapes, check_sizes, lse_elements, scale_log2, select, tensors,
};
use super::descale::{self, Descale};
use super::given8::Given8;
use super::jobs::job_order;
use super::quantised::Quantised;
use super::{Forward, ForwardArgs, Precision, scalars_at, variants};
use crate::args::{Access, Args};
use crate::place::Raw;
use crate::request::PlanOptions;
use crate::tensor_map::TensorMapSpec;
use crate::work::{Block, BufferNeed, Launch, Memory, Slot, Work};
use crate::{DeviceFacts, Dtype, Error, Layout, module};

/// Alignment of q, k, v and out in bytes, asked for by TMA and by 16-byte stores.
const TENSOR_ALIGNMENT_BYTES: u64 = 16;

/// Checks a request and decides how it is computed.
pub(super) fn decide(
    given: &Forward,
    device: &DeviceFacts,
    options: &PlanOptions,
) -> Result<Work, Error> {
    let simplest = &of_simplest_mask(given, options);
    let request = &checked(simplest)?;
    let buffers = buffers(request)?;
    let request = &without_8_bits_where_no_keys(request);
    let scale_log2 = scale_log2(request)?;
    let variant = select(request, device, options)?;

    let (grid, order) = job_order(request, variant, device, options.sm_limit)?;
    let scalars = scalars(request, scale_log2, order);
    let (launches, workspace_bytes) = match request.precision {
        _ if grid == 0 => (Vec::new(), 0),
        Precision::Given if request.q.dtype == Dtype::E4m3 => {
            let given = Given8::of(request, variant)?;
            let launches = vec![given.transpose(device)?, given.forward(grid, &scalars)?];
            (launches, given.workspace_bytes())
        }
        Precision::Given if variant.arch == Arch::Sm80 => {
            (vec![launch_sm80(request, variant, grid, &scalars)?], 0)
        }
        Precision::Given => (vec![launch(request, variant, grid, &scalars)?], 0),
        _ => {
            let quantised = Quantised::of(request, variant)?;
            let mut launches = quantised.quantiser(device)?;
            launches.push(quantised.forward(grid, &scalars)?);
            (launches, quantised.workspace_bytes())
        }
    };
    let fields = <ForwardArgs<Raw> as Args<Raw>>::FIELDS;
    Ok(Work::new(fields, buffers, launches, workspace_bytes))
}

/// The same call with the simplest mask that keeps the same keys, unless the kernel is chosen by
/// hand: for windows that are as wide as the call there are kernels without one.
fn of_simplest_mask(given: &Forward, options: &PlanOptions) -> Forward {
    let is_chosen = |row: &Variant| {
        options.entry == Some(row.entry) && row.mask == given.mask.class() && given.k.rows() > 0
    };
    if variants().any(is_chosen) {
        return given.clone();
    }
    let mask = given.mask.simplest(given.q.rows(), given.k.rows());
    Forward { mask, ..given.clone() }
}

/// Checks all that a request says but its scale, and returns it in the words of the kernels.
pub(super) fn checked(given: &Forward) -> Result<Forward, Error> {
    check_dtypes(given)?;
    descale::check(given)?;
    check_shapes(given)?;
    check_mask(given.mask)?;
    check_sizes(given)?;
    let request = reduced(given);
    for (tensor, layout) in tensors(&request) {
        layout.check(tensor)?;
    }
    request.out.check_no_overlap("out")?;
    Ok(request)
}

/// The same call in the words of the kernels.
///
/// TMA takes no stride of 0. If all heads of k and v lie at the same place, they are one: the
/// kernel finds it by the size of the groups alone. If all batch entries of k or v do, there is one
/// of them, and a mask makes the kernel take it for every entry of q. Without keys no row sees one
/// under any mask, and there is nothing to quantise; the causal kernels store such rows. KV heads
/// whose numbers are multiplied with others are not one.
fn reduced(request: &Forward) -> Forward {
    let mut reduced = request.clone();
    let Forward { k, v, .. } = &mut reduced;
    let differ = request.descale.into_iter().flatten().any(Descale::differs_by_head);
    if k.strides[1] == 0 && v.strides[1] == 0 && !differ {
        k.shape[1] = k.shape[1].min(1);
        v.shape[1] = v.shape[1].min(1);
    }
    for layout in [k, v] {
        if layout.strides[0] == 0 {
            layout.shape[0] = layout.shape[0].min(1);
        }
    }
    if request.k.rows() == 0 {
        reduced.precision = Precision::Given;
        reduced.mask = Mask::Causal;
    }
    reduced
}

/// A call without keys reads neither q nor numbers of 8 bits: the kernels of 16 bits store it.
fn without_8_bits_where_no_keys(request: &Forward) -> Forward {
    let mut plain = request.clone();
    if request.q.dtype == Dtype::E4m3 && request.k.rows() == 0 {
        plain.descale = None;
        let dtype = request.out.dtype;
        for layout in [&mut plain.q, &mut plain.k, &mut plain.v] {
            let [batch, heads, rows, head_dim] = layout.shape;
            *layout = Layout::bhsd(dtype, batch, heads, rows, head_dim);
        }
    }
    plain
}

/// The buffers of a call; none has more elements than fit, as was found when it was checked.
fn buffers(request: &Forward) -> Result<Vec<BufferNeed>, Error> {
    let mut buffers: Vec<BufferNeed> = tensors(request)
        .map(|(name, layout)| BufferNeed {
            name,
            dtype: layout.dtype,
            elements: layout.span_elements().unwrap_or(0),
            access: if name == "out" { Access::Write } else { Access::Read },
            align_bytes: TENSOR_ALIGNMENT_BYTES,
        })
        .into();
    buffers.extend(descale::needs(request)?);
    if request.lse {
        buffers.push(BufferNeed {
            name: "lse",
            dtype: Dtype::F32,
            elements: lse_elements(&request.q)?,
            access: Access::Write,
            align_bytes: size_of::<f32>() as u64,
        });
    }
    Ok(buffers)
}

/// A tensor map of which each load takes a box of so many columns and rows.
pub(super) fn boxed_map(at: usize, memory: Memory, layout: &Layout, panel: [u32; 2]) -> Slot {
    Slot::Map(at, memory, TensorMapSpec::boxed(layout, panel))
}

/// The one launch of a call in the tensors' own types.
fn launch(
    request: &Forward,
    variant: &Variant,
    grid: u32,
    scalars: &FwdScalars,
) -> Result<Launch, Error> {
    let Forward { q, k, v, .. } = request;
    let tile = Tile::of(variant);
    let (scores, values) = (tile.score_panel_columns(), tile.value_panel_columns());
    let map = |at, name, layout, panel| boxed_map(at, Memory::Buffer(name), layout, panel);
    let mut slots = vec![
        map(offset_of!(FwdParams, q), "q", q, [scores, WARPGROUP_ROWS]),
        map(offset_of!(FwdParams, k), "k", k, [scores, tile.kv_rows]),
        map(offset_of!(FwdParams, v), "v", v, [values, tile.kv_rows]),
    ];
    slots.extend(result_slots(request, variant));
    let params = Block::zeroed(size_of::<FwdParams>());
    let ends = request.mask.ends();
    // SAFETY: numbers only, and no padding (asserted where the structs are defined).
    let params = unsafe {
        params.put(offset_of!(FwdParams, scalars), scalars).put(offset_of!(FwdParams, ends), &ends)
    };
    Ok(Launch { kernel: module::index(variant.entry)?, grid, params, slots })
}

/// The one launch of a call by a kernel that copies q, k and v itself.
fn launch_sm80(
    request: &Forward,
    variant: &Variant,
    grid: u32,
    scalars: &FwdScalars,
) -> Result<Launch, Error> {
    let Forward { q, k, v, .. } = request;
    let mut slots = result_slots(request, variant);
    let mut params = Block::zeroed(size_of::<FwdMmaParams>());
    for (at, name, layout) in [
        (offset_of!(FwdMmaParams, q), "q", q),
        (offset_of!(FwdMmaParams, k), "k", k),
        (offset_of!(FwdMmaParams, v), "v", v),
    ] {
        let [batch_stride, head_stride, row_stride, _] =
            layout.effective_strides().map(|stride| stride as u64);
        let source = Source { address: 0, row_stride, head_stride, batch_stride };
        slots.push(Slot::Address(at + offset_of!(Source, address), Memory::Buffer(name)));
        // SAFETY: integers only, and no padding (asserted where the struct is defined).
        params = unsafe { params.put(at, &source) };
    }
    // SAFETY: numbers only, and no padding, likewise.
    let params = unsafe { params.put(offset_of!(FwdMmaParams, scalars), scalars) };
    Ok(Launch { kernel: module::index(variant.entry)?, grid, params, slots })
}

/// Where a forward kernel leaves its results.
pub(super) fn result_slots(request: &Forward, variant: &Variant) -> Vec<Slot> {
    let out = (offset_of!(FwdScalars, out), "out");
    let lse = request.lse.then_some((offset_of!(FwdScalars, lse), "lse"));
    let results = std::iter::once(out).chain(lse);
    let scalars = scalars_at(variant);
    results.map(|(at, name)| Slot::Address(scalars + at, Memory::Buffer(name))).collect()
}

/// Whether all batch entries of q read the one of k or v.
pub(super) fn is_shared(request: &Forward, kv: &Layout) -> bool {
    kv.batch() < request.q.batch()
}

fn scalars(request: &Forward, scale_log2: f32, order: JobOrder) -> FwdScalars {
    let Forward { q, k, v, out, .. } = request;
    let batch_mask = |kv: &Layout| if is_shared(request, kv) { 0 } else { u32::MAX };
    let [out_batch_stride, out_head_stride, out_row_stride, _] =
        out.effective_strides().map(|stride| stride as u64);
    FwdScalars {
        out: 0,
        out_row_stride,
        out_head_stride,
        out_batch_stride,
        lse: 0,
        q_len: q.rows() as u32,
        kv_len: k.rows() as u32,
        head_dim: q.head_dim() as u32,
        head_count: Divisor::new(q.heads() as u32),
        group_size: Divisor::new((q.heads() / k.heads()) as u32),
        scale_log2,
        order,
        kv_batch_masks: [batch_mask(k), batch_mask(v)],
    }
}
