//! A library that does what a test says, in NCCL's place.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::{c_char, c_int, c_void};

use super::*;

/// `ncclRemoteError`.
const REMOTE_ERROR: c_int = 6;

/// What the library does on this thread.
#[derive(Default)]
struct Script {
    /// What it says of the communicator, one after another; the last one for ever.
    states: VecDeque<c_int>,
    /// What calls return that are not to succeed.
    codes: Vec<(&'static str, c_int)>,
    /// The calls.
    calls: Vec<&'static str>,
}

thread_local! {
    static SCRIPT: RefCell<Script> = RefCell::default();
}

fn called(name: &'static str) -> c_int {
    SCRIPT.with_borrow_mut(|script| {
        script.calls.push(name);
        let planned = script.codes.iter().find(|(call, _)| *call == name);
        planned.map_or(SUCCESS, |(_, code)| *code)
    })
}

fn calls() -> Vec<&'static str> {
    SCRIPT.with_borrow_mut(|script| std::mem::take(&mut script.calls))
}

fn plan(states: &[c_int], codes: &[(&'static str, c_int)]) {
    SCRIPT.with_borrow_mut(|script| {
        script.states = states.iter().copied().collect();
        script.codes = codes.to_vec();
        script.calls.clear();
    });
}

unsafe extern "C" fn get_version(_: *mut c_int) -> c_int {
    called("version")
}
unsafe extern "C" fn get_unique_id(_: *mut UniqueId) -> c_int {
    called("id")
}
unsafe extern "C" fn init_rank(
    comm: *mut Comm,
    _: c_int,
    _: UniqueId,
    _: c_int,
    _: *mut Config,
) -> c_int {
    // SAFETY: the caller's place for the handle.
    unsafe { *comm = std::ptr::dangling_mut::<c_void>() };
    called("init")
}
unsafe extern "C" fn async_error(_: Comm, state: *mut c_int) -> c_int {
    let next = SCRIPT.with_borrow_mut(|script| match script.states.len() {
        0 => SUCCESS,
        1 => script.states[0],
        _ => script.states.pop_front().unwrap(),
    });
    // SAFETY: the caller's place for the state.
    unsafe { *state = next };
    SUCCESS
}
unsafe extern "C" fn abort(_: Comm) -> c_int {
    called("abort")
}
unsafe extern "C" fn finalize(_: Comm) -> c_int {
    called("finalize")
}
unsafe extern "C" fn destroy(_: Comm) -> c_int {
    called("destroy")
}
unsafe extern "C" fn count(_: Comm, world: *mut c_int) -> c_int {
    // SAFETY: the caller's place for the number.
    unsafe { *world = 3 };
    called("count")
}
unsafe extern "C" fn user_rank(_: Comm, rank: *mut c_int) -> c_int {
    // SAFETY: the caller's place for the number.
    unsafe { *rank = 1 };
    called("rank")
}
unsafe extern "C" fn group_start() -> c_int {
    called("start")
}
unsafe extern "C" fn group_end() -> c_int {
    called("end")
}
unsafe extern "C" fn send_bytes(
    _: *const c_void,
    _: usize,
    _: c_int,
    _: c_int,
    _: Comm,
    _: CUstream,
) -> c_int {
    called("send")
}
unsafe extern "C" fn receive_bytes(
    _: *mut c_void,
    _: usize,
    _: c_int,
    _: c_int,
    _: Comm,
    _: CUstream,
) -> c_int {
    called("receive")
}
unsafe extern "C" fn all_gather(
    _: *const c_void,
    _: *mut c_void,
    _: usize,
    _: c_int,
    _: Comm,
    _: CUstream,
) -> c_int {
    called("gather")
}
unsafe extern "C" fn last_error(_: Comm) -> *const c_char {
    c"a peer is gone".as_ptr()
}

static FAKE: Nccl = Nccl {
    get_version,
    get_unique_id,
    init_rank,
    async_error,
    abort,
    finalize,
    destroy,
    count,
    user_rank,
    group_start,
    group_end,
    send_bytes,
    receive_bytes,
    all_gather,
    last_error,
    path: String::new(),
    _library: None,
};

fn options() -> ConnectOptions {
    ConnectOptions::default().deadline(Duration::from_millis(30))
}

fn connect(world: usize) -> Result<Communicator, Error> {
    Communicator::of_library(&FAKE, &Id([0; 128]), 0, world, &options())
}

fn exchange(communicator: &Communicator) -> Result<(), Error> {
    let messages = [((1, true), (16, 64)), ((1, false), (80, 64))];
    // SAFETY: the library looks at nothing.
    unsafe {
        communicator.exchange(std::ptr::null_mut(), messages.into_iter(), &|| "step 1".to_owned())
    }
}

#[test]
fn who_connects_in_time_is_connected_and_ends_in_order() {
    plan(&[IN_PROGRESS, IN_PROGRESS, SUCCESS], &[("init", IN_PROGRESS)]);
    let communicator = connect(2).unwrap();
    assert_eq!((communicator.rank(), communicator.world()), (0, 2));
    exchange(&communicator).unwrap();
    assert_eq!(calls(), ["init", "start", "send", "receive", "end"]);
    drop(communicator);
    assert_eq!(calls(), ["finalize", "destroy"]);
}

#[test]
fn who_waits_for_nobody_is_told_and_nothing_stays() {
    plan(&[IN_PROGRESS], &[("init", IN_PROGRESS)]);
    let start = Instant::now();
    let error = connect(2).unwrap_err();
    assert!(matches!(error, Error::NotConnected { rank: 0, world: 2, .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(calls(), ["init", "abort"]);
}

#[test]
fn an_error_of_connecting_is_named() {
    plan(&[], &[("init", 2)]);
    let text = connect(2).unwrap_err().to_string();
    assert!(text.starts_with("ncclCommInitRankConfig failed with ncclSystemError (2)"), "{text}");
    assert!(text.contains("a peer is gone"), "{text}");
}

#[test]
fn an_exchange_that_nobody_joins_ends_at_the_deadline() {
    plan(&[SUCCESS], &[]);
    let communicator = connect(2).unwrap();
    plan(&[IN_PROGRESS], &[("end", IN_PROGRESS)]);
    let error = exchange(&communicator).unwrap_err();
    let Error::PeerLost { rank: 0, peer: Some(1), step, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(step, "step 1");
    assert_eq!(calls(), ["start", "send", "receive", "end", "abort"]);
    assert_eq!(exchange(&communicator), Err(Error::CommunicatorDead { rank: 0 }));
    drop(communicator);
    assert_eq!(calls(), [""; 0]);
}

/// A group that was begun is ended, or the thread's next one would be a part of it.
#[test]
fn a_group_is_ended_also_where_a_send_fails() {
    plan(&[SUCCESS], &[]);
    let communicator = connect(2).unwrap();
    plan(&[SUCCESS], &[("send", 4)]);
    let error = exchange(&communicator).unwrap_err();
    assert!(matches!(error, Error::Nccl { code: 4, .. }), "{error}");
    assert_eq!(calls(), ["start", "send", "end", "abort"]);
}

#[test]
fn a_wait_ends_at_its_timeout_or_where_nccl_finds_an_error() {
    for (world, state, says) in [(2, SUCCESS, "no error"), (3, REMOTE_ERROR, "ncclRemoteError")] {
        plan(&[SUCCESS], &[]);
        let communicator = connect(world).unwrap();
        plan(&[SUCCESS, SUCCESS, state], &[]);
        let timeout = Duration::from_millis(if state == SUCCESS { 30 } else { 10_000 });
        let step = || "exchange 2 of 4".to_owned();
        let start = Instant::now();
        let error = communicator.wait_for(timeout, || Ok(false), &step).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(2));
        let text = error.to_string();
        let Error::PeerLost { peer, .. } = error else { panic!("{text}") };
        assert_eq!(peer, (world == 2).then_some(1));
        assert!(text.contains("exchange 2 of 4") && text.contains(says), "{text}");
        assert_eq!(calls(), ["abort"]);
        let dead = Err(Error::CommunicatorDead { rank: 0 });
        assert_eq!(communicator.wait_for(timeout, || Ok(true), &step), dead);
        assert!(!communicator.is_alive());
    }
}

#[test]
fn a_wait_for_what_is_done_ends_at_once() {
    plan(&[SUCCESS], &[]);
    let communicator = connect(2).unwrap();
    communicator.wait_for(Duration::ZERO, || Ok(true), &String::new).unwrap();
    assert!(communicator.is_alive());
}

#[test]
fn the_communicator_of_someone_else_is_left_to_him() {
    plan(&[SUCCESS], &[]);
    let comm = std::ptr::dangling_mut::<c_void>();
    // SAFETY: the library looks at nothing.
    let communicator = unsafe { Communicator::of_raw(&FAKE, comm, &options()) }.unwrap();
    assert_eq!((communicator.rank(), communicator.world()), (1, 3));
    drop(communicator);
    assert_eq!(calls(), ["count", "rank"]);
}

#[test]
fn multicast_must_be_off() {
    check_multicast(Some("0".to_owned())).unwrap();
    for (value, got) in [(None, "not set"), (Some("1"), "1"), (Some("2"), "2")] {
        let error = check_multicast(value.map(str::to_owned)).unwrap_err();
        assert_eq!(error, Error::MulticastAllowed { got: got.to_owned() });
        assert!(error.to_string().contains("set it to 0"), "{error}");
    }
    assert_eq!(
        Communicator::of_current_device(&Id([0; 128]), 2, 2, &options()).unwrap_err(),
        Error::NoRank { rank: 2, world: 2 }
    );
}
