//! The blocking side of the directory engine, on its threads.
#![expect(clippy::disallowed_methods, reason = "runs on the directory engine's threads")]

use std::{
    fs::{self, File},
    io::{self, Write},
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;

use crate::{ObjectKey, PutCondition, StoreError, memory::past_the_end};

/// The folder of unfinished puts.
pub(super) const TEMPORARY: &str = "~tmp";

/// The files of one store.
pub(super) struct Files {
    root: PathBuf,
    temporary: PathBuf,
    next_temporary: AtomicU64,
}

impl Files {
    pub(super) fn new(root: &Path) -> Files {
        Files { root: root.to_owned(), temporary: root.join(TEMPORARY), next_temporary: AtomicU64::new(0) }
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

    pub(super) fn put(&self, key: &ObjectKey, parts: &[Bytes], condition: PutCondition) -> Result<(), StoreError> {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.temporary.join(format!("{}-{number}", std::process::id()));
        let done = self.put_through(&unfinished, &self.path(key), parts, condition);
        if done.is_err() || condition == PutCondition::IfAbsent {
            // What stays for lack of permission or space is cleared at the next open.
            let _left_behind = fs::remove_file(&unfinished);
        }
        done.map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists if condition == PutCondition::IfAbsent => StoreError::Exists(key.clone()),
            // Somebody cleared the folder under us: the put did not happen, and may again be tried.
            io::ErrorKind::NotFound => StoreError::Retry(format!("{key}: {e}")),
            _ => store_error(key, &e),
        })
    }

    fn put_through(&self, unfinished: &Path, place: &Path, parts: &[Bytes], condition: PutCondition) -> io::Result<()> {
        let mut file = File::create(unfinished)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        file.sync_all()?;
        drop(file);
        let folder = place.parent().expect("a key lies below the root");
        self.create_folder(folder)?;
        match condition {
            PutCondition::Always => fs::rename(unfinished, place)?,
            // A rename would replace; a second link to the same file never does.
            PutCondition::IfAbsent => fs::hard_link(unfinished, place)?,
        }
        File::open(folder)?.sync_all()
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
        let mut content = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut content, range.start).map_err(|e| store_error(key, &e))?;
        Ok(Bytes::from(content))
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
