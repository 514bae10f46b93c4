//! What the programs print: how wide, what is said while one waits, and what becomes of it when
//! nobody reads.

mod pulse;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ColumnConstraint, ContentArrangement, Row, Table};

pub use pulse::Pulse;

/// Columns of what is printed for people, at most.
pub const WIDTH: usize = 100;

/// A text in lines of at most `width` characters, broken at spaces; a longer word stays whole.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                *line += " ";
                *line += word;
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A table with this header, of [`WIDTH`] columns at most; what would be too wide is broken into
/// lines inside its cells, but for the names in the first column.
pub fn table(header: impl Into<Row>) -> Table {
    let mut table = Table::new();
    table
        .load_preset(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH as u16)
        .set_header(header);
    if let Some(names) = table.column_mut(0) {
        names.set_constraint(ColumnConstraint::ContentWidth);
    }
    table
}

/// The status that shells give to a program that wrote to a closed pipe: 128 and SIGPIPE.
pub const CLOSED_PIPE: i32 = 141;

/// Lets the process end without a word when its output is closed, as `| head` does: Rust's print
/// macros panic there. Children keep the signals that they would have.
pub fn end_if_closed() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // The print macros' panics carry a `String`.
        let text = panic.payload().downcast_ref::<String>().map_or("", String::as_str);
        if text.starts_with("failed printing to std") && text.contains("Broken pipe") {
            std::process::exit(CLOSED_PIPE);
        }
        report(panic);
    }));
}
