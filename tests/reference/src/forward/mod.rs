//! Attention: [`oracle`] in float64, [`closed_forms`] that it must give, [`lowprec`], a model of
//! good 16-bit kernels, the quantiser ([`quantise`]), and the [`values`] of q, k and v.

pub mod closed_forms;
pub mod lowprec;
pub mod oracle;
pub mod quantise;
pub mod values;
