//! Gradients of attention: [`oracle`] in float64, [`lowprec`], a model of good kernels.

pub mod lowprec;
pub mod oracle;

use crate::tensor::RowId;

/// Gradients of queries, keys and values, each contiguous as (batch, head, row, head dim).
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients<T> {
    /// Of the queries.
    pub q: Vec<T>,
    /// Of the keys.
    pub k: Vec<T>,
    /// Of the values.
    pub v: Vec<T>,
}

impl<T> Gradients<T> {
    /// All three, with their names.
    pub fn named(&self) -> [(&'static str, &[T]); 3] {
        [("dq", &self.q), ("dk", &self.k), ("dv", &self.v)]
    }
}

/// Gradients of one KV head of a batch entry and of the query heads that read it.
type OfHead<T> = Gradients<T>;

/// Puts heads together, which come in order.
fn joined<T: Clone>(heads: Vec<OfHead<T>>) -> Gradients<T> {
    let all = |of: fn(&OfHead<T>) -> &Vec<T>| heads.iter().flat_map(of).cloned().collect();
    Gradients { q: all(|head| &head.q), k: all(|head| &head.k), v: all(|head| &head.v) }
}

/// The row with an index, of a tensor of so many heads and rows.
pub fn row_id(index: usize, heads: usize, rows: usize) -> RowId {
    RowId { batch: index / (heads * rows), head: index / rows % heads, row: index % rows }
}
