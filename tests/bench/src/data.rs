//! What cells are measured on, and what must come out.

use check::forward::call;
use check::forward::compare::{Answer, compare};
use check::gpu::{Bits, Gpu, failed};
use check::memory::UNWRITTEN;
use fulgurite::cudarc::driver::CudaSlice;
use fulgurite::{Forward, Prepared};
use reference::forward::lowprec::{self, Arithmetic, LowPrecision};
use reference::forward::oracle::{self, Problem, Reference};
use reference::random::normal_bits;
use reference::tensor::{Elements, RowId, View};

use super::grid::{Cell, HIDDEN, TOKENS};

/// Heads, and rows of each, that are compared before a cell is timed.
const CHECKED_HEADS: usize = 8;
const CHECKED_ROWS: usize = 16;

/// Q, K and V on both sides. No cell of the grid has more elements, so one set serves
/// all.
pub struct Data<T> {
    host: [Vec<u16>; 3],
    /// Q, K and V.
    pub device: [CudaSlice<T>; 3],
    /// The output.
    pub out: CudaSlice<T>,
}

impl<T: Bits> Data<T> {
    /// Random normal data.
    ///
    /// # Errors
    /// A message if the driver refuses.
    pub fn new(gpu: &Gpu) -> Result<Data<T>, String> {
        let host = [0, 1, 2].map(|stream| normal_bits(1, stream, TOKENS * HIDDEN, T::DTYPE));
        let copy = |bits: &Vec<u16>| {
            gpu.stream().clone_htod(T::of(bits)).map_err(failed("copying to the device"))
        };
        let device = [copy(&host[0])?, copy(&host[1])?, copy(&host[2])?];
        let out = copy(&vec![UNWRITTEN; TOKENS * HIDDEN])?;
        Ok(Data { host, device, out })
    }

    /// Enqueues the call.
    ///
    /// # Errors
    /// A message if the host crate refuses.
    pub fn launch(&mut self, gpu: &Gpu, prepared: &Prepared<Forward>) -> Result<(), String> {
        let [q, k, v] = &self.device;
        call::launch(prepared, gpu.stream(), [q, k, v], &mut self.out, None)
    }
}

/// The right answer of a cell, for some of its rows.
pub struct Expected {
    rows: Vec<RowId>,
    reference: Reference,
    model: LowPrecision,
}

impl Expected {
    /// Computes it on the CPU.
    pub fn of<T: Bits>(cell: &Cell, data: &Data<T>) -> Expected {
        let call = cell.call();
        let problem = Problem {
            q: View { layout: &call.q, elements: Elements::Bits(&data.host[0]) },
            k: View { layout: &call.k, elements: Elements::Bits(&data.host[1]) },
            v: View { layout: &call.v, elements: Elements::Bits(&data.host[2]) },
            mask: call.mask,
            scale: call.scale(),
        };
        let rows = checked_rows(cell);
        let reference = oracle::attention(&problem, &rows);
        let model = lowprec::attention(&problem, &rows, Arithmetic::PEER);
        Expected { rows, reference, model }
    }

    /// Runs the cell once on a poisoned output and compares.
    ///
    /// # Errors
    /// A message if the call fails, leaves elements unwritten, or is wrong.
    pub fn check<T: Bits>(
        &self,
        gpu: &Gpu,
        cell: &Cell,
        prepared: &Prepared<Forward>,
        data: &mut Data<T>,
    ) -> Result<(), String> {
        let poison = vec![UNWRITTEN; TOKENS * HIDDEN];
        gpu.stream().memcpy_htod(T::of(&poison), &mut data.out).map_err(failed("poisoning"))?;
        data.launch(gpu, prepared)?;
        gpu.wait()?;
        let out = gpu.stream().clone_dtoh(&data.out).map_err(failed("copying back"))?;
        let layout = cell.call().out;
        let bits = &T::bits(&out)[..layout.shape.iter().product()];
        let unwritten = bits.iter().filter(|&&bits| bits == UNWRITTEN).count();
        if unwritten > 0 {
            return Err(format!("{unwritten} elements of out were left unwritten"));
        }
        let row_bits = |id: &RowId| {
            let [batch, head, row, _] = layout.strides;
            let start = id.batch * batch + id.head * head + id.row * row;
            &bits[start..start + cell.head_dim]
        };
        let got: Vec<u16> = self.rows.iter().flat_map(row_bits).copied().collect();
        let answer = Answer { out: &got, lse: None };
        let findings = compare(T::DTYPE, &self.reference, &self.model, answer, None);
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
}

/// Rows spread over heads, batch entries and lengths, the first and last of a head among them.
fn checked_rows(cell: &Cell) -> Vec<RowId> {
    let heads = cell.batch * cell.heads;
    let spread = |index: usize, of: usize, total: usize| index * (total - 1) / (of - 1);
    let mut rows = Vec::new();
    for head in 0..CHECKED_HEADS {
        let head = spread(head, CHECKED_HEADS, heads);
        rows.extend((0..CHECKED_ROWS).map(|row| RowId {
            batch: head / cell.heads,
            head: head % cell.heads,
            row: spread(row, CHECKED_ROWS, cell.q_len),
        }));
    }
    rows
}
