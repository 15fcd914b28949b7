//! A report as JSON: everything, so that other figures can be had from it later.

use std::{fs, path::Path};

use serde::{Serialize, de::DeserializeOwned};

/// Writes the report.
///
/// # Errors
/// When the file cannot be written.
pub fn write(report: &impl Serialize, path: &Path) -> Result<(), String> {
    let text = serde_json::to_string(report).map_err(|e| e.to_string())?;
    // One run a line: the whole is large, and a diff should show which run differs.
    let text = text.replace("{\"scenario\":", "\n{\"scenario\":").replace("{\"rival\":", "\n{\"rival\":");
    fs::write(path, text + "\n").map_err(|e| format!("cannot write {}: {e}", path.display()))
}

/// Reads a report.
///
/// # Errors
/// When the file cannot be read, or is not a report of this layout.
pub fn read<R: DeserializeOwned>(path: &Path) -> Result<R, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("{} is not a report: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example::report;

    #[test]
    fn what_is_written_is_read_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("report.json");
        write(&report(), &path).expect("written");
        assert_eq!(read(&path), Ok(report()));
    }
}
