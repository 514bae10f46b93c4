//! The forward call: what a caller asks for, and what a launch brings.

mod check;
mod descale;
mod given8;
mod jobs;
mod plan;
mod precision;
mod quantised;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem::offset_of;

use fulgurite_spec::{
    Arch, Ends, FORWARD, FORWARD_SM80, FORWARD8, ForwardRow as Variant, FwdMmaParams, FwdParams,
    FwdScalars, Mask, Tile,
};

use crate::args::args;
use crate::layout::Layout;
use crate::place::Place;
use crate::request::{Decide, PlanOptions, Request};
use crate::work::{Launch, Work};
use crate::{DeviceFacts, Error, Plan};

pub use descale::Descale;
pub use precision::Precision;

/// Every forward kernel, in order of preference among those of the same element types.
fn variants() -> impl Iterator<Item = &'static Variant> {
    FORWARD.iter().chain(FORWARD_SM80).chain(FORWARD8)
}

/// Where the scalars lie in the parameters of a row's kernel.
const fn scalars_at(variant: &Variant) -> usize {
    match variant.arch {
        // The same in those of 8 bits (asserted where the structs are defined).
        Arch::Sm90 => offset_of!(FwdParams, scalars),
        Arch::Sm80 => offset_of!(FwdMmaParams, scalars),
    }
}

/// A forward attention call: `out = softmax(scale · q kᵀ + mask) v` for every head.
///
/// Query head `h` uses KV head `h / (q heads / kv heads)`, so that grouped (GQA) and multi-query
/// (MQA) attention need no copies.
///
/// ```
/// use fulgurite::{Dtype, Forward, Layout, Mask};
/// let layout = Layout::bshd(Dtype::Bf16, 2, 4096, 16, 128); // batch, rows, heads, head_dim
/// let forward = Forward::new(layout, layout, layout, layout, Mask::Causal).scale(0.1).with_lse();
/// assert!(forward.lse);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Forward {
    /// Queries: (batch, heads, q_len, head_dim).
    pub q: Layout,
    /// Keys: (batch, kv_heads, kv_len, head_dim). The batch stride may be 0, and so may the
    /// head strides of both k and v: all entries, or all query heads, then read the same one.
    pub k: Layout,
    /// Values: same shape as the keys.
    pub v: Layout,
    /// The output: same shape as the queries; no two of its elements may share an address.
    pub out: Layout,
    /// Which keys a row sees.
    pub mask: Mask,
    /// Factor of the scores before softmax; `None`: `1 / sqrt(head_dim)`.
    pub scale: Option<f32>,
    /// Whether launches write the log-sum-exp of every row: `f32[batch, heads, q_len]`, contiguous.
    pub lse: bool,
    /// How exactly it is computed.
    pub precision: Precision,
    /// What the stored numbers of q, k and v are multiplied with, exactly if they have 8 bits.
    pub descale: Option<[Descale; 3]>,
}

impl Forward {
    /// A call with the scale `1 / sqrt(head_dim)`, without log-sum-exp, as exactly as the tensors'
    /// types allow.
    pub fn new(q: Layout, k: Layout, v: Layout, out: Layout, mask: Mask) -> Self {
        let precision = Precision::Given;
        Forward { q, k, v, out, mask, scale: None, lse: false, precision, descale: None }
    }

    /// Scores are multiplied by this before softmax.
    pub fn scale(self, scale: f32) -> Self {
        Forward { scale: Some(scale), ..self }
    }

    /// Launches bring a buffer for the log-sum-exp ([`ForwardArgs::lse`]).
    pub fn with_lse(self) -> Self {
        Forward { lse: true, ..self }
    }

    /// How exactly it is computed: faster in 8 bits, which launches need a workspace for
    /// ([`ForwardArgs::workspace`]).
    pub fn precision(self, precision: Precision) -> Self {
        Forward { precision, ..self }
    }

    /// What the stored numbers of q, k and v are multiplied with, of tensors that are e4m3; out is
    /// bf16 or f16, head dims are multiples of 16, strides of 16 elements. Such calls need a
    /// [`Workspace`](crate::Workspace), which V is transposed in.
    ///
    /// *Error*: probabilities are rounded to e4m3, by 2⁻⁴ of themselves at most. The tensor core
    /// cuts sums of e4m3 off behind 13 bits; so every 512 keys the output is moved to shared memory
    /// (two-level accumulation, DeepSeek-V3, Liu et al. 2024, section 3.3.2): values of mean 1 are
    /// off by 0.6 % then, whatever the number of keys, and by 22 % at 16384 keys without. Scores
    /// are off by 5·10⁻⁴ of the largest, about.
    ///
    /// # Errors
    /// When planned: [`Error::DescaleUnset`] for such tensors without, [`Error::DescaleUnexpected`]
    /// for others with, [`Error::DescaleShape`] for a number a row of k or v.
    pub fn descale(self, q: Descale, k: Descale, v: Descale) -> Self {
        Forward { descale: Some([q, k, v]), ..self }
    }

    /// Checks all that it says but its scale.
    ///
    /// # Errors
    /// Every [`Error`] about that.
    pub(crate) fn check(&self) -> Result<(), Error> {
        plan::checked(self).map(|_| ())
    }

    /// The scale of the scores as exponents of two.
    ///
    /// # Errors
    /// [`Error::Scale`].
    pub(crate) fn scale_log2(&self) -> Result<f32, Error> {
        check::scale_log2(self)
    }

    /// The scale of the scores.
    pub(crate) fn softmax_scale(&self) -> f32 {
        check::softmax_scale(self)
    }

    /// Elements of the log-sum-exp.
    ///
    /// # Errors
    /// [`Error::SpanOverflow`].
    pub(crate) fn lse_elements(&self) -> Result<usize, Error> {
        check::lse_elements(&self.q)
    }

    /// Tells of tensors, mask and scale.
    pub(crate) fn describe_call(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Forward { q, k, v, out, mask, scale, .. } = self;
        for (name, layout) in [("q", q), ("k", k), ("v", v), ("out", out)] {
            writeln!(f, "  {name:<10} {layout}")?;
        }
        let align = if *mask == Mask::Full { "" } else { ", bottom right" };
        writeln!(f, "  mask       {}{align}", Named(*mask))?;
        match scale {
            Some(scale) => writeln!(f, "  scale      {scale}"),
            None => writeln!(f, "  scale      1/sqrt({}), by default", q.head_dim()),
        }
    }

    /// All that tells two requests apart, the scale by its bits.
    fn key(&self) -> Key {
        let Forward { q, k, v, out, mask, scale, lse, precision, descale } = self;
        ([*q, *k, *v, *out], *mask, scale.map(f32::to_bits), *lse, *precision, *descale)
    }
}

/// See [`Forward::key`].
type Key = ([Layout; 4], Mask, Option<u32>, bool, Precision, Option<[Descale; 3]>);

impl PartialEq for Forward {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Forward {}

impl Hash for Forward {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

args! {
    /// The buffers of a [`Forward`] launch.
    ///
    /// ```no_run
    /// # use fulgurite::{FlashAttention, Forward, ForwardArgs};
    /// # use fulgurite::cudarc::driver::{CudaSlice, CudaStream};
    /// # use half::bf16;
    /// # fn f(fa: &FlashAttention, stream: &std::sync::Arc<CudaStream>, forward: &Forward,
    /// #     q: CudaSlice<bf16>, k: CudaSlice<bf16>, v: CudaSlice<bf16>, mut out: CudaSlice<bf16>,
    /// #     mut lse: CudaSlice<f32>) -> Result<(), fulgurite::Error> {
    /// fa.launch(stream, forward, ForwardArgs::new(&q, &k, &v, &mut out).lse(&mut lse))
    /// # }
    /// ```
    ForwardArgs {
        read q, k, v;
        write out;
        optional read
            /// What the stored numbers of q are multiplied with, where planned
            /// ([`Forward::descale`]).
            descale_q,
            /// The same of k.
            descale_k,
            /// The same of v.
            descale_v;
        optional write
            /// The log-sum-exp of each row, where planned ([`Forward::with_lse`]).
            lse;
    }
}

impl Request for Forward {
    type Args<P: Place> = ForwardArgs<P>;
    const NAME: &'static str = "forward";
}

impl Decide for Forward {
    fn decide(&self, device: &DeviceFacts, options: &PlanOptions) -> Result<Work, Error> {
        plan::decide(self, device, options)
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Forward { lse, precision, descale, .. } = self;
        self.describe_call(f)?;
        let lse = if *lse { "written" } else { "not written, by default" };
        writeln!(f, "  lse        {lse}")?;
        let default = if *precision == Precision::default() { ", by default" } else { "" };
        writeln!(f, "  precision  {}{default}", precision.name())?;
        if let Some(descale) = descale {
            let [q, k, v] = descale.map(Descale::name);
            writeln!(f, "  descale    q {q}, k {k}, v {v}")?;
        }
        Ok(())
    }
}

/// A mask with its numbers.
struct Named(Mask);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Named(mask) = *self;
        f.write_str(mask.name())?;
        if let Mask::Window { left, right } = mask {
            let [left, right] = [left, right].map(|end| match end {
                Some(end) => end.to_string(),
                None => "all".to_owned(),
            });
            write!(f, ", {left} to the left, {right} to the right")?;
        }
        Ok(())
    }
}

impl Plan<Forward> {
    /// The launch of the kernel that computes attention, behind those of the quantiser; `None` if
    /// there is no work.
    pub fn attention(&self) -> Option<&Launch> {
        self.launches().last()
    }

    /// The row of [`VARIANTS`](crate::internals::VARIANTS), of
    /// [`VARIANTS_SM80`](crate::internals::VARIANTS_SM80) or of
    /// [`VARIANTS_8BIT`](crate::internals::VARIANTS_8BIT) that computes it; `None` if there is no
    /// work.
    pub fn variant(&self) -> Option<&'static Variant> {
        let entry = self.attention()?.entry();
        variants().find(|variant| variant.entry == entry)
    }

    /// The kernel's tile.
    pub fn tile(&self) -> Option<Tile> {
        self.variant().map(Tile::of)
    }

    /// What the kernel's threads read of its parameters, yet without addresses.
    pub fn scalars(&self) -> Option<FwdScalars> {
        let at = scalars_at(self.variant()?);
        let params = &self.attention()?.params;
        // SAFETY: the struct is one of integers and floats, at this place in the parameters of the
        // row's kernel.
        Some(unsafe { params.get(at) })
    }

    /// The numbers of the mask among them, on Hopper where elements have 16 bits.
    pub fn ends(&self) -> Option<Ends> {
        let has_ends = |variant: &&Variant| !variant.is_quantised() && variant.arch == Arch::Sm90;
        self.variant().filter(has_ends)?;
        let params = &self.attention()?.params;
        // SAFETY: two integers, at this place in the parameters of the kernels of 16-bit elements.
        Some(unsafe { params.get(offset_of!(FwdParams, ends)) })
    }
}
