//! The file or block device under a slice: creating, opening, checking, locking.
//!
//! Creating, and the checks of an opening, block: they run when the broker starts, before the shard serves.
#![expect(clippy::disallowed_methods, reason = "file calls of the start, before the shard serves")]

use std::{
    ffi::CString,
    fs, io, mem,
    os::{
        fd::{AsRawFd, RawFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileExt, FileTypeExt, OpenOptionsExt},
        },
    },
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use glommio::io::{DmaFile, OpenOptions};

use crate::format::{BLOCK, SUPERBLOCKS};

/// How often, and after what pause, a lock is asked for that nobody living seems to hold: 5 s in all.
const LAST_BREATHS: u32 = 250;
const LAST_BREATH: Duration = Duration::from_millis(20);

/// How a write becomes durable (`wal.sync`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WalSync {
    /// O_DSYNC on the descriptor: the write itself returns when it is durable.
    #[default]
    Dsync,
    /// A write, then fdatasync.
    Fdatasync,
}

/// How a slice is made and opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SliceOptions {
    /// How a write becomes durable.
    pub sync: WalSync,
    /// Lets the slice lie in memory, where nothing survives a power loss.
    pub allow_tmpfs: bool,
}

/// Why a slice cannot be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The system refused.
    #[error("cannot {what} the WAL slice {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The slice.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no room for the whole slice.
    #[error(
        "the WAL slice {path} needs {needed} bytes and the file system has {available}: {} bytes are missing; free them \
         or lower wal.capacity.bytes", needed - available
    )]
    NoSpace {
        /// The slice.
        path: PathBuf,
        /// Its length in bytes.
        needed: u64,
        /// Bytes that the file system can give.
        available: u64,
    },
    /// The slice would lie in memory.
    #[error("the WAL slice {0} lies on tmpfs, where nothing survives a power loss: set wal.path to a disk")]
    Tmpfs(PathBuf),
    /// Another descriptor has the slice.
    #[error("the WAL slice {path} is in use by {holder}: stop it first, or give this broker a data.dir of its own")]
    InUse {
        /// The slice.
        path: PathBuf,
        /// Who holds it, as far as the system tells.
        holder: String,
    },
    /// The system does not honour a flag that durability rests on.
    #[error("the file system of the WAL slice {path} does not honour {flag}: choose another, or another wal.sync")]
    Flag {
        /// The slice.
        path: PathBuf,
        /// The flag.
        flag: &'static str,
    },
    /// Neither a file nor a block device, or not of whole blocks.
    #[error("the WAL slice {0} is neither a file of whole 4,096-byte blocks nor a block device")]
    Kind(PathBuf),
}

pub(super) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DeviceError {
    let path = path.to_owned();
    move |source| DeviceError::Io { what, path, source }
}

pub(super) fn create_file(path: &Path, len: u64, options: SliceOptions) -> Result<(), DeviceError> {
    if len == 0 || len % BLOCK != 0 {
        return Err(DeviceError::Kind(path.to_owned()));
    }
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let space = file_system(dir).map_err(io_error("look at the directory of", path))?;
    if space.in_memory && !options.allow_tmpfs {
        return Err(DeviceError::Tmpfs(path.to_owned()));
    }
    if space.available < len {
        return Err(DeviceError::NoSpace { path: path.to_owned(), needed: len, available: space.available });
    }
    let file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io_error("create", path))?;
    let made = allocate(&file, path, len).and_then(|()| {
        file.sync_all().map_err(io_error("sync", path))?;
        // The name must survive a power loss too.
        fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync the directory of", path))
    });
    if made.is_err() {
        // Nothing half-made stays; if it cannot be removed, the first error says more.
        drop(fs::remove_file(path));
    }
    made
}

fn allocate(file: &fs::File, path: &Path, len: u64) -> Result<(), DeviceError> {
    // SAFETY: a plain system call on a descriptor that is open.
    let done = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len as libc::off_t) };
    if done == 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    match (source.raw_os_error(), path.parent().map(file_system)) {
        (Some(libc::ENOSPC), Some(Ok(space))) if space.available < len => {
            Err(DeviceError::NoSpace { path: path.to_owned(), needed: len, available: space.available })
        }
        _ => Err(io_error("allocate", path)(source)),
    }
}

struct FileSystem {
    in_memory: bool,
    available: u64,
}

fn file_system(path: &Path) -> io::Result<FileSystem> {
    const RAMFS_MAGIC: i64 = 0x8584_58f6;
    let name = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all zero is a valid `statfs`, and the kernel fills it.
    let mut found: libc::statfs = unsafe { mem::zeroed() };
    // SAFETY: `name` ends in a zero byte, `found` is ours.
    if unsafe { libc::statfs(name.as_ptr(), &mut found) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let in_memory = [libc::TMPFS_MAGIC, RAMFS_MAGIC].contains(&found.f_type);
    Ok(FileSystem { in_memory, available: (found.f_bavail as u64).saturating_mul(found.f_bsize as u64) })
}

/// An open slice: unlocked when the last write that uses it is done.
pub(super) struct Slice {
    file: DmaFile,
    len: u64,
    is_file: bool,
    locked: bool,
}

impl Slice {
    pub(super) async fn open(path: &Path, options: SliceOptions) -> Result<Slice, DeviceError> {
        let (is_file, in_memory) = kind(path)?;
        if in_memory && !options.allow_tmpfs {
            return Err(DeviceError::Tmpfs(path.to_owned()));
        }
        if is_file {
            settle_first_blocks(path)?;
        }
        // glommio asks the file system of the path, which for a node under /dev is devtmpfs: the flags are ours to set.
        let direct = if in_memory { 0 } else { libc::O_DIRECT };
        let dsync = if options.sync == WalSync::Dsync { libc::O_DSYNC } else { 0 };
        let exclusive = if is_file { 0 } else { libc::O_EXCL };
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(direct | dsync | exclusive)
            .dma_open(path)
            .await
            .map_err(io::Error::from);
        let file = match opened {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => return Err(in_use(path)),
            other => other.map_err(io_error("open", path))?,
        };
        let set = flags(file.as_raw_fd()).map_err(io_error("look at", path))?;
        for (flag, name) in [(direct, "O_DIRECT"), (dsync, "O_DSYNC")] {
            if set & flag != flag {
                return Err(DeviceError::Flag { path: path.to_owned(), flag: name });
            }
        }
        take(file.as_raw_fd(), path)?;
        let len = length(&file, path)?;
        Ok(Slice { file, len, is_file, locked: true })
    }

    pub(super) async fn open_read_only(path: &Path) -> Result<Slice, DeviceError> {
        let (is_file, in_memory) = kind(path)?;
        let direct = if in_memory { 0 } else { libc::O_DIRECT };
        let opened = OpenOptions::new().read(true).custom_flags(direct).dma_open(path).await;
        let file = opened.map_err(io::Error::from).map_err(io_error("open", path))?;
        let len = length(&file, path)?;
        Ok(Slice { file, len, is_file, locked: false })
    }

    pub(super) fn file(&self) -> &DmaFile {
        &self.file
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn is_file(&self) -> bool {
        self.is_file
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        // glommio closes the descriptor some time later; whoever opens the slice next should not have to wait for that.
        if self.locked && lock(self.file.as_raw_fd(), libc::F_UNLCK).is_err() {
            tracing::debug!("a WAL slice stays locked until its descriptor is closed");
        }
    }
}

/// Whether `path` is a file (or else a block device), and whether it lies in memory.
fn kind(path: &Path) -> Result<(bool, bool), DeviceError> {
    let found = fs::metadata(path).map_err(io_error("find", path))?.file_type();
    if found.is_block_device() {
        return Ok((false, false));
    }
    if !found.is_file() {
        return Err(DeviceError::Kind(path.to_owned()));
    }
    let space = file_system(path).map_err(io_error("look at the file system of", path))?;
    Ok((true, space.in_memory))
}

/// Length in bytes, of a file or a block device.
fn length(file: &DmaFile, path: &Path) -> Result<u64, DeviceError> {
    // SAFETY: a plain system call on a descriptor that is open. Reads and writes here name their position.
    let end = unsafe { libc::lseek64(file.as_raw_fd(), 0, libc::SEEK_END) };
    let end = u64::try_from(end).map_err(|_| io_error("measure", path)(io::Error::last_os_error()))?;
    if end % BLOCK == 0 { Ok(end) } else { Err(DeviceError::Kind(path.to_owned())) }
}

/// Makes sure that the superblocks' blocks are written, not only allocated.
///
/// When glommio opens a file it reads the first block to learn whether the device can be polled. A block that was never
/// written is read without asking the device, so the answer would be yes where it is no, and every later read fails.
fn settle_first_blocks(path: &Path) -> Result<(), DeviceError> {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).map_err(io_error("open", path))?;
    take(file.as_raw_fd(), path)?;
    let len = file.metadata().map_err(io_error("measure", path))?.len();
    for block in 0..SUPERBLOCKS.min(len / BLOCK) {
        let at = block * BLOCK;
        // SAFETY: a plain system call on a descriptor that is open.
        let data = unsafe { libc::lseek64(file.as_raw_fd(), at as libc::off64_t, libc::SEEK_DATA) };
        if data != at as libc::off64_t {
            file.write_all_at(&[0; BLOCK as usize], at).map_err(io_error("write", path))?;
        }
    }
    file.sync_all().map_err(io_error("sync", path))
}

pub(super) fn flags(fd: RawFd) -> io::Result<i32> {
    // SAFETY: a plain system call on a descriptor that is open.
    let set = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(set) }
}

/// Locks the slice for this open file. When somebody has it whom nobody can see, that may be a process that was killed: the kernel
/// keeps its files until its last io_uring request is done, a moment after its death. So that is waited for.
fn take(fd: RawFd, path: &Path) -> Result<(), DeviceError> {
    for _ in 0..LAST_BREATHS {
        if lock(fd, libc::F_WRLCK).map_err(io_error("lock", path))? {
            return Ok(());
        }
        if !holders(path).is_empty() {
            break;
        }
        thread::sleep(LAST_BREATH);
    }
    Err(in_use(path))
}

/// Sets the lock of this open file (OFD, of the whole file). `false` when another one has it.
pub(super) fn lock(fd: RawFd, kind: libc::c_int) -> io::Result<bool> {
    // SAFETY: all zero is a valid `flock`.
    let mut request: libc::flock = unsafe { mem::zeroed() };
    request.l_type = kind as libc::c_short;
    request.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: the descriptor is open and `request` is ours.
    if unsafe { libc::fcntl(fd, libc::F_OFD_SETLK, &request) } == 0 {
        return Ok(true);
    }
    let e = io::Error::last_os_error();
    match e.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(e),
    }
}

fn in_use(path: &Path) -> DeviceError {
    let holders = holders(path);
    let holder = if holders.is_empty() { "a process of another user".to_owned() } else { holders.join(", ") };
    DeviceError::InUse { path: path.to_owned(), holder }
}

/// Who else has `path` open. A lock of an open file names no process, so look who has the file.
fn holders(path: &Path) -> Vec<String> {
    let Ok(target) = fs::canonicalize(path) else { return Vec::new() };
    let times_open = |process: &Path| {
        let fds = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        fds.into_iter().filter(|fd| fs::read_link(fd.path()).is_ok_and(|open| open == target)).count()
    };
    let own = std::process::id().to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<String> = processes
        .filter(|process| process.file_name().is_some_and(|name| name.as_bytes()[0].is_ascii_digit()))
        // Who asks has it open once itself.
        .filter(|process| times_open(process) > usize::from(process.ends_with(&own)))
        .map(|process| {
            if process.ends_with(&own) {
                return "another shard of this process".to_owned();
            }
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            let id = process.file_name().unwrap_or_default().to_string_lossy().into_owned();
            format!("process {id} ({})", name.trim())
        })
        .collect();
    found.sort();
    found
}
