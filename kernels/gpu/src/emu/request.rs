//! Collective operations, as one thread asks for them.

use super::format::Format;
use super::named::Coming;
use super::shuffle::Shuffle;
use super::tensor_core::ProductRequest;
use super::warp_product::WarpOperands;

/// A collective operation, as one thread asks for it.
#[derive(Clone, Debug)]
pub enum Request {
    Shuffle { from: Shuffle, value: u32 },
    Barrier { id: u32, count: u32, coming: Coming, vote: bool },
    Fence,
    Commit,
    Wait { pending: u32, width: usize, address: usize },
    Product(ProductRequest),
    Registers { grow: bool, count: u32 },
    LoadMatrices { row: u32, transposed: bool },
    StoreMatrices { row: u32, words: [u32; 4], transposed: bool },
    WarpProduct { format: Format, operands: WarpOperands },
}

impl Request {
    /// Whether both are the same instruction with the same uniform operands.
    pub fn agrees(&self, other: &Request) -> bool {
        match (self, other) {
            (Request::Shuffle { from: a, .. }, Request::Shuffle { from: b, .. }) => a == b,
            (
                Request::Barrier { id: a, count: m, coming: x, .. },
                Request::Barrier { id: b, count: n, coming: y, .. },
            ) => (a, m, x) == (b, n, y),
            (Request::Fence, Request::Fence) | (Request::Commit, Request::Commit) => true,
            (
                Request::Wait { pending: a, width: m, .. },
                Request::Wait { pending: b, width: n, .. },
            ) => (a, m) == (b, n),
            (Request::Product(a), Request::Product(b)) => a.agrees(b),
            (
                Request::Registers { grow: a, count: m },
                Request::Registers { grow: b, count: n },
            ) => (a, m) == (b, n),
            (
                Request::LoadMatrices { transposed: a, .. },
                Request::LoadMatrices { transposed: b, .. },
            )
            | (
                Request::StoreMatrices { transposed: a, .. },
                Request::StoreMatrices { transposed: b, .. },
            ) => a == b,
            (Request::WarpProduct { format: a, .. }, Request::WarpProduct { format: b, .. }) => {
                a == b
            }
            _ => false,
        }
    }

    /// Whether the whole warpgroup must come.
    pub fn is_warpgroup_wide(&self) -> bool {
        matches!(self, Request::Product(_) | Request::Registers { .. })
    }
}
