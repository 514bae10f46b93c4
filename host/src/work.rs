//! What a plan decides, in words that no operation has a part in: buffers, launches, a workspace.

use std::mem::MaybeUninit;

use fulgurite_spec::{LaunchSpec, TensorMap};

use crate::args::{Access, BUFFER_LIMIT, Buffers, Field};
use crate::module::{self, KERNEL_COUNT};
use crate::place::{Offer, Raw};
use crate::tensor_map::TensorMapSpec;
use crate::{Dtype, Error};

/// Launches of a plan at most.
pub(crate) const LAUNCH_LIMIT: usize = 4;

/// Bytes of a kernel's parameters at most (CUDA's own limit for all architectures).
const PARAMETER_LIMIT_BYTES: usize = 4096;

/// A buffer that launches of a plan bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BufferNeed {
    /// The argument's name.
    pub name: &'static str,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Elements it has at least, from its tensor's first element on. A buffer of 0 elements is not
    /// looked at: any address will do.
    pub elements: usize,
    /// Whether it is read or written.
    pub access: Access,
    /// Its address is a multiple of so many bytes.
    pub align_bytes: u64,
}

/// What an address in a parameter points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// The first element of the buffer of this name.
    Buffer(&'static str),
    /// The same, once it is known which of the arguments' fields that is.
    Place(usize),
    /// So many bytes into the workspace.
    Workspace(u64),
}

/// What a kernel's parameters wait for, and at which byte of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Slot {
    /// A device address.
    Address(usize, Memory),
    /// A tensor map of memory.
    Map(usize, Memory, TensorMapSpec),
}

/// A kernel's parameters as bytes, in words of 8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    words: Vec<u64>,
}

impl Block {
    /// `bytes` zeros.
    ///
    /// # Panics
    /// If a kernel cannot have so many.
    pub(crate) fn zeroed(bytes: usize) -> Block {
        assert!(bytes <= PARAMETER_LIMIT_BYTES && bytes.is_multiple_of(8));
        Block { words: vec![0; bytes / 8] }
    }

    /// Writes `value` at byte `at`.
    ///
    /// # Safety
    /// `T` is a `#[repr(C)]` struct of integers and floats without padding.
    ///
    /// # Panics
    /// If it does not lie in the block.
    pub(crate) unsafe fn put<T: Copy>(mut self, at: usize, value: &T) -> Block {
        assert!(at + size_of::<T>() <= self.words.len() * 8);
        // SAFETY: inside the words by the assertion; all bytes of the value are initialised, by
        // this function's contract.
        unsafe {
            let place = self.words.as_mut_ptr().cast::<u8>().add(at);
            std::ptr::copy_nonoverlapping(std::ptr::from_ref(value).cast(), place, size_of::<T>());
        }
        self
    }

    /// Reads a value at byte `at`.
    ///
    /// # Safety
    /// `T` is a `#[repr(C)]` struct of integers and floats.
    ///
    /// # Panics
    /// If it does not lie in the block.
    pub(crate) unsafe fn get<T: Copy>(&self, at: usize) -> T {
        assert!(at + size_of::<T>() <= self.words.len() * 8);
        // SAFETY: inside the words by the assertion, which are initialised, and any bytes are a
        // value of the type, by this function's contract.
        unsafe { self.words.as_ptr().cast::<u8>().add(at).cast::<T>().read_unaligned() }
    }
}

/// One kernel of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    pub(crate) kernel: usize,
    pub(crate) grid: u32,
    pub(crate) params: Block,
    pub(crate) slots: Vec<Slot>,
}

impl Launch {
    /// The kernel's name.
    pub fn entry(&self) -> &'static str {
        module::entry(self.kernel)
    }

    /// Blocks of the grid, along x.
    pub fn grid(&self) -> u32 {
        self.grid
    }

    /// Threads, shared memory and registers of a block.
    pub fn spec(&self) -> LaunchSpec {
        module::launch_spec(self.kernel)
    }

    /// The tensor maps that a launch encodes, in the order of the parameters.
    pub fn tensor_maps(&self) -> impl Iterator<Item = &TensorMapSpec> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Map(_, _, spec) => Some(spec),
            Slot::Address(..) => None,
        })
    }

    /// The kernel's parameters, with each slot filled.
    ///
    /// # Errors
    /// Those of `encode`, which makes the map of a spec at an address.
    pub(crate) fn fill(
        &self,
        addresses: &Addresses,
        mut encode: impl FnMut(&TensorMapSpec, u64) -> Result<TensorMap, Error>,
    ) -> Result<Params, Error> {
        let mut params = Params::of(&self.params);
        for slot in &self.slots {
            match slot {
                Slot::Address(at, memory) => params.put(*at, &[addresses.of(*memory)]),
                Slot::Map(at, memory, spec) => {
                    params.put(*at, &encode(spec, addresses.of(*memory))?.0);
                }
            }
        }
        Ok(params)
    }
}

/// Parameters that are ready for a launch, where TMA finds the maps it wants.
#[repr(C, align(64))]
pub(crate) struct Params {
    words: [MaybeUninit<u64>; PARAMETER_LIMIT_BYTES / 8],
    bytes: usize,
}

impl Params {
    fn of(block: &Block) -> Params {
        let mut words = [const { MaybeUninit::uninit() }; PARAMETER_LIMIT_BYTES / 8];
        for (place, word) in words.iter_mut().zip(&block.words) {
            place.write(*word);
        }
        Params { words, bytes: block.words.len() * 8 }
    }

    /// Writes words at byte `at`, a multiple of 8.
    fn put(&mut self, at: usize, words: &[u64]) {
        debug_assert!(at.is_multiple_of(8) && at + 8 * words.len() <= self.bytes);
        for (place, word) in self.words.iter_mut().skip(at / 8).zip(words) {
            place.write(*word);
        }
    }

    /// Where they are.
    pub(crate) fn address(&self) -> *const u8 {
        self.words.as_ptr().cast()
    }

    /// How many there are.
    #[cfg(feature = "emulator-sample")]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What a plan decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// The buffers.
    pub(crate) buffers: Vec<BufferNeed>,
    /// Index of each of the arguments' fields in `buffers`.
    needs: [Option<usize>; BUFFER_LIMIT],
    /// The kernels in the order of the stream; none if there is nothing to compute.
    pub(crate) launches: Vec<Launch>,
    pub(crate) workspace_bytes: u64,
}

/// Addresses of a launch: those of the buffers at their fields' places, and the workspace's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) buffers: [u64; BUFFER_LIMIT],
    pub(crate) workspace: u64,
}

impl Work {
    /// Buffers that launches bring, the kernels they run, and the workspace's bytes.
    ///
    /// # Panics
    /// If that breaks a limit of the core or names a buffer that no argument brings, which would be
    /// an error of this crate.
    pub(crate) fn new(
        fields: &[Field],
        buffers: Vec<BufferNeed>,
        mut launches: Vec<Launch>,
        workspace_bytes: u64,
    ) -> Work {
        assert!(launches.len() <= LAUNCH_LIMIT);
        assert!(launches.iter().all(|launch| launch.kernel < KERNEL_COUNT));
        let place = |name: &str| {
            let place = fields.iter().position(|field| field.name == name);
            place.expect("an argument brings each buffer")
        };
        let mut needs = [None; BUFFER_LIMIT];
        for (index, need) in buffers.iter().enumerate() {
            needs[place(need.name)] = Some(index);
        }
        // A map has an address other than 0, also that of a tensor without elements, which nobody
        // looks at: it gets that of one which has some.
        let filled = buffers.iter().find(|need| need.elements > 0);
        for slot in launches.iter_mut().flat_map(|launch| &mut launch.slots) {
            let (Slot::Address(_, memory) | Slot::Map(_, memory, _)) = slot;
            if let Memory::Buffer(name) = *memory {
                let own = buffers.iter().find(|need| need.name == name && need.elements > 0);
                let name = own.or(filled).map_or(name, |need| need.name);
                *memory = Memory::Place(place(name));
            }
        }
        Work { buffers, needs, launches, workspace_bytes }
    }

    fn need(&self, place: usize) -> Option<&BufferNeed> {
        self.needs[place].map(|index| &self.buffers[index])
    }

    /// Checks which buffers are given, their element types and lengths.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Unexpected`], [`Error::BufferDtype`],
    /// [`Error::BufferTooShort`].
    pub(crate) fn check_offers(
        &self,
        fields: &[Field],
        offers: &[Option<Offer>; BUFFER_LIMIT],
    ) -> Result<(), Error> {
        for (place, field) in fields.iter().enumerate() {
            let Some(need) = self.check_given(place, field.name, offers[place].is_some())? else {
                continue;
            };
            let Some(offer) = offers[place] else {
                continue;
            };
            let buffer = field.name;
            if offer.dtype != need.dtype {
                let (got, want) = (offer.dtype, need.dtype);
                return Err(Error::BufferDtype { buffer, got, want });
            }
            let got = offer.bytes / need.dtype.bytes() as usize;
            if got < need.elements {
                return Err(Error::BufferTooShort { buffer, got, want: need.elements });
            }
        }
        Ok(())
    }

    /// Checks that a buffer is given exactly if the plan has a use for it, and returns that.
    fn check_given(
        &self,
        place: usize,
        buffer: &'static str,
        given: bool,
    ) -> Result<Option<&BufferNeed>, Error> {
        match (self.need(place), given) {
            (Some(need), false) => {
                let BufferNeed { dtype, elements, .. } = *need;
                Err(Error::Missing { buffer, dtype, elements })
            }
            (None, true) => Err(Error::Unexpected { buffer }),
            (need, _) => Ok(need),
        }
    }

    /// Checks bare addresses, which are given, none null, all aligned, and the workspace (address,
    /// bytes), where one is needed. Addresses of empty buffers are not looked at.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Unexpected`], [`Error::NullPointer`], [`Error::Misaligned`],
    /// [`Error::WorkspaceShort`].
    pub(crate) fn locate(
        &self,
        fields: &[Field],
        given: &[Option<u64>; BUFFER_LIMIT],
        workspace: Option<(u64, u64)>,
    ) -> Result<Addresses, Error> {
        for (place, field) in fields.iter().enumerate() {
            let need = self.check_given(place, field.name, given[place].is_some())?;
            if let (Some(need), Some(address)) = (need, given[place])
                && need.elements > 0
            {
                check_address(field.name, address, need.align_bytes)?;
            }
        }
        let (address, got) = workspace.unwrap_or((0, 0));
        let want = self.workspace_bytes;
        if got < want {
            return Err(Error::WorkspaceShort { got, want });
        }
        if want > 0 {
            check_address("workspace", address, crate::Workspace::ALIGN_BYTES)?;
        }
        let buffers = given.map(|address| address.unwrap_or(0));
        Ok(Addresses { buffers, workspace: address })
    }

    /// As [`locate`](Self::locate), of a launch's own addresses.
    pub(crate) fn locate_raw(
        &self,
        fields: &[Field],
        buffers: Buffers<Raw>,
    ) -> Result<Addresses, Error> {
        let given = buffers.given.map(|given| given.map(|given| given.address()));
        let workspace = buffers.workspace.map(|given| (given.address, given.bytes));
        self.locate(fields, &given, workspace)
    }
}

impl Addresses {
    fn of(&self, memory: Memory) -> u64 {
        match memory {
            Memory::Place(place) => self.buffers[place],
            Memory::Workspace(offset) => self.workspace + offset,
            Memory::Buffer(_) => unreachable!("work knows its buffers by their places"),
        }
    }
}

/// A device address is neither null nor misaligned.
///
/// # Errors
/// [`Error::NullPointer`], [`Error::Misaligned`].
pub(crate) fn check_address(buffer: &'static str, address: u64, want: u64) -> Result<(), Error> {
    if address == 0 {
        return Err(Error::NullPointer { buffer });
    }
    if !address.is_multiple_of(want) {
        return Err(Error::Misaligned { buffer, address, want });
    }
    Ok(())
}
