//! The cells that are measured.

use std::fmt;

use check::forward::call::ForwardCall;
use clap::ValueEnum;
use fulgurite::{Descale, Dtype, Layout, Mask, Precision};
use reference::forward::oracle::kept_keys;
use serde::{Deserialize, Serialize};

/// Tokens of a call, batch entries × rows, unless one sequence is longer.
pub const TOKENS: usize = 16_384;

/// Columns of all heads together.
pub const HIDDEN: usize = 2048;

const HEAD_DIMS: [usize; 3] = [64, 128, 256];
const LENGTHS: [usize; 6] = [512, 1024, 2048, 4096, 8192, 16_384];
const QUICK_LENGTHS: [usize; 3] = [1024, 4096, 16_384];

/// What calls compute with: the type of the tensors, or of what they are quantised to.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum DtypeName {
    /// bfloat16.
    Bf16,
    /// IEEE half.
    F16,
    /// q and k as integers of 8 bits, v as e4m3: of tensors in bf16.
    #[value(name = "s8e4m3")]
    S8E4m3,
    /// q and k as integers of 8 bits, v as it is: of tensors in bf16.
    #[value(name = "s8x16")]
    S8x16,
    /// Tensors in e4m3, with a scale for each KV head.
    #[value(name = "e4m3")]
    E4m3,
}

impl DtypeName {
    /// All, those first that a budget shall not cut off.
    pub const ALL: [DtypeName; 5] =
        [DtypeName::Bf16, DtypeName::F16, DtypeName::S8E4m3, DtypeName::S8x16, DtypeName::E4m3];

    /// The precision of the request.
    pub const fn precision(self) -> Precision {
        match self {
            DtypeName::Bf16 | DtypeName::F16 | DtypeName::E4m3 => Precision::Given,
            DtypeName::S8E4m3 => Precision::S8E4m3,
            DtypeName::S8x16 => Precision::S8x16,
        }
    }

    /// Whether it is a type of 8 bits, which only the harness of peers measures.
    pub const fn has_8_bits(self) -> bool {
        !matches!(self, DtypeName::Bf16 | DtypeName::F16)
    }

    /// The element type of the tensors.
    pub const fn tensors(self) -> Dtype {
        match self {
            DtypeName::Bf16 | DtypeName::S8E4m3 | DtypeName::S8x16 => Dtype::Bf16,
            DtypeName::F16 => Dtype::F16,
            DtypeName::E4m3 => Dtype::E4m3,
        }
    }
}

impl From<Dtype> for DtypeName {
    fn from(dtype: Dtype) -> DtypeName {
        match dtype {
            Dtype::Bf16 => DtypeName::Bf16,
            Dtype::F16 => DtypeName::F16,
            other => panic!("no kernel has elements of {}", other.name()),
        }
    }
}

impl fmt::Display for DtypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.precision() {
            Precision::Given => self.tensors().name(),
            precision => precision.name(),
        })
    }
}

/// Which operation is measured.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize, Deserialize,
)]
pub enum Kind {
    /// The forward.
    #[serde(rename = "fwd")]
    #[value(name = "fwd")]
    Forward,
    /// The gradients of a forward that was computed before.
    #[serde(rename = "bwd")]
    #[value(name = "bwd")]
    Backward,
    /// Both, as a step of training pays them.
    #[serde(rename = "fwd+bwd")]
    #[value(name = "fwd+bwd")]
    Both,
}

impl Kind {
    /// All.
    pub const ALL: [Kind; 3] = [Kind::Forward, Kind::Backward, Kind::Both];

    /// As in the `kind` column.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Forward => "fwd",
            Kind::Backward => "bwd",
            Kind::Both => "fwd+bwd",
        }
    }

    /// The kind of a name.
    pub fn of(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Operations that count, of those of the forward: five products where that has two.
    const fn factor(self) -> f64 {
        match self {
            Kind::Forward => 1.0,
            Kind::Backward => 2.5,
            Kind::Both => 3.5,
        }
    }
}

/// One call to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Cell {
    /// Element type.
    pub dtype: DtypeName,
    /// Columns of a head.
    pub head_dim: usize,
    /// Causal (aligned bottom right), or full.
    pub causal: bool,
    /// Heads of Q.
    pub heads: usize,
    /// Heads of K and V.
    pub heads_kv: usize,
    /// Rows of Q.
    pub q_len: usize,
    /// Rows of K and V.
    pub kv_len: usize,
    /// Batch entries.
    pub batch: usize,
    /// The operation.
    pub kind: Kind,
}

impl Cell {
    /// As many rows in K as in Q, as many heads, [`HIDDEN`] columns (or what whole heads leave of
    /// them), [`TOKENS`] tokens.
    pub fn new(dtype: DtypeName, head_dim: usize, causal: bool, length: usize) -> Cell {
        let heads = HIDDEN / head_dim;
        let batch = (TOKENS / length).max(1);
        let (q_len, kv_len, heads_kv) = (length, length, heads);
        let kind = Kind::Forward;
        Cell { dtype, head_dim, causal, heads, heads_kv, q_len, kv_len, batch, kind }
    }

    /// The grid that the headline counts; `quick` takes three lengths of six.
    pub fn grid(dtype: DtypeName, quick: bool) -> Vec<Cell> {
        cells(dtype, &HEAD_DIMS, lengths(quick))
    }

    /// The calls of one head dim and mask that the grid has or would have, shortest first.
    pub fn lengths(dtype: DtypeName, head_dim: usize, causal: bool, quick: bool) -> Vec<Cell> {
        lengths(quick).iter().map(|&length| Cell::new(dtype, head_dim, causal, length)).collect()
    }

    /// Other head dims, unequal lengths, grouped heads, long and short sequences.
    pub fn extra(dtype: DtypeName, quick: bool) -> Vec<Cell> {
        let mut all = cells(dtype, &[96, 192], lengths(quick));
        for (q_len, kv_len) in [(1024, 8192), (4096, 1000)] {
            let unequal = |cell| Cell { kv_len, ..cell };
            all.extend(cells(dtype, &HEAD_DIMS, &[q_len]).into_iter().map(unequal));
        }
        let grouped = |cell| Cell { heads: 32, heads_kv: 8, ..cell };
        all.extend(cells(dtype, &[128], lengths(quick)).into_iter().map(grouped));
        all.extend(cells(dtype, &[64, 128], &[128, 256]));
        all.extend(cells(dtype, &[128], &[32_768, 131_072]));
        all
    }

    /// The forward of the same sizes.
    pub fn forward(&self) -> Cell {
        Cell { kind: Kind::Forward, ..*self }
    }

    /// Whether the headline counts this cell.
    pub fn is_main(&self) -> bool {
        HEAD_DIMS.contains(&self.head_dim)
            && LENGTHS.contains(&self.q_len)
            && *self == Cell::new(self.dtype, self.head_dim, self.causal, self.q_len)
    }

    /// The call, on contiguous tensors `[batch, row, head, head dim]`.
    pub fn call(&self) -> ForwardCall {
        let layout =
            |dtype, rows, heads| Layout::bshd(dtype, self.batch, rows, heads, self.head_dim);
        let dtype = self.dtype.tensors();
        let (q, kv) =
            (layout(dtype, self.q_len, self.heads), layout(dtype, self.kv_len, self.heads_kv));
        let precision = self.dtype.precision();
        let call = ForwardCall { precision, ..ForwardCall::plain(q, kv, self.mask()) };
        match dtype {
            Dtype::E4m3 => ForwardCall {
                out: layout(Dtype::Bf16, self.q_len, self.heads),
                descale: [Descale::PerHead { strides: [self.heads_kv, 1] }; 3],
                ..call
            },
            _ => call,
        }
    }

    fn mask(&self) -> Mask {
        if self.causal { Mask::Causal } else { Mask::Full }
    }

    /// Floating-point operations that count: 4 · batch · heads · head dim · pairs, and 2.5
    /// times as many for gradients. Pairs are q_len · kv_len, half of that for a causal square, and
    /// exactly those that the mask leaves for other causal calls.
    pub fn flops(&self) -> f64 {
        let all = self.q_len as f64 * self.kv_len as f64;
        let pairs = match (self.causal, self.q_len == self.kv_len) {
            (false, _) => all,
            (true, true) => all / 2.0,
            (true, false) => {
                let lengths = (self.q_len, self.kv_len);
                (0..self.q_len).map(|row| kept_keys(self.mask(), lengths, row).len() as f64).sum()
            }
        };
        self.kind.factor() * 4.0 * (self.batch * self.heads * self.head_dim) as f64 * pairs
    }

    /// "full" or "causal".
    pub fn mask_name(&self) -> &'static str {
        if self.causal { "causal" } else { "full" }
    }
}

fn lengths(quick: bool) -> &'static [usize] {
    if quick { &QUICK_LENGTHS } else { &LENGTHS }
}

fn cells(dtype: DtypeName, head_dims: &[usize], lengths: &[usize]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &head_dim in head_dims {
        for causal in [false, true] {
            cells.extend(lengths.iter().map(|&length| Cell::new(dtype, head_dim, causal, length)));
        }
    }
    cells
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} d{} {} {}", self.dtype, self.head_dim, self.mask_name(), self.q_len)?;
        if self.kv_len != self.q_len {
            write!(f, "x{}", self.kv_len)?;
        }
        if self.heads_kv != self.heads {
            write!(f, " heads {}/{}", self.heads, self.heads_kv)?;
        }
        match self.kind {
            Kind::Forward => Ok(()),
            kind => write!(f, " {}", kind.name()),
        }
    }
}
