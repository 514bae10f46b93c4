//! What becomes of output that nobody reads, where another program writes it.

use output::CLOSED_PIPE;

use crate::error::{Error, Result};

/// Ends this process likewise if a program that writes to the same output ended so.
pub fn pass_on_closed(result: &Result<()>) {
    if let Err(Error::Failed { status, .. }) = result
        && status.code() == Some(CLOSED_PIPE)
    {
        std::process::exit(CLOSED_PIPE);
    }
}
