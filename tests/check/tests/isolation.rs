//! What a row's bits do not depend on, on the emulator: the number of multiprocessors, other rows
//! that are lost, other entries of the batch.

use check::call::Launch;
use check::emulator::{Emulated, run_on};
use check::forward::cases::ForwardCase;
use check::forward::company::same_alone;
use check::forward::judge::results;
use fulgurite::emulator::{Options, Summary};
use fulgurite::internals::{Tile, VARIANTS, Variant};
use rayon::prelude::*;
use reference::forward::values::{Inputs, LONE_ROW, Poison, Values};
use reference::tensor::encode;

fn variant(entry: &str) -> &'static Variant {
    let found = VARIANTS.iter().find(|variant| variant.entry == entry);
    found.unwrap_or_else(|| panic!("no kernel {entry}"))
}

/// Runs on a device of so many multiprocessors.
fn run(case: &ForwardCase, inputs: &Inputs, sm_count: u32) -> (Launch, Summary) {
    let mut launch = case.launch(inputs);
    let (_, result) =
        run_on(&mut launch, Options::default(), Some(sm_count)).expect("the case is planned");
    (launch, result.expect("the kernel breaks no rule"))
}

/// Output and log-sum-exp of a row, as bits.
fn row(launch: &Launch, head: usize, row: usize) -> (Vec<u16>, Option<u32>) {
    let (out, lse) = results(&launch.memory);
    let start = out.row_start([0, head, row]);
    let [_, _, rows, head_dim] = out.layout.shape;
    let lse = lse.map(|lse| lse[head * rows + row].to_bits());
    (out.bits[start..start + head_dim].to_vec(), lse)
}

fn all_bits(launch: &Launch) -> (Vec<u16>, Vec<u32>) {
    launch.memory.written_bits()
}

/// Kernels with anchors of one type: the other type's have the same control flow.
fn anchored() -> impl ParallelIterator<Item = &'static Variant> {
    let all: Vec<_> = VARIANTS
        .iter()
        .filter(|variant| variant.softmax.keeps_anchors())
        .filter(|variant| variant.dtype == fulgurite::Dtype::Bf16)
        .collect();
    all.into_par_iter()
}

/// One row of six heads is lost; which jobs share a block with it follows from the device.
#[test]
fn lost_rows_give_the_same_bits_on_any_number_of_multiprocessors() {
    anchored().for_each(|variant| {
        let tile = Tile::of(variant);
        let lengths = (70, 6 * tile.kv_rows as usize - 3);
        let mut case = ForwardCase::new("lost on any device", variant, 1, (6, 2), lengths);
        case.values = Values::LoneSink(130.0);
        let inputs = case.clean_inputs();
        let (first, _) = run(&case, &inputs, 1);
        for sm_count in [2, 3, 7] {
            let (other, _) = run(&case, &inputs, sm_count);
            let same = all_bits(&other) == all_bits(&first);
            assert!(same, "{}: {sm_count} multiprocessors", variant.entry);
        }
    });
}

/// Two hundred jobs of one block, a few of them with a lost row: the others keep their bits, and
/// are not computed again. The places are those around 32 and 64, where a mask of bits would end.
#[test]
fn only_jobs_with_a_lost_row_are_computed_again() {
    const JOBS: usize = 200;
    const LOST: [usize; 6] = [0, 31, 32, 63, 64, JOBS - 1];
    for entry in ["fwd_sm90_bf16_d64_full", "fwd_sm90_f16_d128_full"] {
        let variant = variant(entry);
        let case = ForwardCase::new("many jobs", variant, 1, (JOBS, 1), (3, 40));
        let clean = case.clean_inputs();
        let planted = |heads: &[usize]| {
            let mut inputs = clean.clone();
            let nan = encode(case.dtype, f64::NAN);
            heads.iter().for_each(|&head| inputs.q.row_mut([0, head, 1])[0] = nan);
            run(&case, &inputs, 1)
        };
        let (right, once) = planted(&[]);
        for lost in [&LOST[..], &(0..JOBS).collect::<Vec<_>>()] {
            let (launch, outcome) = planted(lost);
            for head in (0..JOBS).filter(|head| !lost.contains(head)) {
                (0..3).for_each(|n| assert_eq!(row(&launch, head, n), row(&right, head, n)));
            }
            // Each job has as many products as the others, and the second pass as the first.
            let again = outcome.stats.products - once.stats.products;
            let jobs = again * JOBS as u64 / once.stats.products;
            assert_eq!(jobs, lost.len() as u64, "{entry}: jobs computed again");
        }
    }
}

/// A NaN in a row's first output column marks it as lost; whether another row of the block is lost
/// too must not decide what its bits are.
#[test]
fn nan_in_the_first_column_of_v_hangs_on_nobody() {
    anchored().for_each(|variant| {
        let mut case = ForwardCase::new("nan in v", variant, 1, (4, 2), (70, 900));
        case.values = Values::NanValue;
        let alone = case.clean_inputs();
        let mut inputs = alone.clone();
        // In a head of the other KV head.
        inputs.q.row_mut([0, 3, LONE_ROW])[0] = encode(case.dtype, f64::NAN);
        let ((first, _), (second, _)) = (run(&case, &alone, 1), run(&case, &inputs, 1));
        for (head, index) in (0..3).flat_map(|head| (0..70).map(move |row| (head, row))) {
            let same = row(&first, head, index) == row(&second, head, index);
            assert!(same, "{}: head {head}, row {index}", variant.entry);
        }
    });
}

#[test]
fn batch_entries_are_the_same_alone() {
    let entries = [
        "fwd_sm90_bf16_d64_full",
        "fwd_sm90_bf16_d64_causal",
        "fwd_sm90_f16_d128_causal_short",
        "fwd_sm90_f16_d96_full",
    ];
    let emulated = Emulated::new(vec![0]);
    entries.par_iter().for_each(|entry| {
        let result = same_alone(variant(entry), (1, 1), (70, 900), &emulated);
        assert_eq!(result, Ok(()), "{entry}");
    });
}

/// The planted row is one that the tests above plant in.
#[test]
fn the_lone_row_is_planted() {
    let case = ForwardCase::new("planted", variant("fwd_sm90_bf16_d64_full"), 1, (1, 1), (70, 64));
    let mut inputs = case.clean_inputs();
    Poison::RowNan.plant(&mut inputs);
    let not_numbers = |row| inputs.q.view().row([0, 0, row]).filter(|x| x.is_nan()).count();
    assert_eq!((0..70).map(not_numbers).sum::<usize>(), not_numbers(LONE_ROW));
    assert_eq!(not_numbers(LONE_ROW), 1);
}
