//! The blocking side of the directory engine, on its threads.
#![expect(clippy::disallowed_methods, reason = "runs on the directory engine's threads")]

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use super::room::Room;
use crate::{ObjectKey, StoreError, memory::past_the_end};

/// The folder of unfinished puts.
pub(super) const TEMPORARY: &str = "~tmp";

/// The files of one store.
pub(super) struct Files {
    root: PathBuf,
    temporary: PathBuf,
    next_temporary: AtomicU64,
    room: Arc<Room>,
}

impl Files {
    pub(super) fn new(root: &Path, keep_free_bytes: u64) -> Files {
        let (next_temporary, room) = (AtomicU64::new(0), Room::new(keep_free_bytes));
        Files { root: root.to_owned(), temporary: root.join(TEMPORARY), next_temporary, room }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn create_temporary(&self) -> io::Result<()> {
        self.create_folder(&self.temporary)
    }

    pub(super) fn path(&self, key: &ObjectKey) -> PathBuf {
        self.root.join(key.as_str())
    }

    /// What is taken of the disk by puts under way.
    pub(super) fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// The free bytes of the disk, if it tells.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        rustix::fs::statvfs(&self.root).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// A name for an unfinished put that no other has.
    pub(super) fn new_temporary(&self) -> PathBuf {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        self.temporary.join(format!("{}-{number}", std::process::id()))
    }

    pub(super) fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, StoreError> {
        let file = File::open(self.path(key)).map_err(|e| store_error(key, &e))?;
        let found = file.metadata().map_err(|e| store_error(key, &e))?;
        if !found.is_file() {
            return Err(StoreError::NotFound(key.clone()));
        }
        if range.is_empty() || range.end > found.len() {
            return Err(past_the_end(key, &range, found.len()));
        }
        read_range(file, range).map(Bytes::from).map_err(|e| store_error(key, &e))
    }

    pub(super) fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let place = self.path(key);
        let removed = fs::remove_file(&place).and_then(|()| {
            let folder = place.parent().expect("a key lies below the root");
            File::open(folder)?.sync_all()
        });
        match removed {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|e| store_error(key, &e)),
        }
    }

    /// Makes `folder` and all above it, each durable in its parent.
    pub(super) fn create_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        if let Some(above) = folder.parent() {
            self.create_folder(above)?;
        }
        match fs::create_dir(folder) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists || !folder.is_dir() => return Err(e),
            _ => {}
        }
        folder.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())
    }

    pub(super) fn clear_temporary(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.temporary)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(())
    }

    pub(super) fn probe(&self) -> io::Result<()> {
        let place = self.temporary.join("probe");
        File::create(&place)?;
        fs::remove_file(&place)
    }
}

/// The bytes of `range`, into memory that is not zeroed before.
fn read_range(mut file: File, range: Range<u64>) -> io::Result<Vec<u8>> {
    let length = range.end - range.start;
    let mut content = Vec::with_capacity(length as usize);
    file.seek(SeekFrom::Start(range.start))?;
    match file.take(length).read_to_end(&mut content)? as u64 {
        read if read == length => Ok(content),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// What a failed file call means for the object it was about.
pub(super) fn store_error(key: &ObjectKey, error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => StoreError::NotFound(key.clone()),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::IsADirectory => {
            StoreError::Refused(format!("{key}: {error}"))
        }
        _ => StoreError::Retry(format!("{key}: {error}")),
    }
}
