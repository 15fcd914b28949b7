//! The blocking side of the directory engine, on its threads.
#![expect(clippy::disallowed_methods, reason = "runs on the directory engine's threads")]

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    num::NonZeroU64,
    ops::Range,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{DATA_FOLDER, ObjectKey, PutCondition, StoreError, memory::past_the_end};

/// The folder of unfinished puts.
pub(super) const TEMPORARY: &str = "~tmp";

/// An object goes to the disk in pieces of this size.
const WRITE_BACK_BYTES: usize = 1 << 20;

/// The files of one store.
pub(super) struct Files {
    root: PathBuf,
    temporary: PathBuf,
    next_temporary: AtomicU64,
    /// Room of the disk that data objects leave to others, in bytes.
    keep_free_bytes: u64,
    /// Bytes of data objects that are being put.
    under_way: AtomicU64,
}

impl Files {
    pub(super) fn new(root: &Path, keep_free_bytes: u64) -> Files {
        let (next_temporary, under_way) = (AtomicU64::new(0), AtomicU64::new(0));
        Files { root: root.to_owned(), temporary: root.join(TEMPORARY), next_temporary, keep_free_bytes, under_way }
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

    /// Puts an object, its bytes at most at `pace` per second.
    pub(super) fn put(
        &self,
        key: &ObjectKey,
        parts: &[Bytes],
        condition: PutCondition,
        pace: Option<NonZeroU64>,
    ) -> Result<(), StoreError> {
        let _under_way = self.admit(key, parts)?;
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.temporary.join(format!("{}-{number}", std::process::id()));
        let written = Writer::create(&unfinished, pace).and_then(|writer| writer.write_all(parts));
        let done = written.and_then(|()| self.put_in_place(&unfinished, &self.path(key), condition));
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

    /// Room on the disk for an object, until it is there.
    fn admit(&self, key: &ObjectKey, parts: &[Bytes]) -> Result<UnderWay<'_>, StoreError> {
        // What is not data is small, and without it nothing can be deleted.
        let counts = self.keep_free_bytes > 0 && key.as_str().starts_with(DATA_FOLDER);
        let bytes = if counts { parts.iter().map(|part| part.len() as u64).sum() } else { 0 };
        let under_way = UnderWay { all: &self.under_way, bytes };
        let all = self.under_way.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if counts {
            let free = rustix::fs::statvfs(&self.root).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
            if let Some(free) = free.ok().filter(|free| *free < self.keep_free_bytes.saturating_add(all)) {
                return Err(StoreError::Retry(format!(
                    "{key}: the disk has {free} bytes free, {} of them are kept for the metadata",
                    self.keep_free_bytes
                )));
            }
        }
        Ok(under_way)
    }

    fn put_in_place(&self, unfinished: &Path, place: &Path, condition: PutCondition) -> io::Result<()> {
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

/// Bytes of a put that counts until this is dropped, though a part of it is on the disk by then: rather too little is taken than too much.
struct UnderWay<'a> {
    all: &'a AtomicU64,
    bytes: u64,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A new file whose content goes to the disk in pieces. An fsync of a whole object would queue all of it at the disk at once,
/// and the log's flushes beside it would wait tens of milliseconds.
struct Writer {
    file: File,
    written: u64,
    on_disk: u64,
    /// Bytes per second at most, if there is a bound, and since when.
    pace: Option<(NonZeroU64, Instant)>,
}

impl Writer {
    fn create(place: &Path, pace: Option<NonZeroU64>) -> io::Result<Writer> {
        let pace = pace.map(|pace| (pace, Instant::now()));
        Ok(Writer { file: File::create(place)?, written: 0, on_disk: 0, pace })
    }

    /// Writes all of it, durably.
    fn write_all(mut self, parts: &[Bytes]) -> io::Result<()> {
        parts.iter().try_for_each(|part| self.write(part))?;
        self.file.sync_all()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(WRITE_BACK_BYTES) {
            self.file.write_all(piece)?;
            self.written += piece.len() as u64;
            if self.written - self.on_disk >= WRITE_BACK_BYTES as u64 {
                self.write_back()?;
                self.keep_pace();
            }
        }
        Ok(())
    }

    /// Waits until so much may have been written.
    fn keep_pace(&self) {
        if let Some((pace, began)) = self.pace {
            let due = Duration::from_secs_f64(self.written as f64 / pace.get() as f64);
            thread::sleep(due.saturating_sub(began.elapsed()));
        }
    }

    /// Sends what the page cache holds to the disk, and waits for it. Durable it is only at the end; but an error is
    /// told here and not again there, for this call takes it off the file.
    fn write_back(&mut self) -> io::Result<()> {
        let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        let length = (self.written - self.on_disk) as i64;
        // SAFETY: the descriptor is open as long as `self.file`; no memory is passed.
        let result = unsafe { libc::sync_file_range(self.file.as_raw_fd(), self.on_disk as i64, length, flags) };
        self.on_disk = self.written;
        match io::Error::last_os_error() {
            _ if result == 0 => Ok(()),
            // Such a file system writes all at the end.
            e if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL | libc::ESPIPE | libc::EOPNOTSUPP)) => {
                Ok(())
            }
            e => Err(e),
        }
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
