//! The newest revision that is known to be durable, in a file beside sled's: sled may come up with an older state after
//! damage and say nothing.
//!
//! Two slots of 4 KiB are written in turn, so that a torn write leaves the other one; the newer valid slot counts.
#![expect(clippy::disallowed_methods, reason = "part of the sled engine, which is called on threads of its own")]

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{
    port::{MetadataError, Revision},
    sled::io_error,
};

const SLOT_BYTES: u64 = 4096;

/// The mark of one store.
#[derive(Debug)]
pub(super) struct SyncMark {
    path: PathBuf,
    file: File,
    revision: Revision,
    /// Where the next write goes.
    slot: u64,
}

impl SyncMark {
    /// The file's name.
    pub(super) const FILE: &str = "synced";

    /// Opens the mark of the store in `dir`, or creates it.
    ///
    /// # Errors
    /// The file cannot be used, or none of its slots is valid.
    pub(super) fn open(dir: &Path) -> Result<SyncMark, MetadataError> {
        let path = dir.join(Self::FILE);
        let failed = |e| io_error(&path, e);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        let slots: Vec<Revision> = (0..2).filter_map(|slot| read_slot(&file, slot)).collect();
        if len > 0 && slots.is_empty() {
            return Err(MetadataError::Corrupt { path, why: "no valid slot".into() });
        }
        let revision = slots.into_iter().max().unwrap_or_default();
        if len == 0 {
            File::open(dir).and_then(|d| d.sync_all()).map_err(failed)?;
        }
        // The slot that does not hold the newest revision; the first write of a new file may go anywhere.
        let slot = if read_slot(&file, 0) == Some(revision) { 1 } else { 0 };
        Ok(SyncMark { path, file, revision, slot })
    }

    /// The newest revision known to be durable.
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    /// Records, durably, that everything up to `revision` is durable.
    pub(super) fn advance(&mut self, revision: Revision) -> Result<(), MetadataError> {
        let mut bytes = revision.0.to_le_bytes().to_vec();
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        let written = self.file.write_all_at(&bytes, self.slot * SLOT_BYTES).and_then(|()| self.file.sync_data());
        written.map_err(|e| io_error(&self.path, e))?;
        self.revision = revision;
        self.slot = 1 - self.slot;
        Ok(())
    }
}

fn read_slot(file: &File, slot: u64) -> Option<Revision> {
    let mut bytes = [0; 12];
    let read: io::Result<()> = file.read_exact_at(&mut bytes, slot * SLOT_BYTES);
    let (revision, crc) = bytes.split_last_chunk::<4>()?;
    let valid = read.is_ok() && crc32c::crc32c(revision) == u32::from_le_bytes(*crc);
    valid.then(|| Revision(u64::from_le_bytes(std::array::from_fn(|i| revision[i]))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_one_torn_slot_and_refuses_two() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut mark = SyncMark::open(dir.path()).expect("opens");
        assert_eq!(mark.revision(), Revision(0));
        mark.advance(Revision(4)).expect("writes");
        mark.advance(Revision(9)).expect("writes");
        drop(mark);
        let mark = SyncMark::open(dir.path()).expect("opens");
        assert_eq!(mark.revision(), Revision(9));
        let torn = mark.slot;
        mark.file.write_all_at(&[0xff; 6], (1 - torn) * SLOT_BYTES).expect("writes");
        assert_eq!(SyncMark::open(dir.path()).expect("one is left").revision(), Revision(4));
        mark.file.write_all_at(&[0xff; 6], torn * SLOT_BYTES).expect("writes");
        assert!(SyncMark::open(dir.path()).is_err());
    }
}
