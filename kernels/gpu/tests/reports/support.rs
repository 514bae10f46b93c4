//! The kernels' surroundings: one tensor, an output, and what all of them do.

use fulgurite_gpu::element::Bf16;
use fulgurite_gpu::emu::{self, Fault, FaultKind, Global, Grid, MapFields, Swizzle};
use fulgurite_gpu::frag::Accum;
use fulgurite_gpu::smem::{self, Smem};
use fulgurite_gpu::tma::{self, MapAddress};
use fulgurite_gpu::wgmma::{self, Operand};
use fulgurite_gpu::{barrier, fence, mbarrier, thread};
use fulgurite_spec::TensorMap;

/// Where the tests' tensor and output lie.
pub const TENSOR: u64 = 1 << 40;
pub const OUT: u64 = 1 << 41;

/// Bytes of the tensor's one box: 64 columns, 64 rows.
pub const BOX_BYTES: u32 = 64 * 64 * 2;

/// Offset of the barrier behind two boxes.
pub const BAR: u32 = 2 * BOX_BYTES;

#[repr(align(64))]
struct Parameters([TensorMap; 1]);

pub fn map(row_stride: u64) -> TensorMap {
    let fields = MapFields {
        address: TENSOR,
        element_bytes: 2,
        dims: [64, 64, 1, 1],
        stride_bytes: [row_stride, 64 * row_stride, 64 * row_stride],
        box_dims: [64, 64, 1, 1],
        swizzle: Swizzle::Bytes128,
    };
    fields.encode()
}

/// Runs a kernel of 384 threads on one block under the schedule `seed`.
pub fn run(seed: u64, kernel: impl Fn(MapAddress) + Sync) -> Result<emu::Summary, Box<Fault>> {
    run_with(map(128), seed, kernel)
}

pub fn run_with(
    map: TensorMap,
    seed: u64,
    kernel: impl Fn(MapAddress) + Sync,
) -> Result<emu::Summary, Box<Fault>> {
    launch(map, seed, false, kernel).0
}

/// Runs a kernel that may write the tensor, and returns what it holds then.
pub fn run_storing(seed: u64, kernel: impl Fn(MapAddress) + Sync) -> Result<Vec<u8>, Box<Fault>> {
    let (outcome, tensor) = launch(map(128), seed, true, kernel);
    outcome.map(|_| tensor)
}

fn launch(
    map: TensorMap,
    seed: u64,
    writable: bool,
    kernel: impl Fn(MapAddress) + Sync,
) -> (Result<emu::Summary, Box<Fault>>, Vec<u8>) {
    let parameters = Parameters([map]);
    let address = parameters.0.as_ptr().expose_provenance() as u64;
    let (mut tensor, mut out) = (vec![0_u8; 64 * 64 * 2], vec![0_u8; 1024]);
    let mut global = Global::new();
    match writable {
        true => global.writable("tensor", TENSOR, &mut tensor),
        false => global.readable("tensor", TENSOR, &tensor),
    }
    global.writable("out", OUT, &mut out);
    let grid = Grid {
        blocks: 1,
        threads: 384,
        smem_bytes: BAR + 64,
        parameters: (address, size_of::<Parameters>()),
        global: &global,
        seed,
        mutation: None,
        record: false,
        accumulator: emu::Accumulator::default(),
    };
    // SAFETY: the map is in the parameters, aligned, and lives until the launch has ended.
    let outcome = emu::launch(&grid, &|| kernel(unsafe { MapAddress::new(address) }));
    drop(global);
    (outcome, tensor)
}

/// What the kernel is reported for: the same under a schedule of each kind.
pub fn expect(kind: FaultKind, words: &[&str], kernel: impl Fn(MapAddress) + Sync) {
    expect_of(kind, words, |seed| run(seed, &kernel).map(|_| ()));
}

/// As [`expect`], for a kernel that may write the tensor.
pub fn expect_storing(kind: FaultKind, words: &[&str], kernel: impl Fn(MapAddress) + Sync) {
    expect_of(kind, words, |seed| run_storing(seed, &kernel).map(|_| ()));
}

fn expect_of(kind: FaultKind, words: &[&str], run: impl Fn(u64) -> Result<(), Box<Fault>>) {
    for seed in 0..3 {
        let fault = run(seed).expect_err("the error must be reported");
        check(&fault, kind, words);
        let again = run(seed).expect_err("it must be reported again");
        assert_eq!(fault.to_string(), again.to_string(), "the same seed gives the same report");
    }
}

pub fn check(fault: &Fault, kind: FaultKind, words: &[&str]) {
    let text = fault.to_string();
    assert_eq!(fault.kind, kind, "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

/// Initialises the barrier for one arrival and lets everyone see it.
pub fn start(fence: bool) -> Smem {
    let bar = Smem::base().plus(BAR);
    // SAFETY: one thread initialises, all meet at the barrier.
    unsafe {
        if thread::index() == 0 {
            mbarrier::name(bar, "full", 0);
            mbarrier::init(bar, 1);
            if fence {
                mbarrier::fence_init();
            }
        }
        barrier::sync_all();
    }
    bar
}

/// Thread 0 loads the tensor's box to `to`, expecting `bytes`.
pub fn load(map: MapAddress, bar: Smem, to: Smem, bytes: u32) {
    if thread::index() == 0 {
        // SAFETY: what the tests plant is the emulator's to find.
        unsafe {
            mbarrier::arrive_expect(bar, bytes);
            tma::load(to, map, bar, [0; 4], tma::Keep::Short);
        }
    }
}

/// The first warpgroup multiplies the box with itself; `wait` says whether it waits for the end.
pub fn multiply(at: Smem, wait: bool) {
    if thread::warpgroup() == 0 {
        let mut acc = Accum::<64>::zero();
        let operand = Operand::k_major(at);
        // SAFETY: the whole warpgroup comes here.
        unsafe {
            wgmma::begin(&mut acc);
            wgmma::issue_ss::<Bf16, 64, false>(&mut acc, operand, operand);
            wgmma::commit();
            if wait {
                wgmma::wait::<0, 64>(&mut acc);
            }
        }
    }
}

/// Waits for the first phase.
pub fn wait(bar: Smem) {
    // SAFETY: the barrier is initialised; what is planted is the emulator's to find.
    unsafe { mbarrier::wait(bar, 0) }
}

/// Each thread of the first warpgroup stores 64 bytes of the box at the base.
pub fn store_box() {
    let first = thread::index() * 64;
    let mut offset = 0;
    while offset < 64 && thread::index() < 128 {
        // SAFETY: every thread has its own bytes.
        unsafe { smem::store_16(Smem::base().plus(first + offset), [thread::index(); 4]) }
        offset += 16;
    }
}

/// Stores the box, then makes it visible to the engines and to the other threads, or not.
pub fn store_then(fence: bool, barrier: bool) {
    store_box();
    // SAFETY: planted.
    unsafe {
        if fence {
            fence::proxy_async();
        }
        if barrier {
            barrier::sync_all();
        }
    }
}

/// A block barrier that orders threads, but not engines.
pub fn barrier_for_all() {
    // SAFETY: all threads come here.
    unsafe { barrier::sync_all() }
}
