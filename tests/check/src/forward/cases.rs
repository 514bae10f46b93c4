//! The cases of attention: what every variant is checked with.

use std::sync::Arc;

use fulgurite::internals::{MaskClass, Tile, Variant};
use fulgurite::{Descale, Dtype, Layout, Mask, Precision};
use reference::forward::values::{Inputs, Poison, Values};
use reference::random::{about_1, draw};
use reference::tensor::Tensor;

use super::call::{DESCALES, ForwardCall, asked_of, of_inputs};
use super::judge::judge;
use crate::call::{Call, Launch};
use crate::case::{Case, Job, Needs};
use crate::memory::Arrangement;
use crate::rules::Finding;

pub mod eight_bits;
mod extremes;
mod windows;

pub use windows::wide;
pub mod given8;

/// One attention to check.
#[derive(Clone, Debug, PartialEq)]
pub struct ForwardCase {
    /// What is special about it, and its sizes; unique among the cases of a variant.
    pub name: String,
    /// The kernel, if it is not the plan's choice.
    pub variant: Option<Variant>,
    /// Batch entries.
    pub batch: usize,
    /// Query heads and KV heads.
    pub heads: (usize, usize),
    /// Query rows.
    pub q_len: usize,
    /// Keys.
    pub kv_len: usize,
    /// Columns of a head.
    pub head_dim: usize,
    /// Element type, of the output alone if the kernel is given tensors of 8 bits.
    pub dtype: Dtype,
    /// How exactly it is computed.
    pub precision: Precision,
    /// What stored numbers of q, k and v are multiplied with, if they have 8 bits.
    pub descale: [Descale; 3],
    /// Which keys a row sees.
    pub mask: Mask,
    /// Softmax scale; `None`: the default.
    pub scale: Option<f32>,
    /// Whether the log-sum-exp is wanted.
    pub lse: bool,
    /// How the tensors lie in memory.
    pub arrangement: Arrangement,
    /// What they hold.
    pub values: Values,
    /// What is planted in them.
    pub poison: Option<Poison>,
    /// Who runs it.
    pub needs: Needs,
}

impl ForwardCase {
    /// A plain case: `[batch, row, head, head dim]`, N(0, 1), default scale, with LSE; bf16, if the
    /// kernel takes 8 bits.
    pub fn new(
        what: &str,
        variant: &Variant,
        batch: usize,
        heads: (usize, usize),
        lengths: (usize, usize),
    ) -> ForwardCase {
        let mask = variant.mask.example();
        let head_dim = variant.head_dim as usize;
        let (dtype, precision) = asked_of(variant);
        let chosen = ForwardCase::chosen(what, (dtype, mask), batch, heads, lengths, head_dim);
        ForwardCase { variant: Some(*variant), precision, ..chosen }
    }

    /// The same by the plan's choice of a kernel for a type and a mask.
    pub fn chosen(
        what: &str,
        (dtype, mask): (Dtype, Mask),
        batch: usize,
        heads: (usize, usize),
        (q_len, kv_len): (usize, usize),
        head_dim: usize,
    ) -> ForwardCase {
        let mut case = ForwardCase {
            name: String::new(),
            variant: None,
            batch,
            heads,
            q_len,
            kv_len,
            head_dim,
            dtype,
            precision: Precision::Given,
            descale: [Descale::One; 3],
            mask,
            scale: None,
            lse: true,
            arrangement: Arrangement::Bshd,
            values: Values::Normal,
            poison: None,
            needs: Needs::Nothing,
        };
        case.rename(what);
        case
    }

    fn rename(&mut self, what: &str) {
        let (q_heads, kv_heads) = self.heads;
        let (batch, q_len, kv_len, head_dim) = (self.batch, self.q_len, self.kv_len, self.head_dim);
        self.name = format!("{what} b{batch} h{q_heads}/{kv_heads} {q_len}x{kv_len} d{head_dim}");
    }

    fn with(mut self, change: impl FnOnce(&mut ForwardCase)) -> ForwardCase {
        let what = self.name.split(" b").next().unwrap_or_default().to_owned();
        change(&mut self);
        self.rename(&what);
        self
    }

    /// Scale of the scores, as a kernel receives it.
    pub fn scale(&self) -> f64 {
        self.call().scale()
    }

    /// Its call, on tensors that are contiguous.
    pub fn call(&self) -> ForwardCall {
        let (q, kv) = self.shapes();
        let layout = |[batch, heads, rows, head_dim]: [usize; 4]| {
            Layout::bshd(self.dtype_of_inputs(), batch, rows, heads, head_dim)
        };
        let [batch, heads, rows, head_dim] = q;
        ForwardCall {
            out: Layout::bshd(self.dtype, batch, rows, heads, head_dim),
            descale: self.descale,
            scale: self.scale,
            lse: self.lse,
            precision: self.precision,
            variant: self.variant,
            ..ForwardCall::plain(layout(q), layout(kv), self.mask)
        }
    }

    /// Element type of q, k and v.
    pub fn dtype_of_inputs(&self) -> Dtype {
        self.variant.map_or(self.dtype, |variant| of_inputs(&variant, self.dtype))
    }

    /// The seed of its numbers: the same for every run, another for every case.
    fn seed(&self) -> u64 {
        let text = format!("{} {} {:?}", self.name, self.dtype.name(), self.mask);
        text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }

    fn shapes(&self) -> ([usize; 4], [usize; 4]) {
        let q_shape = [self.batch, self.heads.0, self.q_len, self.head_dim];
        let kv_shape = [self.batch, self.heads.1, self.kv_len, self.head_dim];
        (q_shape, kv_shape)
    }

    /// Its q, k and v, without what is planted in them.
    pub fn clean_inputs(&self) -> Inputs {
        let (q_shape, kv_shape) = self.shapes();
        let mut inputs = self.values.inputs(self.dtype_of_inputs(), q_shape, kv_shape, self.seed());
        if self.arrangement == Arrangement::Shared {
            for tensor in [&mut inputs.k, &mut inputs.v] {
                let entry = tensor.bits.len() / self.batch;
                tensor.bits = tensor.bits[..entry].repeat(self.batch);
            }
        }
        inputs
    }

    /// Tensors of its shapes, all zero: for what does not depend on values.
    pub fn blank_inputs(&self) -> Inputs {
        let (q_shape, kv_shape) = self.shapes();
        let blank = |shape: [usize; 4]| {
            Tensor::from_bits(self.dtype_of_inputs(), shape, vec![0; shape.iter().product()])
        };
        Inputs { q: blank(q_shape), k: blank(kv_shape), v: blank(kv_shape) }
    }

    /// Its inputs, with what is planted in them.
    pub fn inputs(&self) -> Inputs {
        let mut inputs = self.clean_inputs();
        if let Some(poison) = self.poison {
            poison.plant(&mut inputs);
        }
        inputs
    }

    /// Its tensors in memory.
    pub fn launch(&self, inputs: &Inputs) -> Launch {
        let mut launch = self.call().on(self.arrangement, [&inputs.q, &inputs.k, &inputs.v]);
        for ((stream, name), descale) in (10..).zip(DESCALES).zip(self.descale) {
            let count = self.descale_numbers(descale);
            if count > 0 && self.dtype_of_inputs() == Dtype::E4m3 {
                // Scores stay of their size; no short numbers.
                let numbers = draw(self.seed(), stream, count, about_1);
                launch.memory.add_given_numbers(name, &numbers);
            }
        }
        launch
    }

    /// Numbers that a descale has.
    fn descale_numbers(&self, descale: Descale) -> usize {
        match descale {
            Descale::PerTensor => 1,
            Descale::PerHead { strides } => {
                (self.batch - 1) * strides[0] + (self.heads.1 - 1) * strides[1] + 1
            }
            Descale::PerRow => self.batch * self.heads.0 * self.q_len,
            _ => 0,
        }
    }
}

impl Case for ForwardCase {
    fn name(&self) -> &str {
        &self.name
    }

    fn entry(&self) -> &'static str {
        self.variant.map_or("the plan's choice", |variant| variant.entry)
    }

    fn needs(&self) -> Needs {
        self.needs
    }

    fn products(&self) -> usize {
        self.call().products()
    }

    fn blank(&self) -> Launch {
        self.launch(&self.blank_inputs())
    }

    /// Where something is planted: without it, and with it.
    fn launches(&self) -> Vec<Launch> {
        let clean = self.clean_inputs();
        let mut launches = vec![self.launch(&clean)];
        if let Some(poison) = self.poison {
            let mut planted = clean;
            poison.plant(&mut planted);
            launches.push(self.launch(&planted));
        }
        launches
    }

    fn judge(&self, ran: &[Launch]) -> Vec<Finding> {
        judge(self, ran)
    }
}

/// The cases of every row of a table, of a list.
pub fn every(table: &[Variant], list: fn(&Variant) -> Vec<ForwardCase>) -> Vec<Job> {
    table.iter().flat_map(list).map(|case| Arc::new(case) as Job).collect()
}

/// Every case of a variant.
pub fn cases(variant: &Variant) -> Vec<ForwardCase> {
    let mut all = windows::windows(variant);
    all.extend(lengths(variant));
    all.extend(tile_edges(variant));
    all.extend(heads(variant));
    all.extend(arrangements(variant));
    all.extend(head_dims(variant));
    all.extend(options(variant));
    all.extend(extremes::poisons(variant));
    all.extend(sizes(variant));
    all.extend(values(variant).into_iter().chain(extremes::extremes(variant)).map(windows::wide));
    // Of kernels with windows the emulator takes this list for one head dim, of the others its own
    // small cases: else it is a third of its time.
    if variant.mask == MaskClass::Window && variant.head_dim > 64 {
        all.iter_mut().for_each(|case| case.needs = case.needs.max(Needs::Speed));
    }
    all
}

/// Lengths that mean something whatever the tile is; more queries than keys leave causal rows
/// without any key.
fn lengths(variant: &Variant) -> Vec<ForwardCase> {
    const LENGTHS: &[(usize, usize)] = &[
        (1, 1),
        (1, 2),
        (2, 1),
        (1, 1000),
        (63, 64),
        (64, 63),
        (65, 65),
        (127, 129),
        (129, 128),
        (176, 177),
        (191, 193),
        (192, 192),
        (255, 257),
        (384, 384),
        (100, 1000),
        (700, 90),
        (1023, 1023),
    ];
    // Without keys, by the kernels that store such rows.
    let stores_them = variant.stores_keyless() && variant.mask == MaskClass::Causal;
    let no_keys: &[(usize, usize)] = if stores_them { &[(1, 0), (300, 0), (384, 0)] } else { &[] };
    let all = LENGTHS.iter().chain(no_keys);
    all.map(|&lengths| ForwardCase::new("length", variant, 1, (2, 2), lengths)).collect()
}

/// One row less and one row more than whole tiles, and enough KV tiles to go round the ring.
fn tile_edges(variant: &Variant) -> Vec<ForwardCase> {
    let tile = Tile::of(variant);
    let (q_rows, kv_rows) = (tile.q_rows() as usize, tile.kv_rows as usize);
    let ring = kv_rows * (2 * tile.kv_stages as usize + 1);
    let edges = [
        (q_rows - 1, kv_rows - 1),
        (q_rows, kv_rows),
        (q_rows + 1, kv_rows + 1),
        (q_rows, 2 * kv_rows),
        (2 * q_rows + 1, 2 * kv_rows + 1),
        (3 * q_rows - 1, ring + 1),
        (ring, q_rows + 8),
    ];
    edges
        .into_iter()
        .map(|lengths| ForwardCase::new("tile edge", variant, 1, (1, 1), lengths))
        .collect()
}

fn heads(variant: &Variant) -> Vec<ForwardCase> {
    let case = |what, batch, heads, lengths| ForwardCase::new(what, variant, batch, heads, lengths);
    vec![
        case("odd heads", 3, (5, 5), (70, 130)),
        case("grouped heads", 2, (8, 2), (200, 300)),
        case("one kv head", 1, (8, 1), (130, 260)),
        case("three to one", 2, (6, 2), (1, 333)),
    ]
}

fn arrangements(variant: &Variant) -> Vec<ForwardCase> {
    let case = |what, arrangement, heads, lengths| {
        ForwardCase::new(what, variant, 2, heads, lengths)
            .with(|case| case.arrangement = arrangement)
    };
    vec![
        case("bhsd", Arrangement::Bhsd, (3, 3), (150, 210)),
        case("bhsd, keyless tiles", Arrangement::Bhsd, (3, 3), (660, 210)),
        case("sbhd", Arrangement::Sbhd, (3, 3), (150, 210)),
        case("packed qkv", Arrangement::Packed, (3, 3), (190, 190)),
        case("packed grouped qkv", Arrangement::Packed, (4, 2), (190, 190)),
        case("sliced head dim", Arrangement::SlicedHeadDim, (2, 2), (150, 210)),
        case("sliced head dim, keyless tiles", Arrangement::SlicedHeadDim, (2, 2), (660, 210)),
        case("padded", Arrangement::Padded, (2, 2), (150, 210)),
    ]
}

/// Head dims that the variant pads: the smallest it takes, one in between, the next to its own.
fn head_dims(variant: &Variant) -> Vec<ForwardCase> {
    let dims: &[usize] = match variant.head_dim {
        64 => &[8, 16, 40, 56],
        96 => &[72, 80, 88],
        128 => &[104, 112, 120],
        192 => &[136, 160, 184],
        256 => &[200, 224, 248],
        other => unreachable!("no head dims listed for a variant of {other}"),
    };
    let case = |&head_dim: &usize| {
        ForwardCase::new("head dim", variant, 1, (2, 1), (150, 210))
            .with(|case| case.head_dim = head_dim)
    };
    dims.iter().map(case).collect()
}

fn options(variant: &Variant) -> Vec<ForwardCase> {
    let case = |what, lengths, change: fn(&mut ForwardCase)| {
        ForwardCase::new(what, variant, 1, (2, 2), lengths).with(change)
    };
    vec![
        case("scale 0.5", (140, 280), |case| case.scale = Some(0.5)),
        case("scale 1e-4", (140, 280), |case| case.scale = Some(1e-4)),
        case("no lse", (140, 280), |case| case.lse = false),
        case("no lse, rows without keys", (280, 140), |case| case.lse = false),
        case("no lse, keyless tiles", (520, 140), |case| case.lse = false),
    ]
}

fn values(variant: &Variant) -> Vec<ForwardCase> {
    let case = |what, values, lengths| {
        ForwardCase::new(what, variant, 1, (2, 2), lengths).with(|case| case.values = values)
    };
    vec![
        case("large logits", Values::LargeLogits, (500, 700)),
        case("dominant key", Values::DominantKey, (500, 700)),
        // Beyond what f16 and then float32 hold, relative to the keys before.
        case("sinks", Values::Sinks(25.0), (300, 700)),
        case("sinks past float32", Values::Sinks(130.0), (300, 700)),
        case("v all 1", Values::ConstantV(1.0), (300, 500)),
        case("v all -2.5", Values::ConstantV(-2.5), (400, 333)),
        case("q all 0", Values::ZeroQ, (200, 500)),
        case("outliers", Values::Outliers, (500, 700)),
    ]
}

/// Large calls: one for the statistics of the error, one that gives every block several jobs, one
/// past the grid's limits, one past 2³¹.
fn sizes(variant: &Variant) -> Vec<ForwardCase> {
    let mut all = vec![
        ForwardCase::new("many rows", variant, 2, (8, 4), (512, 640)),
        ForwardCase::new("many jobs", variant, 12, (16, 4), (260, 90)),
    ];
    if variant.head_dim == 64 {
        let many = ForwardCase::new("many heads", variant, 16_500, (4, 2), (3, 5));
        all.push(many.with(|case| case.head_dim = 8));
    }
    if variant.head_dim == 128 {
        let huge = ForwardCase::new("offsets beyond 2^31", variant, 2, (2, 2), (150, 210));
        all.push(huge.with(|case| case.arrangement = Arrangement::HugeBatchStride));
    }
    all
}

/// The cases for the emulator, small but with every branch: one row, partial tiles, more queries
/// than keys, several KV tiles so that the ring goes round, grouped heads, and enough jobs that
/// each of two blocks does several.
pub fn emulated_cases(variant: &Variant) -> Vec<ForwardCase> {
    let tile = Tile::of(variant);
    let (q_rows, kv_rows) = (tile.q_rows() as usize, tile.kv_rows as usize);
    let case = |what, batch, heads, lengths| ForwardCase::new(what, variant, batch, heads, lengths);
    let all = [
        case("one row", 1, (1, 1), (1, 1)),
        case("one row, several tiles", 1, (2, 1), (1, 2 * kv_rows + 5)),
        case("partial tiles", 1, (1, 1), (q_rows - 1, kv_rows + 1)),
        case("more queries than keys", 1, (1, 1), (q_rows + 70, 40)),
        case("round the ring", 1, (1, 1), (q_rows, 5 * kv_rows - 3)),
        case("several jobs", 1, (5, 1), (q_rows + 1, kv_rows + 9)),
        case("skipped tiles", 1, (3, 3), (3 * q_rows - 70, 3 * q_rows + kv_rows / 2 - 70)),
        case("grouped heads", 2, (4, 2), (66, kv_rows)),
        case("moving anchors", 1, (1, 1), (q_rows - 9, 6 * kv_rows - 3))
            .with(|case| case.values = Values::Sinks(25.0)),
        case("lost rows", 1, (3, 1), (q_rows + 9, 6 * kv_rows - 3))
            .with(|case| case.values = Values::Sinks(130.0)),
        // Query tiles without keys: more than blocks store in one turn, and beside a second pass.
        case("keyless tiles", 2, (3, 1), (3 * q_rows + 70, 40)).with(|case| case.lse = false),
        case("keyless tiles, lost rows", 1, (2, 1), (q_rows + 6 * kv_rows, 6 * kv_rows - 3))
            .with(|case| case.values = Values::Sinks(130.0)),
        case("keyless tiles, padded, sliced", 1, (2, 2), (2 * q_rows + 70, 60)).with(|case| {
            case.head_dim -= 8;
            case.arrangement = Arrangement::SlicedHeadDim;
        }),
        case("padded, sliced", 1, (2, 2), (70, 90)).with(|case| {
            case.head_dim -= 8;
            case.arrangement = Arrangement::SlicedHeadDim;
            case.lse = false;
        }),
    ];
    let all = all.into_iter().map(windows::wide_if_valued);
    all.chain(windows::emulated(variant)).collect()
}

/// The cases for planted errors, several jobs for each of two blocks in all: each ring gone round
/// several times; many short jobs; tiles that some warpgroups skip.
pub fn mutation_cases(variant: &Variant) -> Vec<ForwardCase> {
    let tile = Tile::of(variant);
    let (q_rows, kv_rows) = (tile.q_rows() as usize, tile.kv_rows as usize);
    let case = |heads, lengths| ForwardCase::new("mutants", variant, 1, heads, lengths);
    let all = [
        case((3, 1), (2 * q_rows - 3, 3 * kv_rows - 5)),
        case((10, 2), (q_rows - 9, kv_rows - 7)),
        case((3, 3), (3 * q_rows - 70, 3 * q_rows + kv_rows / 2 - 70)),
        // The first warpgroup needs one tile less than the others, also in a job after another.
        case((3, 1), (2 * q_rows - 3, 2 * q_rows - 3 + 2 * kv_rows - 64)),
        // Rows are lost, so that the blocks take their jobs twice.
        case((6, 2), (q_rows - 3, 6 * kv_rows - 5)).with(|case| case.values = Values::Sinks(130.0)),
        // Rows are lost in kernels with maxima as well.
        case((3, 1), (q_rows - 3, 2 * kv_rows - 5)).with(|case| case.values = Values::Equal(3e4)),
        // One row of one warp is lost.
        case((1, 1), (q_rows - 3, 6 * kv_rows - 3))
            .with(|case| case.values = Values::LoneSink(130.0)),
        // One row of one warp never settles.
        case((1, 1), (q_rows - 3, 8 * kv_rows - 3))
            .with(|case| case.values = Values::LoneStart(30.0)),
    ];
    all.into_iter().map(windows::wide_if_valued).collect()
}
