//! What calls over many GPUs cost by the model, without a GPU.
//!
//! Takes the kernels' TFLOP/s and the GB/s between two GPUs of a host and of a GPU to other hosts:
//! `cargo run --example model -- 650 370 45`.

use fulgurite::{DeviceFacts, Dtype, Forward, Layout, Mask};
use fulgurite_parallel::{Links, ParallelOptions, ParallelPlan, Sharded, Shards, Strategy};

fn main() -> Result<(), fulgurite_parallel::Error> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<f64>().ok());
    let mut next = || numbers.next().flatten();
    let mut links = Links::default();
    links.flops = next().map_or(links.flops, |tflops| tflops * 1e12);
    links.host_bytes = next().map_or(links.host_bytes, |gigabytes| gigabytes * 1e9);
    links.network_bytes = next().map_or(links.network_bytes, |gigabytes| gigabytes * 1e9);
    let options = ParallelOptions::default().links(links);

    println!("| heads | rows of a GPU | GPUs | way | launches ms | transfers ms | efficiency |");
    println!("|---|---|---|---|---|---|---|");
    for (heads, kv_heads) in [(64, 8), (32, 8), (32, 32)] {
        for rows in [8192, 32_768, 131_072] {
            for world in [2, 8, 16, 64] {
                let shards = Shards::zigzag(rows * world, world)?;
                let qo = Layout::bshd(Dtype::Bf16, 1, rows, heads, 128);
                let kv = Layout::bshd(Dtype::Bf16, 1, rows, kv_heads, 128);
                let local = Forward::new(qo, kv, kv, qo, Mask::Causal);
                let sharded = Sharded::new(&local, shards).strategy(Strategy::Auto);
                let plan = ParallelPlan::new(&sharded, 0, &DeviceFacts::h200(), &options)?;
                let cost = plan.cost();
                println!(
                    "| {heads}/{kv_heads} | {rows} | {world} | {:?} | {:.2} | {:.2} | {:.3} |",
                    plan.strategy(),
                    cost.compute * 1e3,
                    cost.transfer * 1e3,
                    cost.efficiency
                );
            }
        }
    }
    Ok(())
}
