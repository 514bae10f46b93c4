//! GPU architectures.

/// GPU architecture a variant is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    /// Hopper (H100, H200): TMA, wgmma, setmaxnreg; PTX target `sm_90a`.
    Sm90,
}

impl Arch {
    /// The `-C target-cpu` of rustc and the `.target` of the PTX.
    pub const fn target(self) -> &'static str {
        match self {
            Arch::Sm90 => "sm_90a",
        }
    }

    /// The one compute capability (major, minor) whose devices run this architecture's PTX.
    pub const fn compute_capability(self) -> (u32, u32) {
        match self {
            Arch::Sm90 => (9, 0),
        }
    }
}
