//! The quantiser's kernels on the emulator, in their workspace, and the rules that judge what they
//! leave there: scales to 1e-5, integers within 1, e4m3 within a step, NaN where it belongs.

use fulgurite::{Dtype, Layout};
use fulgurite_gpu::emu::{self, Global};
use fulgurite_kernels::entry;
use fulgurite_spec::Divisor;
use fulgurite_spec::quantise::{
    BLOCK_ROWS, KvRegion, PartialsRegion, QRegion, QUANTISE, QuantiseParams, QuantiseRow, Source,
    Step,
};
use reference::e4m3;
use reference::forward::quantise as exact;
use reference::random;
use reference::tensor::{Elements, View};

/// A call of the quantiser.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Element type of q, k and v.
    pub dtype: Dtype,
    /// Head dim of the kernel.
    pub columns: usize,
    /// Columns of the tensors.
    pub head_dim: usize,
    /// Query rows and keys.
    pub rows: [usize; 2],
    /// Batch entries of q, k and v.
    pub batch: [usize; 3],
    /// Query heads and KV heads.
    pub heads: [usize; 2],
    /// Keys of a KV tile.
    pub kv_rows: usize,
    /// Elements between rows.
    pub gap: usize,
    /// What the numbers follow from.
    pub seed: u64,
    /// Whether the first row of each head of q and of k and v is all zeros.
    pub zero_row: bool,
    /// Whether the last row of each tensor holds a NaN.
    pub nan_row: bool,
}

/// Where the tensors lie, and the workspace.
const PLACES: [u64; 4] = [1 << 40, 2 << 40, 3 << 40, 4 << 40];

/// Largest relative difference of a scale.
const SCALE_TOLERANCE: f64 = 1e-5;

/// A tensor of the call's, rows of all heads side by side.
struct Given {
    layout: Layout,
    bits: Vec<u16>,
}

impl Given {
    fn new(case: &Case, which: usize) -> Given {
        let (batch, is_q) = (case.batch[which], which == 0);
        let (heads, rows) =
            if is_q { (case.heads[0], case.rows[0]) } else { (case.heads[1], case.rows[1]) };
        let row_stride = case.head_dim + case.gap;
        let shape = [batch, heads, rows, case.head_dim];
        let strides = [rows * heads * row_stride, row_stride, heads * row_stride, 1];
        let layout = Layout::strided(case.dtype, shape, strides);
        let mut bits = random::normal_bits(case.seed, which as u64, batch * strides[0], case.dtype);
        let mut fill = |entry: usize, row: usize, value: u16| {
            let start = entry / heads * strides[0] + entry % heads * strides[1] + row * strides[2];
            bits[start..start + case.head_dim].fill(value);
        };
        for entry in 0..batch * heads {
            if case.zero_row {
                fill(entry, 0, 0);
            }
        }
        if case.nan_row {
            fill(batch * heads - 1, rows - 1, 0x7fff);
        }
        Given { layout, bits }
    }

    fn view(&self) -> View<'_> {
        View { layout: &self.layout, elements: Elements::Bits(&self.bits) }
    }

    fn source(&self, address: u64) -> Source {
        let [batch, head, row, _] = self.layout.strides.map(|stride| stride as u64);
        let batch_stride = if self.layout.shape[0] == 1 { 0 } else { batch };
        Source { address, batch_stride, head_stride: head, row_stride: row }
    }

    fn bytes(&self) -> Vec<u8> {
        self.bits.iter().flat_map(|bits| bits.to_le_bytes()).collect()
    }
}

/// Where the results lie in the workspace.
struct Regions {
    kv: KvRegion,
    q: QRegion,
    q_start: u64,
    chunks: u64,
    partials_start: u64,
    bytes: u64,
}

impl Regions {
    fn of(case: &Case) -> Regions {
        let [q_heads, kv_heads] = case.heads.map(|heads| heads as u64);
        let [batch, k_batch, v_batch] = case.batch.map(|batch| batch as u64);
        let ([q_len, kv_len], columns) = (case.rows.map(|rows| rows as u64), case.columns as u64);
        let entries = [k_batch * kv_heads, v_batch * kv_heads];
        let kv = KvRegion::of(entries, kv_len, columns, case.kv_rows as u64, true);
        let q = QRegion::of(batch * q_heads, q_len, columns);
        let partials = PartialsRegion::of(entries[0].max(entries[1]), kv_len, columns);
        let (kv, q, partials) =
            kv.zip(q).zip(partials).map(|((kv, q), it)| (kv, q, it)).expect("small");
        let (q_start, partials_start) = (kv.bytes, kv.bytes + q.bytes);
        let (chunks, bytes) = (partials.chunks, partials_start + partials.bytes);
        Regions { kv, q, q_start, chunks, partials_start, bytes }
    }
}

fn params(case: &Case, given: &[Given; 3], regions: &Regions) -> QuantiseParams {
    let [q_len, kv_len] = case.rows.map(|rows| rows as u32);
    let [q_heads, kv_heads] = case.heads.map(|heads| Divisor::new(heads as u32));
    let [batch, k_batch, v_batch] = case.batch.map(|batch| batch as u32);
    let at = |offset: u64| PLACES[3] + offset;
    let of_q = |offset: u64| at(regions.q_start + offset);
    let kv = &regions.kv;
    QuantiseParams {
        q: given[0].source(PLACES[0]),
        k: given[1].source(PLACES[1]),
        v: given[2].source(PLACES[2]),
        q8: of_q(regions.q.q8),
        q_scale: of_q(regions.q.q_scale),
        q_shift: of_q(regions.q.q_shift),
        k8: at(kv.k8),
        k_scale: at(kv.k_scale),
        k_shift: at(kv.k_shift),
        v8: at(kv.v8),
        v_scale: at(kv.v_scale),
        v_shift: at(kv.v_shift),
        partials: at(regions.partials_start),
        q_heads,
        kv_heads,
        group_size: Divisor::new(q_heads.value / kv_heads.value),
        q_blocks: Divisor::new(q_len.div_ceil(BLOCK_ROWS)),
        k_blocks: Divisor::new(kv_len.div_ceil(case.kv_rows as u32)),
        v_blocks: Divisor::new(kv_len.div_ceil(BLOCK_ROWS)),
        chunks: Divisor::new(regions.chunks as u32),
        head_dim: case.head_dim as u32,
        q_len,
        kv_len,
        kv_pad: kv.kv_pad as u32,
        kv_rows: case.kv_rows as u32,
        batch,
        k_batch,
        v_batch,
        scale: 0.125,
        reserved: [0; 2],
    }
}

fn row(step: Step, dtype: Dtype, columns: usize) -> &'static QuantiseRow {
    let is_it = |row: &&QuantiseRow| {
        row.step == step && row.dtype == dtype && row.head_dim as usize == columns
    };
    QUANTISE.iter().find(is_it).expect("the table has all steps")
}

/// Launches one kernel on `blocks` blocks.
fn launch(
    row: &QuantiseRow,
    blocks: u32,
    params: &QuantiseParams,
    global: &Global<'_>,
    seed: u64,
) -> Result<(), String> {
    let entry = entry::find(row.entry).ok_or_else(|| format!("no entry {}", row.entry))?;
    let spec = row.launch();
    let grid = emu::Grid {
        blocks,
        threads: spec.threads,
        smem_bytes: spec.smem_bytes,
        parameters: ((&raw const *params).expose_provenance() as u64, size_of_val(params)),
        global,
        seed,
        mutation: None,
        record: false,
        accumulator: emu::Accumulator::default(),
    };
    // SAFETY: grid, block and shared memory are the kernel's, the parameters of its type; addresses
    // are checked against `global`.
    let ran = emu::launch(&grid, &|| unsafe { entry((&raw const *params).cast()) });
    global.settle();
    ran.map(|_| ()).map_err(|fault| format!("{}: {fault}", row.entry))
}

/// The workspace after all steps.
fn run(case: &Case, given: &[Given; 3], regions: &Regions) -> Result<Vec<u8>, String> {
    let params = params(case, given, regions);
    let bytes = given.each_ref().map(Given::bytes);
    let mut workspace = vec![0xff; regions.bytes as usize];
    let mut global = Global::new();
    for ((name, address), bytes) in ["q", "k", "v"].into_iter().zip(PLACES).zip(&bytes) {
        global.readable(name, address, bytes);
    }
    global.writable("workspace", PLACES[3], &mut workspace);
    let entries = params.k_batch.max(params.v_batch) * params.kv_heads.value;
    let q_blocks = params.batch * params.q_heads.value * params.q_blocks.value;
    let kv_blocks = params.k_batch * params.k_blocks.value + params.v_batch * params.v_blocks.value;
    let steps = [
        (Step::Statistics, case.dtype, entries * params.chunks.value),
        (Step::Means, Dtype::F32, entries),
        (Step::Quantise, case.dtype, q_blocks + params.kv_heads.value * kv_blocks),
    ];
    for (step, dtype, blocks) in steps {
        launch(row(step, dtype, case.columns), blocks, &params, &global, case.seed)?;
    }
    drop(global);
    Ok(workspace)
}

/// Results in the workspace.
struct Seen<'a>(&'a [u8]);

impl Seen<'_> {
    fn float(&self, start: u64, index: usize) -> f64 {
        let at = start as usize + 4 * index;
        f32::from_le_bytes(self.0[at..at + 4].try_into().expect("4 bytes")).into()
    }

    fn byte(&self, start: u64, index: usize) -> u8 {
        self.0[start as usize + index]
    }
}

/// Says what differs if a number is not near another; NaN is near NaN.
fn near(what: &str, seen: f64, expected: f64, tolerance: f64) -> Result<(), String> {
    if (seen.is_nan() && expected.is_nan()) || (seen - expected).abs() <= tolerance {
        return Ok(());
    }
    Err(format!("{what}: {seen}, expected {expected}"))
}

fn near_scale(what: &str, seen: f64, expected: f64) -> Result<(), String> {
    near(what, seen, expected, SCALE_TOLERANCE * expected)
}

/// The integers of a row, from `index` on.
fn check_integers(
    what: &str,
    seen: &Seen<'_>,
    (start, index): (u64, usize),
    row: &[f64],
    scale: f64,
) -> Result<(), String> {
    for (column, value) in row.iter().enumerate().filter(|_| !scale.is_nan()) {
        let integer = seen.byte(start, index + column) as i8;
        let expected = exact::s8(*value, scale).into();
        near(&format!("{what} column {column}"), integer.into(), expected, 1.0)?;
    }
    Ok(())
}

/// Runs the kernels of a case and checks what they leave.
///
/// # Errors
/// The rule that a kernel breaks, or the first result that is wrong.
pub fn check(case: &Case) -> Result<(), String> {
    let given = [0, 1, 2].map(|which| Given::new(case, which));
    let regions = Regions::of(case);
    let workspace = run(case, &given, &regions)?;
    let seen = Seen(&workspace);
    let k_means = check_k(case, &given[1], &seen, &regions)?;
    check_v(case, &given[2], &seen, &regions)?;
    check_q(case, &given[0], &seen, &regions, &k_means)
}

/// Checks K; returns the means of each batch entry's heads.
fn check_k(
    case: &Case,
    k: &Given,
    seen: &Seen<'_>,
    regions: &Regions,
) -> Result<Vec<Vec<f64>>, String> {
    let (kv, columns, heads) = (&regions.kv, case.columns, case.heads[1]);
    let mut all_means = Vec::new();
    for entry in 0..case.batch[1] * heads {
        let rows = exact::rows(&k.view(), entry / heads, entry % heads, columns);
        let means = exact::means(&rows);
        for (column, mean) in means.iter().enumerate() {
            let what = format!("k_shift of entry {entry}, column {column}");
            near(&what, seen.float(kv.k_shift, entry * columns + column), *mean, 1e-6)?;
        }
        let rotated: Vec<_> =
            exact::less(&rows, &means).iter().map(|row| exact::rotated(row)).collect();
        for (tile, tile_rows) in rotated.chunks(case.kv_rows).enumerate() {
            let scale = exact::s8_scale(exact::largest(tile_rows.iter().flatten()));
            let what = format!("k_scale of entry {entry}, tile {tile}");
            let place = entry * kv.kv_tiles as usize + tile;
            // What rounding leaves of a tile of equal rows is no number to be near to.
            if scale > 1e-6 || scale.is_nan() {
                near_scale(&what, seen.float(kv.k_scale, place), scale)?;
                for (row, values) in tile_rows.iter().enumerate() {
                    let row = tile * case.kv_rows + row;
                    let at = (kv.k8, (entry * case.rows[1] + row) * columns);
                    let what = format!("k8 of entry {entry}, row {row},");
                    check_integers(&what, seen, at, values, scale)?;
                }
            }
        }
        all_means.push(means);
    }
    Ok(all_means)
}

fn check_q(
    case: &Case,
    q: &Given,
    seen: &Seen<'_>,
    regions: &Regions,
    k_means: &[Vec<f64>],
) -> Result<(), String> {
    let at = |offset: u64| regions.q_start + offset;
    let ([heads, kv_heads], columns) = (case.heads, case.columns);
    for entry in 0..case.batch[0] * heads {
        let (batch, head) = (entry / heads, entry % heads);
        let kv_entry = batch.min(case.batch[1] - 1) * kv_heads + head / (heads / kv_heads);
        for (row, values) in exact::rows(&q.view(), batch, head, columns).iter().enumerate() {
            let (place, what) = (entry * case.rows[0] + row, format!("entry {entry}, row {row}"));
            let shift = 0.125 * exact::dot(values, &k_means[kv_entry]);
            let shift_seen = seen.float(at(regions.q.q_shift), place);
            near(&format!("q_shift of {what}"), shift_seen, shift, 1e-5)?;
            let rotated = exact::rotated(values);
            let scale = exact::s8_scale(exact::largest(&rotated));
            let scale_seen = seen.float(at(regions.q.q_scale), place);
            near_scale(&format!("q_scale of {what}"), scale_seen, scale)?;
            let at = (at(regions.q.q8), place * columns);
            check_integers(&format!("q8 of {what},"), seen, at, &rotated, scale)?;
        }
    }
    Ok(())
}

/// A code of e4m3 as a number of steps from 0.
fn steps(code: u8) -> f64 {
    let steps = f64::from(code & 0x7f);
    if code & 0x80 == 0 { steps } else { -steps }
}

fn check_v(case: &Case, v: &Given, seen: &Seen<'_>, regions: &Regions) -> Result<(), String> {
    let (kv, columns, heads) = (&regions.kv, case.columns, case.heads[1]);
    for entry in 0..case.batch[2] * heads {
        let rows = exact::rows(&v.view(), entry / heads, entry % heads, columns);
        let means = exact::means(&rows);
        let scale = exact::e4m3_scale(&rows, &means);
        near_scale(&format!("v_scale of entry {entry}"), seen.float(kv.v_scale, entry), scale)?;
        for (column, mean) in means.iter().enumerate() {
            let (what, row) = (format!("entry {entry}, column {column}"), entry * columns + column);
            near(&format!("v_shift of {what}"), seen.float(kv.v_shift, row), *mean, 1e-6)?;
            let keys = exact::permuted(case.rows[1], kv.kv_pad as usize);
            for (place, key) in keys.enumerate() {
                let code = seen.byte(kv.v8, row * kv.kv_pad as usize + place);
                let value = key.filter(|_| column < case.head_dim);
                let value = value.map_or(0.0, |key| (rows[key][column] - mean) / scale);
                let what = format!("v8 of {what}, place {place}");
                if value.is_nan() {
                    near(&what, e4m3::decode(code).into(), f64::NAN, 0.0)?;
                } else {
                    near(&what, steps(code), steps(e4m3::encode(value as f32)), 1.0)?;
                }
            }
        }
    }
    Ok(())
}

/// Runs the transposition of a case's V as if its elements were bytes, and checks it.
///
/// # Errors
/// As [`check`].
pub fn check_transpose(case: &Case) -> Result<(), String> {
    let given = [0, 1, 2].map(|which| Given::new(case, which));
    let regions = Regions::of(case);
    let params = params(case, &given, &regions);
    let (columns, kv_pad) = (case.columns, regions.kv.kv_pad as usize);
    let bytes: Vec<u8> = given[2].bits.iter().map(|bits| *bits as u8).collect();
    let mut workspace = vec![0xff; regions.bytes as usize];
    let mut global = Global::new();
    global.readable("v", PLACES[2], &bytes);
    global.writable("workspace", PLACES[3], &mut workspace);
    let blocks = params.v_batch * params.kv_heads.value * params.v_blocks.value;
    launch(row(Step::Transpose, Dtype::E4m3, columns), blocks, &params, &global, case.seed)?;
    drop(global);
    let [_, head_stride, row_stride, _] = given[2].layout.strides;
    for entry in 0..case.batch[2] * case.heads[1] {
        let (batch, head) = (entry / case.heads[1], entry % case.heads[1]);
        let start = batch * given[2].layout.strides[0] + head * head_stride;
        for column in 0..columns {
            for (place, key) in exact::permuted(case.rows[1], kv_pad).enumerate() {
                let key = key.filter(|_| column < case.head_dim);
                let expected = key.map_or(0, |key| bytes[start + key * row_stride + column]);
                let at = (entry * columns + column) * kv_pad + place;
                let seen = Seen(&workspace).byte(regions.kv.v8, at);
                let what = format!("v8 of entry {entry}, column {column}, place {place}");
                near(&what, seen.into(), expected.into(), 0.0)?;
            }
        }
    }
    Ok(())
}
