//! Kernels of all operations, as far as those need to know them who build, embed, load and report.

use crate::arch::Arch;
use crate::backward::{BACKWARD, DELTA};
use crate::forward::{FORWARD, FORWARD_SM80, FORWARD8};
use crate::launch::LaunchSpec;
use crate::quantise::QUANTISE;
use crate::smem::SMEM_LIMIT_BYTES;

/// One compiled kernel, whatever it computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The PTX symbol, also the name of the PTX file.
    pub entry: &'static str,
    /// Architecture it is compiled for.
    pub arch: Arch,
    /// What is compiled together: all kernels of one architecture and this name.
    pub family: &'static str,
    /// Size of its one parameter in bytes.
    pub param_bytes: u32,
    /// Its launch.
    pub launch: LaunchSpec,
}

impl Kernel {
    /// The kernel of this entry, if there is one.
    pub fn find(entry: &str) -> Option<&'static Kernel> {
        KERNELS.iter().find(|kernel| kernel.entry == entry)
    }
}

/// Every kernel of the library, put together from the operations' tables. Each lists its families
/// by the time that they take to compile, the longest last.
pub const KERNELS: &[Kernel] = &{
    const FORWARDS: usize = FORWARD.len() + FORWARD_SM80.len() + FORWARD8.len();
    const COUNT: usize = FORWARDS + QUANTISE.len() + DELTA.len() + BACKWARD.len();
    let mut kernels = [FORWARD[0].kernel(); COUNT];
    let mut count = 0;
    let tables = [FORWARD, FORWARD_SM80, FORWARD8];
    let mut table = 0;
    while table < tables.len() {
        let mut i = 0;
        while i < tables[table].len() {
            kernels[count] = tables[table][i].kernel();
            count += 1;
            i += 1;
        }
        table += 1;
    }
    let mut i = 0;
    while i < QUANTISE.len() {
        kernels[count] = QUANTISE[i].kernel();
        count += 1;
        i += 1;
    }
    let mut i = 0;
    while i < DELTA.len() {
        kernels[count] = DELTA[i].kernel();
        count += 1;
        i += 1;
    }
    let mut i = 0;
    while i < BACKWARD.len() {
        kernels[count] = BACKWARD[i].kernel();
        count += 1;
        i += 1;
    }
    kernels
};

/// Refuses kernels that cannot be launched, and two of one name.
pub(crate) const fn assert_sound(kernels: &[Kernel]) {
    let mut i = 0;
    while i < kernels.len() {
        let Kernel { entry, param_bytes, launch, .. } = kernels[i];
        assert!(launch.smem_bytes <= SMEM_LIMIT_BYTES, "a kernel needs too much shared memory");
        assert!(launch.has_registers(), "setmaxnreg would wait for ever");
        assert!(param_bytes <= 4096, "a parameter has at most 4096 bytes");
        let mut j = 0;
        while j < i {
            assert!(!same(entry, kernels[j].entry), "two kernels of one name");
            j += 1;
        }
        i += 1;
    }
}

/// Whether two names are the same one.
pub(crate) const fn same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut i = 0;
    while i < one.len() && i < other.len() && one[i] == other[i] {
        i += 1;
    }
    i == one.len() && i == other.len()
}

const _: () = assert_sound(KERNELS);
