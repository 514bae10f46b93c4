//! One line of a benchmark's CSV, ours or a peer's.

use std::fmt;
use std::path::Path;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::grid::{Cell, DtypeName, HIDDEN, Kind};

/// The name of this project in the `peer` column.
pub const OURS: &str = "fulgurite";

/// The name of cuBLAS's products in the `kind` column: of square matrices of size `hd`.
pub const MATMUL: &str = "matmul";

/// The names of first uses in the `kind` column.
pub const COLD: &str = "first-use-cold";
/// With the driver's cache warm.
pub const WARM: &str = "first-use-warm";

/// In the `options` column of a call: its time holds the quantising of the tensors.
pub const QUANTISE: &str = "quantise";

/// What was called: times of the same call can be compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Called {
    /// The sizes.
    pub cell: Cell,
    /// The operation, as in the `kind` column.
    pub kind: String,
    /// What else was asked for, as in the `options` column.
    pub options: String,
}

impl Called {
    /// A call without options.
    pub fn plain(cell: Cell) -> Called {
        Called { cell, kind: cell.kind.name().to_owned(), options: String::new() }
    }

    /// Whether it is one, with or without quantising.
    pub fn is_plain(&self) -> bool {
        self.kind == self.cell.kind.name() && self.without_quantising().options.is_empty()
    }

    /// The same call on tensors that were quantised before. It gives the same result, and its times
    /// are what a call that quantises is compared with.
    pub fn without_quantising(&self) -> Called {
        let mut called = self.clone();
        if called.options == QUANTISE {
            called.options.clear();
        }
        called
    }
}

impl fmt::Display for Called {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cell)?;
        let kind = Some(&self.kind).filter(|kind| *kind != self.cell.kind.name());
        let more = kind.into_iter().chain(Some(&self.options).filter(|text| !text.is_empty()));
        more.into_iter().try_for_each(|text| write!(f, " {text}"))
    }
}

/// One time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Who was measured.
    pub peer: String,
    /// What: a [`Kind`], `matmul`, `first-use-cold` or `first-use-warm`.
    pub kind: String,
    /// Element type.
    pub dtype: String,
    /// Columns of a head.
    pub hd: usize,
    /// 1 for causal, 0 for full.
    pub causal: u8,
    /// What else was asked for, or [`QUANTISE`]; empty for a plain call, and in older files
    /// missing.
    #[serde(default)]
    pub options: String,
    /// Batch entries.
    pub batch: usize,
    /// Rows of Q.
    pub seqlen: usize,
    /// Rows of K and V; as many as of Q where it is missing.
    #[serde(default)]
    pub kv_len: Option<usize>,
    /// Heads of Q.
    pub heads: usize,
    /// Heads of K and V; as many as of Q where it is missing.
    #[serde(default)]
    pub heads_kv: Option<usize>,
    /// Median time of a call in milliseconds.
    pub ms: f64,
    /// TFLOP/s by [`Cell::flops`].
    pub tflops: f64,
    /// Timed calls.
    #[serde(default)]
    pub calls: Option<usize>,
    /// Those of them that the GPU may have waited for, so that they hold some of the host's time.
    #[serde(default)]
    pub late: Option<usize>,
    /// Relative error of the result in the rows that were compared.
    #[serde(default)]
    pub error: Option<f64>,
    /// Mean clock of the multiprocessors while the cell was timed, in MHz.
    #[serde(default)]
    pub clock_mhz: Option<f64>,
    /// Mean power of the GPU while the cell was timed, in watts.
    #[serde(default)]
    pub power_watts: Option<f64>,
}

impl Measurement {
    /// A time of `peer` for a call without options.
    pub fn of(peer: &str, cell: &Cell, ms: f64) -> Measurement {
        Measurement {
            peer: peer.to_owned(),
            kind: cell.kind.name().to_owned(),
            dtype: cell.dtype.to_string(),
            hd: cell.head_dim,
            causal: u8::from(cell.causal),
            options: String::new(),
            batch: cell.batch,
            seqlen: cell.q_len,
            kv_len: Some(cell.kv_len),
            heads: cell.heads,
            heads_kv: Some(cell.heads_kv),
            ms: (ms * 1e4).round() / 1e4,
            tflops: tflops(cell.flops(), ms),
            calls: None,
            late: None,
            error: None,
            clock_mhz: None,
            power_watts: None,
        }
    }

    /// A time of cuBLAS for a product of two bf16 matrices of `size` rows and columns.
    pub fn cublas(size: usize, ms: f64) -> Measurement {
        let cell = Cell {
            heads: 1,
            heads_kv: 1,
            batch: 1,
            ..Cell::new(DtypeName::Bf16, HIDDEN, false, size)
        };
        Measurement {
            kind: MATMUL.to_owned(),
            hd: size,
            tflops: tflops(2.0 * (size as f64).powi(3), ms),
            ..Measurement::of("cublas", &cell, ms)
        }
    }

    /// The call, if the line is the time of one.
    pub fn called(&self) -> Option<Called> {
        let cell = Cell {
            dtype: DtypeName::from_str(&self.dtype, true).ok()?,
            head_dim: self.hd,
            causal: self.causal != 0,
            heads: self.heads,
            heads_kv: self.heads_kv.unwrap_or(self.heads),
            q_len: self.seqlen,
            kv_len: self.kv_len.unwrap_or(self.seqlen),
            batch: self.batch,
            kind: Kind::of(&self.kind).unwrap_or(Kind::Forward),
        };
        let is_call = ![MATMUL, COLD, WARM].contains(&self.kind.as_str());
        let (kind, options) = (self.kind.clone(), self.options.clone());
        is_call.then_some(Called { cell, kind, options })
    }

    /// The cell, if the line is a plain call of one, with or without quantising.
    pub fn cell(&self) -> Option<Cell> {
        self.called().filter(Called::is_plain).map(|called| called.cell)
    }

    /// Whether the line is a forward call that the headline counts, of this element type.
    pub fn is_main(&self, dtype: DtypeName) -> bool {
        self.cell().is_some_and(|cell| cell.dtype == dtype && cell.is_main())
    }
}

fn tflops(flops: f64, ms: f64) -> f64 {
    (flops / ms / 1e9 * 10.0).round() / 10.0
}

/// Reads a benchmark's CSV, of today's columns or of those of older records.
///
/// # Errors
/// A message that names the file, and the line if one cannot be read.
pub fn read(path: &Path) -> Result<Vec<Measurement>, String> {
    let at = |error: csv::Error| format!("{}: {error}", path.display());
    csv::Reader::from_path(path).map_err(at)?.deserialize().map(|line| line.map_err(at)).collect()
}
