//! Attention on tensors of 8 bits, whose stored numbers are multiplied with others.

use fulgurite::{Descale, Dtype, Layout, Mask};

use super::lowprec::{self, Arithmetic, LowPrecision};
use super::oracle::{self, Problem, Reference};
use crate::tensor::{Elements, RowId, View, encode};

/// A call, by stored numbers and what they are multiplied with.
#[derive(Clone, Debug)]
pub struct Given8 {
    layouts: [Layout; 3],
    stored: [Vec<f32>; 3],
    descales: [Descale; 3],
    given: [Vec<f32>; 3],
    out: Dtype,
    mask: Mask,
    scale: f64,
}

/// Indices of q, k and v.
const Q: usize = 0;
const K: usize = 1;
const V: usize = 2;

impl Given8 {
    /// A call whose stored numbers are multiplied with the given ones, as the descales say.
    pub fn of(problem: &Problem, descales: [Descale; 3], given: [&[f32]; 3], out: Dtype) -> Given8 {
        let views = [problem.q, problem.k, problem.v];
        let stored = |view: &View| {
            let [batches, heads, rows, _] = view.layout.shape;
            let all = (0..batches * heads * rows)
                .map(|index| [index / (heads * rows), index / rows % heads, index % rows]);
            all.flat_map(|index| view.row(index).collect::<Vec<_>>()).collect()
        };
        let contiguous = |view: &View| {
            let [batch, heads, rows, head_dim] = view.layout.shape;
            Layout::bhsd(Dtype::E4m3, batch, heads, rows, head_dim)
        };
        Given8 {
            layouts: views.each_ref().map(contiguous),
            stored: views.each_ref().map(stored),
            descales,
            given: given.map(<[f32]>::to_vec),
            out,
            mask: problem.mask,
            scale: problem.scale,
        }
    }

    /// What the stored numbers of a tensor are multiplied with, for a row of q.
    fn factor(&self, tensor: usize, id: &RowId) -> f64 {
        let ([_, heads, rows, _], [_, kv_heads, ..]) =
            (self.layouts[Q].shape, self.layouts[K].shape);
        let given = &self.given[tensor];
        f64::from(match self.descales[tensor] {
            Descale::One => 1.0,
            Descale::PerTensor => given[0],
            Descale::PerHead { strides: [of_batch, of_head] } => {
                given[id.batch * of_batch + id.head / (heads / kv_heads) * of_head]
            }
            Descale::PerRow => given[(id.batch * heads + id.head) * rows + id.row],
            _ => unreachable!("no reference for this descale"),
        })
    }

    /// What a row's scores are multiplied with, from stored numbers to exponents of e.
    fn score_scale(&self, id: &RowId) -> f64 {
        self.scale * self.factor(Q, id) * self.factor(K, id)
    }

    fn problem<'a>(&'a self, numbers: &'a [Vec<f32>; 3]) -> Problem<'a> {
        let view = |index: usize| View {
            layout: &self.layouts[index],
            elements: Elements::Numbers(&numbers[index]),
        };
        Problem { q: view(Q), k: view(K), v: view(V), mask: self.mask, scale: self.scale }
    }

    /// The numbers of a tensor that are meant.
    fn meant(&self, tensor: usize) -> Vec<f32> {
        let [_, heads, rows, head_dim] = self.layouts[tensor].shape;
        // Query heads of a KV head share its number.
        let group = self.layouts[Q].shape[1] / heads;
        let stored = self.stored[tensor].chunks(head_dim).enumerate();
        let meant = stored.flat_map(|(index, stored)| {
            let (batch, head) = (index / (heads * rows), index / rows % heads * group);
            let id = RowId { batch, head, row: index % rows };
            let factor = self.factor(tensor, &id);
            stored.iter().map(move |x| (f64::from(*x) * factor) as f32)
        });
        meant.collect()
    }

    /// The exact answer.
    pub fn reference(&self, rows: &[RowId]) -> Reference {
        let meant = [Q, K, V].map(|tensor| self.meant(tensor));
        oracle::attention(&self.problem(&meant), rows)
    }

    /// A good kernel's answer, from stored numbers: what sums of theirs are cut off by depends on
    /// them.
    pub fn model(&self, rows: &[RowId], arithmetic: Arithmetic) -> LowPrecision {
        let finish = |id: &RowId, out: Vec<f32>, lse: f32| {
            let factor = self.factor(V, id);
            let meant = out.into_iter().map(|x| f64::from(x) * factor);
            (meant.map(|x| encode(self.out, x)).collect(), lse)
        };
        let scale = |id: &RowId| self.score_scale(id);
        lowprec::attention_then(&self.problem(&self.stored), rows, arithmetic, scale, finish)
    }
}
