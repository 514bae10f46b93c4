//! Attention: [`oracle`] in float64, [`closed_forms`] that it must give, [`lowprec`], a model of
//! good kernels, and the [`values`] of q, k and v. [`quantise`] has the steps from 16-bit elements
//! to those of 8 bits, [`eight_bits`] computes with these.

pub mod closed_forms;
pub mod eight_bits;
pub mod given8;
pub mod lowprec;
pub mod oracle;
pub mod quantise;
pub mod values;
