//! GPU architectures.

/// GPU architecture a variant is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    /// Hopper (H100, H200): TMA, wgmma, setmaxnreg; PTX target `sm_90a`.
    Sm90,
    /// Ampere and everything later, Hopper too: `cp.async`, `mma.sync`; PTX target `sm_80`.
    Sm80,
}

impl Arch {
    /// Every architecture, what is preferred first.
    pub const ALL: [Arch; 2] = [Arch::Sm90, Arch::Sm80];

    /// The name used in entry names, options and records.
    pub const fn name(self) -> &'static str {
        match self {
            Arch::Sm90 => "sm90",
            Arch::Sm80 => "sm80",
        }
    }

    /// The `-C target-cpu` of rustc and the `.target` of the PTX.
    pub const fn target(self) -> &'static str {
        match self {
            Arch::Sm90 => "sm_90a",
            Arch::Sm80 => "sm_80",
        }
    }

    /// The least compute capability (major, minor) whose devices run this architecture's PTX.
    pub const fn compute_capability(self) -> (u32, u32) {
        match self {
            Arch::Sm90 => (9, 0),
            Arch::Sm80 => (8, 0),
        }
    }

    /// Whether devices of a compute capability run this architecture's PTX: that of `sm_90a` on no
    /// others, that of `sm_80` on all later ones.
    pub const fn runs_on(self, (major, minor): (u32, u32)) -> bool {
        match self {
            Arch::Sm90 => major == 9 && minor == 0,
            Arch::Sm80 => major >= 8,
        }
    }
}
