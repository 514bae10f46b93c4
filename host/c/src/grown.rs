//! Structs of the header that begin with their size and grow at their end.

use std::mem::MaybeUninit;

use crate::outcome::Failure;

/// Bytes of a struct of a later version at most. A size beyond is taken for a mistake, and what
/// lies there is not looked at.
const BYTES_MOST: u64 = 4096;

/// A struct of the header whose first field is its size.
///
/// # Safety
/// It is `#[repr(C)]`, its first field a `u64`, and every field a number, a raw pointer or a struct
/// of such, so that any bytes are a value of it; it has no padding.
pub(crate) unsafe trait Grown: Copy {
    /// Its name in the header.
    const NAME: &'static str;
    /// Its bytes in each version of the header, ascending; the last one is this version's.
    const RELEASED_BYTES: &'static [usize];
}

/// Copies a struct of the caller's, which calls it `what`: what it lacks is zero.
///
/// # Safety
/// `pointer` is null, or points to as many bytes as the number there says, and to 8 at least.
pub(crate) unsafe fn read<T: Grown>(pointer: *const T, what: &str) -> Result<T, Failure> {
    const { assert!(is_ascending_to(T::RELEASED_BYTES, size_of::<T>())) };
    if pointer.is_null() {
        return Err(Failure::null(what));
    }
    let bytes = pointer.cast::<u8>();
    // SAFETY: 8 bytes are there by this function's contract.
    let got = unsafe { bytes.cast::<u64>().read_unaligned() };
    let own = size_of::<T>();
    let is_released = T::RELEASED_BYTES.iter().any(|&released| released as u64 == got);
    let count = if is_released {
        got as usize
    } else if got > own as u64 && got <= BYTES_MOST {
        // SAFETY: there are `got` bytes by this function's contract.
        let surplus = unsafe { std::slice::from_raw_parts(bytes.add(own), got as usize - own) };
        if surplus.iter().any(|&byte| byte != 0) {
            return Err(asks_for_more::<T>(what, got));
        }
        own
    } else {
        return Err(is_off::<T>(what, got));
    };
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: there are `count` bytes, by this function's contract, and room for them; any bytes
    // are a value, by the trait's contract.
    unsafe {
        bytes.copy_to_nonoverlapping(value.as_mut_ptr().cast(), count);
        Ok(value.assume_init())
    }
}

fn is_off<T: Grown>(what: &str, got: u64) -> Failure {
    let known: Vec<String> = T::RELEASED_BYTES.iter().map(usize::to_string).collect();
    let (name, known) = (T::NAME, known.join(" or "));
    Failure::argument(format!(
        "{what}.size_bytes is {got}, this library expects {known}: set it to sizeof({name})"
    ))
}

fn asks_for_more<T: Grown>(what: &str, got: u64) -> Failure {
    let (name, own) = (T::NAME, size_of::<T>());
    Failure::argument(format!(
        "{what}.size_bytes is {got}, and its bytes from {own} on are not zero: they ask for what \
         only a later version of this library knows; set the whole {name} to zero before its \
         fields, or load the library that the header belongs to"
    ))
}

const fn is_ascending_to(sizes: &[usize], last: usize) -> bool {
    let mut index = 1;
    while index < sizes.len() {
        if sizes[index - 1] >= sizes[index] {
            return false;
        }
        index += 1;
    }
    !sizes.is_empty() && sizes[sizes.len() - 1] == last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Status;

    /// A struct in its third version.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Third {
        size_bytes: u64,
        first: u32,
        beside: u32,
        second: [u64; 2],
        third: u64,
    }

    // SAFETY: numbers only, no padding.
    unsafe impl Grown for Third {
        const NAME: &'static str = "fulgurite_third";
        const RELEASED_BYTES: &'static [usize] = &[16, 32, 40];
    }

    /// Reads a struct that says it has `bytes`, whose other words are 7.
    fn read_of(bytes: u64, surplus: u64) -> Result<Third, Failure> {
        let mut words = [7; BYTES_MOST as usize / 8 + 1];
        words[0] = bytes;
        words[size_of::<Third>() / 8..].fill(surplus);
        // SAFETY: so many words are there as the largest size that is believed.
        unsafe { read(words.as_ptr().cast::<Third>(), "it") }
    }

    #[test]
    fn every_released_size_is_read_and_the_rest_is_zero() {
        let whole = Third { size_bytes: 40, first: 7, beside: 0, second: [7, 7], third: 7 };
        assert_eq!(read_of(40, u64::MAX), Ok(whole));
        let second = Third { size_bytes: 32, third: 0, ..whole };
        assert_eq!(read_of(32, u64::MAX), Ok(second));
        assert_eq!(read_of(16, 9), Ok(Third { size_bytes: 16, second: [0; 2], ..second }));
    }

    #[test]
    fn a_later_version_is_read_while_what_is_unknown_is_zero() {
        let whole = read_of(40, 0).expect("this version's");
        for bytes in [41, 48, 400, BYTES_MOST] {
            assert_eq!(read_of(bytes, 0), Ok(Third { size_bytes: bytes, ..whole }));
        }
        for bytes in [48, 400, BYTES_MOST] {
            // The last byte alone of each unknown word.
            let failure = read_of(bytes, 1 << 56).unwrap_err();
            assert_eq!(failure.status, Status::Argument);
            let text = format!("it.size_bytes is {bytes}, and its bytes from 40 on are not zero");
            assert!(failure.message.starts_with(&text), "{}", failure.message);
        }
        // What lies behind the size that is said is not looked at.
        assert_eq!(read_of(47, 1 << 56), Ok(Third { size_bytes: 47, ..whole }));
    }

    #[test]
    fn other_sizes_are_refused_before_anything_is_read() {
        for bytes in [0, 1, 8, 15, 17, 24, 33, BYTES_MOST + 1, 1 << 40, u64::MAX] {
            let failure = read_of(bytes, 0).unwrap_err();
            let text = format!(
                "it.size_bytes is {bytes}, this library expects 16 or 32 or 40: set it to \
                 sizeof(fulgurite_third)"
            );
            assert_eq!(failure, Failure { status: Status::Argument, message: text });
        }
    }
}
