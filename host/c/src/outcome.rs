//! How a call ended: a status for C, and the thread's last message.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use fulgurite::{Error, ErrorClass};

/// `fulgurite_status` of the header.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All is well.
    Ok = 0,
    /// A null pointer to host memory, a number that stands for nothing, a struct of another size,
    /// arguments of another request.
    Argument = 1,
    /// A request that makes no sense.
    Request = 2,
    /// A device address that is null, misaligned, missing or too many, a workspace too small.
    Buffer = 3,
    /// No driver, or no device that can run the kernels.
    Device = 4,
    /// A driver call failed, or would: the context was reset, or the process forked.
    Driver = 5,
    /// An error of this library.
    Internal = 6,
    /// A request that makes sense, but that no kernel computes.
    Unsupported = 7,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failure {
    pub(crate) status: Status,
    pub(crate) message: String,
}

impl Failure {
    /// A number or struct that stands for nothing.
    pub(crate) fn argument(message: String) -> Failure {
        Failure { status: Status::Argument, message }
    }

    /// A pointer to host memory is null.
    pub(crate) fn null(name: &str) -> Failure {
        Failure::argument(format!("the pointer `{name}` is null: pass the address of one"))
    }

    /// An error of this library.
    pub(crate) fn internal(message: impl Into<String>) -> Failure {
        Failure { status: Status::Internal, message: message.into() }
    }

    /// A panic that was caught.
    pub(crate) fn panic(payload: &(dyn Any + Send)) -> Failure {
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("of unknown cause");
        Failure::internal(format!("a panic inside the library, please report it: {text}"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let status = match error.class() {
            ErrorClass::Request => Status::Request,
            ErrorClass::Buffer => Status::Buffer,
            ErrorClass::Device => Status::Device,
            ErrorClass::Driver => Status::Driver,
            ErrorClass::Unsupported => Status::Unsupported,
            _ => Status::Internal,
        };
        Failure { status, message: error.to_string() }
    }
}

thread_local! {
    static MESSAGE: RefCell<CString> = RefCell::default();
}

/// Runs the body of a call: nothing unwinds out of it, and a failure leaves its message.
pub(crate) fn guard(body: impl FnOnce() -> Result<(), Failure>) -> Status {
    // What a body changes is either written at its end or guarded by locks of its own.
    let ended = catch_unwind(AssertUnwindSafe(body));
    match ended.unwrap_or_else(|panic| Err(Failure::panic(&*panic))) {
        Ok(()) => Status::Ok,
        Err(Failure { status, message }) => {
            let text = CString::new(message.replace('\0', " ")).unwrap_or_default();
            // On a thread that is ending there is no place for a message any more.
            let _ = MESSAGE.try_with(|place| place.replace(text));
            status
        }
    }
}

/// `fulgurite_last_error` of the header.
#[unsafe(no_mangle)]
pub extern "C" fn fulgurite_last_error() -> *const c_char {
    MESSAGE.try_with(|message| message.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn message() -> String {
        // SAFETY: the string of this thread, which no failure replaces before it is copied.
        unsafe { CStr::from_ptr(fulgurite_last_error()) }.to_string_lossy().into_owned()
    }

    #[test]
    fn a_panic_becomes_a_status() {
        assert_eq!(guard(|| panic!("on {}", "purpose")), Status::Internal);
        assert!(message().contains("on purpose"), "{}", message());
    }

    #[test]
    fn a_message_stays_until_the_next_failure_and_belongs_to_its_thread() {
        assert_eq!(message(), "");
        let fails = |text: &'static str| guard(|| Err(Failure::argument(text.to_owned())));
        assert_eq!(fails("with a \0 inside"), Status::Argument);
        assert_eq!(message(), "with a   inside");
        assert_eq!(guard(|| Ok(())), Status::Ok);
        assert_eq!(message(), "with a   inside");
        let elsewhere = std::thread::spawn(message).join();
        assert_eq!(elsewhere.ok().as_deref(), Some(""));
        assert_eq!(fails("another"), Status::Argument);
        assert_eq!(message(), "another");
    }

    #[test]
    fn typed_errors_get_their_status() {
        let entry = "fwd".to_owned();
        for (error, status) in [
            (Error::Scale { got: -1.0 }, Status::Request),
            (Error::NullPointer { buffer: "q" }, Status::Buffer),
            (Error::Unexpected { buffer: "lse" }, Status::Buffer),
            (Error::NoDevice { ordinal: 3, count: 1 }, Status::Device),
            (Error::ContextGone { ordinal: 0 }, Status::Driver),
            (Error::NotBuilt { entry }, Status::Internal),
            (
                Error::Unsupported {
                    what: "f32".to_owned(),
                    nearest: "fwd",
                    differs: "all".to_owned(),
                    remedy: "convert it",
                },
                Status::Unsupported,
            ),
        ] {
            assert_eq!(status as i32, error.class() as i32, "the host crate has the same numbers");
            let failure = Failure::from(error.clone());
            assert_eq!(failure, Failure { status, message: error.to_string() });
        }
    }
}
