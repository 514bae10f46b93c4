//! The operation as candle sees it: what is asked, and its bodies on a GPU and a CPU.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::op::BackpropOp;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp3, Error, Layout, Result, Shape, Storage, Tensor,
};
use fulgurite::{Dtype, Forward, Mask};

use crate::{cpu, cuda, refuse};

/// Strides and offsets of a tensor that a kernel reads are multiples of so many 16-bit elements.
const UNIT: usize = 8;

/// One call.
pub(crate) struct Attention {
    scale: f32,
    mask: Mask,
    /// Where the log-sum-exp goes, if it is wanted: candle's operations have one result.
    lse: Option<Arc<Mutex<Option<Storage>>>>,
}

/// The mask of the flag.
pub(crate) fn mask(causal: bool) -> Mask {
    if causal { Mask::Causal } else { Mask::Full }
}

/// The mask that a window leaves: row `r` sees the keys from `r + keys - rows - left` to
/// `r + keys - rows + right`.
pub(crate) fn mask_of_window(
    function: &str,
    q: &Tensor,
    k: &Tensor,
    left: Option<usize>,
    right: Option<usize>,
) -> Result<Mask> {
    let (rows, keys) = (q.dims4()?.1, k.dims4()?.1);
    // The last row begins at key `keys - 1 - left`, the first one ends at `keys - rows + right`.
    if let Some(got) = left.filter(|left| left.saturating_add(1) < keys) {
        let allowed = format!("None, or at least {}, the number of keys less 1", keys - 1);
        return refuse::window(function, "window_size_left", got, &allowed);
    }
    match right {
        Some(0) => Ok(Mask::Causal),
        Some(got) if got.saturating_add(1) < rows => {
            let allowed =
                format!("Some(0), None, or at least {}, the number of rows less 1", rows - 1);
            refuse::window(function, "window_size_right", got, &allowed)
        }
        _ => Ok(Mask::Full),
    }
}

/// Attention of dense tensors.
pub(crate) fn dense(q: &Tensor, k: &Tensor, v: &Tensor, scale: f32, mask: Mask) -> Result<Tensor> {
    apply(q, k, v, Attention { scale, mask, lse: None })
}

/// Attention of dense tensors, and its log-sum-exp.
pub(crate) fn dense_with_lse(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    scale: f32,
    mask: Mask,
) -> Result<(Tensor, Tensor)> {
    let kept = Arc::new(Mutex::new(None));
    let out = apply(q, k, v, Attention { scale, mask, lse: Some(kept.clone()) })?;
    let (batch, rows, heads, _) = q.dims4()?;
    let storage = kept.lock().unwrap_or_else(PoisonError::into_inner).take();
    let storage = storage.ok_or_else(|| Error::msg("no log-sum-exp was computed"))?;
    let lse = Tensor::from_storage(storage, (batch, heads, rows), BackpropOp::none(), false);
    Ok((out, lse))
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

    /// Hands the log-sum-exp over.
    pub(crate) fn keep_lse(&self, storage: Storage) {
        if let Some(place) = &self.lse {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(storage);
        }
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
    fn windows_are_full_or_causal_or_refused() {
        let (q, k) = (tensor((1, 5, 1, 8)), tensor((1, 7, 1, 8)));
        let mask = |left, right| mask_of_window("f", &q, &k, left, right);
        for left in [None, Some(6), Some(7), Some(usize::MAX)] {
            assert_eq!(mask(left, Some(0)).unwrap(), Mask::Causal);
            for right in [None, Some(4), Some(5), Some(usize::MAX)] {
                assert_eq!(mask(left, right).unwrap(), Mask::Full);
            }
        }
        let text = |left, right| mask(left, right).unwrap_err().to_string();
        assert!(text(Some(5), None).contains("f: `window_size_left` Some(5) is not supported"));
        assert!(text(Some(0), Some(0)).contains("at least 6, the number of keys less 1"));
        assert!(text(None, Some(3)).contains("f: `window_size_right` Some(3) is not supported"));
        assert!(text(None, Some(1)).contains("at least 4, the number of rows less 1"));
    }

    /// The bounds of the windows that are taken, against the definition.
    #[test]
    fn windows_that_are_taken_see_what_the_mask_sees() {
        let sees = |row: usize, col: usize, rows: usize, keys: usize, left, right| {
            let middle = (row + keys) as i64 - rows as i64;
            let within = |limit: Option<usize>, over: i64| limit.is_none_or(|it| over <= it as i64);
            within(left, middle - col as i64) && within(right, col as i64 - middle)
        };
        let sizes = |limit| (0..limit).map(Some).chain([None]);
        for (rows, keys) in [(1, 1), (1, 5), (5, 1), (3, 4), (4, 3)] {
            let (q, k) = (tensor((1, rows, 1, 8)), tensor((1, keys, 1, 8)));
            for (left, right) in sizes(8).flat_map(|left| sizes(8).map(move |right| (left, right)))
            {
                let Ok(mask) = mask_of_window("f", &q, &k, left, right) else { continue };
                for (row, col) in (0..rows).flat_map(|row| (0..keys).map(move |col| (row, col))) {
                    let want = mask == Mask::Full || col + rows <= row + keys;
                    assert_eq!(sees(row, col, rows, keys, left, right), want, "{left:?} {right:?}");
                }
            }
        }
    }
}
