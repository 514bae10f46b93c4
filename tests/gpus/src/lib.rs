//! Calls over several GPUs: `verify --gpus N` and `bench --gpus N`.
//!
//! * [`tensors`]: the whole sequence on one GPU, and each rank's rows of it.
//! * [`verify`]: the cases, each bit for bit against one GPU; what must end in errors.
//! * [`process`]: ranks in processes of their own, one of which is killed.
//! * [`measure`]: times, and the record.

pub mod measure;
pub mod process;
pub mod ranks;
pub mod tensors;
pub mod verify;
