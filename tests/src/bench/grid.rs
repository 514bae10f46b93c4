//! The cells that are measured, and the rows that come out: the same as the peers' benchmark.

use std::fmt;

use fulgurite::{Dtype, Forward, Layout, Mask};
use serde::{Deserialize, Serialize};

/// Tokens of a call: batch entries × rows.
pub const TOKENS: usize = 16_384;

/// Columns of all heads together.
pub const HIDDEN: usize = 2048;

const HEAD_DIMS: [usize; 3] = [64, 128, 256];
const LENGTHS: [usize; 6] = [512, 1024, 2048, 4096, 8192, 16_384];
const QUICK_LENGTHS: [usize; 3] = [1024, 4096, 16_384];

/// One call to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cell {
    /// Columns of a head.
    pub head_dim: usize,
    /// Causal, or full.
    pub causal: bool,
    /// Rows of Q, K and V.
    pub length: usize,
}

impl Cell {
    /// The grid, in the peers' order; `quick` takes three lengths of six.
    pub fn grid(quick: bool) -> Vec<Cell> {
        HEAD_DIMS
            .iter()
            .flat_map(|&head_dim| [false, true].map(|causal| (head_dim, causal)))
            .flat_map(|(head_dim, causal)| Cell::lengths(head_dim, causal, quick))
            .collect()
    }

    /// The calls of one head dim and mask, shortest first.
    pub fn lengths(head_dim: usize, causal: bool, quick: bool) -> Vec<Cell> {
        let lengths: &[usize] = if quick { &QUICK_LENGTHS } else { &LENGTHS };
        lengths.iter().map(|&length| Cell { head_dim, causal, length }).collect()
    }

    /// Batch entries.
    pub fn batch(&self) -> usize {
        (TOKENS / self.length).max(1)
    }

    /// Heads of Q, K and V: as many as [`HIDDEN`] columns hold.
    pub fn heads(&self) -> usize {
        HIDDEN / self.head_dim
    }

    /// The layout of each tensor: `[batch, row, head, head dim]`, contiguous.
    pub fn layout(&self, dtype: Dtype) -> Layout {
        Layout::bshd(dtype, self.batch(), self.length, self.heads(), self.head_dim)
    }

    /// The call.
    pub fn request(&self, dtype: Dtype) -> Forward {
        let layout = self.layout(dtype);
        let mask = if self.causal { Mask::Causal } else { Mask::Full };
        Forward { q: layout, k: layout, v: layout, out: layout, mask, scale: None, lse: false }
    }

    /// Floating-point operations that count: 4 · batch · heads · rows² · head dim, half if causal.
    pub fn flops(&self) -> f64 {
        let all = 4.0 * (self.batch() * self.heads() * self.head_dim) as f64;
        let pairs = (self.length as f64).powi(2) / if self.causal { 2.0 } else { 1.0 };
        all * pairs
    }

    /// "full" or "causal".
    pub fn mask_name(&self) -> &'static str {
        if self.causal { "causal" } else { "full" }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "d{} {} {}", self.head_dim, self.mask_name(), self.length)
    }
}

/// One line of a benchmark's CSV, ours or a peer's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Who was measured.
    pub peer: String,
    /// What: `fwd` here.
    pub kind: String,
    /// Element type.
    pub dtype: String,
    /// Columns of a head.
    pub hd: usize,
    /// 1 for causal, 0 for full.
    pub causal: u8,
    /// Batch entries.
    pub batch: usize,
    /// Rows.
    pub seqlen: usize,
    /// Query heads.
    pub heads: usize,
    /// Median time of a call in milliseconds.
    pub ms: f64,
    /// TFLOP/s by [`Cell::flops`].
    pub tflops: f64,
    /// Filled for decoding only: GB/s of K and V.
    pub gbps: Option<f64>,
}

/// The name of this project in the `peer` column.
pub const OURS: &str = "fulgurite";

impl Measurement {
    /// A time of ours.
    pub fn ours(cell: &Cell, dtype: Dtype, ms: f64) -> Measurement {
        Measurement {
            peer: OURS.to_owned(),
            kind: "fwd".to_owned(),
            dtype: dtype.name().to_owned(),
            hd: cell.head_dim,
            causal: u8::from(cell.causal),
            batch: cell.batch(),
            seqlen: cell.length,
            heads: cell.heads(),
            ms: (ms * 1e4).round() / 1e4,
            tflops: (cell.flops() / ms / 1e9 * 10.0).round() / 10.0,
            gbps: None,
        }
    }

    /// The cell of the grid, if the line is a forward call of it.
    pub fn cell(&self) -> Option<Cell> {
        let cell = Cell { head_dim: self.hd, causal: self.causal != 0, length: self.seqlen };
        let fits = HEAD_DIMS.contains(&self.hd) && self.seqlen > 0;
        let same = fits && (self.batch, self.heads) == (cell.batch(), cell.heads());
        (self.kind == "fwd" && same).then_some(cell)
    }
}
