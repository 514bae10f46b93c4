//! Where the buffers of a launch are: in cudarc's memory, at bare addresses, or in slices.

use std::marker::PhantomData;
use std::sync::Arc;

use cudarc::driver::{
    CudaSlice, CudaStream, CudaView, CudaViewMut, DevicePtr, DevicePtrMut, SyncOnDrop,
    UnifiedSlice, UnifiedView, UnifiedViewMut,
};

use crate::{Dtype, Workspace};

#[cfg(feature = "emulator-sample")]
mod host;
#[cfg(feature = "emulator-sample")]
pub use host::{Host, HostRead, HostWrite, NoWorkspace};

mod sealed {
    /// Implemented in this module only.
    pub trait Sealed {}
}

/// Where a launch finds its buffers: [`Device`], [`Raw`] or [`Host`]. The structs of arguments
/// ([`ForwardArgs`](crate::ForwardArgs)) are generic over it.
pub trait Place: sealed::Sealed {
    /// A buffer that a launch reads.
    type Read;
    /// A buffer that a launch writes.
    type Write;
    /// Memory that a launch works in.
    type Workspace;
}

/// Buffers of cudarc, borrowed for `'a`.
#[derive(Clone, Copy, Debug)]
pub struct Device<'a>(PhantomData<&'a ()>);

/// Device addresses of anyone's buffers.
#[derive(Clone, Copy, Debug)]
pub struct Raw;

impl sealed::Sealed for Device<'_> {}
impl<'a> Place for Device<'a> {
    type Read = Read<'a>;
    type Write = Write<'a>;
    type Workspace = &'a mut Workspace;
}

impl sealed::Sealed for Raw {}
impl Place for Raw {
    type Read = u64;
    type Write = u64;
    type Workspace = RawWorkspace;
}

/// A workspace at a bare address: a multiple of 256, whose first
/// [`HEAD_BYTES`](crate::Workspace::HEAD_BYTES) were zero before its first launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawWorkspace {
    /// Its device address.
    pub address: u64,
    /// Its size.
    pub bytes: u64,
}

/// The Rust types of elements.
pub trait Element: sealed::Sealed + Copy + Send + Sync + 'static {
    /// What a [`Layout`](crate::Layout) calls it.
    const DTYPE: Dtype;
}

macro_rules! elements {
    ($($type:ty: $dtype:ident),*) => {
        $(impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: Dtype = Dtype::$dtype;
        })*
    };
}
elements!(half::bf16: Bf16, half::f16: F16, f32: F32, u8: U8, i8: I8, i32: I32, i64: I64);

/// Memory of cudarc that can be read, whatever its element type.
trait Source {
    fn owner(&self) -> &Arc<CudaStream>;
    fn address<'a>(&'a self, stream: &'a CudaStream) -> (u64, SyncOnDrop<'a>);
}

/// Memory of cudarc that can be written.
trait Target {
    fn owner(&self) -> &Arc<CudaStream>;
    fn address<'a>(&'a mut self, stream: &'a CudaStream) -> (u64, SyncOnDrop<'a>);
}

/// A buffer of cudarc that a launch reads: made from a reference to a slice or view, which it
/// borrows. It begins with the tensor's first element.
pub struct Read<'a> {
    source: &'a dyn Source,
    dtype: Dtype,
    bytes: usize,
}

/// A buffer of cudarc that a launch writes: made from a mutable reference to a slice or view.
pub struct Write<'a> {
    target: &'a mut dyn Target,
    dtype: Dtype,
    bytes: usize,
}

impl Read<'_> {
    /// The same bytes as elements of another type, for types that Rust has none of.
    pub fn typed(self, dtype: Dtype) -> Self {
        Read { dtype, ..self }
    }
}

impl Write<'_> {
    /// The same bytes as elements of another type, for types that Rust has none of.
    pub fn typed(self, dtype: Dtype) -> Self {
        Write { dtype, ..self }
    }
}

macro_rules! readable {
    ($($type:ty),*) => {
        $(impl<T: Element> Source for $type {
            fn owner(&self) -> &Arc<CudaStream> {
                cudarc::driver::DeviceSlice::stream(self)
            }
            fn address<'a>(&'a self, stream: &'a CudaStream) -> (u64, SyncOnDrop<'a>) {
                DevicePtr::device_ptr(self, stream)
            }
        }
        impl<'a, T: Element> From<&'a $type> for Read<'a> {
            fn from(source: &'a $type) -> Self {
                let bytes = cudarc::driver::DeviceSlice::num_bytes(source);
                Read { source, dtype: T::DTYPE, bytes }
            }
        })*
    };
}
readable!(
    CudaSlice<T>,
    CudaView<'_, T>,
    CudaViewMut<'_, T>,
    UnifiedSlice<T>,
    UnifiedView<'_, T>,
    UnifiedViewMut<'_, T>
);

macro_rules! writable {
    ($($type:ty),*) => {
        $(impl<T: Element> Target for $type {
            fn owner(&self) -> &Arc<CudaStream> {
                cudarc::driver::DeviceSlice::stream(self)
            }
            fn address<'a>(&'a mut self, stream: &'a CudaStream) -> (u64, SyncOnDrop<'a>) {
                DevicePtrMut::device_ptr_mut(self, stream)
            }
        }
        impl<'a, T: Element> From<&'a mut $type> for Write<'a> {
            fn from(target: &'a mut $type) -> Self {
                let bytes = cudarc::driver::DeviceSlice::num_bytes(target);
                Write { target, dtype: T::DTYPE, bytes }
            }
        })*
    };
}
writable!(CudaSlice<T>, CudaViewMut<'_, T>, UnifiedSlice<T>, UnifiedViewMut<'_, T>);

/// What is known of a buffer before its address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    pub(crate) dtype: Dtype,
    pub(crate) bytes: usize,
}

/// A buffer of a launch.
pub enum Given<P: Place> {
    /// One to read.
    Read(P::Read),
    /// One to write.
    Write(P::Write),
}

impl<'a> Given<Device<'a>> {
    pub(crate) fn offer(&self) -> Offer {
        match self {
            Given::Read(Read { dtype, bytes, .. }) => Offer { dtype: *dtype, bytes: *bytes },
            Given::Write(Write { dtype, bytes, .. }) => Offer { dtype: *dtype, bytes: *bytes },
        }
    }

    /// The stream it was allocated on.
    pub(crate) fn owner(&self) -> &Arc<CudaStream> {
        match self {
            Given::Read(read) => read.source.owner(),
            Given::Write(write) => write.target.owner(),
        }
    }

    /// Its address, once `stream` was made to wait for other uses; dropping the guard records the
    /// use that follows.
    pub(crate) fn address<'s>(&'s mut self, stream: &'s CudaStream) -> (u64, SyncOnDrop<'s>) {
        match self {
            Given::Read(read) => read.source.address(stream),
            Given::Write(write) => write.target.address(stream),
        }
    }
}

impl Given<Raw> {
    pub(crate) fn address(&self) -> u64 {
        match self {
            Given::Read(address) | Given::Write(address) => *address,
        }
    }
}
