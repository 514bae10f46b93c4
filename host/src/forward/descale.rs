//! What stored numbers of 8-bit tensors are multiplied with.

use super::Forward;
use crate::args::Access;
use crate::work::BufferNeed;
use crate::{Dtype, Error, Layout};

/// What the stored numbers of a tensor of 8 bits are multiplied with to be the numbers that are
/// meant: `f32` in a buffer of the launch.
///
/// ```
/// use fulgurite::{Descale, DeviceFacts, Dtype, Forward, Layout, Mask, Plan};
/// let q = Layout::bshd(Dtype::E4m3, 2, 4096, 32, 128); // batch, rows, heads, head_dim
/// let kv = Layout::bshd(Dtype::E4m3, 2, 4096, 8, 128);
/// let out = Layout::bshd(Dtype::Bf16, 2, 4096, 32, 128);
/// let head = Descale::PerHead { strides: [8, 1] }; // f32[batch, KV heads], contiguous
/// let forward = Forward::new(q, kv, kv, out, Mask::Causal).descale(head, head, Descale::One);
/// let plan = Plan::new(&forward, &DeviceFacts::h200())?;
/// assert_eq!(plan.buffer("descale_q").map(|need| need.elements), Some(16));
/// assert!(plan.buffer("descale_v").is_none());
/// # Ok::<(), fulgurite::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Descale {
    /// 1: the stored numbers are meant. There is no buffer.
    One,
    /// One number, of the whole tensor.
    PerTensor,
    /// One for each batch entry and KV head, also of q, whose heads share that of their KV head (as
    /// in FlashAttention-3).
    PerHead {
        /// Numbers from one batch entry to the next, and from one KV head to the next; may be 0.
        strides: [usize; 2],
    },
    /// Of q alone: one for each row, `f32[batch, heads, q_len]`, contiguous.
    PerRow,
}

impl Descale {
    /// The name in texts.
    pub const fn name(self) -> &'static str {
        match self {
            Descale::One => "1",
            Descale::PerTensor => "per tensor",
            Descale::PerHead { .. } => "per head",
            Descale::PerRow => "per row",
        }
    }

    /// Whether KV heads of one batch entry have numbers of their own.
    pub(super) fn differs_by_head(self) -> bool {
        matches!(self, Descale::PerHead { strides: [_, head] } if head != 0)
    }

    /// Numbers from one batch entry to the next and from one head to the next, of q's heads where
    /// each row has one, else of KV heads.
    pub(super) fn strides(self, q: &Layout) -> [u64; 2] {
        match self {
            Descale::One | Descale::PerTensor => [0, 0],
            Descale::PerHead { strides } => strides.map(|stride| stride as u64),
            Descale::PerRow => [q.heads().saturating_mul(q.rows()) as u64, q.rows() as u64],
        }
    }

    /// Numbers of the buffer, none if there is no buffer; `Err` if they are too many. Sizes were
    /// checked: there are KV heads.
    fn elements(self, q: &Layout, kv: &Layout) -> Result<Option<usize>, ()> {
        let span = |sizes: [usize; 2], strides: [usize; 2], last: usize| {
            let ends =
                sizes.iter().zip(strides).map(|(size, stride)| (size - 1).checked_mul(stride));
            let mut all = ends.chain([Some(last)]);
            let sum = all.try_fold(0_usize, |sum, end| sum.checked_add(end?))?;
            (sum <= i64::MAX as usize / size_of::<f32>()).then_some(sum)
        };
        let [batch, heads, rows, _] = q.shape;
        let elements = match self {
            Descale::One => return Ok(None),
            _ if q.is_empty() => Some(0),
            Descale::PerTensor => Some(1),
            Descale::PerHead { strides } => span([batch, kv.heads()], strides, 1),
            Descale::PerRow => {
                let head = batch.checked_mul(heads).and_then(|count| count.checked_mul(rows));
                head.and_then(|count| span([1, 1], [0, 0], count))
            }
        };
        elements.map(Some).ok_or(())
    }
}

/// The names of the buffers, with the tensors that they are of.
pub(super) const DESCALES: [(&str, &str); 3] =
    [("descale_q", "q"), ("descale_k", "k"), ("descale_v", "v")];

/// Whether a request says what its numbers are multiplied with exactly if they have 8 bits, and as
/// kernels can.
///
/// # Errors
/// [`Error::DescaleUnset`], [`Error::DescaleUnexpected`], [`Error::DescaleShape`].
pub(super) fn check(request: &Forward) -> Result<(), Error> {
    let dtype = request.q.dtype;
    let Some(descale) = request.descale else {
        return if dtype == Dtype::E4m3 { Err(Error::DescaleUnset { dtype }) } else { Ok(()) };
    };
    if dtype != Dtype::E4m3 {
        return Err(Error::DescaleUnexpected { dtype });
    }
    for ((_, tensor), of) in DESCALES.iter().zip(descale).skip(1) {
        if of == Descale::PerRow {
            return Err(Error::DescaleShape { tensor, got: of.name() });
        }
    }
    Ok(())
}

/// The buffers that launches of a request bring, once its sizes were checked.
///
/// # Errors
/// [`Error::SpanOverflow`].
pub(super) fn needs(request: &Forward) -> Result<Vec<BufferNeed>, Error> {
    let Forward { q, k, .. } = request;
    let mut needs = Vec::new();
    for ((name, _), descale) in DESCALES.iter().zip(request.descale.into_iter().flatten()) {
        let elements = descale.elements(q, k).map_err(|()| {
            let [batch, head] = descale.strides(q).map(|stride| stride as usize);
            let shape = [q.batch(), k.heads(), 1, 1];
            Error::SpanOverflow { tensor: name, shape, strides: [batch, head, 1, 1] }
        })?;
        needs.extend(elements.map(|elements| BufferNeed {
            name,
            dtype: Dtype::F32,
            elements,
            access: Access::Read,
            align_bytes: size_of::<f32>() as u64,
        }));
    }
    Ok(needs)
}
