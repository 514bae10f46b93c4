//! What a caller asks for.

use fulgurite_spec::MaskClass as Mask;

use crate::Layout;

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
