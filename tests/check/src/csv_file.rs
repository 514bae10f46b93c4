//! CSV files: one line for each value.

use std::path::Path;

use serde::Serialize;

/// Writes lines, below a header of their fields' names.
///
/// # Errors
/// A message that names the file.
pub fn write<T: Serialize>(path: &Path, lines: impl IntoIterator<Item = T>) -> Result<(), String> {
    let at = |error: String| format!("cannot write {}: {error}", path.display());
    let mut writer = csv::Writer::from_path(path).map_err(|error| at(error.to_string()))?;
    for line in lines {
        writer.serialize(line).map_err(|error| at(error.to_string()))?;
    }
    writer.flush().map_err(|error| at(error.to_string()))
}
