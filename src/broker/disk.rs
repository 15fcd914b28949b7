//! Slices on the disks of this machine.
#![expect(clippy::disallowed_methods, reason = "files are looked after on the main thread, at the start")]

use std::{
    any::Any,
    fs,
    io::{self, Read},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    rc::Rc,
};

use thalweg_shards::runtime::{LocalBoxFuture, Runtime};
use thalweg_wal::{
    Device,
    device::{DeviceError, GlommioDevice, SliceOptions},
};

use super::{OpenSlice, SliceFiles};

/// The file system, O_DIRECT and io_uring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Disk;

impl OpenSlice for Disk {
    fn open<'a>(
        &'a self,
        path: &'a Path,
        options: SliceOptions,
        _runtime: &'a Rc<dyn Runtime>,
    ) -> LocalBoxFuture<'a, Result<Rc<dyn Device>, DeviceError>> {
        Box::pin(async move { Ok(Rc::new(GlommioDevice::open(path, options).await?) as Rc<dyn Device>) })
    }
}

impl SliceFiles for Disk {
    fn prepare(&self, dir: &Path) -> io::Result<PathBuf> {
        fs::create_dir_all(dir)?;
        dir.canonicalize()
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Any + Send>> {
        let file = fs::File::open(dir)?;
        // SAFETY: the descriptor is open.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(Box::new(file));
        }
        Err(io::Error::last_os_error())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        match fs::read_dir(dir) {
            Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
            Err(_none) => Ok(Vec::new()),
        }
    }

    fn len(&self, path: &Path) -> Option<u64> {
        fs::metadata(path).map(|file| file.len()).ok()
    }

    fn head(&self, path: &Path, len: u64) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        fs::File::open(path)?.take(len).read_to_end(&mut head)?;
        Ok(head)
    }

    fn same(&self, a: &Path, b: &Path) -> bool {
        a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
    }

    fn create(&self, path: &Path, len: u64, options: SliceOptions) -> Result<(), DeviceError> {
        GlommioDevice::create_file(path, len, options)
    }

    fn publish(&self, draft: &Path, path: &Path) -> io::Result<()> {
        fs::rename(draft, path)?;
        let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        fs::File::open(dir)?.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}
