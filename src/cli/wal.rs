//! `wal inspect`: looks at slices of the write-ahead log beside, or without, a broker.
#![expect(clippy::disallowed_methods, reason = "a command without shards")]

use std::{
    fs::{self, File},
    future::ready,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    rc::Rc,
};

use bytes::Bytes;
use futures_lite::future::block_on;
use thalweg_wal::{Device, IoBuf, device::LocalBoxFuture, inspect};

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

/// Tells what the slice at `path` holds, or each slice in it when it is a directory.
///
/// # Errors
/// A sentence that names the file.
pub fn inspect_wal(path: &Path, out: &mut impl Write) -> Result<(), String> {
    let slices = slices(path).map_err(|e| format!("{}: {e}", path.display()))?;
    if slices.is_empty() {
        return Err(format!("{}: no slice of a write-ahead log (*.wal) is in it", path.display()));
    }
    for slice in slices {
        let told = look(&slice).map_err(|e| format!("{}: {e}", slice.display()))?;
        writeln!(out, "{}\n{told}", slice.display()).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// The files to look at, by name.
fn slices(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = fs::read_dir(path)?.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>()?;
    files.retain(|f| f.extension().is_some_and(|e| e == "wal"));
    files.sort();
    Ok(files)
}

fn look(slice: &Path) -> Result<String, String> {
    let file = File::open(slice).map_err(|e| e.to_string())?;
    let len = file.metadata().map_err(|e| e.to_string())?.len();
    let device = Rc::new(ReadOnlyFile { file: Rc::new(file), len });
    block_on(inspect(device)).map(|report| report.to_string()).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(path: &Path) -> Result<String, String> {
        let mut out = Vec::new();
        inspect_wal(path, &mut out).map(|()| String::from_utf8(out).expect("text"))
    }

    #[test]
    fn every_slice_of_a_directory_is_told_and_left_as_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(told(dir.path()).expect_err("empty").contains("no slice"));
        for name in ["b.wal", "a.wal", "other"] {
            fs::write(dir.path().join(name), vec![0; 128 << 10]).expect("written");
        }
        let shown = told(dir.path()).expect("told");
        assert!(shown.find("a.wal").expect("first") < shown.find("b.wal").expect("second"), "{shown}");
        assert!(!shown.contains("other"), "{shown}");
        assert_eq!(fs::read(dir.path().join("a.wal")).expect("read"), vec![0; 128 << 10]);
    }

    #[test]
    fn what_is_no_slice_is_named() {
        let shown = told(Path::new("/no/such.wal")).expect_err("missing");
        assert!(shown.starts_with("/no/such.wal: No such file"), "{shown}");
    }
}
