//! What is printed: tables of 100 columns, and what becomes of output that nobody reads.

use comfy_table::{ColumnConstraint, ContentArrangement, Row, Table, presets::UTF8_FULL_CONDENSED};

use crate::error::{Error, Result};

/// Columns of what is printed for people, at most.
pub const WIDTH: u16 = 100;

/// A table with this header; what would be too wide is broken into lines inside its cells, but for
/// the names in the first column.
pub fn table(header: impl Into<Row>) -> Table {
    let mut table = Table::new();
    table
        .load_preset(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .set_header(header);
    if let Some(names) = table.column_mut(0) {
        names.set_constraint(ColumnConstraint::ContentWidth);
    }
    table
}

/// The status that shells give to a program that wrote to a closed pipe: 128 and SIGPIPE.
const CLOSED_PIPE: i32 = 141;

/// Lets the process end without a word when its output is closed, as `| head` does: Rust's print
/// macros panic there. Children keep the signals that they would have.
pub fn end_if_closed() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or_default();
        if text.starts_with("failed printing to std") && text.contains("Broken pipe") {
            std::process::exit(CLOSED_PIPE);
        }
        report(panic);
    }));
}

/// Ends this process likewise if a program that writes to the same output ended so.
pub fn pass_on_closed(result: &Result<()>) {
    if let Err(Error::Failed { status, .. }) = result
        && status.code() == Some(CLOSED_PIPE)
    {
        std::process::exit(CLOSED_PIPE);
    }
}
