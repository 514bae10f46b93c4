//! NCCL, loaded at run time: the functions that are called, and nothing of what they mean.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use fulgurite::cudarc::driver::sys::CUstream;
use libloading::Library;

use crate::Error;

/// The variable that names the library's file.
const VARIABLE: &str = "FULGURITE_NCCL";

/// Names of the library: that of the wheels and of the system's package, that of its headers'.
const LIBRARIES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// A communicator of NCCL.
pub(crate) type Comm = *mut c_void;

/// `ncclSuccess`.
pub(crate) const SUCCESS: c_int = 0;

/// `ncclInProgress`.
pub(crate) const IN_PROGRESS: c_int = 7;

/// `ncclUint8`, of which everything is that is sent.
const BYTE: c_int = 1;

/// `ncclUniqueId`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct UniqueId(pub [u8; 128]);

/// `ncclConfig_t` as of NCCL 2.17, with what was padding then and means the traffic's class now.
/// The library looks at as much of it as `version` has.
#[repr(C)]
pub(crate) struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
    cga_cluster_size: c_int,
    min_ctas: c_int,
    max_ctas: c_int,
    net_name: *const c_char,
    split_share: c_int,
    traffic_class: c_int,
}

impl Config {
    /// A communicator whose functions return at once, with so many blocks of its kernels at most.
    pub fn non_blocking(max_ctas: Option<u32>) -> Config {
        // `NCCL_CONFIG_UNDEF_INT`: left to the library.
        const UNSET: c_int = c_int::MIN;
        Config {
            size: size_of::<Config>(),
            magic: 0xcafe_beef,
            version: 21_700,
            blocking: 0,
            cga_cluster_size: UNSET,
            min_ctas: UNSET,
            max_ctas: max_ctas.and_then(|ctas| c_int::try_from(ctas).ok()).unwrap_or(UNSET),
            net_name: std::ptr::null(),
            split_share: UNSET,
            traffic_class: UNSET,
        }
    }
}

macro_rules! functions {
    ($($field:ident $symbol:literal ($($type:ty),*) -> $returns:ty;)*) => {
        /// The library's functions.
        pub(crate) struct Nccl {
            $(pub $field: unsafe extern "C" fn($($type),*) -> $returns,)*
            pub path: String,
            /// What keeps them loaded.
            pub _library: Option<Library>,
        }

        impl Nccl {
            /// # Safety
            /// The library is NCCL.
            unsafe fn of(library: Library, path: String) -> Result<Nccl, Error> {
                Ok(Nccl {
                    $($field: {
                        // SAFETY: a function of this name has this type in all versions.
                        let found = unsafe {
                            library.get::<unsafe extern "C" fn($($type),*) -> $returns>($symbol)
                        };
                        let missing = |_| Error::NcclTooOld { path: path.clone(), symbol: $symbol };
                        *found.map_err(missing)?
                    },)*
                    path,
                    _library: Some(library),
                })
            }
        }
    };
}

functions! {
    get_version "ncclGetVersion" (*mut c_int) -> c_int;
    get_unique_id "ncclGetUniqueId" (*mut UniqueId) -> c_int;
    init_rank "ncclCommInitRankConfig" (*mut Comm, c_int, UniqueId, c_int, *mut Config) -> c_int;
    async_error "ncclCommGetAsyncError" (Comm, *mut c_int) -> c_int;
    abort "ncclCommAbort" (Comm) -> c_int;
    finalize "ncclCommFinalize" (Comm) -> c_int;
    destroy "ncclCommDestroy" (Comm) -> c_int;
    count "ncclCommCount" (Comm, *mut c_int) -> c_int;
    user_rank "ncclCommUserRank" (Comm, *mut c_int) -> c_int;
    group_start "ncclGroupStart" () -> c_int;
    group_end "ncclGroupEnd" () -> c_int;
    send_bytes "ncclSend" (*const c_void, usize, c_int, c_int, Comm, CUstream) -> c_int;
    receive_bytes "ncclRecv" (*mut c_void, usize, c_int, c_int, Comm, CUstream) -> c_int;
    all_gather "ncclAllGather" (*const c_void, *mut c_void, usize, c_int, Comm, CUstream) -> c_int;
    last_error "ncclGetLastError" (Comm) -> *const c_char;
}

impl Nccl {
    /// The library of this process.
    ///
    /// # Errors
    /// [`Error::NoNccl`], [`Error::NcclTooOld`].
    pub fn get() -> Result<&'static Nccl, Error> {
        static FOUND: OnceLock<Result<Nccl, Error>> = OnceLock::new();
        let chosen = || std::env::var(VARIABLE).ok();
        FOUND.get_or_init(|| find(chosen().as_deref())).as_ref().map_err(Clone::clone)
    }

    /// Its version, and the name that it was found by.
    ///
    /// # Errors
    /// [`Error::Nccl`].
    pub fn version(&self) -> Result<(String, i32), Error> {
        let mut version = 0;
        // SAFETY: `version` is writable.
        let code = unsafe { (self.get_version)(&raw mut version) };
        self.check(code, "ncclGetVersion").map(|()| (self.path.clone(), version))
    }

    /// # Errors
    /// [`Error::Nccl`], but for what is in progress.
    pub fn check(&self, code: c_int, call: &'static str) -> Result<(), Error> {
        match code {
            SUCCESS | IN_PROGRESS => Ok(()),
            _ => Err(Error::Nccl { call, code, name: name(code), detail: self.said() }),
        }
    }

    /// What the library says of its last error.
    fn said(&self) -> String {
        // SAFETY: the communicator is not looked at.
        let text = unsafe { (self.last_error)(std::ptr::null_mut()) };
        if text.is_null() {
            return String::new();
        }
        // SAFETY: a string that ends with a zero byte, which the library keeps.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned()
    }

    /// Sends or receives bytes on a stream, inside of a group.
    ///
    /// # Safety
    /// The communicator and the stream live and are of one device; the memory is that device's, and
    /// stays until the stream has come so far.
    pub unsafe fn transfer(
        &self,
        comm: Comm,
        stream: CUstream,
        (peer, sends): (usize, bool),
        (address, bytes): (u64, u64),
    ) -> c_int {
        let (peer, bytes) = (peer as c_int, bytes as usize);
        // SAFETY: this function's own contract.
        unsafe {
            match sends {
                true => (self.send_bytes)(address as *const _, bytes, BYTE, peer, comm, stream),
                false => (self.receive_bytes)(address as *mut _, bytes, BYTE, peer, comm, stream),
            }
        }
    }

    /// Gathers `bytes` bytes of each rank on a stream.
    ///
    /// # Safety
    /// As for [`transfer`](Self::transfer).
    pub unsafe fn gather(
        &self,
        comm: Comm,
        stream: CUstream,
        from: u64,
        to: u64,
        bytes: usize,
    ) -> c_int {
        // SAFETY: this function's own contract.
        unsafe { (self.all_gather)(from as *const _, to as *mut _, bytes, BYTE, comm, stream) }
    }
}

/// The name of an `ncclResult_t`.
pub(crate) fn name(code: c_int) -> &'static str {
    match code {
        0 => "ncclSuccess",
        1 => "ncclUnhandledCudaError",
        2 => "ncclSystemError",
        3 => "ncclInternalError",
        4 => "ncclInvalidArgument",
        5 => "ncclInvalidUsage",
        6 => "ncclRemoteError",
        7 => "ncclInProgress",
        _ => "a code that this version does not know",
    }
}

/// Loads the library that the user chose, or else the first that is there.
fn find(chosen: Option<&str>) -> Result<Nccl, Error> {
    let names = chosen.map_or_else(|| LIBRARIES.to_vec(), |path| vec![path]);
    let mut reasons = Vec::new();
    for name in names {
        // SAFETY: the initialisers of NVIDIA's library may run at any time.
        match unsafe { Library::new(name) } {
            // SAFETY: the library has NCCL's name, or is what the user says is NCCL.
            Ok(library) => return unsafe { Nccl::of(library, name.to_owned()) },
            // What the system said is in the source; the error itself only names the call.
            Err(error) => reasons.push(match std::error::Error::source(&error) {
                Some(source) => source.to_string(),
                None => format!("{name}: {error}"),
            }),
        }
    }
    Err(Error::NoNccl { reason: reasons.join("; ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_library_is_an_error_that_says_what_to_do() {
        let error = find(Some("libfulgurite-none.so.2")).err().unwrap();
        assert!(matches!(error, Error::NoNccl { .. }));
        let text = error.to_string();
        for part in ["libfulgurite-none.so.2", "nvidia-nccl-cu12", "FULGURITE_NCCL"] {
            assert!(text.contains(part), "{part:?} is missing in: {text}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn another_library_is_an_error() {
        let error = find(Some("libc.so.6")).err().unwrap();
        let (path, symbol) = ("libc.so.6".to_owned(), "ncclGetVersion");
        assert_eq!(error, Error::NcclTooOld { path, symbol });
    }
}
