//! A race that is planted, and what the emulator says of it.

use std::collections::BTreeSet;

use check::call::Launch;
use check::emulator::run_once;
use fulgurite::emulator::{Change, Fault, FaultKind, Mutation, MutationSite, Options, Primitive};

use crate::{SEEDS, source_line};

/// The kernel without one wait.
#[derive(Clone, Debug)]
pub struct Race {
    /// The wait that was taken out.
    pub site: MutationSite,
    /// Its line of source, if the source is there.
    pub line: Option<String>,
    /// What the emulator says.
    pub fault: Fault,
}

impl Race {
    /// Takes the wait for an empty buffer of V out of the producer: TMA then overwrites values that
    /// a product may still read.
    ///
    /// # Errors
    /// A message if there is no such wait, or no race is noticed.
    pub fn plant(fresh: &Launch, sites: &BTreeSet<MutationSite>) -> Result<Race, String> {
        let is_wait = |site: &&MutationSite| {
            site.primitive == Primitive::MbarrierWait && site.name == "v_empty"
        };
        let site = *sites.iter().find(is_wait).ok_or("the kernel does not wait for v_empty")?;
        let mutation = Some(Mutation { site, change: Change::Drop });
        let mut launch = fresh.clone();
        let options = Options { seed: SEEDS[0], mutation, ..Options::default() };
        let (_, result) = run_once(&mut launch, options).map_err(|error| error.to_string())?;
        let fault = match result {
            Err(fault) if fault.kind == FaultKind::Race => *fault,
            Err(other) => return Err(format!("the planted race was taken for another: {other}")),
            Ok(_) => return Err("the planted race was not noticed".to_owned()),
        };
        Ok(Race { site, line: source_line(site.file, site.line), fault })
    }
}
