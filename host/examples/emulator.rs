//! The same kernels on the CPU, thread by thread: a device for tests on machines without a GPU.
//!
//! `cargo run --release -p fulgurite --features emulator --example emulator`

use fulgurite::emulator::Options;
use fulgurite::{Dtype, Emulator, Forward, ForwardArgs, Layout, Mask};
use half::bf16;

fn main() -> Result<(), fulgurite::Error> {
    let layout = Layout::bshd(Dtype::Bf16, 1, 200, 2, 64); // batch, rows, heads, head_dim
    let request = Forward::new(layout, layout, layout, layout, Mask::Causal).with_lse();

    // Queries of 0 weigh all keys alike: row r of the output is the mean of v's rows 0 to r.
    let (row, elements) = (2 * 64, 200 * 2 * 64);
    let (q, k) = (vec![bf16::ZERO; elements], vec![bf16::ONE; elements]);
    let v: Vec<bf16> = (0..elements).map(|i| bf16::from_f32((i / row) as f32)).collect();
    for seed in [0, 1] {
        // A seed is an order in which threads, copies and products run; the bits are the same.
        let emulator = Emulator::new().with_options(Options { seed, ..Options::default() });
        let plan = emulator.plan(&request)?;
        let mut out = vec![bf16::ZERO; elements];
        let mut lse = vec![0.0; 2 * 200];
        emulator.launch(&plan, ForwardArgs::new(&q, &k, &v, &mut out).lse(&mut lse))?;
        println!("{} under seed {seed}:", plan.launches()[0].entry());
        for r in [0, 100, 199] {
            let (mean, keys) = (r as f32 / 2.0, r + 1);
            println!(
                "  row {r}: {} (the mean is {mean}), lse {} = ln {keys}",
                out[r * row],
                lse[r]
            );
        }
    }
    Ok(())
}
