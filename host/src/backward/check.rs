//! The checks of a backward request, and which kernels compute it. Pure.

use fulgurite_spec::Dtype;
use fulgurite_spec::backward::{BACKWARD, BackwardRow, Part};

use super::Backward;
use crate::forward::Precision;
use crate::layout::AXES;
use crate::request::PlanOptions;
use crate::{DeviceFacts, Error, Form, Forward, Layout, Mask};

/// Checks all that the request says, and returns the forward call in the words of the kernels: an
/// axis of k or v along which all is the same has size 1.
pub(super) fn check(request: &Backward) -> Result<Forward, Error> {
    let Backward { forward, d_out, dq, dk, dv, .. } = request;
    check_precision(forward)?;
    forward.check()?;
    if !forward.lse {
        return Err(Error::LseOfForward);
    }
    for (tensor, layout, other, like) in [
        ("d_out", d_out, "out", &forward.out),
        ("dq", dq, "q", &forward.q),
        ("dk", dk, "k", &forward.k),
        ("dv", dv, "v", &forward.v),
    ] {
        if layout.form != Form::Batched {
            return Err(Error::Form { tensor, got: layout.form });
        }
        if layout.dtype != like.dtype {
            return Err(Error::DtypeMix { tensor, got: layout.dtype, want: like.dtype });
        }
        let sizes = AXES.into_iter().zip(layout.shape).zip(like.shape);
        for ((axis, got), want) in sizes {
            if got != want {
                return Err(Error::Shape { tensor, axis, got, other, want });
            }
        }
        layout.check(tensor)?;
        if tensor != "d_out" {
            layout.check_no_overlap(tensor)?;
        }
    }
    Ok(reduced(forward))
}

/// The tensors' own types are all that the kernels have.
fn check_precision(forward: &Forward) -> Result<(), Error> {
    let Forward { q, precision, .. } = forward;
    if *precision != Precision::Given {
        let differs = format!("precision ({} asked, given there)", precision.name());
        return Err(unsupported(forward, differs, "ask the forward for the precision `Given`"));
    }
    if !matches!(q.dtype, Dtype::Bf16 | Dtype::F16) {
        let differs = format!("element type ({} asked, bf16 or f16 there)", q.dtype.name());
        return Err(unsupported(forward, differs, "convert q, k, v and out"));
    }
    Ok(())
}

/// TMA takes no stride of 0: an axis that has one becomes one index, and the kernels' masks take
/// it for every other. A window that shows the same keys as a simpler mask is that one.
fn reduced(forward: &Forward) -> Forward {
    let mut reduced = forward.clone();
    let Forward { k, v, .. } = &mut reduced;
    for layout in [k, v] {
        let Layout { shape, strides, .. } = layout;
        for axis in [0, 1] {
            if strides[axis] == 0 {
                shape[axis] = shape[axis].min(1);
            }
        }
    }
    reduced.mask = match forward.mask.simplest(forward.q.rows(), forward.k.rows()) {
        Mask::Window { .. } if forward.k.rows() == 0 => Mask::Causal,
        mask => mask,
    };
    reduced
}

/// What a request that no kernel computes is told.
fn unsupported(forward: &Forward, differs: String, remedy: &'static str) -> Error {
    let Forward { q, mask, precision, .. } = forward;
    let distance = |row: &&BackwardRow| {
        let least = q.head_dim();
        let wide = row.head_dim as usize;
        (row.dtype != q.dtype, row.mask != mask.class(), wide < least, wide.abs_diff(least))
    };
    let nearest = BACKWARD.iter().min_by_key(distance).map_or("none", |row| row.entry);
    let precision = match precision {
        Precision::Given => String::new(),
        other => format!(", precision {}", other.name()),
    };
    let (dtype, head_dim) = (q.dtype.name(), q.head_dim());
    let what = format!("backward of {dtype}{precision}, head dim {head_dim}, {}", mask.name());
    Error::Unsupported { what, nearest, differs, remedy }
}

/// The row of the table for one part of a request: the one asked for, if it is of this part, else
/// the one of the smallest head dim that is not too small.
pub(super) fn select(
    forward: &Forward,
    part: Part,
    device: &DeviceFacts,
    options: &PlanOptions,
) -> Result<&'static BackwardRow, Error> {
    let Forward { q, mask, .. } = forward;
    let (dtype, mask, head_dim) = (q.dtype, mask.class(), q.head_dim());
    let accepts = |row: &&BackwardRow| {
        u32::try_from(head_dim).is_ok_and(|width| row.accepts(part, dtype, mask, width))
    };
    device.check_any()?;
    let mut rows = BACKWARD.iter().filter(accepts);
    let row = match options.entry {
        Some(entry) if BACKWARD.iter().any(|row| row.entry == entry && row.part != part) => {
            rows.next()
        }
        Some(entry) => {
            let row = rows.find(|row| row.entry == entry);
            return row
                .ok_or(Error::WrongEntry { entry, dtype, mask: forward.mask, head_dim })
                .and_then(|row| device.check(&row.kernel()).map(|()| row));
        }
        None => rows.next(),
    };
    let row = row.ok_or_else(|| {
        let differs = format!("head dim ({head_dim} asked)");
        unsupported(forward, differs, "pad the tensors with zero columns")
    })?;
    if options.arch.is_some_and(|arch| arch != row.arch) {
        let differs = format!("architecture ({:?} asked)", options.arch);
        return Err(unsupported(forward, differs, "let the plan choose the architecture"));
    }
    if let Some(limit) = options.sm_limit {
        let differs = format!("blocks of a grid (at most {limit} asked, one for each job there)");
        return Err(unsupported(forward, differs, "leave `sm_limit` out"));
    }
    device.check(&row.kernel()).map(|()| row)
}
