//! Finding the driver's library: the same one that cudarc finds, and one that is a driver.

use std::path::PathBuf;
use std::sync::OnceLock;

use cudarc::driver::sys;
use libloading::Library;

use crate::driver::{check, failure};
use crate::fork::{self, Use};
use crate::{DriverInfo, Error};

/// Names of the driver's library, in the order in which cudarc tries them (it tries others in
/// between, which no driver has). The order matters: under the first name a CUDA toolkit has a
/// stub, under the last one only drivers have a file.
const LIBRARIES: &[&str] =
    if cfg!(windows) { &["cuda.dll", "nvcuda.dll"] } else { &["libcuda.so", "libcuda.so.1"] };

/// A function that CUDA 12.0 added: the newest of those that the crate calls.
const NEWEST_SYMBOL: &str = "cuTensorMapEncodeTiled";

/// The library, kept loaded.
struct Found {
    _library: Library,
    /// The file it was loaded from, as the system says, or else its name.
    path: PathBuf,
}

/// Finds out, once per process, whether the driver can be loaded; cudarc panics if it cannot.
///
/// # Errors
/// [`Error::Forked`], [`Error::NoDriver`], [`Error::DriverTooOld`].
pub(crate) fn probe() -> Result<(), Error> {
    fork::check_fork()?;
    found().map(|_| ())
}

fn found() -> Result<&'static Found, Error> {
    static FOUND: OnceLock<Result<Found, Error>> = OnceLock::new();
    FOUND.get_or_init(|| find(LIBRARIES)).as_ref().map_err(Clone::clone)
}

/// Loads the driver and initialises it, if that has not been done.
///
/// # Errors
/// [`Error::Forked`], [`Error::NoDriver`], [`Error::DriverTooOld`], [`Error::StubDriver`],
/// [`Error::NoDevice`] for device 0 if there is no GPU at all, [`Error::Driver`].
pub(crate) fn init() -> Result<(), Error> {
    fork::check_fork()?;
    let using = Use::begin();
    let found = found()?;
    // SAFETY: cudarc finds the library that was just found; the call has no preconditions.
    match unsafe { sys::cuInit(0) } {
        sys::CUresult::CUDA_SUCCESS => {
            using.keep();
            Ok(())
        }
        sys::CUresult::CUDA_ERROR_STUB_LIBRARY => {
            Err(Error::StubDriver { path: found.path.display().to_string() })
        }
        sys::CUresult::CUDA_ERROR_NO_DEVICE => Err(Error::NoDevice { ordinal: 0, count: 0 }),
        code => Err(failure(code, "cuInit", format!("library {}", found.path.display()))),
    }
}

/// Which driver this process uses: for reports, and to tell which of several was found. Works
/// without a GPU.
///
/// # Errors
/// [`Error::NoDriver`], [`Error::DriverTooOld`], [`Error::StubDriver`], [`Error::Forked`],
/// [`Error::Driver`].
pub fn driver_info() -> Result<DriverInfo, Error> {
    match init() {
        Ok(()) | Err(Error::NoDevice { .. }) => {}
        Err(error) => return Err(error),
    }
    let mut version = 0;
    // SAFETY: `version` is writable; the call works without a GPU.
    check(unsafe { sys::cuDriverGetVersion(&raw mut version) }, "cuDriverGetVersion", String::new)?;
    let version = u32::try_from(version).unwrap_or(0);
    let cuda_version = (version / 1000, version % 1000 / 10);
    Ok(DriverInfo { library: found()?.path.clone(), cuda_version })
}

/// Loads the first of the libraries that is there and checks that it is new enough.
fn find(names: &[&'static str]) -> Result<Found, Error> {
    let mut reasons = Vec::new();
    for name in names {
        // SAFETY: the initialisers of NVIDIA's driver library may run at any time; cudarc loads
        // the same library right after.
        match unsafe { Library::new(*name) } {
            Ok(library) => {
                // SAFETY: the symbol is only looked up, never called through this type.
                let symbol = unsafe { library.get::<unsafe extern "C" fn()>(NEWEST_SYMBOL) };
                let Ok(address) = symbol.map(|symbol| *symbol as *const ()) else {
                    return Err(Error::DriverTooOld { symbol: NEWEST_SYMBOL });
                };
                let path = file_of(address).unwrap_or_else(|| PathBuf::from(name));
                return Ok(Found { _library: library, path });
            }
            // What the system said is in the source; the error itself only names the call.
            Err(error) => reasons.push(match std::error::Error::source(&error) {
                Some(source) => source.to_string(),
                None => format!("{name}: {error}"),
            }),
        }
    }
    Err(Error::NoDriver { reason: reasons.join("; ") })
}

/// The file that a symbol was loaded from.
#[cfg(unix)]
fn file_of(address: *const ()) -> Option<PathBuf> {
    use std::ffi::{CStr, OsStr};
    use std::os::unix::ffi::OsStrExt;

    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: `info` is writable; any address may be asked for.
    if unsafe { libc::dladdr(address.cast(), info.as_mut_ptr()) } == 0 {
        return None;
    }
    // SAFETY: all zero bytes are a valid `Dl_info`, and the call wrote one.
    let name = unsafe { info.assume_init() }.dli_fname;
    if name.is_null() {
        return None;
    }
    // SAFETY: not null: a string that lives as long as the library, which the caller holds.
    let name = unsafe { CStr::from_ptr(name) };
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

#[cfg(not(unix))]
fn file_of(_address: *const ()) -> Option<PathBuf> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_driver() {
        let error = find(&["libfulgurite-none.so.1", "libfulgurite-none.so"]).err().unwrap();
        assert!(matches!(error, Error::NoDriver { .. }));
        let text = error.to_string();
        for part in ["no NVIDIA driver", "libfulgurite-none.so.1", "install the driver", "--gpus"] {
            assert!(text.contains(part), "{part:?} is missing in: {text}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn driver_too_old() {
        let error = find(&["libc.so.6"]).err().unwrap();
        assert_eq!(error, Error::DriverTooOld { symbol: "cuTensorMapEncodeTiled" });
        assert!(error.to_string().contains("CUDA 12.0 (525) or later"));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_file_of_a_symbol() {
        let path = file_of(libc::dladdr as *const ()).unwrap();
        assert!(path.to_string_lossy().contains("libc.so"), "{}", path.display());
    }

    /// Were the orders different, a stub would be probed as a driver, or the other way round.
    #[test]
    fn the_order_is_that_of_cudarc() {
        let tried: Vec<String> =
            ["cuda", "nvcuda"].into_iter().flat_map(cudarc::get_lib_name_candidates).collect();
        let places = LIBRARIES.iter().map(|name| tried.iter().position(|other| other == name));
        let places: Vec<usize> = places.map(|place| place.expect("cudarc tries it")).collect();
        assert_eq!(places[0], 0, "{tried:?}");
        assert!(places.is_sorted(), "{places:?} in {tried:?}");
    }
}
