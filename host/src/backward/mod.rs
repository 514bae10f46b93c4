//! The backward call: the gradients of a forward call, and what a launch brings.

mod check;
mod plan;

use std::fmt;

use crate::args::args;
use crate::layout::Layout;
use crate::place::Place;
use crate::request::{Decide, PlanOptions, Request};
use crate::work::Work;
use crate::{DeviceFacts, Error, Forward};

/// The gradients of a forward call: with `out = softmax(scale · q kᵀ + mask) v` and the gradient
/// `d_out` of a number, the gradients `dq`, `dk` and `dv` of that number.
///
/// Launches bring the call's q, k and v, and what the forward left for them: its output, and its
/// log-sum-exp, for which it has to be asked ([`Forward::with_lse`]). Both must be of the same
/// forward launch. Element types, sizes, strides, masks and scales are those of the forward, in the
/// tensors' own type: bf16 or f16, head dims up to 256.
///
/// ```
/// use fulgurite::{Backward, DeviceFacts, Dtype, Forward, Layout, Mask, Plan};
/// let qo = Layout::bshd(Dtype::Bf16, 2, 4096, 32, 128); // batch, rows, heads, head_dim
/// let kv = Layout::bshd(Dtype::Bf16, 2, 4096, 8, 128); // 4 query heads share a KV head
/// let forward = Forward::new(qo, kv, kv, qo, Mask::Causal).with_lse();
/// let backward = Backward::new(&forward, qo, qo, kv, kv); // layouts of d_out, dq, dk, dv
/// let plan = Plan::new(&backward, &DeviceFacts::h200())?;
/// assert!(plan.workspace_bytes() > 0);
/// # Ok::<(), fulgurite::Error>(())
/// ```
///
/// *What is computed*: scores and probabilities again, from the log-sum-exp; probabilities and
/// gradients of scores are rounded to the tensors' type before they are multiplied, sums are f32,
/// and gradients are rounded once. In f16 a gradient of a score beyond 65504 becomes infinity,
/// which loss scaling looks for.
///
/// *A row that sees no key* has dq 0 and no part in dk and dv. *A key that no row sees* has dk and
/// dv 0.
///
/// *Inputs that are not finite*: a NaN or infinity in a row of q, d_out or out, or a NaN in its
/// log-sum-exp, can reach dq of that row, and dk and dv of all keys of the KV head whose tile (of
/// 128 keys at most) some row of the same 64 sees. One in a row of k or v can reach dk and dv of
/// that key, and dq of all rows whose query tile (128 rows) works on the tile of keys (64) it lies
/// in.
/// Other heads and batch entries are not affected.
///
/// *Bits*: the same call gives the same bits on every launch, without atomics. dk and dv of a KV
/// head depend on that head and the query heads that read it, dq on its own head and the KV head,
/// and none of them on other heads or batch entries, their number, strides, addresses, or the GPU.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Backward {
    /// The forward call, with its log-sum-exp.
    pub forward: Forward,
    /// The gradient of the output: same shape as the output.
    pub d_out: Layout,
    /// The gradient of q: same shape as q; no two of its elements may share an address.
    pub dq: Layout,
    /// The gradient of k: same shape as k, so that where k has a stride of 0 each index has a
    /// gradient of its own; no two of its elements may share an address.
    pub dk: Layout,
    /// The gradient of v, likewise.
    pub dv: Layout,
    /// Whether launches bring a gradient of the log-sum-exp, which adds to those of q and k:
    /// `f32[batch, heads, q_len]`, contiguous.
    pub d_lse: bool,
}

impl Backward {
    /// The gradients of `forward`, of the same mask and scale.
    pub fn new(forward: &Forward, d_out: Layout, dq: Layout, dk: Layout, dv: Layout) -> Self {
        Backward { forward: forward.clone(), d_out, dq, dk, dv, d_lse: false }
    }

    /// Launches bring the gradient of the log-sum-exp too ([`BackwardArgs::d_lse`]).
    pub fn with_d_lse(self) -> Self {
        Backward { d_lse: true, ..self }
    }
}

args! {
    /// The buffers of a [`Backward`] launch. `out` and `lse` are what the forward left.
    ///
    /// ```no_run
    /// # use fulgurite::{Backward, BackwardArgs, FlashAttention, Workspace};
    /// # use fulgurite::cudarc::driver::{CudaSlice, CudaStream};
    /// # use half::bf16;
    /// # fn f(fa: &FlashAttention, stream: &std::sync::Arc<CudaStream>, backward: &Backward,
    /// #     [q, k, v, out, d_out]: [CudaSlice<bf16>; 5], lse: CudaSlice<f32>,
    /// #     [mut dq, mut dk, mut dv]: [CudaSlice<bf16>; 3]) -> Result<(), fulgurite::Error> {
    /// let prepared = fa.plan(backward)?;
    /// let mut workspace = Workspace::new(stream);
    /// workspace.grow(prepared.plan().workspace_bytes())?;
    /// let args = BackwardArgs::new(&q, &k, &v, &out, &lse, &d_out, &mut dq, &mut dk, &mut dv);
    /// prepared.launch(stream, args.workspace(&mut workspace))
    /// # }
    /// ```
    BackwardArgs {
        read q, k, v, out, lse, d_out;
        write dq, dk, dv;
        optional read
            /// The gradient of the log-sum-exp, where planned ([`Backward::with_d_lse`]).
            d_lse;
        optional write;
    }
}

impl Request for Backward {
    type Args<P: Place> = BackwardArgs<P>;
    const NAME: &'static str = "backward";
}

impl Decide for Backward {
    fn decide(&self, device: &DeviceFacts, options: &PlanOptions) -> Result<Work, Error> {
        plan::decide(self, device, options)
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Backward { forward, d_out, dq, dk, dv, d_lse } = self;
        forward.describe_call(f)?;
        for (name, layout) in [("d_out", d_out), ("dq", dq), ("dk", dk), ("dv", dv)] {
            writeln!(f, "  {name:<10} {layout}")?;
        }
        let d_lse = if *d_lse { "given" } else { "none, by default" };
        writeln!(f, "  d_lse      {d_lse}")
    }
}
