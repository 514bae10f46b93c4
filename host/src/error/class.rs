//! Kinds of errors, for programs.

use std::fmt;

use super::Error;

/// What kind of trouble an [`Error`] is; the numbers are the statuses of the C interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// The request makes no sense.
    Request = 2,
    /// A buffer of a launch is missing, too many, or not what the plan needs.
    Buffer = 3,
    /// No driver, or no device that can run the kernels.
    Device = 4,
    /// A driver call failed, or would: the context was reset, or the process forked.
    Driver = 5,
    /// An error of this library or its build.
    Internal = 6,
    /// The request makes sense, but no kernel computes it.
    Unsupported = 7,
}

/// The variant's name and class, for programs.
macro_rules! classes {
    ($($class:ident: $($variant:ident)*;)*) => {
        impl Error {
            /// What kind of trouble it is.
            pub fn class(&self) -> ErrorClass {
                match self {
                    $($(Error::$variant { .. } => ErrorClass::$class,)*)*
                }
            }

            /// The variant's name.
            pub fn name(&self) -> &'static str {
                match self {
                    $($(Error::$variant { .. } => stringify!($variant),)*)*
                }
            }
        }
    };
}

classes! {
    Request: DtypeMix Shape Empty HeadGroups Form LastStride StrideAlignment StrideZero
        StrideTooLarge OutputOverlaps TooLarge SpanOverflow TooManyJobs Scale Window DescaleUnset
        DescaleUnexpected DescaleShape Limit LseOfForward
        WorkspaceTooLarge;
    Unsupported: Unsupported WrongEntry;
    Buffer: BufferDtype BufferTooShort NullPointer Misaligned Missing Unexpected WorkspaceShort
        WorkspaceStream WorkspacePinned;
    Device: NoDriver DriverTooOld StubDriver NoDevice Architecture SharedMemory WrongDevice;
    Driver: Driver CaptureWithEvents ContextGone Forked;
    Internal: NotBuilt Emulated;
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
