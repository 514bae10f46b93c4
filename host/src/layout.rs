//! Shape and strides of one tensor, and whether a kernel can walk it.

use std::fmt;

use crate::{Dtype, Error};

/// Names of the axes, in the order of [`Layout::shape`].
pub(crate) const AXES: [&str; 4] = ["batch", "heads", "rows", "head_dim"];

/// Bytes that every stride but the last must be a multiple of.
const STRIDE_UNIT_BYTES: usize = 16;

/// Tensor maps keep strides below this many bytes.
const STRIDE_LIMIT_BYTES: u128 = 1 << 40;

/// What the first axis of a [`Layout`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Form {
    /// Batch entries, each of as many rows as the others.
    Batched,
    /// One run of tokens (size 1), in which sequences of different lengths follow each other.
    Packed {
        /// How many sequences.
        sequences: usize,
    },
    /// Pages of a cache, in any order.
    Paged,
}

impl Form {
    /// The form in a word.
    pub const fn name(self) -> &'static str {
        match self {
            Form::Batched => "batched",
            Form::Packed { .. } => "packed",
            Form::Paged => "paged",
        }
    }
}

/// Where the elements of a tensor are, relative to its first one.
///
/// Axes are always (batch, heads, rows, head_dim), whatever their order in memory: the element
/// `(b, h, r, c)` lies `b * strides[0] + h * strides[1] + r * strides[2] + c * strides[3]`
/// elements after the first.
///
/// A kernel takes a layout whose head_dim stride is 1 and whose other strides are multiples of 8
/// elements, not 0 and below 2⁴⁰ bytes. The stride of an axis of size 1 is never looked at. The
/// batch of k and of v may have stride 0, so that all entries of q read the same keys or values,
/// and so may the heads of k and v together.
///
/// ```
/// use fulgurite::{Dtype, Layout};
/// // K inside a packed qkv of shape [batch, rows, 3, heads, head_dim]:
/// let (batch, rows, heads, head_dim) = (2, 1000, 16, 128);
/// let row = 3 * heads * head_dim;
/// let k = Layout::strided(
///     Dtype::Bf16,
///     [batch, heads, rows, head_dim],
///     [rows * row, head_dim, row, 1],
/// );
/// // The buffer starts at K's first element: `qkv.slice(heads * head_dim..)`.
/// assert_eq!(k.span_elements(), Some(2 * rows * row - 2 * heads * head_dim));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Layout {
    /// Element type.
    pub dtype: Dtype,
    /// What the first axis counts.
    pub form: Form,
    /// Sizes: batch (1 if packed, pages if paged), heads, rows (tokens), head_dim (columns).
    pub shape: [usize; 4],
    /// Strides in elements, in the order of `shape`.
    pub strides: [usize; 4],
}

impl Layout {
    /// A contiguous tensor whose memory order is `[batch, rows, heads, head_dim]`.
    ///
    /// Sizes whose product overflows give strides that [`Plan::new`](crate::Plan::new) refuses.
    pub fn bshd(dtype: Dtype, batch: usize, rows: usize, heads: usize, head_dim: usize) -> Self {
        let row = heads.saturating_mul(head_dim);
        let strides = [rows.saturating_mul(row), head_dim, row, 1];
        Layout::strided(dtype, [batch, heads, rows, head_dim], strides)
    }

    /// A contiguous tensor whose memory order is `[batch, heads, rows, head_dim]`.
    ///
    /// Sizes whose product overflows give strides that [`Plan::new`](crate::Plan::new) refuses.
    pub fn bhsd(dtype: Dtype, batch: usize, heads: usize, rows: usize, head_dim: usize) -> Self {
        let head = rows.saturating_mul(head_dim);
        let strides = [heads.saturating_mul(head), head, head_dim, 1];
        Layout::strided(dtype, [batch, heads, rows, head_dim], strides)
    }

    /// Any layout: sizes and strides (in elements) of batch, heads, rows and head_dim.
    pub fn strided(dtype: Dtype, shape: [usize; 4], strides: [usize; 4]) -> Self {
        Layout { dtype, form: Form::Batched, shape, strides }
    }

    /// A contiguous run of `tokens` rows, those of `sequences` sequences one after another, in the
    /// memory order `[tokens, heads, head_dim]`.
    pub fn packed(
        dtype: Dtype,
        sequences: usize,
        tokens: usize,
        heads: usize,
        head_dim: usize,
    ) -> Self {
        let form = Form::Packed { sequences };
        Layout { form, ..Layout::bshd(dtype, 1, tokens, heads, head_dim) }
    }

    /// A cache of pages in the memory order `[pages, page_rows, heads, head_dim]`.
    pub fn pages_nhd(
        dtype: Dtype,
        pages: usize,
        page_rows: usize,
        heads: usize,
        head_dim: usize,
    ) -> Self {
        Layout { form: Form::Paged, ..Layout::bshd(dtype, pages, page_rows, heads, head_dim) }
    }

    /// A cache of pages in the memory order `[pages, heads, page_rows, head_dim]`.
    pub fn pages_hnd(
        dtype: Dtype,
        pages: usize,
        heads: usize,
        page_rows: usize,
        head_dim: usize,
    ) -> Self {
        Layout { form: Form::Paged, ..Layout::bhsd(dtype, pages, heads, page_rows, head_dim) }
    }

    /// Batch entries.
    pub fn batch(&self) -> usize {
        self.shape[0]
    }

    /// Heads.
    pub fn heads(&self) -> usize {
        self.shape[1]
    }

    /// Rows: tokens of one batch entry.
    pub fn rows(&self) -> usize {
        self.shape[2]
    }

    /// Columns of one head.
    pub fn head_dim(&self) -> usize {
        self.shape[3]
    }

    /// Elements from the first one to the last one, both included: the least length of a buffer.
    /// 0 for an empty tensor; `None` if the number does not fit.
    pub fn span_elements(&self) -> Option<usize> {
        if self.is_empty() {
            return Some(0);
        }
        let mut last = 0_usize;
        for (size, stride) in self.shape.iter().zip(self.strides) {
            last = last.checked_add((size - 1).checked_mul(stride)?)?;
        }
        last.checked_add(1)
    }

    /// Whether there are no elements at all; strides do not matter then.
    pub(crate) fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// The strides, with each that does not matter replaced by one that TMA accepts.
    pub(crate) fn effective_strides(&self) -> [usize; 4] {
        let mut strides = self.strides;
        for (axis, stride) in strides.iter_mut().enumerate().take(3) {
            if self.is_empty() || self.shape[axis] <= 1 {
                *stride = self.head_dim();
            }
        }
        strides
    }

    /// Checks what a kernel asks of any tensor's strides and span.
    pub(crate) fn check(&self, tensor: &'static str) -> Result<(), Error> {
        if self.is_empty() {
            return Ok(());
        }
        if self.strides[3] != 1 {
            return Err(Error::LastStride { tensor, got: self.strides[3] });
        }
        let element_bytes = self.dtype.bytes() as u128;
        for ((&axis, &size), &stride) in AXES.iter().zip(&self.shape).zip(&self.strides).take(3) {
            if size <= 1 {
                continue;
            }
            if stride == 0 {
                return Err(Error::StrideZero { tensor, axis, size });
            }
            let got_bytes = stride as u128 * element_bytes;
            if got_bytes >= STRIDE_LIMIT_BYTES {
                return Err(Error::StrideTooLarge { tensor, axis, got_bytes });
            }
            let want = STRIDE_UNIT_BYTES.div_ceil(self.dtype.bytes() as usize);
            if stride % want != 0 {
                return Err(Error::StrideAlignment { tensor, axis, got: stride, want });
            }
        }
        let span_bytes = self.span_elements().map(|elements| elements as u128 * element_bytes);
        match span_bytes {
            Some(bytes) if bytes <= i64::MAX as u128 => Ok(()),
            _ => Err(Error::SpanOverflow { tensor, shape: self.shape, strides: self.strides }),
        }
    }

    /// Checks that no two elements share an address: each stride reaches beyond all that the axes
    /// of smaller strides span.
    pub(crate) fn check_no_overlap(&self, tensor: &'static str) -> Result<(), Error> {
        if self.is_empty() {
            return Ok(());
        }
        let mut axes = [0, 1, 2];
        axes.sort_unstable_by_key(|&axis| self.strides[axis]);
        let mut extent = self.head_dim();
        for axis in axes {
            if self.shape[axis] <= 1 {
                continue;
            }
            let stride = self.strides[axis];
            if stride < extent {
                let (axis, got, want) = (AXES[axis], stride, extent);
                return Err(Error::OutputOverlaps { tensor, axis, got, want });
            }
            extent += (self.shape[axis] - 1) * stride;
        }
        Ok(())
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Layout { dtype, form, shape, strides } = self;
        write!(f, "{} {}, shape {shape:?}, strides {strides:?}", dtype.name(), form.name())
    }
}
