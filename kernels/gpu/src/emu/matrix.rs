//! `ldmatrix` and `stmatrix`: four 8×8 matrices of 16-bit elements between shared memory and the
//! registers of a warp.
//!
//! A row belongs to the thread that gives its address, but all threads share in it: each of them
//! must know what the access has to come after.

use super::clock::Clocks;
use super::report::{Checked, Site};
use super::shared::Shared;

/// Which thread of the warp holds an element, and at which bit of its register.
fn place(row: usize, column: usize, transposed: bool) -> (usize, u32) {
    let (row, column) = if transposed { (column, row) } else { (row, column) };
    (row * 4 + column / 2, column as u32 % 2 * 16)
}

/// The warp's 32 row addresses have come: gives every thread its four words.
pub fn load(
    shared: &mut Shared,
    clocks: &mut Clocks,
    warp: usize,
    rows: &[u32],
    transposed: bool,
) -> Checked<[[u32; 4]; 32]> {
    let threads = warp * 32..warp * 32 + 32;
    let mut words = [[0_u32; 4]; 32];
    for (index, row) in rows.iter().enumerate() {
        let bytes = shared.load_together(clocks, threads.clone(), threads.start + index, *row)?;
        for (column, pair) in bytes.chunks_exact(2).enumerate() {
            let (holder, shift) = place(index % 8, column, transposed);
            let element = u32::from(u16::from_le_bytes([pair[0], pair[1]]));
            words[holder][index / 8] |= element << shift;
        }
    }
    Ok(words)
}

/// The warp's 32 row addresses and its words have come: writes the rows.
pub fn store(
    shared: &mut Shared,
    clocks: &mut Clocks,
    warp: usize,
    parts: &[(u32, [u32; 4])],
    transposed: bool,
    site: Site,
) -> Checked {
    let threads = warp * 32..warp * 32 + 32;
    for (index, (row, _)) in parts.iter().enumerate() {
        let mut bytes = [0; 16];
        for (column, pair) in bytes.chunks_exact_mut(2).enumerate() {
            let (holder, shift) = place(index % 8, column, transposed);
            let element = (parts[holder].1[index / 8] >> shift) as u16;
            pair.copy_from_slice(&element.to_le_bytes());
        }
        let thread = threads.start + index;
        shared.store_together(clocks, threads.clone(), thread, (*row, &bytes), site)?;
    }
    Ok(())
}
