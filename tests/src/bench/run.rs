//! Measures cells on a GPU.

use std::time::Instant;

use fulgurite::cudarc::driver::CudaSlice;
use fulgurite::{Dtype, Mask};
use half::{bf16, f16};
use indicatif::{ProgressBar, ProgressStyle};

use super::Options;
use super::grid::{Cell, HIDDEN, Measurement, TOKENS};
use super::timing::Timer;
use crate::compare::{Answer, compare};
use crate::gpu::{Bits, Gpu, failed};
use crate::lowprec::{self, Arithmetic};
use crate::oracle::{self, Problem, RowId};
use crate::tensor::View;
use crate::values::normal_bits;

/// Heads, and rows of each, that are compared before a cell is timed.
const CHECKED_HEADS: usize = 8;
const CHECKED_ROWS: usize = 16;

/// What was measured.
pub struct Measured {
    /// Name of the device.
    pub gpu: String,
    /// The times, in the order of the cells; fewer if the budget ran out.
    pub times: Vec<Measurement>,
}

/// Measures cells.
///
/// # Errors
/// A message if there is no usable GPU, the driver refuses, or a cell's result is wrong.
pub fn measure(options: &Options, cells: &[Cell]) -> Result<Measured, String> {
    let gpu = Gpu::open(options.device).map_err(|error| error.to_string())?;
    let name = gpu.attention().facts().name.clone();
    println!("GPU: {name}");
    let times = match options.dtype.into() {
        Dtype::Bf16 => measure_typed::<bf16>(&gpu, options, cells)?,
        Dtype::F16 => measure_typed::<f16>(&gpu, options, cells)?,
    };
    Ok(Measured { gpu: name, times })
}

/// Q, K and V on both sides. Every cell has as many elements, so one set serves all.
struct Data<T> {
    host: [Vec<u16>; 3],
    device: [CudaSlice<T>; 3],
    out: CudaSlice<T>,
}

impl<T: Bits> Data<T> {
    fn new(gpu: &Gpu) -> Result<Data<T>, String> {
        let host = [0, 1, 2].map(|stream| normal_bits(1, stream, TOKENS * HIDDEN, T::DTYPE));
        let copy = |bits: &Vec<u16>| {
            gpu.stream().clone_htod(T::of(bits)).map_err(failed("copying to the device"))
        };
        let device = [copy(&host[0])?, copy(&host[1])?, copy(&host[2])?];
        let out = copy(&vec![crate::memory::UNWRITTEN; TOKENS * HIDDEN])?;
        Ok(Data { host, device, out })
    }
}

fn measure_typed<T: Bits>(
    gpu: &Gpu,
    options: &Options,
    cells: &[Cell],
) -> Result<Vec<Measurement>, String> {
    let start = Instant::now();
    let mut data = Data::<T>::new(gpu)?;
    let mut timer = Timer::new(gpu, options.reps, options.rep_ms)?;
    let bar = ProgressBar::new(cells.len() as u64).with_style(
        ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let mut times = Vec::new();
    for cell in cells {
        let spent = start.elapsed().as_secs_f64();
        if options.budget_seconds.is_some_and(|budget| spent > budget) {
            println!("the budget is spent: {} of {} cells measured", times.len(), cells.len());
            break;
        }
        bar.set_message(cell.to_string());
        check(gpu, cell, &mut data).map_err(|reason| format!("{cell}: {reason}"))?;
        let ms = time(gpu, cell, &mut data, &mut timer)?;
        times.push(Measurement::ours(cell, T::DTYPE, ms));
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(times)
}

fn time<T: Bits>(
    gpu: &Gpu,
    cell: &Cell,
    data: &mut Data<T>,
    timer: &mut Timer,
) -> Result<f64, String> {
    let request = cell.request(T::DTYPE);
    let prepared = gpu.attention().plan(&request).map_err(|error| error.to_string())?;
    let [q, k, v] = &data.device;
    let out = std::cell::RefCell::new(&mut data.out);
    timer.median_ms(|| {
        prepared
            .launch(gpu.stream(), q, k, v, &mut **out.borrow_mut(), None)
            .map_err(|error| error.to_string())
    })
}

/// Rows spread over heads, batch entries and lengths, the first and last of a head among them.
fn checked_rows(cell: &Cell) -> Vec<RowId> {
    let heads = cell.batch() * cell.heads();
    let spread = |index: usize, of: usize, total: usize| index * (total - 1) / (of - 1);
    let mut rows = Vec::new();
    for head in 0..CHECKED_HEADS {
        let head = spread(head, CHECKED_HEADS, heads);
        rows.extend((0..CHECKED_ROWS).map(|row| RowId {
            batch: head / cell.heads(),
            head: head % cell.heads(),
            row: spread(row, CHECKED_ROWS, cell.length),
        }));
    }
    rows
}

/// Runs the cell once on a poisoned output and compares rows with the reference.
fn check<T: Bits>(gpu: &Gpu, cell: &Cell, data: &mut Data<T>) -> Result<(), String> {
    let poison = vec![crate::memory::UNWRITTEN; TOKENS * HIDDEN];
    gpu.stream().memcpy_htod(T::of(&poison), &mut data.out).map_err(failed("poisoning"))?;
    let request = cell.request(T::DTYPE);
    let prepared = gpu.attention().plan(&request).map_err(|error| error.to_string())?;
    let [q, k, v] = &data.device;
    prepared
        .launch(gpu.stream(), q, k, v, &mut data.out, None)
        .map_err(|error| error.to_string())?;
    gpu.wait()?;
    let out = gpu.stream().clone_dtoh(&data.out).map_err(failed("copying back"))?;
    let bits = T::bits(&out);
    let unwritten = bits.iter().filter(|&&bits| bits == crate::memory::UNWRITTEN).count();
    if unwritten > 0 {
        return Err(format!("{unwritten} elements of out were left unwritten"));
    }
    let layout = cell.layout(T::DTYPE);
    let view = |bits| View { layout: &layout, bits };
    let problem = Problem {
        q: view(&data.host[0]),
        k: view(&data.host[1]),
        v: view(&data.host[2]),
        mask: if cell.causal { Mask::Causal } else { Mask::Full },
        scale: 1.0 / (cell.head_dim as f64).sqrt(),
    };
    let rows = checked_rows(cell);
    let reference = oracle::attention(&problem, &rows);
    let model = lowprec::attention(&problem, &rows, Arithmetic::PEER);
    let row_bits = |id: &RowId| {
        let [batch, head, row, _] = layout.strides;
        let start = id.batch * batch + id.head * head + id.row * row;
        &bits[start..start + cell.head_dim]
    };
    let got: Vec<u16> = rows.iter().flat_map(row_bits).copied().collect();
    let answer = Answer { out: &got, lse: None };
    let findings = compare(T::DTYPE, &reference, &model, answer, None);
    match findings.iter().find(|finding| !finding.passed()) {
        None => Ok(()),
        Some(finding) => Err(format!(
            "the result is wrong: {} {:.3e} > {:.3e} at {:?}",
            finding.rule.name(),
            finding.value,
            finding.limit,
            finding.row
        )),
    }
}
