//! Attention on tensors of 8 bits, whose stored numbers are multiplied with others.

use fulgurite::{Descale, Dtype, Layout, Mask};

use super::lowprec::{self, Arithmetic, LowPrecision};
use super::oracle::{self, Problem, Reference};
use crate::tensor::{Elements, RowId, View, encode};

/// A call by the numbers that are meant.
#[derive(Clone, Debug)]
pub struct Given8 {
    layouts: [Layout; 3],
    numbers: [Vec<f32>; 3],
    out: Dtype,
    mask: Mask,
    scale: f64,
}

impl Given8 {
    /// Multiplies the stored numbers of q, k and v with the given ones, as the descales say.
    pub fn of(problem: &Problem, descales: [Descale; 3], given: [&[f32]; 3], out: Dtype) -> Given8 {
        let views = [problem.q, problem.k, problem.v];
        let group = problem.q.layout.shape[1] / problem.k.layout.shape[1];
        let meant = |index: usize| {
            let (view, descale, given) = (views[index], descales[index], given[index]);
            let [batches, heads, rows, head_dim] = view.layout.shape;
            let mut numbers = Vec::with_capacity(batches * heads * rows * head_dim);
            for (batch, head) in (0..batches).flat_map(|b| (0..heads).map(move |h| (b, h))) {
                let kv_head = if index == 0 { head / group } else { head };
                for row in 0..rows {
                    let factor = match descale {
                        Descale::One => 1.0,
                        Descale::PerTensor => given[0],
                        Descale::PerHead { strides } => {
                            given[batch * strides[0] + kv_head * strides[1]]
                        }
                        Descale::PerRow => given[(batch * heads + head) * rows + row],
                        _ => unreachable!("no reference for this descale"),
                    };
                    numbers.extend(view.row([batch, head, row]).map(|stored| stored * factor));
                }
            }
            numbers
        };
        let contiguous = |view: &View| {
            let [batch, heads, rows, head_dim] = view.layout.shape;
            Layout::bhsd(Dtype::E4m3, batch, heads, rows, head_dim)
        };
        Given8 {
            layouts: views.each_ref().map(contiguous),
            numbers: [0, 1, 2].map(meant),
            out,
            mask: problem.mask,
            scale: problem.scale,
        }
    }

    fn problem(&self) -> Problem<'_> {
        let view = |index: usize| View {
            layout: &self.layouts[index],
            elements: Elements::Numbers(&self.numbers[index]),
        };
        Problem { q: view(0), k: view(1), v: view(2), mask: self.mask, scale: self.scale }
    }

    /// The exact answer.
    pub fn reference(&self, rows: &[RowId]) -> Reference {
        oracle::attention(&self.problem(), rows)
    }

    /// A good kernel's answer.
    pub fn model(&self, rows: &[RowId], arithmetic: Arithmetic) -> LowPrecision {
        let elements = |out: Vec<f32>| -> Vec<u16> {
            out.into_iter().map(|x| encode(self.out, f64::from(x))).collect()
        };
        let finish = |_: &RowId, out: Vec<f32>, lse: f32| (elements(out), lse);
        lowprec::attention_then(&self.problem(), rows, arithmetic, finish)
    }
}
