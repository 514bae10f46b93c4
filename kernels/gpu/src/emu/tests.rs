//! The engines against plain loops.

use super::block::Block;
use super::current::enter;
use super::global::Global;
use super::grid::Grid;
use super::schedule::{Actor, Schedule};
use super::shared::BASE;
use super::tensor_map::{MapFields, Swizzle};

/// Copies one box of a tensor whose element `i` is `i`, and returns shared memory.
fn copied(fields: MapFields, at: [u32; 4], elements: usize) -> Vec<u16> {
    #[repr(align(64))]
    struct Parameters(fulgurite_spec::TensorMap);
    let parameters = Parameters(fields.encode());
    let address = (&raw const parameters.0).expose_provenance() as u64;
    let tensor: Vec<u8> = (0..elements as u16).flat_map(u16::to_le_bytes).collect();
    let mut global = Global::new();
    global.readable("tensor", fields.address, &tensor);
    let grid = Grid {
        blocks: 1,
        threads: 128,
        smem_bytes: 8192,
        parameters: (address, 128),
        global: &global,
        seed: 0,
        mutation: None,
        record: false,
        accumulator: super::accumulator::Accumulator::default(),
    };
    let mut block = Block::new(&grid, 0);
    let site = std::panic::Location::caller();
    let bar = BASE + 8184;
    block.mbarrier_init(bar, 1, site).expect("a good barrier");
    block.mbarrier_fence_init();
    block.tma_load(BASE, address, bar, at, site).expect("a good copy");
    block.step_copy(0);
    assert!(block.fault.is_none(), "the tensor is there");
    let bytes = (0..64 * 8).flat_map(|granule| block.shared.bytes(granule).to_vec());
    let bytes: Vec<u8> = bytes.collect();
    bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
}

#[test]
fn boxes_are_cut_strided_and_swizzled() {
    // (box columns, swizzle, and which bits of the row permute the 16-byte units of a row pair).
    let shapes = [
        (64, Swizzle::Bytes128),
        (32, Swizzle::Bytes64),
        (16, Swizzle::Bytes32),
        (8, Swizzle::None),
    ];
    for (columns, swizzle) in shapes {
        for at in [[0, 0, 0, 0], [8, 3, 1, 1], [0, u32::MAX, 0, 0], [u32::MAX - 7, 6, 1, 0]] {
            // Rows of 72 elements of which 70 count, 7 rows, 2 heads, 2 batch entries.
            let dims = [70, 7, 2, 2];
            let stride_bytes = [144, 144 * 7, 144 * 14];
            let box_dims = [columns, 5, 2, 1];
            let address = 1 << 30;
            let fields =
                MapFields { address, element_bytes: 2, dims, stride_bytes, box_dims, swizzle };
            let smem = copied(fields, at, 72 * 28);
            let span = match swizzle {
                Swizzle::Bytes128 => 8,
                Swizzle::Bytes64 => 4,
                Swizzle::Bytes32 => 2,
                Swizzle::None => 1,
            };
            for index in 0..columns * 10 {
                let (row, column) = (index / columns, index % columns);
                let place = [column, row % 5, row / 5, 0];
                let axis = |n: usize| i64::from(at[n] as i32) + i64::from(place[n]);
                let inside = (0..4).all(|n| (0..dims[n] as i64).contains(&axis(n)));
                let element = ((axis(3) * 2 + axis(2)) * 7 + axis(1)) * 72 + axis(0);
                let want = if inside { element as u16 } else { 0 };
                // By hand: unit `u` of 16 bytes lies at `u` xor (its 128-byte line mod the span).
                let unit = index / 8;
                let found = (unit ^ (unit / 8 % span)) * 8 + index % 8;
                assert_eq!(smem[found as usize], want, "{swizzle:?} {at:?} {row} {column}");
            }
        }
    }
}

#[test]
fn schedules_repeat_and_differ() {
    let actors = [Actor::Warp(0), Actor::Warp(3), Actor::Copy, Actor::Tensor(1)];
    let walk = |seed| {
        let mut schedule = Schedule::new(seed, 0);
        (0..200).map(|_| format!("{:?}", schedule.next(&actors))).collect::<Vec<_>>()
    };
    for seed in 0..20 {
        assert_eq!(walk(seed), walk(seed));
        assert!(seed == 0 || walk(seed) != walk(seed + 2));
    }
    let first = walk(0);
    assert!(first.iter().all(|actor| actor.starts_with("Warp")), "engines come last: {first:?}");
    for actor in ["Warp(0)", "Warp(3)", "Copy", "Tensor(1)"] {
        assert!(walk(1).iter().any(|chosen| chosen == actor), "{actor}");
    }
}

#[test]
fn outside_of_a_launch_primitives_say_so() {
    enter(std::ptr::null_mut());
    let panic = std::panic::catch_unwind(crate::thread::index).expect_err("no block runs");
    let text = panic.downcast_ref::<&str>().copied().unwrap_or_default();
    assert!(text.contains("outside of `emu::launch`"), "{text}");
}
