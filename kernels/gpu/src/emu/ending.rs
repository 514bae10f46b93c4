//! How a block ends: by nobody being able to go on, or by all having ended.

use super::block::Block;
use super::lanes::State;
use super::report::{Broken, FaultKind, Primitive, place};

/// Nothing can take a step and not all threads have ended: who waits where.
pub fn deadlock(block: &mut Block) {
    let mut sites: Vec<(String, Vec<usize>)> = Vec::new();
    for (thread, lane) in block.lanes.iter().enumerate() {
        if lane.state == State::Done {
            continue;
        }
        let site = lane.site.map_or(String::new(), place);
        let text = format!("{} at {site}: {}", lane.primitive.name(), missing(block, lane.state));
        match sites.iter_mut().find(|(known, _)| *known == text) {
            Some((_, threads)) => threads.push(thread),
            None => sites.push((text, vec![thread])),
        }
    }
    let mut message = "nothing can go on;".to_owned();
    for (text, threads) in &sites {
        message += &format!("\n  {} in {text}", threads_name(threads));
    }
    let first = sites.first().and_then(|(_, threads)| threads.first().copied());
    let lane = first.map(|thread| &block.lanes[thread]);
    let primitive = lane.map_or(Primitive::Code, |lane| lane.primitive);
    let site = lane.and_then(|lane| lane.site);
    block.fail(primitive, site, first, Broken::new(FaultKind::Deadlock, message));
}

/// What a thread waits for.
fn missing(block: &Block, state: State) -> String {
    match state {
        State::OnMbarrier { bar, parity } => {
            let (name, missing) = (block.mbarriers.name(bar), block.mbarriers.missing(bar));
            format!("parity {parity} of {name}, whose {missing}")
        }
        State::OnBarrier(id) => block.named.missing(id),
        State::OnStores { pending, .. } => {
            format!("all but the last {pending} groups of its stores")
        }
        State::OnRegisters => {
            format!("{} registers of the block are free", block.registers.spare())
        }
        State::Collective => "the rest of the warp or warpgroup has not come".to_owned(),
        State::Ready | State::Done => String::new(),
    }
}

/// After the last thread has ended: nothing may be left open, and stores that have read shared
/// memory are written all the same.
pub fn finish(block: &mut Block) {
    let unfinished = |text: String| Broken::new(FaultKind::Unfinished, text);
    let seen = |agent, time| block.clocks.anyone_passed(agent, time);
    if let Some((site, thread)) = block.mbarriers.unseen_copy(seen) {
        let text = "the block has ended, and nobody has waited for this copy";
        let broken = unfinished(text.to_owned());
        return block.fail(Primitive::TmaLoad, Some(site), Some(thread), broken);
    }
    if let Some((thread, site)) = block.copies.unread_store(&block.clocks) {
        let text = "the block has ended, and its thread has not waited until this store had read \
                    shared memory";
        let broken = unfinished(text.to_owned());
        return block.fail(Primitive::TmaStore, Some(site), Some(thread), broken);
    }
    if let Some((thread, site)) = block.thread_copies.open(&block.clocks) {
        let broken = unfinished(
            "the block has ended, and its thread has not waited for this copy".to_owned(),
        );
        return block.fail(Primitive::CopyStart, Some(site), Some(thread), broken);
    }
    if let Some((warp, site)) = block.tensor_core.unfinished() {
        let text = "the block has ended, and this product was never waited for";
        let broken = unfinished(text.to_owned());
        return block.fail(Primitive::WgmmaIssue, Some(site), Some(warp * 32), broken);
    }
    if let Some((name, arrived, site)) = block.named.unfinished() {
        let text = format!("the block has ended; {arrived} threads are left in {name}");
        return block.fail(Primitive::BarrierArrive, site, None, unfinished(text));
    }
    while let Some(index) = block.copies.pending().checked_sub(1)
        && block.fault.is_none()
    {
        block.step_copy(index);
    }
}

/// Threads in words: whole warps as such.
fn threads_name(threads: &[usize]) -> String {
    let mut warps: Vec<usize> = threads.iter().map(|thread| thread / 32).collect();
    warps.dedup();
    let list = warps.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    match threads {
        [thread] => format!("warp {}, lane {}", thread / 32, thread % 32),
        _ => format!("{} threads of warps {list}", threads.len()),
    }
}
