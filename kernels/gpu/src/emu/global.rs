//! Global memory: the ranges that a launch names, and nothing else.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};

use super::report::{Checked, broken};

/// Marks a word that the copy engine may still write.
const PENDING: u32 = 1 << 31;

/// A range of global memory. `address` is what kernels compute with; the bytes lie in a slice of
/// the host, at any place.
#[derive(Debug)]
struct Range {
    name: &'static str,
    address: u64,
    bytes: *mut u8,
    len: usize,
    /// Who wrote each 4-byte word (block and thread, plus one), with [`PENDING`] as long as that
    /// thread has not waited for the copy engine's store; empty: read-only.
    writers: Vec<AtomicU32>,
}

/// The global memory of a launch. Whatever is not in one of its ranges is out of bounds.
#[derive(Debug, Default)]
pub struct Global<'a> {
    ranges: Vec<Range>,
    borrowed: PhantomData<&'a mut [u8]>,
}

// SAFETY: read-only ranges are shared borrows; words of writable ones are written by one thread
// each, which `writers` makes sure of before every store.
unsafe impl Sync for Global<'_> {}

impl Range {
    /// Indices of the words that a piece touches whose writers are known.
    fn words(&self, offset: usize, len: usize) -> std::ops::Range<usize> {
        if self.writers.is_empty() { 0..0 } else { offset / 4..(offset + len).div_ceil(4) }
    }

    /// The range's name, and who writes in it, in words.
    fn written_by(&self, writer: u32) -> String {
        let thread = (writer & !PENDING) - 1;
        let (block, thread) = (thread / 1024, thread % 1024);
        let store = if writer & PENDING == 0 { "" } else { ", by a store not waited for" };
        format!("{}, which thread {thread} of block {block} writes too{store}", self.name)
    }
}

impl<'a> Global<'a> {
    /// No memory at all.
    pub fn new() -> Global<'a> {
        Global::default()
    }

    /// Adds memory that the kernel may read, `bytes[0]` at `address`.
    pub fn readable(&mut self, name: &'static str, address: u64, bytes: &'a [u8]) {
        let (pointer, len) = (bytes.as_ptr().cast_mut(), bytes.len());
        self.ranges.push(Range { name, address, bytes: pointer, len, writers: Vec::new() });
    }

    /// Adds memory that the kernel may write, `bytes[0]` at `address`.
    pub fn writable(&mut self, name: &'static str, address: u64, bytes: &'a mut [u8]) {
        let writers = (0..bytes.len().div_ceil(4)).map(|_| AtomicU32::new(0)).collect();
        let (pointer, len) = (bytes.as_mut_ptr(), bytes.len());
        self.ranges.push(Range { name, address, bytes: pointer, len, writers });
    }

    /// Ends a launch: what it wrote is memory like any other for the next.
    pub fn settle(&self) {
        for word in self.ranges.iter().flat_map(|range| &range.writers) {
            word.store(0, Ordering::Relaxed);
        }
    }

    fn find(&self, address: u64, len: usize) -> Checked<(&Range, usize)> {
        let inside = |range: &&Range| {
            address >= range.address
                && address - range.address <= range.len as u64
                && len as u64 <= range.len as u64 - (address - range.address)
        };
        if let Some(range) = self.ranges.iter().find(inside) {
            return Ok((range, (address - range.address) as usize));
        }
        let mut near = String::new();
        for range in &self.ranges {
            let end = range.address + range.len as u64;
            near += &format!(" {} [{:#x}, {end:#x});", range.name, range.address);
        }
        broken!(
            OutOfBounds,
            "{len} bytes of global memory at {address:#x} are in no range of the launch:{near}"
        )
    }

    /// Reads `to.len()` bytes for thread `reader` of the grid. What others write in the same launch
    /// may not be read: nothing here orders that.
    pub(crate) fn read(&self, address: u64, to: &mut [u8], reader: u32) -> Checked {
        let (range, offset) = self.find(address, to.len())?;
        for word in range.words(offset, to.len()) {
            let writer = range.writers[word].load(Ordering::Relaxed);
            if writer != 0 && writer != reader + 1 {
                return broken!(Race, "reads byte {} of {}", word * 4, range.written_by(writer));
            }
        }
        // SAFETY: the bytes lie inside the range, which is borrowed for `'a`.
        unsafe {
            std::ptr::copy_nonoverlapping(range.bytes.add(offset), to.as_mut_ptr(), to.len());
        }
        Ok(())
    }

    /// Writes whole words as thread `writer` of the grid; a word has one writer in a launch.
    pub(crate) fn write(&self, address: u64, from: &[u8], writer: u32) -> Checked {
        if !address.is_multiple_of(from.len() as u64) {
            return broken!(
                Malformed,
                "a store of {} bytes to {address:#x}, which is not a multiple of it",
                from.len()
            );
        }
        self.claim(address, from.len(), writer + 1)?;
        self.put(address, from)
    }

    /// The copy engine will write `len` bytes for thread `writer`.
    pub(crate) fn will_store(&self, address: u64, len: usize, writer: u32) -> Checked {
        self.claim(address, len, (writer + 1) | PENDING)
    }

    /// The copy engine writes what [`Global::will_store`] announced.
    pub(crate) fn store(&self, address: u64, from: &[u8]) -> Checked {
        self.put(address, from)
    }

    /// Thread `writer` has waited for such a store.
    pub(crate) fn stored(&self, address: u64, len: usize, writer: u32) -> Checked {
        let (range, offset) = self.find(address, len)?;
        for word in range.words(offset, len) {
            range.writers[word].store(writer + 1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Makes `claimant` the one writer of some words.
    fn claim(&self, address: u64, len: usize, claimant: u32) -> Checked {
        let (range, offset) = self.find(address, len)?;
        if range.writers.is_empty() {
            return broken!(OutOfBounds, "{address:#x} is in {}, which is read-only", range.name);
        }
        for word in range.words(offset, len) {
            let before = range.writers[word].swap(claimant, Ordering::Relaxed);
            if before != 0 && before != claimant & !PENDING {
                let by = range.written_by(before);
                return broken!(Race, "writes byte {} of {by}", word * 4);
            }
        }
        Ok(())
    }

    /// Writes bytes whose words have been claimed.
    fn put(&self, address: u64, from: &[u8]) -> Checked {
        let (range, offset) = self.find(address, from.len())?;
        // SAFETY: the bytes lie inside the range, which is borrowed exclusively for `'a`; no other
        // thread writes these words, as the claim made sure.
        unsafe {
            std::ptr::copy_nonoverlapping(from.as_ptr(), range.bytes.add(offset), from.len());
        }
        Ok(())
    }
}
