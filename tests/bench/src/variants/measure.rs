//! Measures variants in interleaved rounds, so that heat and power meet all alike.

use std::time::Instant;

use check::device::Device;
use check::forward::call::ForwardCall;
use check::gpu::{Bits, Gpu};
use check::progress::Steps;
use fulgurite::internals::VARIANTS;
use fulgurite::{Forward, Prepared};
use half::{bf16, f16};

use super::super::data::{Data, Expected};
use super::super::grid::{Cell, DtypeName};
use super::super::timing::Timer;
use super::Options;
use super::record::{Row, Times};

/// What was measured.
pub struct Measured {
    /// Name of the device.
    pub gpu: String,
    /// The variants that compute the same, together.
    pub groups: Vec<Times>,
    /// Whether every variant that is in this program was right, at every length.
    pub complete: bool,
}

/// Measures all rows.
///
/// # Errors
/// A message if there is no usable GPU or the driver refuses; a variant that gives wrong results is
/// marked and left out instead.
pub fn measure(options: &Options, rows: Vec<Row>) -> Result<Measured, String> {
    let gpu = Gpu::open(options.device).map_err(|error| error.to_string())?;
    let name = gpu.facts().name.clone();
    println!("GPU: {name}");
    let groups = groups(rows, options.quick);
    let steps = groups.iter().map(|group| group.lengths.len()).sum();
    let mut run = Run {
        gpu: &gpu,
        options,
        timer: Timer::new(&gpu, options.reps, options.rep_ms)?,
        start: Instant::now(),
        steps: Steps::new(steps),
        complete: true,
    };
    let (mut of_bf16, mut of_f16) = (None, None);
    let mut measured = Vec::new();
    for mut group in groups {
        if gpu.lost().is_none() {
            match group.rows[0].dtype {
                DtypeName::Bf16 => run.group::<bf16>(&mut group, &mut of_bf16)?,
                DtypeName::F16 => run.group::<f16>(&mut group, &mut of_f16)?,
                DtypeName::S8E4m3 | DtypeName::S8x16 | DtypeName::E4m3 => {
                    return Err("kernels of 8 bits cannot be measured in turn yet".to_owned());
                }
            }
        }
        measured.push(group);
    }
    run.steps.end();
    let complete = run.complete;
    if let Some(reason) = gpu.lost() {
        println!("stopped, the GPU's context is lost: {reason}");
        // A kernel may still run, and to free its memory would wait for it.
        std::mem::forget((run, of_bf16, of_f16));
        std::mem::forget(gpu);
    }
    Ok(Measured { gpu: name, groups: measured, complete })
}

/// Rows of the same dtype, head dim and mask together, in the order in which they come.
fn groups(rows: Vec<Row>, quick: bool) -> Vec<Times> {
    let mut groups: Vec<Times> = Vec::new();
    for row in rows {
        let key = |row: &Row| (row.dtype, row.head_dim, row.mask.clone());
        let lengths: Vec<usize> = cells(&row, quick).iter().map(|cell| cell.q_len).collect();
        match groups.iter_mut().find(|group| key(&group.rows[0]) == key(&row)) {
            Some(group) => group.rows.push(row),
            None => groups.push(Times { lengths, rows: vec![row], tflops: Vec::new() }),
        }
    }
    for group in &mut groups {
        group.tflops = vec![vec![None; group.lengths.len()]; group.rows.len()];
    }
    groups
}

fn cells(row: &Row, quick: bool) -> Vec<Cell> {
    Cell::lengths(row.dtype, row.head_dim, row.mask == "causal", quick)
}

struct Run<'a> {
    gpu: &'a Gpu,
    options: &'a Options,
    timer: Timer<'a>,
    start: Instant,
    steps: Steps,
    complete: bool,
}

impl Run<'_> {
    fn group<T: Bits>(
        &mut self,
        group: &mut Times,
        data: &mut Option<Data<T>>,
    ) -> Result<(), String> {
        if data.is_none() {
            *data = Some(Data::new(self.gpu)?);
        }
        let Some(data) = data else { return Ok(()) };
        for (index, cell) in cells(&group.rows[0], self.options.quick).iter().enumerate() {
            let spent = self.start.elapsed().as_secs_f64();
            if self.options.budget_seconds.is_some_and(|budget| spent > budget) {
                println!("the budget is spent before {cell}");
                self.complete = false;
                return Ok(());
            }
            self.steps.at(cell.to_string());
            let ready = self.ready(group, cell, data);
            if self.gpu.lost().is_some() {
                return Ok(());
            }
            let mut times: Vec<Vec<f64>> = vec![Vec::new(); ready.len()];
            for round in 0..self.options.rounds.max(1) {
                // Every other round runs backwards: nobody always follows the same one.
                for turn in 0..ready.len() {
                    let turn = if round % 2 == 0 { turn } else { ready.len() - 1 - turn };
                    let prepared = &ready[turn].1;
                    let ms = self.timer.median_ms(|| data.launch(self.gpu, prepared))?;
                    times[turn].push(ms);
                }
            }
            for ((row, _), times) in ready.iter().zip(&mut times) {
                times.sort_by(f64::total_cmp);
                group.tflops[*row][index] = Some(cell.flops() / times[times.len() / 2] / 1e9);
            }
            self.steps.done();
        }
        Ok(())
    }

    /// The rows that can be timed in a cell: loaded, run once and found right. The others are
    /// marked.
    fn ready<T: Bits>(
        &mut self,
        group: &mut Times,
        cell: &Cell,
        data: &mut Data<T>,
    ) -> Vec<(usize, Prepared<Forward>)> {
        let expected = Expected::of(cell, data);
        let mut ready = Vec::new();
        for (index, row) in group.rows.iter_mut().enumerate() {
            if !row.left_out.is_empty() || self.gpu.lost().is_some() {
                continue;
            }
            let prepared = prepare(self.gpu, cell, row).and_then(|prepared| {
                expected.check(self.gpu, cell, &prepared, data).map(|()| prepared)
            });
            match prepared {
                Ok(prepared) => ready.push((index, prepared)),
                Err(reason) => {
                    self.steps.print(|| println!("{}, {cell}: {reason}", row.entry));
                    row.left_out = format!("at {}: {reason}", cell.q_len);
                    self.complete = false;
                }
            }
        }
        ready
    }
}

fn prepare(gpu: &Gpu, cell: &Cell, row: &Row) -> Result<Prepared<Forward>, String> {
    let variant = VARIANTS
        .iter()
        .find(|variant| variant.entry == row.entry)
        .ok_or("not in this program; use the one that was built with it")?;
    ForwardCall { variant: Some(*variant), ..cell.call() }.prepare(gpu.attention())
}
