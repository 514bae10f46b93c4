//! Everything that can go wrong, with what was got, what is allowed and what to do.

mod class;
mod remedy;

pub use class::ErrorClass;

use crate::{Dtype, Form, Mask};
use remedy::{devices_shown, remedy_of_missing};

/// Why a call was refused or failed. Nothing has been launched or written when one is returned.
///
/// `Debug` prints the same text as `Display`: it is what a `main` that returns an error shows.
#[derive(Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two tensors have different element types.
    #[error("{tensor} has elements of type {}, q of type {}: all tensors must share one type \
             (out of e4m3 is bf16 or f16); convert {tensor}", .got.name(), .want.name())]
    DtypeMix {
        /// The tensor that differs from q.
        tensor: &'static str,
        /// Its element type.
        got: Dtype,
        /// The element type of q.
        want: Dtype,
    },
    /// A tensor's size along one axis does not fit the other tensors.
    #[error("{tensor} has {axis} {got}, but {other} has {want}: they must be equal")]
    Shape {
        /// The tensor that does not fit.
        tensor: &'static str,
        /// The axis: batch, heads, rows or head_dim.
        axis: &'static str,
        /// The tensor's size along that axis.
        got: usize,
        /// The tensor it was compared with.
        other: &'static str,
        /// The size of that one.
        want: usize,
    },
    /// A size that must not be zero is zero.
    #[error(
        "{tensor} has {axis} 0: it must be at least 1 (batch, query rows and keys may be 0); skip \
             the call"
    )]
    Empty {
        /// The empty tensor.
        tensor: &'static str,
        /// The axis of size 0.
        axis: &'static str,
    },
    /// The query heads cannot be shared out over the KV heads.
    #[error(
        "q has {q_heads} heads, k and v have {kv_heads}: the heads of q must be a multiple of \
             those of k and v; repeat or regroup the KV heads"
    )]
    HeadGroups {
        /// Query heads.
        q_heads: usize,
        /// Key and value heads.
        kv_heads: usize,
    },
    /// A tensor has another form than the call takes.
    #[error("{tensor} is {}: the call takes batched tensors; describe it with Layout::bshd, \
             Layout::bhsd or Layout::strided", .got.name())]
    Form {
        /// The tensor.
        tensor: &'static str,
        /// Its form.
        got: Form,
    },
    /// A window that shows no row a key, whatever the lengths.
    #[error(
        "a window from {left} keys before a row's position to {right} behind it holds none: \
             left + right must be at least 0 (negative numbers are offsets, None is unbounded)"
    )]
    Window {
        /// Keys before the row's position.
        left: i32,
        /// Keys behind it.
        right: i32,
    },
    /// Gradients are asked for of a forward call without log-sum-exp.
    #[error("the forward call has no log-sum-exp, which gradients need: ask it for one (with_lse)")]
    LseOfForward,
    /// The request makes sense, but no kernel computes it.
    #[error("no kernel for {what}; nearest is {nearest}, which differs in {differs}: {remedy}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// The kernel that is nearest to it.
        nearest: &'static str,
        /// What that one does not do.
        differs: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A kernel was chosen by hand that cannot compute the request.
    #[error(
        "the kernel {entry} does not compute {} with a {mask:?} mask at head_dim {head_dim}: \
         choose a row of internals::VARIANTS with the same element types and mask and at least \
         this head_dim (without keys: a causal one that stores keyless query tiles), or let the \
         plan choose",
        dtype.name()
    )]
    WrongEntry {
        /// The kernel.
        entry: &'static str,
        /// Element type in which v would be multiplied.
        dtype: Dtype,
        /// Mask asked for.
        mask: Mask,
        /// Head dim asked for.
        head_dim: usize,
    },
    /// The head dim of a tensor is not its contiguous axis.
    #[error("the head_dim stride of {tensor} is {got} elements: it must be 1; copy {tensor}")]
    LastStride {
        /// The tensor.
        tensor: &'static str,
        /// Its stride along head_dim, in elements.
        got: usize,
    },
    /// A stride is not a whole number of 16-byte units.
    #[error(
        "the {axis} stride of {tensor} is {got} elements: it must be a multiple of {want} elements \
             (16 bytes, asked for by TMA); copy the tensor or pad its rows"
    )]
    StrideAlignment {
        /// The tensor.
        tensor: &'static str,
        /// The axis.
        axis: &'static str,
        /// Its stride in elements.
        got: usize,
        /// What it must be a multiple of.
        want: usize,
    },
    /// A stride of zero along an axis that has more than one index, other than the batch of k or v
    /// and the heads of k and v together.
    #[error(
        "the {axis} stride of {tensor} is 0 along {size} indices: only batch entries of k and v \
             may be broadcast, and their heads if it is those of both; give each index memory of \
             its own"
    )]
    StrideZero {
        /// The tensor.
        tensor: &'static str,
        /// The axis.
        axis: &'static str,
        /// Size along the axis.
        size: usize,
    },
    /// A stride is too large for a tensor map.
    #[error(
        "the {axis} stride of {tensor} is {got_bytes} bytes: it must be below 2^40 bytes; copy \
             the tensor into a denser layout"
    )]
    StrideTooLarge {
        /// The tensor.
        tensor: &'static str,
        /// The axis.
        axis: &'static str,
        /// Its stride in bytes.
        got_bytes: u128,
    },
    /// Two elements of a tensor that is written would share an address.
    #[error(
        "the {axis} stride of {tensor} is {got} elements, less than the {want} elements that the \
             axes inside it span: its rows would overlap; give {tensor} its own memory"
    )]
    OutputOverlaps {
        /// The tensor.
        tensor: &'static str,
        /// The axis whose stride is too small.
        axis: &'static str,
        /// Its stride in elements.
        got: usize,
        /// The smallest allowed stride in elements.
        want: usize,
    },
    /// A size is beyond what the kernels count with.
    #[error("{tensor} has {axis} {got}: at most {limit} is supported; split the call")]
    TooLarge {
        /// The tensor.
        tensor: &'static str,
        /// The axis.
        axis: &'static str,
        /// Its size.
        got: usize,
        /// The largest supported size.
        limit: usize,
    },
    /// A tensor reaches further than 64-bit byte offsets.
    #[error(
        "{tensor} spans 2^63 bytes or more (shape {shape:?}, strides {strides:?} elements): \
             check its shape and strides"
    )]
    SpanOverflow {
        /// The tensor.
        tensor: &'static str,
        /// Its shape: batch, heads, rows, head_dim.
        shape: [usize; 4],
        /// Its strides in elements, same order.
        strides: [usize; 4],
    },
    /// The call has more tiles of work than a kernel can count.
    #[error(
        "the call has {got} tiles of rows over all heads and batch entries: at most {limit} are \
             supported; split the batch"
    )]
    TooManyJobs {
        /// Tiles of the whole call: of query rows or, where they are quantised, of all rows.
        got: u128,
        /// The largest supported count.
        limit: u32,
    },
    /// The softmax scale is not a usable number.
    #[error(
        "softmax scale {got}: it must be a positive normal f32, also after multiplication \
             with log2(e); pass None for 1/sqrt(head_dim)"
    )]
    Scale {
        /// The scale asked for.
        got: f32,
    },
    /// It is not said what the stored numbers of 8-bit tensors are multiplied with.
    #[error(
        "q, k and v are {}, and it is not said what their numbers are multiplied with: \
             call Forward::descale (Descale::One if they are meant as they are stored)",
        dtype.name()
    )]
    DescaleUnset {
        /// The tensors' element type.
        dtype: Dtype,
    },
    /// Numbers of 16 bits are to be multiplied with something.
    #[error(
        "q, k and v are {}, whose numbers are meant as they are stored: do not call \
             Forward::descale; it is for tensors of e4m3",
        dtype.name()
    )]
    DescaleUnexpected {
        /// The tensors' element type.
        dtype: Dtype,
    },
    /// What numbers are multiplied with may not differ so.
    #[error(
        "the descale of {tensor} is {got}: only that of q may differ by row; \
             choose Descale::One, PerTensor or PerHead"
    )]
    DescaleShape {
        /// The tensor.
        tensor: &'static str,
        /// How it was to differ.
        got: &'static str,
    },
    /// The GPU cannot run the kernels.
    #[error("{device} has compute capability {}.{}: the kernels need {}; use such a GPU",
             .got.0, .got.1, crate::device::gpus_of(*.want))]
    Architecture {
        /// Name of the device.
        device: String,
        /// Its compute capability.
        got: (u32, u32),
        /// The least compute capability that the kernels were compiled for.
        want: (u32, u32),
    },
    /// The GPU offers a block less shared memory than the kernel needs.
    #[error(
        "{device} offers {got_bytes} bytes of shared memory to a block, {entry} needs \
             {want_bytes}: use a GPU that offers as much, and all of it"
    )]
    SharedMemory {
        /// Name of the device.
        device: String,
        /// The kernel.
        entry: &'static str,
        /// Bytes the device offers.
        got_bytes: u32,
        /// Bytes the kernel needs.
        want_bytes: u32,
    },
    /// A buffer's element type is not the planned one.
    #[error("the buffer of {buffer} holds {}, the plan is for {}: pass a buffer of the planned \
             type or plan again", .got.name(), .want.name())]
    BufferDtype {
        /// The buffer.
        buffer: &'static str,
        /// Its element type.
        got: Dtype,
        /// Element type of the plan.
        want: Dtype,
    },
    /// A buffer ends before its layout does.
    #[error(
        "the buffer of {buffer} has {got} elements, its layout reaches {want}: pass a longer \
             buffer or plan with the right shape and strides"
    )]
    BufferTooShort {
        /// The buffer.
        buffer: &'static str,
        /// Its elements.
        got: usize,
        /// Elements the layout needs.
        want: usize,
    },
    /// An address is zero.
    #[error("the address of {buffer} is null: pass a device address")]
    NullPointer {
        /// The buffer.
        buffer: &'static str,
    },
    /// An address is not aligned.
    #[error("the address of {buffer} is {address:#x}: it must be a multiple of {want} bytes; start \
             the view at an element whose index is a multiple of {}", .want / 2)]
    Misaligned {
        /// The buffer.
        buffer: &'static str,
        /// Its device address.
        address: u64,
        /// The alignment it needs in bytes.
        want: u64,
    },
    /// The plan has a use for a buffer that the launch does not bring.
    #[error(
        "the launch got no buffer for {buffer}: pass one of {elements} {} with the arguments' \
             `{buffer}`, or plan a request that does without",
        dtype.name()
    )]
    Missing {
        /// The buffer.
        buffer: &'static str,
        /// Type of its elements.
        dtype: Dtype,
        /// Elements it needs.
        elements: usize,
    },
    /// The launch brings a buffer that the plan has no use for, and would leave as it is.
    #[error(
        "the launch got a buffer for {buffer}, which the plan has no use for: leave it out, or \
             plan a request that says so (`with_{buffer}`)"
    )]
    Unexpected {
        /// The buffer.
        buffer: &'static str,
    },
    /// The workspace has fewer bytes than the plan needs, or none was given.
    #[error(
        "the workspace has {got} bytes, the plan needs {want}: call \
             `workspace.grow(plan.workspace_bytes())` before, and pass it with the arguments' \
             `workspace`"
    )]
    WorkspaceShort {
        /// Bytes of the workspace; 0 if there is none.
        got: u64,
        /// Bytes that the plan needs.
        want: u64,
    },
    /// A workspace serves launches on one stream, and this launch is on another.
    #[error(
        "the workspace belongs to another stream than the one of the launch: make one for each \
             stream, because launches that may run at once must not share it"
    )]
    WorkspaceStream,
    /// The workspace was used in a capture, so that a graph holds its address.
    #[error(
        "the workspace cannot grow: a captured graph holds its address; grow it to the largest \
             plan's bytes before the capture, or make another one"
    )]
    WorkspacePinned,
    /// A plan would need more workspace than its options allow.
    #[error(
        "the plan needs a workspace of {got} bytes, its options allow {limit}: allow more, or \
             split the call"
    )]
    Limit {
        /// Bytes that the plan needs.
        got: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// A plan would need more workspace than any device has.
    #[error(
        "the call needs a workspace of more than {limit} bytes: split the batch, or ask for a \
             precision that needs none"
    )]
    WorkspaceTooLarge {
        /// Bytes of a workspace at most.
        limit: u64,
    },
    /// A buffer or the stream lives in another CUDA context than the plan.
    #[error(
        "{what} belongs to another CUDA context (device {got}) than the plan (device {want}): \
             use the context of `FlashAttention::context`"
    )]
    WrongDevice {
        /// The stream or tensor.
        what: &'static str,
        /// Ordinal of its device.
        got: usize,
        /// Ordinal of the plan's device.
        want: usize,
    },
    /// The stream is being captured while cudarc orders streams by events.
    #[error(
        "the stream is being captured while cudarc tracks its buffers with events, which \
             would break the capture: call `CudaContext::disable_event_tracking` for the time of \
             the capture, or launch with `launch_raw`"
    )]
    CaptureWithEvents,
    /// No NVIDIA driver on this machine, or none that can be loaded.
    #[error(
        "no NVIDIA driver: {reason}; install the driver (no CUDA toolkit is needed) or run \
             where one is; start a container with `--gpus all` (Docker) and \
             NVIDIA_DRIVER_CAPABILITIES=compute,utility; `Plan::new` works without"
    )]
    NoDriver {
        /// What was tried and what the system said.
        reason: String,
    },
    /// The driver is older than the interface the kernels need.
    #[error(
        "the NVIDIA driver lacks {symbol}: a driver of CUDA 12.0 (525) or later is needed; \
             update the driver"
    )]
    DriverTooOld {
        /// The missing function.
        symbol: &'static str,
    },
    /// What was loaded as the driver is the library of a CUDA toolkit that programs are linked
    /// with; it cannot do anything.
    #[error(
        "{path} is a CUDA toolkit's stub and no driver: take its folder out of LD_LIBRARY_PATH \
             (the toolkit's `stubs` folder is meant for linking only), so that the driver's own \
             library is found"
    )]
    StubDriver {
        /// The library that was loaded.
        path: String,
    },
    /// There is no device of this ordinal.
    #[error("no device {ordinal}: {}", devices_shown(*.count))]
    NoDevice {
        /// The ordinal asked for.
        ordinal: usize,
        /// Devices the driver shows.
        count: usize,
    },
    /// A driver call failed.
    #[error("{call} failed with {name} ({code}): {detail}; {advice}")]
    Driver {
        /// The driver function.
        call: &'static str,
        /// Its `CUresult`.
        code: u32,
        /// The name of that code.
        name: String,
        /// What the code means, and the kernel concerned.
        detail: String,
        /// What to do about it.
        advice: &'static str,
    },
    /// The CUDA context was reset or destroyed, and with it kernels, streams and buffers.
    #[error(
        "the CUDA context of device {ordinal} was reset or destroyed (cudaDeviceReset, \
             cuDevicePrimaryCtxReset, cuCtxDestroy) after this plan was made or this device was \
             opened: make the plan again, with new streams and buffers; if that is refused as \
             well, open the device again first"
    )]
    ContextGone {
        /// Ordinal of the context's device.
        ordinal: usize,
    },
    /// The process was forked from one that had used the driver, which does not survive that.
    #[error(
        "process {pid} was forked from one that had used the CUDA driver, and the driver does not \
             work in a forked process: start it another way (Python: multiprocessing's \"spawn\" \
             or \"forkserver\"), or fork before the first use of CUDA"
    )]
    Forked {
        /// This process.
        pid: u32,
    },
    /// The crate was built without this kernel.
    #[error("the kernel {entry} is not in this build: {}", remedy_of_missing(cfg!(packaged)))]
    NotBuilt {
        /// The missing entry.
        entry: String,
    },
    /// A kernel broke a rule on the emulator.
    #[error("on the emulator: {fault}; this is an error of the kernel: please report it")]
    Emulated {
        /// The rule, where it was broken and by whom.
        fault: String,
    },
}
