//! What is right: each operation in float64, answers that are known without it, the rounding that
//! no kernel avoids, and the numbers that all are tried on.
//!
//! [`tensor`] has tensors as the bits that a kernel sees, [`e4m3`] numbers of 8 bits, [`random`]
//! random numbers, [`forward`] attention, and [`backward`] its gradients.

pub mod backward;
pub mod e4m3;
pub mod forward;
pub mod random;
pub mod tensor;
