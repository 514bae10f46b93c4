//! Bodies of the primitives on the host: each does to the emulated block what its instruction does.
//!
//! Contracts are those of the public function of the same purpose. `#[track_caller]` carries the
//! place of the call from the kernel into reports.
#![allow(missing_docs, clippy::missing_safety_doc)]

use std::panic::Location;

use crate::emu::current::{self, act, collective, suspend, wait, with};
use crate::emu::format::Format;
use crate::emu::lanes::State;
use crate::emu::mutation::Change;
use crate::emu::named::Coming;
use crate::emu::report::{Primitive, broken};
use crate::emu::request::Request;
use crate::emu::shared::BASE;
use crate::emu::shuffle::Shuffle;
use crate::emu::warp_product::WarpOperands;
use crate::registers::Budget;
use crate::tma::Keep;

#[path = "altered.rs"]
mod altered;
mod wgmma;
pub use altered::*;
pub use wgmma::*;

pub fn thread_index() -> u32 {
    with(|block| block.current as u32)
}

pub fn block_index() -> u32 {
    with(|block| block.index)
}

pub fn grid_size() -> u32 {
    with(|block| block.grid)
}

pub fn dynamic_smem_base() -> u32 {
    BASE
}

#[track_caller]
pub fn shuffle_xor<const XOR: u32>(value: u32) -> u32 {
    let site = Location::caller();
    if current::planted(Primitive::Shuffle, site).is_some() {
        return value;
    }
    let request = Request::Shuffle { from: Shuffle::Xor(XOR), value };
    collective(Primitive::Shuffle, site, request)[0]
}

#[track_caller]
pub fn shuffle_xor_f32<const XOR: u32>(x: f32) -> f32 {
    f32::from_bits(shuffle_xor::<XOR>(x.to_bits()))
}

#[track_caller]
pub fn broadcast_first(value: u32) -> u32 {
    let request = Request::Shuffle { from: Shuffle::First, value };
    collective(Primitive::Shuffle, Location::caller(), request)[0]
}

#[track_caller]
pub fn ballot(vote: bool) -> u32 {
    let site = Location::caller();
    let vote = altered::vote(current::planted(Primitive::Ballot, site), vote);
    let request = Request::Shuffle { from: Shuffle::Ballot, value: vote.into() };
    collective(Primitive::Shuffle, site, request)[0]
}

#[track_caller]
pub fn any(vote: bool) -> bool {
    ballot(vote) != 0
}

fn words(bytes: [u8; 16]) -> [u32; 4] {
    let word = |n: usize| [bytes[4 * n], bytes[4 * n + 1], bytes[4 * n + 2], bytes[4 * n + 3]];
    [0, 1, 2, 3].map(|n| u32::from_le_bytes(word(n)))
}

#[track_caller]
pub unsafe fn load_global_16(address: u64) -> [u32; 4] {
    words(act(Primitive::GlobalLoad, Location::caller(), |block| {
        if !address.is_multiple_of(16) {
            return broken!(Malformed, "16 bytes at {address:#x}, which is no multiple of 16");
        }
        let mut bytes = [0; 16];
        block.global().read(address, &mut bytes, block.number())?;
        Ok(bytes)
    }))
}

/// Reads `N` floats, aligned to all of them.
#[track_caller]
fn load_floats<const N: usize>(address: u64) -> [f32; N] {
    act(Primitive::GlobalLoad, Location::caller(), |block| {
        if !address.is_multiple_of(4 * N as u64) {
            return broken!(Malformed, "{N} floats at {address:#x}, which is not their alignment");
        }
        let mut floats = [0.0; N];
        for (at, float) in (address..).step_by(4).zip(&mut floats) {
            let mut bytes = [0; 4];
            block.global().read(at, &mut bytes, block.number())?;
            *float = f32::from_le_bytes(bytes);
        }
        Ok(floats)
    })
}

#[track_caller]
pub unsafe fn load_global_f32(address: u64) -> f32 {
    load_floats::<1>(address)[0]
}

#[track_caller]
pub unsafe fn load_global_f32x2(address: u64) -> [f32; 2] {
    load_floats(address)
}

/// Writes bytes to global memory, unless another place or none is planted.
fn store_global(site: &'static Location<'static>, address: u64, bytes: &[u8]) {
    let address = match current::planted(Primitive::GlobalStore, site) {
        Some(Change::Drop) => return,
        Some(_) => address + bytes.len() as u64,
        None => address,
    };
    act(Primitive::GlobalStore, site, |block| block.global().write(address, bytes, block.number()));
}

#[track_caller]
pub unsafe fn store_global_8(address: u64, words: [u32; 2]) {
    let bytes = u64::from(words[1]) << 32 | u64::from(words[0]);
    store_global(Location::caller(), address, &bytes.to_le_bytes());
}

#[track_caller]
pub unsafe fn store_global_16(address: u64, words: [u32; 4]) {
    let mut bytes = [0; 16];
    for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    store_global(Location::caller(), address, &bytes);
}

#[track_caller]
pub unsafe fn store_global_f32(address: u64, value: f32) {
    let site = Location::caller();
    let value = match current::planted(Primitive::GlobalStoreFloat, site) {
        Some(Change::Drop) => return,
        Some(_) => value * std::f32::consts::LOG2_E,
        None => value,
    };
    act(Primitive::GlobalStore, site, |block| {
        block.global().write(address, &value.to_le_bytes(), block.number())
    });
}

#[track_caller]
pub unsafe fn store_shared_16(to: u32, words: [u32; 4]) {
    let site = Location::caller();
    let mut bytes = [0; 16];
    for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    act(Primitive::SharedStore, site, |block| block.shared_store(to, &bytes, site));
}

#[track_caller]
pub unsafe fn load_shared_16(from: u32) -> [u32; 4] {
    words(act(Primitive::SharedLoad, Location::caller(), |block| block.shared_load(from)))
}

#[track_caller]
pub unsafe fn load_matrices<const TRANSPOSED: bool>(row: u32) -> [u32; 4] {
    let request = Request::LoadMatrices { row, transposed: TRANSPOSED };
    collective(Primitive::MatrixLoad, Location::caller(), request)
}

#[track_caller]
pub unsafe fn store_matrices<const TRANSPOSED: bool>(row: u32, words: [u32; 4]) {
    let request = Request::StoreMatrices { row, words, transposed: TRANSPOSED };
    collective(Primitive::MatrixStore, Location::caller(), request);
}

#[track_caller]
pub unsafe fn fence_proxy_async() {
    let site = Location::caller();
    if with(|block| block.planted(Primitive::ProxyFence, site, "")).is_none() {
        with(|block| block.proxy_fence());
    }
}

pub fn barrier_name(id: u32, family: &'static str, index: u32) {
    with(|block| block.named.set_name(id, family, index));
}

pub fn mbarrier_name(bar: u32, family: &'static str, index: u32) {
    with(|block| block.mbarriers.set_name(bar, family, index));
}

/// Comes to a named barrier, with what is planted at its site applied to its count; returns whether
/// anyone voted. Where the call is dropped a thread hears of its own vote alone.
#[track_caller]
fn named_barrier(primitive: Primitive, id: u32, count: u32, coming: Coming, vote: bool) -> bool {
    let site = Location::caller();
    let change = with(|block| {
        let family = block.named.family(id);
        block.planted(primitive, site, family)
    });
    let count = match change {
        Some(Change::Drop) => return vote,
        Some(Change::More) => count + 32,
        Some(Change::Less) => count - 32,
        _ => count,
    };
    let vote = altered::vote(change, vote);
    collective(primitive, site, Request::Barrier { id, count, coming, vote })[0] != 0
}

#[track_caller]
pub unsafe fn barrier_sync_all() {
    let threads = with(|block| block.lanes.count() as u32);
    named_barrier(Primitive::BarrierSync, 0, threads, Coming::Wait, false);
}

#[track_caller]
pub unsafe fn barrier_sync(id: u32, thread_count: u32) {
    named_barrier(Primitive::BarrierSync, id, thread_count, Coming::Wait, false);
}

#[track_caller]
pub unsafe fn barrier_arrive(id: u32, thread_count: u32) {
    named_barrier(Primitive::BarrierArrive, id, thread_count, Coming::Pass, false);
}

#[track_caller]
pub unsafe fn barrier_any(id: u32, thread_count: u32, vote: bool) -> bool {
    named_barrier(Primitive::BarrierAny, id, thread_count, Coming::Vote, vote)
}

/// What is planted at an mbarrier's site.
fn planted(primitive: Primitive, site: &'static Location<'static>, bar: u32) -> Option<Change> {
    with(|block| {
        let family = block.mbarriers.family(bar);
        block.planted(primitive, site, family)
    })
}

#[track_caller]
pub unsafe fn mbarrier_init(bar: u32, arrivals: u32) {
    let site = Location::caller();
    let arrivals = match planted(Primitive::BarrierInit, site, bar) {
        Some(Change::Drop) => return,
        Some(Change::More) => arrivals + 1,
        Some(Change::Less) => arrivals - 1,
        _ => arrivals,
    };
    act(Primitive::BarrierInit, site, |block| block.mbarrier_init(bar, arrivals, site));
}

#[track_caller]
pub unsafe fn mbarrier_fence_init() {
    let site = Location::caller();
    if planted(Primitive::BarrierFenceInit, site, u32::MAX).is_none() {
        with(|block| block.mbarrier_fence_init());
    }
}

#[track_caller]
pub unsafe fn mbarrier_arrive(bar: u32) {
    let site = Location::caller();
    let change = planted(Primitive::MbarrierArrive, site, bar);
    if change == Some(Change::Drop) {
        return;
    }
    act(Primitive::MbarrierArrive, site, |block| block.mbarrier_arrive(bar, 0));
    if change == Some(Change::More) {
        act(Primitive::MbarrierArrive, site, |block| block.mbarrier_arrive(bar, 0));
    }
    // Others may run between an arrival and what follows.
    suspend();
}

#[track_caller]
pub unsafe fn mbarrier_arrive_expect(bar: u32, bytes: u32) {
    let site = Location::caller();
    let bytes = match planted(Primitive::MbarrierArriveExpect, site, bar) {
        Some(Change::Drop) => return,
        Some(Change::More) => bytes + 16,
        Some(Change::Less) => bytes - 16,
        _ => bytes,
    };
    act(Primitive::MbarrierArriveExpect, site, |block| block.mbarrier_arrive(bar, bytes));
    suspend();
}

/// The parity to ask an mbarrier for; none if the question itself is dropped.
fn planted_parity(site: &'static Location<'static>, bar: u32, parity: u32) -> Option<u32> {
    match planted(Primitive::MbarrierWait, site, bar) {
        Some(Change::Drop) => None,
        Some(Change::Flip) => Some(parity ^ 1),
        _ => Some(parity),
    }
}

/// Waits instead of testing: the loop around it then runs once.
#[track_caller]
pub unsafe fn mbarrier_try_wait(bar: u32, parity: u32) -> bool {
    let site = Location::caller();
    let Some(parity) = planted_parity(site, bar, parity) else { return true };
    let done = act(Primitive::MbarrierWait, site, |block| block.mbarrier_test(bar, parity));
    if !done {
        wait(Primitive::MbarrierWait, site, State::OnMbarrier { bar, parity });
    }
    true
}

#[track_caller]
pub unsafe fn mbarrier_test_wait(bar: u32, parity: u32) -> bool {
    let site = Location::caller();
    let Some(parity) = planted_parity(site, bar, parity) else { return true };
    act(Primitive::MbarrierWait, site, |block| block.mbarrier_ask(bar, parity))
}

#[track_caller]
fn set_registers(primitive: Primitive, grow: bool, count: u32) {
    let site = Location::caller();
    if with(|block| block.planted(primitive, site, "")).is_none() {
        collective(primitive, site, Request::Registers { grow, count });
    }
}

#[track_caller]
pub unsafe fn setmaxnreg_dec<B: Budget>() {
    set_registers(Primitive::RegistersShrink, false, B::REGISTERS);
}

#[track_caller]
pub unsafe fn setmaxnreg_inc<B: Budget>() {
    set_registers(Primitive::RegistersGrow, true, B::REGISTERS);
}

#[track_caller]
pub unsafe fn tma_prefetch(map: u64) {
    act(Primitive::TmaPrefetch, Location::caller(), |block| {
        block.parameters.tensor_map(map).map(|_| ())
    });
}

#[track_caller]
pub unsafe fn tma_load_4d(to: u32, map: u64, bar: u32, at: [u32; 4], _keep: Keep) {
    let site = Location::caller();
    let change = planted(Primitive::TmaLoad, site, bar);
    if change != Some(Change::Drop) {
        let at = altered::coordinates(change, at);
        act(Primitive::TmaLoad, site, |block| block.tma_load(to, map, bar, at, site));
    }
    suspend();
}

#[track_caller]
pub unsafe fn tma_store_4d(map: u64, from: u32, at: [u32; 4]) {
    let site = Location::caller();
    if planted(Primitive::TmaStore, site, u32::MAX).is_none() {
        act(Primitive::TmaStore, site, |block| block.tma_store(from, map, at, site));
    }
    suspend();
}

#[track_caller]
pub unsafe fn tma_store_commit() {
    let site = Location::caller();
    if planted(Primitive::TmaStoreCommit, site, u32::MAX).is_none() {
        with(|block| block.close_stores());
    }
}

#[track_caller]
fn wait_stores(primitive: Primitive, pending: u32, read: bool) {
    let site = Location::caller();
    let pending = match planted(primitive, site, u32::MAX) {
        Some(Change::Drop) => return,
        Some(Change::More) => pending + 1,
        _ => pending,
    };
    let done = act(primitive, site, |block| block.stores_done(block.current, pending, read));
    if !done {
        wait(primitive, site, State::OnStores { pending, read });
    }
}

#[track_caller]
pub unsafe fn tma_store_wait<const PENDING: u32>() {
    wait_stores(Primitive::TmaStoreWait, PENDING, false);
}

#[track_caller]
pub unsafe fn tma_store_wait_read<const PENDING: u32>() {
    wait_stores(Primitive::TmaStoreWaitRead, PENDING, true);
}

#[track_caller]
pub unsafe fn copy_16(to: u32, from: u64, bytes: u32) {
    let site = Location::caller();
    if current::planted(Primitive::CopyStart, site).is_none() {
        act(Primitive::CopyStart, site, |block| block.start_copy(to, from, bytes, site));
    }
}

#[track_caller]
pub fn copy_commit() {
    if current::planted(Primitive::CopyCommit, Location::caller()).is_none() {
        with(|block| block.thread_copies.close(&mut block.clocks, block.current));
    }
}

#[track_caller]
pub fn copy_wait<const PENDING: u32>() {
    let site = Location::caller();
    let pending = match current::planted(Primitive::CopyWait, site) {
        Some(Change::Drop) => return,
        Some(Change::More) => PENDING + 1,
        _ => PENDING,
    };
    act(Primitive::CopyWait, site, |block| block.wait_copies(pending));
}

/// One warp's product.
#[track_caller]
fn warp_product(format: Format, sums: [f32; 4], mut a: [u32; 4], b: [u32; 2]) -> [f32; 4] {
    let site = Location::caller();
    match current::planted(Primitive::WarpProduct, site) {
        Some(Change::Drop) => return sums,
        Some(_) => a.swap(0, 1),
        None => {}
    }
    let operands = WarpOperands { sums: sums.map(f32::to_bits), a, b };
    let request = Request::WarpProduct { format, operands };
    collective(Primitive::WarpProduct, site, request).map(f32::from_bits)
}

#[track_caller]
pub unsafe fn mma_bf16(sums: [f32; 4], a: [u32; 4], b: [u32; 2]) -> [f32; 4] {
    warp_product(Format::Bf16, sums, a, b)
}

#[track_caller]
pub unsafe fn mma_f16(sums: [f32; 4], a: [u32; 4], b: [u32; 2]) -> [f32; 4] {
    warp_product(Format::F16, sums, a, b)
}
