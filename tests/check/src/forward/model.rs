//! The model of attention with arithmetic of one's choice, as a device.

use reference::forward::lowprec::Arithmetic;

use super::call::ForwardCall;
use crate::call::Launch;
use crate::device::{Device, Ran};

/// Computes attention so.
#[derive(Clone, Copy, Debug)]
pub struct ModelOf {
    /// How it computes.
    pub arithmetic: Arithmetic,
}

impl Device for ModelOf {
    fn name(&self) -> String {
        "model".to_owned()
    }

    fn run(&self, launch: &mut Launch) -> Result<Ran, String> {
        let call = *launch.call_of::<ForwardCall>().ok_or("this model is one of attention")?;
        call.model_as(&mut launch.memory, self.arithmetic);
        Ok(Ran::Done)
    }
}
