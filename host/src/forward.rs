//! What a caller asks for.

use fulgurite_spec::MaskClass;

use crate::Layout;

/// Which keys a query row may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mask {
    /// Every key.
    Full,
    /// Key `col` is seen by row `row` if `col <= row + kv_len - q_len`: the last query sees all
    /// keys (aligned bottom right). With more queries than keys the first `q_len - kv_len` rows
    /// see none.
    Causal,
}

impl Mask {
    /// The mask that the table of variants knows it as.
    pub const fn kind(self) -> MaskClass {
        match self {
            Mask::Full => MaskClass::Full,
            Mask::Causal => MaskClass::Causal,
        }
    }
}

/// A forward attention call: `out = softmax(scale · q kᵀ + mask) v` for every head.
///
/// Query head `h` uses KV head `h / (q heads / kv heads)`, so that grouped (GQA) and multi-query
/// (MQA) attention need no copies.
///
/// There is no default request: every field is a decision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forward {
    /// Queries: (batch, heads, q_len, head_dim).
    pub q: Layout,
    /// Keys: (batch, kv_heads, kv_len, head_dim). The batch stride may be 0, and so may the
    /// head strides of both k and v: all entries, or all query heads, then read the same one.
    pub k: Layout,
    /// Values: same shape as the keys.
    pub v: Layout,
    /// The output: same shape as the queries; no two of its elements may share an address.
    pub out: Layout,
    /// Which keys a row sees.
    pub mask: Mask,
    /// Factor of the scores before softmax; `None`: `1 / sqrt(head_dim)`.
    pub scale: Option<f32>,
    /// Whether to write the log-sum-exp of every row: `f32[batch, heads, q_len]`, contiguous.
    pub lse: bool,
}
