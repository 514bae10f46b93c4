//! Tables that a terminal of [`WIDTH`] columns shows whole.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ColumnConstraint, ContentArrangement, Row, Table};

use crate::output::WIDTH;

/// A table with this header; what would be too wide is broken into lines inside its cells, but for
/// the names in the first column.
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
