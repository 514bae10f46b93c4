//! Who computes: a GPU, or a model of one.

use fulgurite::Tile;
use fulgurite::Variant;

use crate::memory::Launch;
use reference::forward::lowprec::{self, Arithmetic};
use reference::forward::oracle::Problem;
use reference::tensor::View;

/// What became of a launch that a backend did not fail.
#[derive(Clone, Debug, PartialEq)]
pub enum Ran {
    /// The launch's memory holds the results.
    Done,
    /// The backend cannot do it, for this reason (not enough memory, say).
    Skipped(String),
}

/// Something that runs a forward call on the memory of a [`Launch`].
pub trait Device: Sync {
    /// The name in reports.
    fn name(&self) -> String;

    /// Runs the call: reads the inputs from the launch's memory and leaves out and lse there. An
    /// error says what failed, with its cause.
    fn run(&self, launch: &mut Launch) -> Result<Ran, String>;

    /// Why nothing more can run on it (a kernel hangs, say), if that is so.
    fn lost(&self) -> Option<String> {
        None
    }
}

/// The model of [`lowprec`] as a backend: what a right kernel would give, without a GPU.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// How it computes.
    pub arithmetic: Arithmetic,
}

impl Model {
    /// A right kernel with a variant's tile.
    pub fn of(variant: &Variant) -> Model {
        let kv_rows = Tile::of(variant).kv_rows as usize;
        Model { arithmetic: Arithmetic { kv_rows, ..Arithmetic::PEER } }
    }
}

impl Device for Model {
    fn name(&self) -> String {
        "model".to_owned()
    }

    fn run(&self, launch: &mut Launch) -> Result<Ran, String> {
        let [q, k, v] = launch.inputs();
        let problem = problem(launch, q.view(), k.view(), v.view());
        let answer = lowprec::attention(&problem, &problem.rows(), self.arithmetic);
        launch.store(answer.out, &answer.lse);
        Ok(Ran::Done)
    }
}

/// The reference's view of a launch.
pub fn problem<'a>(launch: &Launch, q: View<'a>, k: View<'a>, v: View<'a>) -> Problem<'a> {
    let request = &launch.request;
    let scale = match request.scale {
        Some(scale) => f64::from(scale),
        None => 1.0 / (request.q.shape[3] as f64).sqrt(),
    };
    Problem { q, k, v, mask: request.mask, scale }
}
