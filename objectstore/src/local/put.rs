//! One put: its bytes go in pieces to a file in the folder of unfinished puts, which then gets its name.
#![expect(clippy::disallowed_methods, reason = "runs on the directory engine's threads")]

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Write},
    os::fd::AsRawFd,
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;

use super::{
    files::{Files, store_error},
    room::Claim,
};
use crate::{DATA_FOLDER, ObjectKey, PutCondition, StoreError};

/// An object goes to the disk in pieces of this size. An fsync of a whole object would queue all of it at the disk at once,
/// and the log's flushes beside it would wait tens of milliseconds.
pub(super) const PIECE_BYTES: usize = 1 << 20;

/// An object that is being put. One that is dropped before its end leaves nothing behind.
pub(super) struct Put {
    files: Arc<Files>,
    key: ObjectKey,
    condition: PutCondition,
    /// What is not written yet.
    parts: VecDeque<Bytes>,
    file: File,
    unfinished: PathBuf,
    on_disk: u64,
    claim: Claim,
}

impl Put {
    pub(super) fn begin(
        files: Arc<Files>,
        key: ObjectKey,
        parts: Vec<Bytes>,
        condition: PutCondition,
        has_time: bool,
    ) -> Result<Put, StoreError> {
        // What is not data is small, and without it nothing can be deleted.
        let counts = key.as_str().starts_with(DATA_FOLDER);
        let bytes = if counts { parts.iter().map(|part| part.len() as u64).sum() } else { 0 };
        let claim = files.room().claim(bytes, has_time);
        check(&files, &key, &claim)?;
        let unfinished = files.new_temporary();
        let file = File::create(&unfinished).map_err(|e| failed(&key, condition, &e))?;
        Ok(Put { files, key, condition, parts: parts.into(), file, unfinished, on_disk: 0, claim })
    }

    /// Writes all of it, durably.
    pub(super) fn run(mut self) -> Result<(), StoreError> {
        while self.piece()? > 0 {}
        self.finish()
    }

    /// Writes the next piece and waits until the disk has it; says how large it was. 0: there is no more.
    pub(super) fn piece(&mut self) -> Result<u64, StoreError> {
        let (mut room, begins) = (PIECE_BYTES, self.on_disk);
        let mut written = 0;
        while let Some(part) = self.parts.front_mut().filter(|_| room > 0) {
            let bytes = part.split_to(part.len().min(room));
            if part.is_empty() {
                self.parts.pop_front();
            }
            self.file.write_all(&bytes).map_err(|e| self.failed(&e))?;
            room -= bytes.len();
            written += bytes.len() as u64;
        }
        if written > 0 {
            self.on_disk += written;
            if self.write_back(begins, written).map_err(|e| self.failed(&e))? {
                self.claim.written(written);
            }
        }
        Ok(written)
    }

    /// Whether there is room for what is left of it, on a disk that others fill meanwhile.
    pub(super) fn still_fits(&self) -> Result<(), StoreError> {
        check(&self.files, &self.key, &self.claim)
    }

    /// Makes it the object.
    pub(super) fn finish(self) -> Result<(), StoreError> {
        self.file.sync_all().and_then(|()| self.put_in_place()).map_err(|e| self.failed(&e))
    }

    fn put_in_place(&self) -> io::Result<()> {
        let place = self.files.path(&self.key);
        let folder = place.parent().expect("a key lies below the root");
        self.files.create_folder(folder)?;
        match self.condition {
            PutCondition::Always => fs::rename(&self.unfinished, &place)?,
            // A rename would replace; a second link to the same file never does.
            PutCondition::IfAbsent => fs::hard_link(&self.unfinished, &place)?,
        }
        File::open(folder)?.sync_all()
    }

    /// Sends what the page cache holds to the disk, and waits for it. Durable it is only at the end; but an error is
    /// told here and not again there, for this call takes it off the file. `false` where the file system writes all at the end.
    fn write_back(&self, begins: u64, length: u64) -> io::Result<bool> {
        let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        // SAFETY: the descriptor is open as long as `self.file`; no memory is passed.
        let result = unsafe { libc::sync_file_range(self.file.as_raw_fd(), begins as i64, length as i64, flags) };
        match io::Error::last_os_error() {
            _ if result == 0 => Ok(true),
            e if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL | libc::ESPIPE | libc::EOPNOTSUPP)) => {
                Ok(false)
            }
            e => Err(e),
        }
    }

    fn failed(&self, error: &io::Error) -> StoreError {
        failed(&self.key, self.condition, error)
    }
}

impl Drop for Put {
    fn drop(&mut self) {
        // Gone already where it was renamed; what stays for lack of permission is cleared at the next open.
        let _left_behind = fs::remove_file(&self.unfinished);
    }
}

fn failed(key: &ObjectKey, condition: PutCondition, error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::AlreadyExists if condition == PutCondition::IfAbsent => StoreError::Exists(key.clone()),
        // Somebody cleared the folder under us: the put did not happen, and may again be tried.
        io::ErrorKind::NotFound => StoreError::Retry(format!("{key}: {error}")),
        _ => store_error(key, error),
    }
}

fn check(files: &Files, key: &ObjectKey, claim: &Claim) -> Result<(), StoreError> {
    let (Some(wanted), Some(free)) = (claim.wants_free_bytes(), files.free_bytes()) else { return Ok(()) };
    if free >= wanted {
        return Ok(());
    }
    Err(StoreError::Retry(format!(
        "{key}: the disk has {free} bytes free, {} of them are kept for the metadata",
        claim.kept_bytes()
    )))
}
