use std::{path::PathBuf, rc::Rc};

use glommio::{LocalExecutorBuilder, Placement};

use super::{super::contract, DeviceError, GlommioDevice, SliceOptions, WalSync};
use crate::{Device, format::BLOCK};

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
