//! Who computes: a GPU, the emulator, a model of a right kernel, or someone who errs.

use crate::call::Launch;

/// What became of a launch that did not fail.
#[derive(Clone, Debug, PartialEq)]
pub enum Ran {
    /// The launch's memory holds the results.
    Done,
    /// The device cannot do it, for this reason (not enough memory, say).
    Skipped(String),
}

/// Something that makes a call on the memory of a [`Launch`].
pub trait Device: Sync {
    /// The name in reports.
    fn name(&self) -> String;

    /// Makes the call: reads the inputs from the launch's memory and leaves the results there. An
    /// error says what failed, with its cause.
    fn run(&self, launch: &mut Launch) -> Result<Ran, String>;

    /// Why nothing more can run on it (a kernel hangs, say), if that is so.
    fn lost(&self) -> Option<String> {
        None
    }
}

/// What a right kernel would give, without one: the models of the operations.
#[derive(Clone, Copy, Debug)]
pub struct Model;

impl Device for Model {
    fn name(&self) -> String {
        "model".to_owned()
    }

    fn run(&self, launch: &mut Launch) -> Result<Ran, String> {
        launch.call.model(&mut launch.memory);
        Ok(Ran::Done)
    }
}
