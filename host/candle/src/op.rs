//! The operation as candle sees it: what is asked, and its bodies on a GPU and a CPU.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::op::BackpropOp;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp3, Device, Error, Layout, Result, Shape, Storage, Tensor,
};
use fulgurite::{Backward, Dtype, Forward, Mask};

use crate::{cpu, cuda};

/// Strides and offsets of a tensor that a kernel reads are multiples of so many 16-bit elements.
const UNIT: usize = 8;

/// One call.
pub(crate) struct Attention {
    scale: f32,
    mask: Mask,
    /// Where the log-sum-exp goes, if it is wanted: candle's operations have one result.
    lse: Option<Kept>,
}

/// A tensor that an operation leaves besides its result.
type Kept = Arc<Mutex<Option<Tensor>>>;

/// The mask of the flag.
pub(crate) fn mask(causal: bool) -> Mask {
    if causal { Mask::Causal } else { Mask::Full }
}

/// The mask of a window: row `r` sees the keys from `r + keys - rows - left` to
/// `r + keys - rows + right`.
pub(crate) fn mask_of_window(left: Option<usize>, right: Option<usize>) -> Mask {
    // No call has as many rows or keys as the largest number that an end can be.
    let end = |end: Option<usize>| end.and_then(|end| i32::try_from(end).ok());
    Mask::Window { left: end(left), right: end(right) }
}

/// Attention of dense tensors. Gradients need the log-sum-exp.
pub(crate) fn dense(q: &Tensor, k: &Tensor, v: &Tensor, scale: f32, mask: Mask) -> Result<Tensor> {
    let is_tracked = [q, k, v].iter().any(|tensor| tensor.track_op());
    let lse = is_tracked.then(Kept::default);
    apply(q, k, v, Attention { scale, mask, lse })
}

/// Attention of dense tensors, and its log-sum-exp.
pub(crate) fn dense_with_lse(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    scale: f32,
    mask: Mask,
) -> Result<(Tensor, Tensor)> {
    let kept = Kept::default();
    let out = apply(q, k, v, Attention { scale, mask, lse: Some(kept.clone()) })?;
    Ok((out, taken(&kept)?))
}

/// What an operation left.
fn taken(kept: &Kept) -> Result<Tensor> {
    let kept = kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
    kept.ok_or_else(|| Error::msg("no log-sum-exp was computed"))
}

fn apply(q: &Tensor, k: &Tensor, v: &Tensor, op: Attention) -> Result<Tensor> {
    let (q, k, v) = (walkable(q, false)?, walkable(k, true)?, walkable(v, true)?);
    q.apply_op3(&k, &v, op)
}

/// The tensor, or a contiguous copy of it if a kernel cannot walk it. The batch of keys and values
/// may be expanded. Other ranks than 4 are left to the operation, which refuses them.
fn walkable(tensor: &Tensor, may_expand: bool) -> Result<Tensor> {
    let layout = tensor.layout();
    let (&[batch, rows, heads, _], &[batch_stride, row_stride, head_stride, 1]) =
        (layout.dims(), layout.stride())
    else {
        return if tensor.rank() == 4 { tensor.force_contiguous() } else { Ok(tensor.clone()) };
    };
    let walks = |size, stride: usize, may_be_0| {
        size <= 1 || (stride.is_multiple_of(UNIT) && (stride != 0 || may_be_0))
    };
    let walks = walks(batch, batch_stride, may_expand)
        && walks(rows, row_stride, false)
        && walks(heads, head_stride, false)
        && layout.start_offset().is_multiple_of(UNIT);
    if walks { Ok(tensor.clone()) } else { tensor.force_contiguous() }
}

impl Attention {
    /// The library's request.
    ///
    /// # Errors
    /// Tensors whose rank is not 4.
    pub(crate) fn request(&self, [q, k, v]: [&Layout; 3], types: [Dtype; 3]) -> Result<Forward> {
        let [q_type, k_type, v_type] = types;
        let q = layout(q, q_type)?;
        let [batch, heads, rows, head_dim] = q.shape;
        let out = fulgurite::Layout::bshd(q_type, batch, rows, heads, head_dim);
        let request = Forward::new(q, layout(k, k_type)?, layout(v, v_type)?, out, self.mask)
            .scale(self.scale);
        Ok(if self.wants_lse() { request.with_lse() } else { request })
    }

    /// The factor of the scores.
    pub(crate) fn scale(&self) -> f32 {
        self.scale
    }

    /// Which keys a row sees.
    pub(crate) fn mask(&self) -> Mask {
        self.mask
    }

    /// Whether the log-sum-exp is wanted.
    pub(crate) fn wants_lse(&self) -> bool {
        self.lse.is_some()
    }

    /// Hands the log-sum-exp over, `f32 (batch, heads, rows)`.
    pub(crate) fn keep_lse(&self, storage: Storage, shape: [usize; 3]) {
        if let Some(place) = &self.lse {
            let shape = (shape[0], shape[1], shape[2]);
            let lse = Tensor::from_storage(storage, shape, BackpropOp::none(), false);
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(lse);
        }
    }

    /// The request of the gradients of a call, all of them contiguous.
    ///
    /// # Errors
    /// Tensors whose rank is not 4.
    pub(crate) fn gradients(
        &self,
        [q, k, v]: [&Layout; 3],
        d_out: &Layout,
        dtype: Dtype,
    ) -> Result<Backward> {
        let forward = self.request([q, k, v], [dtype; 3])?;
        let like = |layout: &fulgurite::Layout| {
            let [batch, heads, rows, head_dim] = layout.shape;
            fulgurite::Layout::bshd(dtype, batch, rows, heads, head_dim)
        };
        let [dq, dk, dv] = [&forward.q, &forward.k, &forward.v].map(like);
        Ok(Backward::new(&forward, layout(d_out, dtype)?, dq, dk, dv))
    }
}

/// Candle's (batch, rows, heads, head_dim) as the library's (batch, heads, rows, head_dim).
fn layout(of: &Layout, dtype: Dtype) -> Result<fulgurite::Layout> {
    let (batch, rows, heads, head_dim) = of.shape().dims4()?;
    let &[batch_stride, row_stride, head_stride, last_stride] = of.stride() else {
        return Err(Error::msg("a tensor of rank 4 has not 4 strides"));
    };
    let strides = [batch_stride, head_stride, row_stride, last_stride];
    Ok(fulgurite::Layout::strided(dtype, [batch, heads, rows, head_dim], strides))
}

/// A library's error as one of candle, to be found again by a downcast.
pub(crate) fn library(error: fulgurite::Error) -> Error {
    Error::Cuda(Box::new(error)).bt()
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "fulgurite-attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        cpu::forward(self, [q, k, v], [q_layout, k_layout, v_layout])
    }

    fn cuda_fwd(
        &self,
        q: &CudaStorage,
        q_layout: &Layout,
        k: &CudaStorage,
        k_layout: &Layout,
        v: &CudaStorage,
        v_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        cuda::forward(self, [q, k, v], [q_layout, k_layout, v_layout])
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        out: &Tensor,
        d_out: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let lse = match &self.lse {
            Some(kept) => taken(kept)?,
            None => return Err(Error::BackwardNotSupported { op: self.name() }),
        };
        let d_out = walkable(&d_out.to_dtype(q.dtype())?, false)?;
        let given = Given { q, k, v, out, lse: &lse, d_out: &d_out };
        let [dq, dk, dv] = match q.device() {
            Device::Cuda(_) => cuda::backward(self, &given)?,
            _ => cpu::backward(self, &given)?,
        };
        Ok((Some(dq), Some(dk), Some(dv)))
    }
}

/// What gradients are computed from.
pub(crate) struct Given<'a> {
    /// Queries.
    pub(crate) q: &'a Tensor,
    /// Keys.
    pub(crate) k: &'a Tensor,
    /// Values.
    pub(crate) v: &'a Tensor,
    /// The result.
    pub(crate) out: &'a Tensor,
    /// Its log-sum-exp, contiguous.
    pub(crate) lse: &'a Tensor,
    /// Its gradient, walkable.
    pub(crate) d_out: &'a Tensor,
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn tensor(shape: (usize, usize, usize, usize)) -> Tensor {
        Tensor::zeros(shape, DType::BF16, &Device::Cpu).unwrap()
    }

    /// Whether the tensor is passed on as it is.
    fn as_it_is(tensor: &Tensor, may_expand: bool) -> bool {
        let got = walkable(tensor, may_expand).unwrap();
        assert_eq!(got.dims(), tensor.dims());
        let same = got.layout().stride() == tensor.layout().stride()
            && got.layout().start_offset() == tensor.layout().start_offset();
        assert!(same || (got.is_contiguous() && got.layout().start_offset() == 0));
        same
    }

    #[test]
    fn tensors_that_a_kernel_can_walk_are_not_copied() {
        assert!(as_it_is(&tensor((2, 3, 4, 8)), false));
        let transposed = tensor((2, 4, 3, 8)).transpose(1, 2).unwrap();
        assert!(!transposed.is_contiguous() && as_it_is(&transposed, false));
        // k in a packed qkv.
        let packed = tensor((2, 3, 12, 8)).narrow(2, 4, 4).unwrap();
        assert!(!packed.is_contiguous() && as_it_is(&packed, false));
        let expanded = tensor((1, 3, 4, 8)).expand((2, 3, 4, 8)).unwrap();
        assert!(as_it_is(&expanded, true));
        // Strides of axes of size 1 do not matter.
        let row = tensor((1, 1, 4, 8)).expand((1, 1, 4, 8)).unwrap();
        assert!(as_it_is(&row, false));
    }

    #[test]
    fn tensors_that_a_kernel_cannot_walk_are_made_contiguous() {
        let expanded = tensor((1, 3, 4, 8)).expand((2, 3, 4, 8)).unwrap();
        assert!(!as_it_is(&expanded, false));
        let heads = tensor((2, 3, 1, 8)).expand((2, 3, 4, 8)).unwrap();
        assert!(!as_it_is(&heads, true));
        // The last axis not contiguous; strides and offsets that are no multiples of 8.
        assert!(!as_it_is(&tensor((2, 3, 8, 8)).transpose(2, 3).unwrap(), true));
        assert!(!as_it_is(&tensor((2, 3, 4, 12)).narrow(3, 0, 8).unwrap(), true));
        assert!(!as_it_is(&tensor((1, 1, 1, 16)).narrow(3, 4, 8).unwrap(), true));
    }

    #[test]
    fn ends_that_no_call_reaches_are_none() {
        let window = |left, right| Mask::Window { left, right };
        assert_eq!(mask_of_window(Some(3), Some(0)), window(Some(3), Some(0)));
        assert_eq!(mask_of_window(None, Some(usize::MAX)), window(None, None));
        assert_eq!(mask_of_window(Some(1 << 31), None), window(None, None));
    }
}
