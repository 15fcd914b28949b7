use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::AsRawFd,
    path::PathBuf,
    rc::Rc,
};

use bytes::Bytes;
use glommio::{LocalExecutorBuilder, Placement};

use super::{
    super::{LocalBoxFuture, Medium, contract},
    DeviceError, GlommioDevice, SliceOptions, WalSync,
};
use crate::{Device, IoBuf, format::BLOCK};

/// A directory on the file system that the tests are built on, which is a disk where /tmp may be memory.
fn directory() -> tempfile::TempDir {
    let beside = std::env::current_exe().expect("a test has a path").parent().expect("in a directory").to_owned();
    tempfile::tempdir_in(beside).expect("a directory")
}

fn slice(dir: &tempfile::TempDir, options: SliceOptions) -> PathBuf {
    let path = dir.path().join("slice");
    GlommioDevice::create_file(&path, contract::LEN, options).expect("created");
    path
}

fn run<T>(f: impl Future<Output = T>) -> T {
    LocalExecutorBuilder::new(Placement::Unbound).make().expect("an executor").run(f)
}

#[test]
fn a_file_holds_the_contract_with_either_sync() {
    for sync in [WalSync::Dsync, WalSync::Fdatasync] {
        let (dir, options) = (directory(), SliceOptions { sync, allow_tmpfs: false });
        let path = slice(&dir, options);
        run(async {
            let device = GlommioDevice::open(&path, options).await.expect("opened");
            let flags = device.flags().expect("flags");
            assert_eq!(flags & libc::O_DIRECT, libc::O_DIRECT);
            assert_eq!(flags & libc::O_DSYNC == libc::O_DSYNC, sync == WalSync::Dsync);
            contract::holds(Rc::new(device)).await;
        });
    }
}

/// Tells what ends, in order; flushes fail when they shall.
struct Watched {
    file: Rc<dyn Medium>,
    ended: Rc<RefCell<Vec<&'static str>>>,
    flush_fails: Rc<Cell<bool>>,
}

impl Medium for Watched {
    fn len(&self) -> u64 {
        self.file.len()
    }

    fn alloc(&self, blocks: u32) -> IoBuf {
        self.file.alloc(blocks)
    }

    fn write(&self, at: u64, b: IoBuf) -> LocalBoxFuture<'static, (io::Result<()>, IoBuf)> {
        let (write, ended) = (self.file.write(at, b), self.ended.clone());
        Box::pin(async move {
            let done = write.await;
            ended.borrow_mut().push("write");
            done
        })
    }

    fn read(&self, at: u64, len: usize) -> LocalBoxFuture<'static, io::Result<Bytes>> {
        self.file.read(at, len)
    }

    fn flush(&self) -> LocalBoxFuture<'static, io::Result<()>> {
        self.ended.borrow_mut().push("flush");
        if self.flush_fails.get() {
            return Box::pin(async { Err(io::Error::other("it is gone")) });
        }
        self.file.flush()
    }

    fn flags(&self) -> io::Result<i32> {
        self.file.flags()
    }

    fn wants_zeroing(&self) -> bool {
        self.file.wants_zeroing()
    }
}

#[test]
fn a_write_is_durable_by_its_flag_or_by_a_flush_that_follows_it() {
    let expected: [(WalSync, &[&str]); 2] =
        [(WalSync::Dsync, &["flush", "write"]), (WalSync::Fdatasync, &["flush", "write", "flush"])];
    for (sync, order) in expected {
        let (dir, options) = (directory(), SliceOptions { sync, allow_tmpfs: false });
        let path = slice(&dir, options);
        let (ended, flush_fails) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(false)));
        run(async {
            let (seen, fails) = (ended.clone(), flush_fails.clone());
            let layer = |file| Rc::new(Watched { file, ended: seen, flush_fails: fails }) as Rc<dyn Medium>;
            let device = GlommioDevice::open_through(&path, options, layer).await.expect("opened");
            let write = || {
                let mut buf = device.alloc(1);
                buf.put(&[1; BLOCK as usize]);
                device.write(0, buf)
            };
            write().await.0.expect("written");
            assert_eq!(*ended.borrow(), order, "the one of the opening, then what the write takes");
            flush_fails.set(true);
            assert_eq!(write().await.0.is_err(), sync == WalSync::Fdatasync, "a flush that fails fails the write");
        });
    }
}

#[test]
fn a_slice_has_one_owner_and_is_free_when_that_goes() {
    let dir = directory();
    let path = slice(&dir, SliceOptions::default());
    run(async {
        let first = GlommioDevice::open(&path, SliceOptions::default()).await.expect("opened");
        let second = GlommioDevice::open(&path, SliceOptions::default()).await;
        assert!(matches!(second, Err(DeviceError::InUse { .. })), "{:?}", second.err());
        let looking = GlommioDevice::open_read_only(&path).await.expect("looking is allowed");
        assert_eq!(looking.len(), contract::LEN);
        let mut buf = looking.alloc(1);
        buf.put(&[1; BLOCK as usize]);
        assert!(looking.write(0, buf).await.0.is_err(), "writing is not");
        drop(first);
        GlommioDevice::open(&path, SliceOptions::default()).await.expect("free again");
    });
}

#[test]
fn a_lock_that_a_killed_process_has_left_for_a_moment_is_waited_for() {
    let dir = directory();
    let path = slice(&dir, SliceOptions::default());
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("opened");
    assert!(super::slice::lock(file.as_raw_fd(), libc::F_WRLCK).expect("locked"));
    // A mapping keeps the lock when the descriptor is gone, as requests under way do: no process is seen to have the file.
    // SAFETY: the file is open and has more than a page; the mapping is not looked at.
    let mapped =
        unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    assert_ne!(mapped, libc::MAP_FAILED);
    drop(file);
    let probe = std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("opened");
    assert!(!super::slice::lock(probe.as_raw_fd(), libc::F_WRLCK).expect("asked"), "the mapping holds it");
    drop(probe);
    let at = mapped as usize;
    let dies = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(200));
        // SAFETY: this is the mapping made above, and nobody uses it.
        assert_eq!(unsafe { libc::munmap(at as *mut libc::c_void, 4096) }, 0);
    });
    run(async { GlommioDevice::open(&path, SliceOptions::default()).await.map(drop).expect("free in the end") });
    dies.join().expect("unmapped");
}

#[test]
fn a_slice_that_does_not_fit_leaves_nothing_behind() {
    let dir = directory();
    let path = dir.path().join("slice");
    let made = GlommioDevice::create_file(&path, 1 << 60, SliceOptions::default()).expect_err("too large");
    match made {
        DeviceError::NoSpace { needed, available, .. } => {
            assert!(made.to_string().contains(&format!("{} bytes are missing", needed - available)), "{made}");
        }
        other => panic!("{other}"),
    }
    assert!(!path.exists());
}

#[test]
fn a_slice_is_allocated_in_full_and_never_overwritten() {
    use std::os::unix::fs::MetadataExt;
    let dir = directory();
    let path = slice(&dir, SliceOptions::default());
    assert!(path.metadata().expect("there").blocks() * 512 >= contract::LEN);
    let again = GlommioDevice::create_file(&path, contract::LEN, SliceOptions::default());
    assert!(matches!(again, Err(DeviceError::Io { what: "create", .. })), "{:?}", again.err());
    assert!(path.exists());
}

#[test]
fn memory_is_refused_unless_it_is_allowed() {
    let dir = tempfile::tempdir_in("/dev/shm").expect("Linux has /dev/shm");
    let path = dir.path().join("slice");
    let refused = GlommioDevice::create_file(&path, contract::LEN, SliceOptions::default());
    assert!(matches!(refused, Err(DeviceError::Tmpfs(_))), "{:?}", refused.err());
    let options = SliceOptions { allow_tmpfs: true, ..SliceOptions::default() };
    GlommioDevice::create_file(&path, contract::LEN, options).expect("allowed");
    run(async {
        let refused = GlommioDevice::open(&path, SliceOptions::default()).await;
        assert!(matches!(refused, Err(DeviceError::Tmpfs(_))), "{:?}", refused.err());
        contract::holds(Rc::new(GlommioDevice::open(&path, options).await.expect("allowed"))).await;
    });
}
