//! Platforms that archives are made for.

use std::env;
use std::process::Command;

use crate::cross::has_std;
use crate::process::query;

/// Linux on one kind of processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Platform {
    arch: &'static str,
    target: &'static str,
    /// The linker on machines of another kind, as Debian names it.
    linker: &'static str,
}

impl Platform {
    /// Those that Hopper GPUs are found in.
    pub const ALL: [Platform; 2] = [
        Platform {
            arch: "x86_64",
            target: "x86_64-unknown-linux-gnu",
            linker: "x86_64-linux-gnu-gcc",
        },
        Platform {
            arch: "aarch64",
            target: "aarch64-unknown-linux-gnu",
            linker: "aarch64-linux-gnu-gcc",
        },
    ];

    /// Its processor.
    pub fn arch(&self) -> &'static str {
        self.arch
    }

    /// Whether it is the one of this machine.
    pub fn is_own(&self) -> bool {
        env::consts::OS == "linux" && env::consts::ARCH == self.arch
    }

    /// What is missing here to build for it, and how it is installed.
    pub fn missing(&self) -> Option<String> {
        if self.is_own() {
            return None;
        }
        let has_linker = env::var_os(self.linker_variable()).is_some()
            || query(self.linker, &["--version"]).is_some();
        self.needs(has_std(self.target), has_linker)
    }

    fn needs(&self, has_std: bool, has_linker: bool) -> Option<String> {
        let Platform { target, linker, .. } = self;
        if !has_std {
            let install = format!("`rustup target add {target}`");
            return Some(format!("its standard library is not here: {install}"));
        }
        let set = self.linker_variable();
        (!has_linker).then(|| format!("there is no {linker} here: install it, or set {set}"))
    }

    /// Has cargo build for it.
    pub fn choose(&self, command: &mut Command) {
        command.args(["--target", self.target]);
        if env::var_os(self.linker_variable()).is_none() {
            command.env(self.linker_variable(), self.linker);
        }
    }

    /// Cargo's variable for the linker.
    fn linker_variable(&self) -> String {
        format!("CARGO_TARGET_{}_LINKER", self.target.to_uppercase().replace('-', "_"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_the_remedy() {
        let [_, arm] = Platform::ALL;
        assert_eq!(arm.needs(true, true), None);
        let said = arm.needs(false, true).unwrap_or_default();
        assert!(said.contains("rustup target add aarch64-unknown-linux-gnu"), "{said}");
        let said = arm.needs(true, false).unwrap_or_default();
        assert!(said.contains("aarch64-linux-gnu-gcc"), "{said}");
        assert!(said.contains("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER"), "{said}");
    }
}
