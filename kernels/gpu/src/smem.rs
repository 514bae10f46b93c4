//! Addresses in a CTA's dynamic shared memory.

/// A byte address in shared memory: `Copy`, never dereferenced by Rust code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Smem(pub u32);

impl Smem {
    /// Start of the CTA's dynamic shared memory, 1024-byte aligned.
    #[inline(always)]
    pub fn base() -> Smem {
        Smem(crate::imp::dynamic_smem_base())
    }

    /// The address `bytes` further on.
    #[inline(always)]
    pub const fn plus(self, bytes: u32) -> Smem {
        Smem(self.0 + bytes)
    }
}
