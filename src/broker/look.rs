//! Looks at slices of the write-ahead log beside, or without, a broker.
#![expect(clippy::disallowed_methods, reason = "called by commands, and at the start on the main thread")]

use std::{
    fs::{self, File},
    future::ready,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    rc::Rc,
};

use bytes::Bytes;
use futures_lite::future::block_on;
use thalweg_wal::{Device, InspectReport, IoBuf, device::LocalBoxFuture, inspect};

/// A slice's file, opened for reading alone: a broker may have it open at the same time.
struct ReadOnlyFile {
    file: Rc<File>,
    len: u64,
}

impl Device for ReadOnlyFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn alloc(&self, blocks: u32) -> IoBuf {
        IoBuf::heap(blocks)
    }

    fn write(&self, _at: u64, b: IoBuf) -> LocalBoxFuture<'static, (io::Result<()>, IoBuf)> {
        Box::pin(ready((Err(io::ErrorKind::PermissionDenied.into()), b)))
    }

    fn read(&self, at: u64, len: usize) -> LocalBoxFuture<'static, io::Result<Bytes>> {
        let mut bytes = vec![0; len];
        let read = self.file.read_exact_at(&mut bytes, at).map(|()| bytes.into());
        Box::pin(ready(read))
    }
}

/// The slice at `path`, or those in that directory, by name.
///
/// # Errors
/// The file system's.
pub fn slice_paths(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = fs::read_dir(path)?.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>()?;
    files.retain(|f| f.extension().is_some_and(|e| e == "wal"));
    files.sort();
    Ok(files)
}

/// What a slice holds, of a file that another process may have open; changes nothing.
///
/// # Errors
/// What is in the way, without the path.
pub fn inspect_slice(slice: &Path) -> Result<InspectReport, String> {
    let file = File::open(slice).map_err(|e| e.to_string())?;
    let len = file.metadata().map_err(|e| e.to_string())?.len();
    let device = Rc::new(ReadOnlyFile { file: Rc::new(file), len });
    block_on(inspect(device)).map_err(|e| e.to_string())
}
