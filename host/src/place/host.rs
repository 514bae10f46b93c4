//! Buffers in slices on the host, for the emulator.

use std::marker::PhantomData;

use super::{Element, Given, Offer, Place, sealed};
use crate::Dtype;

/// Slices on the host, borrowed for `'a`: what the emulator works on.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a>(PhantomData<&'a ()>);

impl sealed::Sealed for Host<'_> {}
impl<'a> Place for Host<'a> {
    type Read = HostRead<'a>;
    type Write = HostWrite<'a>;
    type Workspace = NoWorkspace;
}

/// The emulator brings the workspace itself: there is no value of this type.
#[derive(Clone, Copy, Debug)]
pub enum NoWorkspace {}

/// A slice that a launch on the emulator reads: made from a reference to a slice, array or vector,
/// which begins with the tensor's first element.
#[derive(Clone, Copy, Debug)]
pub struct HostRead<'a> {
    pub(crate) bytes: &'a [u8],
    dtype: Dtype,
}

/// A slice that a launch on the emulator writes: made from a mutable reference.
#[derive(Debug)]
pub struct HostWrite<'a> {
    pub(crate) bytes: &'a mut [u8],
    dtype: Dtype,
}

impl HostRead<'_> {
    /// The same bytes as elements of another type, for types that Rust has none of.
    pub fn typed(self, dtype: Dtype) -> Self {
        HostRead { dtype, ..self }
    }
}

impl HostWrite<'_> {
    /// The same bytes as elements of another type, for types that Rust has none of.
    pub fn typed(self, dtype: Dtype) -> Self {
        HostWrite { dtype, ..self }
    }
}

impl<'a, T: Element> From<&'a [T]> for HostRead<'a> {
    fn from(values: &'a [T]) -> Self {
        // SAFETY: elements are numbers without padding; a byte needs no alignment.
        let bytes =
            unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) };
        HostRead { bytes, dtype: T::DTYPE }
    }
}

impl<'a, T: Element> From<&'a mut [T]> for HostWrite<'a> {
    fn from(values: &'a mut [T]) -> Self {
        let len = size_of_val(values);
        // SAFETY: elements are numbers without padding, of which every pattern of bits is one.
        let bytes = unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), len) };
        HostWrite { bytes, dtype: T::DTYPE }
    }
}

macro_rules! whole {
    ($([$($constant:tt)*] $type:ty),*) => {
        $(impl<'a, T: Element $($constant)*> From<&'a $type> for HostRead<'a> {
            fn from(values: &'a $type) -> Self {
                HostRead::from(&values[..])
            }
        }
        impl<'a, T: Element $($constant)*> From<&'a mut $type> for HostWrite<'a> {
            fn from(values: &'a mut $type) -> Self {
                HostWrite::from(&mut values[..])
            }
        })*
    };
}
whole!([] Vec<T>, [, const N: usize] [T; N]);

impl Given<Host<'_>> {
    pub(crate) fn offer(&self) -> Offer {
        match self {
            Given::Read(HostRead { dtype, bytes }) => Offer { dtype: *dtype, bytes: bytes.len() },
            Given::Write(HostWrite { dtype, bytes }) => Offer { dtype: *dtype, bytes: bytes.len() },
        }
    }
}
