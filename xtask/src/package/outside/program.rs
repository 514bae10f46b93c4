//! Plans a call for a GPU that need not be there, then says what this machine lacks to run it.

use fulgurite::internals::KERNELS;
use fulgurite::{DeviceFacts, Dtype, FlashAttention, Forward, Layout, Mask, Plan};

fn main() -> Result<(), fulgurite::Error> {
    let layout = Layout::bshd(Dtype::Bf16, 2, 4096, 16, 128);
    let forward = Forward::new(layout, layout, layout, layout, Mask::Causal);
    println!("{}", Plan::new(&forward, &DeviceFacts::h200())?);
    let missing = KERNELS.iter().find(|kernel| !fulgurite::is_built(kernel.entry));
    if let Some(kernel) = missing {
        return Err(fulgurite::Error::NotBuilt { entry: kernel.entry.to_owned() });
    }
    println!("all {} kernels are in the package", KERNELS.len());
    match FlashAttention::open(0).and_then(|attention| attention.plan(&forward)) {
        Ok(_) => println!("GPU 0 can run the call"),
        Err(error) => println!("{}: {error}", error.name()),
    }
    Ok(())
}
