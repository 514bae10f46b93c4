//! Measures ourselves alone, without Python: cells of the grid, on a GPU.

use std::time::Instant;

use check::forward::call::ForwardCall;
use check::gpu::{Bits, Gpu};
use check::progress::Steps;
use half::{bf16, f16};

use super::Options;
use super::accuracy::Line;
use super::data::{Data, Expected};
use super::facts;
use super::grid::{Cell, DtypeName};
use super::measurement::{Measurement, OURS};
use super::timing::Timer;

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Name of the device.
    pub gpu: String,
    /// The times, in the order of the cells; fewer if the budget ran out.
    pub times: Vec<Measurement>,
    /// The errors, in the order of the problems.
    pub errors: Vec<Line>,
    /// What went wrong and leaves the rest standing.
    pub problems: Vec<String>,
    /// Versions and sensors of the process that measured.
    pub run: facts::Run,
}

/// Measures cells.
///
/// # Errors
/// A message if there is no usable GPU, the driver refuses, a cell's result is wrong, or a cell is
/// of 8 bits.
pub fn measure(options: &Options, cells: &[Cell]) -> Result<Measured, String> {
    if let Some(cell) = cells.iter().find(|cell| cell.dtype.has_8_bits()) {
        return Err(format!("{cell}: 8 bits are measured beside the peers, with --peers-dir"));
    }
    let gpu = Gpu::open(options.device).map_err(|error| error.to_string())?;
    let name = gpu.facts().name.clone();
    println!("GPU: {name}");
    let (mut times, start) = (Vec::new(), Instant::now());
    for dtype in [DtypeName::Bf16, DtypeName::F16] {
        let of_dtype = |cell: &&Cell| cell.dtype == dtype;
        let cells: Vec<Cell> = cells.iter().filter(of_dtype).copied().collect();
        if !cells.is_empty() {
            times.extend(match dtype {
                DtypeName::F16 => measure_typed::<f16>(&gpu, options, &cells, start)?,
                _ => measure_typed::<bf16>(&gpu, options, &cells, start)?,
            });
        }
    }
    Ok(Measured { gpu: name, times, ..Measured::default() })
}

fn measure_typed<T: Bits>(
    gpu: &Gpu,
    options: &Options,
    cells: &[Cell],
    start: Instant,
) -> Result<Vec<Measurement>, String> {
    let mut data = Data::<T>::new(gpu)?;
    let mut timer = Timer::new(gpu, options.reps, options.rep_ms)?;
    let steps = Steps::new(cells.len());
    let mut times = Vec::new();
    for cell in cells {
        let spent = start.elapsed().as_secs_f64();
        if options.budget_seconds.is_some_and(|budget| spent > budget) {
            let (done, all) = (times.len(), cells.len());
            println!("the budget is spent: {done} of {all} {} cells measured", T::DTYPE.name());
            break;
        }
        steps.at(cell.to_string());
        let call = ForwardCall { arch: options.arch, ..cell.call() };
        let prepared = call.prepare(gpu.attention())?;
        Expected::of(cell, &data)
            .check(gpu, cell, &prepared, &mut data)
            .map_err(|reason| format!("{cell}: {reason}"))?;
        let ms = timer.median_ms(|| data.launch(gpu, &prepared))?;
        times.push(Measurement::of(OURS, cell, ms));
        steps.done();
    }
    Ok(times)
}
