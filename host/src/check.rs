//! The checks that [`Plan::new`](crate::Plan::new) and a launch are made of. Pure.

use std::f32::consts::LOG2_E;

use fulgurite_spec::{FORWARD as VARIANTS, ForwardRow as Variant, Tile};

use crate::jobs::keyless_q_tiles;
use crate::layout::AXES;
use crate::{DeviceFacts, Dtype, Error, Forward, Layout, Mask};

/// Rows that the kernels count with 32-bit integers, a tile beyond the last one included.
const ROW_LIMIT: usize = (1 << 31) - 512;

/// Tensor maps hold sizes, and kernels head counts, in 32 bits.
const SIZE_LIMIT: usize = u32::MAX as usize;

/// The four tensors of a request with their names.
pub(crate) fn tensors(request: &Forward) -> [(&'static str, &Layout); 4] {
    [("q", &request.q), ("k", &request.k), ("v", &request.v), ("out", &request.out)]
}

/// All four tensors have one element type.
pub(crate) fn check_dtypes(request: &Forward) -> Result<(), Error> {
    let want = request.q.dtype;
    for (tensor, layout) in tensors(request) {
        if layout.dtype != want {
            return Err(Error::DtypeMix { tensor, got: layout.dtype, want });
        }
    }
    Ok(())
}

/// The shapes of the four tensors fit each other.
pub(crate) fn check_shapes(request: &Forward) -> Result<(), Error> {
    let Forward { q, k, v, out, .. } = request;
    if v.head_dim() != k.head_dim() {
        return Err(Error::HeadDimsDiffer { qk: k.head_dim(), v: v.head_dim() });
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

/// No size is zero that must not be, too large, or unknown to the kernels.
pub(crate) fn check_sizes(request: &Forward) -> Result<(), Error> {
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
    let head_dim = q.head_dim();
    let largest = largest_head_dim(q.dtype, request.mask)?;
    if head_dim == 0 || head_dim % 8 != 0 || head_dim > largest {
        return Err(Error::HeadDim { got: head_dim, largest });
    }
    Ok(())
}

fn largest_head_dim(dtype: Dtype, mask: Mask) -> Result<usize, Error> {
    VARIANTS
        .iter()
        .filter(|variant| variant.dtype == dtype && variant.mask == mask)
        .map(|variant| variant.head_dim as usize)
        .max()
        .ok_or(Error::NoVariant { dtype, mask })
}

/// The row of the table that suits the request best: of those that can compute it the first within
/// its key length limit that stores keyless query tiles if there are any; else the first.
pub(crate) fn select(request: &Forward) -> Result<usize, Error> {
    let Forward { q, k, mask, .. } = request;
    let keyless = |variant: &Variant| keyless_q_tiles(request, &Tile::of(variant)) > 0;
    let suits = |variant: &Variant| {
        k.rows() <= variant.kv_len_limit as usize && (variant.stores_keyless() || !keyless(variant))
    };
    let mut able = VARIANTS.iter().enumerate().filter(|(_, variant)| accepts(variant, request));
    let Some((first, narrowest)) = able.next() else {
        return Err(Error::NoVariant { dtype: q.dtype, mask: *mask });
    };
    // A wider head dim would cost more than an unsuitable row of this one.
    let best = std::iter::once((first, narrowest))
        .chain(able)
        .find(|(_, variant)| variant.head_dim == narrowest.head_dim && suits(variant));
    Ok(best.map_or(first, |(index, _)| index))
}

/// Whether a variant can compute the request. One without keys is all keyless query tiles.
pub(crate) fn accepts(variant: &Variant, request: &Forward) -> bool {
    let Forward { q, k, mask, .. } = request;
    u32::try_from(q.head_dim()).is_ok_and(|head_dim| variant.accepts(q.dtype, *mask, head_dim))
        && (k.rows() > 0 || variant.stores_keyless())
}

/// Checks that a device can run at least one variant; if none, says why not the last one.
pub(crate) fn check_any_variant(device: &DeviceFacts) -> Result<(), Error> {
    VARIANTS
        .iter()
        .map(|variant| check_device(variant, device))
        .reduce(Result::or)
        .unwrap_or(Ok(()))
}

/// Checks that a device can run a variant.
pub(crate) fn check_device(variant: &Variant, device: &DeviceFacts) -> Result<(), Error> {
    let want = variant.arch.compute_capability();
    let got = device.compute_capability;
    if got != want {
        return Err(Error::Architecture { device: device.name.clone(), got, want });
    }
    let want_bytes = variant.launch().smem_bytes;
    if device.smem_optin_bytes < want_bytes {
        return Err(Error::SharedMemory {
            device: device.name.clone(),
            entry: variant.entry,
            got_bytes: device.smem_optin_bytes,
            want_bytes,
        });
    }
    Ok(())
}

/// The scale of the scores as exponents of two.
pub(crate) fn scale_log2(request: &Forward) -> Result<f32, Error> {
    let scale = request.scale.unwrap_or_else(|| 1.0 / (request.q.head_dim() as f32).sqrt());
    let scale_log2 = scale * LOG2_E;
    if scale > 0.0 && scale.is_normal() && scale_log2.is_normal() {
        Ok(scale_log2)
    } else {
        Err(Error::Scale { got: scale })
    }
}

/// Elements of the log-sum-exp.
pub(crate) fn lse_elements(q: &Layout) -> Result<usize, Error> {
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

/// A device address is neither null nor misaligned.
pub(crate) fn check_address(tensor: &'static str, address: u64, want: u64) -> Result<(), Error> {
    if address == 0 {
        return Err(Error::NullPointer { tensor });
    }
    if !address.is_multiple_of(want) {
        return Err(Error::Misaligned { tensor, address, want });
    }
    Ok(())
}
