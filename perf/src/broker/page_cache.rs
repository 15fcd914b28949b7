//! Making what a broker stored cold: its files leave the page cache, so that the next read goes to the disk.

use std::{
    fs::{self, File},
    path::Path,
};

use rustix::fs::{Advice, fadvise, sync};

/// Takes every file below `directory` out of the page cache (POSIX_FADV_DONTNEED, which needs no privilege), after what is
/// dirty was written, for dirty pages would stay. What a process has mapped stays too: of Kafka, its indexes. The bytes of the files.
///
/// # Errors
/// When a directory cannot be listed, or a file not be opened.
pub(super) fn drop_below(directory: &Path) -> Result<u64, String> {
    sync();
    drop_files(directory).map_err(|e| format!("the page cache of {} cannot be dropped: {e}", directory.display()))
}

fn drop_files(directory: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            bytes += drop_files(&entry.path())?;
        } else if kind.is_file() {
            let file = File::open(entry.path())?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
            bytes += file.metadata()?.len();
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_below_is_met() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("below")).expect("created");
        fs::write(directory.path().join("a"), [1; 5000]).expect("written");
        fs::write(directory.path().join("below/b"), [2; 7000]).expect("written");
        assert_eq!(drop_below(directory.path()), Ok(12_000));
        assert_eq!(fs::read(directory.path().join("below/b")).expect("readable"), [2; 7000]);
        assert!(drop_below(&directory.path().join("none")).is_err());
    }
}
