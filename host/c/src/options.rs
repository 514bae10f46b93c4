//! `fulgurite_plan_options`, and what they mean.

use std::ffi::{CStr, c_char};

use fulgurite::PlanOptions as Meaning;
use fulgurite::internals::KERNELS;

use crate::grown::{self, Grown};
use crate::layout::{ARCHS, choose};
use crate::outcome::Failure;

/// `fulgurite_plan_options` of the header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PlanOptions {
    /// Bytes of this struct.
    pub size_bytes: u64,
    /// Name of the kernel; null: the plan chooses.
    pub entry: *const c_char,
    /// Bytes of the workspace at most; 0: any.
    pub workspace_limit_bytes: u64,
    /// Blocks of a grid at most; 0: as many as the device has multiprocessors.
    pub sm_limit: u32,
    /// Only kernels of this architecture; 0: any.
    pub arch: u32,
}

// SAFETY: `#[repr(C)]`; numbers and a raw pointer that fill it.
unsafe impl Grown for PlanOptions {
    const NAME: &'static str = "fulgurite_plan_options";
    const RELEASED_BYTES: &'static [usize] = &[32];
}

/// What options say, null included.
///
/// # Safety
/// `options` is null, or points to options as large as they say; their `entry` is null or a string.
pub(crate) unsafe fn meaning(options: *const PlanOptions) -> Result<Meaning, Failure> {
    let mut meaning = Meaning::default();
    if options.is_null() {
        return Ok(meaning);
    }
    // SAFETY: this function's contract.
    let given = unsafe { grown::read(options, "options") }?;
    if !given.entry.is_null() {
        // SAFETY: a string, by this function's contract.
        meaning.entry = Some(entry(unsafe { CStr::from_ptr(given.entry) })?);
    }
    if given.arch != 0 {
        meaning.arch = Some(choose("options.arch", given.arch, ARCHS)?);
    }
    meaning.sm_limit = (given.sm_limit != 0).then_some(given.sm_limit);
    meaning.workspace_limit_bytes =
        (given.workspace_limit_bytes != 0).then_some(given.workspace_limit_bytes);
    Ok(meaning)
}

/// The kernel of a name.
fn entry(name: &CStr) -> Result<&'static str, Failure> {
    let row = KERNELS.iter().find(|row| row.entry.as_bytes() == name.to_bytes());
    row.map(|row| row.entry).ok_or_else(|| {
        let name = name.to_string_lossy();
        Failure::argument(format!(
            "options.entry is \"{name}\": it must be the name of a kernel, such as {}, or null; \
             fulgurite_plan_entry tells the one that a plan has",
            KERNELS[0].entry
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::ptr::null;

    use fulgurite::Arch;

    use super::*;

    #[test]
    fn zero_is_absent_and_all_else_is_taken_over() {
        let size_bytes = size_of::<PlanOptions>() as u64;
        let none = PlanOptions {
            size_bytes,
            entry: null(),
            workspace_limit_bytes: 0,
            sm_limit: 0,
            arch: 0,
        };
        let name = CString::new(KERNELS[1].entry).expect("names have no zero byte");
        let all = PlanOptions {
            size_bytes,
            entry: name.as_ptr(),
            workspace_limit_bytes: 1,
            sm_limit: 2,
            arch: 1,
        };
        // SAFETY: null or references; the name is a string.
        let of = |options: *const PlanOptions| unsafe { meaning(options) };
        assert_eq!((of(null()), of(&none)), (Ok(Meaning::default()), Ok(Meaning::default())));
        let mut wanted = Meaning::entry(KERNELS[1].entry);
        wanted.workspace_limit_bytes = Some(1);
        wanted.sm_limit = Some(2);
        wanted.arch = Some(Arch::Sm90);
        assert_eq!(of(&all), Ok(wanted));
    }
}
