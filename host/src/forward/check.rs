//! The checks of a forward request, and which kernel computes it. Pure.

use std::f32::consts::LOG2_E;

use fulgurite_spec::{Arch, Dtype, ForwardRow as Variant, Tile};

use super::jobs::keyless_q_tiles;
use super::{Forward, Precision, variants};
use crate::layout::AXES;
use crate::request::PlanOptions;
use crate::{DeviceFacts, Error, Form, Layout, Mask};

/// Rows that the kernels count with 32-bit integers, a tile beyond the last one included.
const ROW_LIMIT: usize = (1 << 31) - 512;

/// Tensor maps hold sizes, and kernels head counts, in 32 bits.
const SIZE_LIMIT: usize = u32::MAX as usize;

/// The four tensors of a request with their names.
pub(super) fn tensors(request: &Forward) -> [(&'static str, &Layout); 4] {
    [("q", &request.q), ("k", &request.k), ("v", &request.v), ("out", &request.out)]
}

/// All four tensors are batched and have one element type; where that has 8 bits, the output has
/// one of 16.
pub(super) fn check_dtypes(request: &Forward) -> Result<(), Error> {
    let want = request.q.dtype;
    for (tensor, layout) in tensors(request) {
        if layout.form != Form::Batched {
            return Err(Error::Form { tensor, got: layout.form });
        }
        let is_out_of_8_bits = tensor == "out" && want == Dtype::E4m3;
        if layout.dtype != want && !is_out_of_8_bits {
            return Err(Error::DtypeMix { tensor, got: layout.dtype, want });
        }
        if is_out_of_8_bits && !matches!(layout.dtype, Dtype::Bf16 | Dtype::F16) {
            let asked = layout.dtype.name();
            return Err(unsupported(
                request,
                request.q.head_dim(),
                format!("element type of out ({asked} asked, bf16 or f16 there)"),
                "give out elements of 16 bits",
            ));
        }
    }
    Ok(())
}

/// The shapes of the four tensors fit each other.
pub(super) fn check_shapes(request: &Forward) -> Result<(), Error> {
    let Forward { q, k, v, out, .. } = request;
    if v.head_dim() != k.head_dim() {
        let (asked, there) = (v.head_dim(), k.head_dim());
        return Err(unsupported(
            request,
            there,
            format!("v's head dim ({asked} asked, {there} there)"),
            "pad the narrower with zero columns, and give the scale of the unpadded head dim",
        ));
    }
    // Axis by axis: batch, heads, rows, head_dim.
    let pairs: [(&'static str, &Layout, &'static str, &Layout, &[usize]); 3] = [
        ("k", k, "q", q, &[0, 3]),
        ("v", v, "k", k, &[0, 1, 2]),
        ("out", out, "q", q, &[0, 1, 2, 3]),
    ];
    for (tensor, layout, other, reference, axes) in pairs {
        for &axis in axes {
            let (got, want) = (layout.shape[axis], reference.shape[axis]);
            if got != want {
                return Err(Error::Shape { tensor, axis: AXES[axis], got, other, want });
            }
        }
    }
    Ok(())
}

/// Some row of some call sees a key.
pub(super) fn check_mask(mask: Mask) -> Result<(), Error> {
    match mask {
        Mask::Window { left: Some(left), right: Some(right) }
            if i64::from(left) + i64::from(right) < 0 =>
        {
            Err(Error::Window { left, right })
        }
        _ => Ok(()),
    }
}

/// No size is zero that must not be, too large, or unknown to the kernels.
pub(super) fn check_sizes(request: &Forward) -> Result<(), Error> {
    let Forward { q, k, .. } = request;
    for (tensor, axis, size) in [("q", "heads", q.heads()), ("k", "heads", k.heads())] {
        if size == 0 {
            return Err(Error::Empty { tensor, axis });
        }
    }
    if q.heads() % k.heads() != 0 {
        return Err(Error::HeadGroups { q_heads: q.heads(), kv_heads: k.heads() });
    }
    for (tensor, axis, got, limit) in [
        ("q", "batch", q.batch(), SIZE_LIMIT),
        ("q", "heads", q.heads(), SIZE_LIMIT),
        ("q", "rows", q.rows(), ROW_LIMIT),
        ("k", "rows", k.rows(), ROW_LIMIT),
    ] {
        if got > limit {
            return Err(Error::TooLarge { tensor, axis, got, limit });
        }
    }
    check_head_dim(request)
}

/// The element types of q and k, and of v, as the request's kernels multiply them.
fn operands(request: &Forward) -> [Dtype; 2] {
    match request.precision.chosen(request.q.head_dim()) {
        Precision::Given => [request.q.dtype; 2],
        Precision::S8x16 => [Dtype::I8, request.q.dtype],
        _ => [Dtype::I8, Dtype::E4m3],
    }
}

/// Columns that a head dim is a multiple of: 16 bytes of the tensors, and of what is multiplied.
fn head_dim_unit(request: &Forward) -> usize {
    match request.precision {
        Precision::Given => 16 / request.q.dtype.bytes().clamp(1, 2) as usize,
        _ => 16,
    }
}

/// Some kernel has the element type, and a head dim that the request's fits in.
fn check_head_dim(request: &Forward) -> Result<(), Error> {
    let Forward { q, mask, precision, .. } = request;
    let (dtype, head_dim, unit) = (q.dtype, q.head_dim(), head_dim_unit(request));
    let is_read = *precision == Precision::Given || matches!(dtype, Dtype::Bf16 | Dtype::F16);
    let types = || variants().filter(|row| [row.scores, row.dtype] == operands(request));
    let rows = || types().filter(|row| is_read && row.mask == mask.class());
    let there = match precision {
        Precision::Given => "bf16, f16 or e4m3",
        _ => "bf16 or f16",
    };
    if is_read && types().next().is_some() && rows().next().is_none() {
        return Err(unsupported(
            request,
            head_dim,
            format!("mask ({} asked, full or causal there)", mask.name()),
            "give tensors of 16 bits, and Precision::Given",
        ));
    }
    let Some(largest) = rows().map(|row| row.head_dim as usize).max() else {
        return Err(unsupported(
            request,
            head_dim,
            format!("element type ({} asked, {there} there)", dtype.name()),
            "convert q, k and v",
        ));
    };
    if head_dim == 0 || head_dim % unit != 0 || head_dim > largest {
        return Err(unsupported(
            request,
            head_dim,
            format!(
                "head dim ({head_dim} asked, multiples of {unit} from {unit} to {largest} there)"
            ),
            "pad q, k and v with zero columns, and give the scale of the unpadded head dim",
        ));
    }
    Ok(())
}

/// What a request that no kernel computes is told: the row of its mask, and if there is one its
/// element types, that is next to it in head dim.
fn unsupported(request: &Forward, head_dim: usize, differs: String, remedy: &'static str) -> Error {
    let Forward { q, mask, precision, .. } = request;
    let distance = |row: &&Variant| {
        let (wide, least) = (row.head_dim as usize, head_dim);
        let others = [row.scores, row.dtype] != operands(request);
        (others, row.mask != mask.class(), wide < least, wide.abs_diff(least))
    };
    let nearest = variants().min_by_key(distance).map_or("none", |row| row.entry);
    let precision = match precision {
        Precision::Given => String::new(),
        other => format!(", precision {}", other.name()),
    };
    let what = format!("{}{precision}, head dim {}, {}", q.dtype.name(), q.head_dim(), mask.name());
    Error::Unsupported { what, nearest, differs, remedy }
}

/// The row of the tables that suits request and device best: of those that can compute it the first
/// within its key length limit that stores keyless query tiles if there are any; else the first.
pub(super) fn select(
    request: &Forward,
    device: &DeviceFacts,
    options: &PlanOptions,
) -> Result<&'static Variant, Error> {
    let Forward { q, k, mask, .. } = request;
    device.check_any()?;
    if let Some(entry) = options.entry {
        let row = variants().find(|row| row.entry == entry && accepts(row, request));
        let ([_, dtype], mask, head_dim) = (operands(request), *mask, q.head_dim());
        let row = row.ok_or(Error::WrongEntry { entry, dtype, mask, head_dim })?;
        return device.check(&row.kernel()).map(|()| row);
    }
    let keyless = |row: &Variant| keyless_q_tiles(request, &Tile::of(row)) > 0;
    let suits = |row: &Variant| {
        k.rows() <= row.kv_len_limit as usize
            && (row.stores_keyless() || !keyless(row))
            && device.holds(&row.kernel())
    };
    let able = |row: &Variant| {
        accepts(row, request)
            && options.arch.is_none_or(|arch| arch == row.arch)
            && device.check(&row.kernel()).is_ok()
    };
    let mut rows = variants().filter(|row| able(row));
    let Some(narrowest) = rows.next() else {
        return Err(none_able(request, device, options));
    };
    // A wider head dim would cost more than an unsuitable row of this one, as would another
    // architecture.
    let same = [narrowest.head_dim, narrowest.arch as u32];
    let best = std::iter::once(narrowest)
        .chain(rows)
        .find(|row| [row.head_dim, row.arch as u32] == same && suits(row));
    Ok(best.unwrap_or(narrowest))
}

/// Why no row that could compute a request runs on the device, in the architecture that is asked
/// for.
fn none_able(request: &Forward, device: &DeviceFacts, options: &PlanOptions) -> Error {
    let head_dim = request.q.head_dim();
    let runs = |row: &&Variant| device.check(&row.kernel()).is_ok();
    let others = || variants().filter(|row| accepts(row, request));
    if others().any(|row| runs(&row)) {
        let asked = options.arch.map_or("none", Arch::name);
        let differs = format!("architecture ({asked} asked)");
        return unsupported(request, head_dim, differs, "let the plan choose the architecture");
    }
    if !variants().any(|row| row.arch == Arch::Sm80 && runs(&row)) {
        let why = others().map(|row| device.check(&row.kernel())).find_map(Result::err);
        if let Some(why) = why {
            return why;
        }
    }
    // The device runs kernels, but those that know of this are Hopper's.
    let (major, minor) = device.compute_capability;
    let what = match request.precision {
        Precision::Given if request.q.dtype != Dtype::E4m3 => request.mask.name(),
        Precision::Given => request.q.dtype.name(),
        other => other.name(),
    };
    let differs = format!(
        "architecture ({what} is there for compute capability 9.0, Hopper; {} has {major}.{minor})",
        device.name
    );
    let remedy = "use a Hopper GPU, or full or causal masks and 16 bits";
    unsupported(request, head_dim, differs, remedy)
}

/// Whether a variant can compute the request. One without keys is all keyless query tiles.
fn accepts(variant: &Variant, request: &Forward) -> bool {
    let Forward { q, k, mask, .. } = request;
    let [scores, values] = operands(request);
    variant.scores == scores
        && u32::try_from(q.head_dim())
            .is_ok_and(|width| variant.accepts(values, mask.class(), width))
        && (k.rows() > 0 || variant.stores_keyless())
}

/// The softmax scale, by default one over the root of the head dim.
pub(super) fn softmax_scale(request: &Forward) -> f32 {
    request.scale.unwrap_or_else(|| 1.0 / (request.q.head_dim() as f32).sqrt())
}

/// The scale of the scores as exponents of two.
pub(super) fn scale_log2(request: &Forward) -> Result<f32, Error> {
    let scale = softmax_scale(request);
    let scale_log2 = scale * LOG2_E;
    if scale > 0.0 && scale.is_normal() && scale_log2.is_normal() {
        Ok(scale_log2)
    } else {
        Err(Error::Scale { got: scale })
    }
}

/// Elements of the log-sum-exp.
pub(super) fn lse_elements(q: &Layout) -> Result<usize, Error> {
    let [batch, heads, rows, _] = q.shape;
    batch
        .checked_mul(heads)
        .and_then(|count| count.checked_mul(rows))
        .filter(|&count| count <= i64::MAX as usize / size_of::<f32>())
        .ok_or(Error::SpanOverflow {
            tensor: "lse",
            shape: [batch, heads, rows, 1],
            strides: [heads.saturating_mul(rows), rows, 1, 1],
        })
}
