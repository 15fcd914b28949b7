//! A device in memory: every write is durable at once. For tests and for shards without a disk of their own.

use std::{cell::RefCell, io, rc::Rc};

use bytes::Bytes;

use super::{Device, IoBuf, LocalBoxFuture};
use crate::format::BLOCK;

/// A slice in memory. Clones share the bytes, so a test can look at them, damage them, or open them again.
#[derive(Clone)]
pub struct MemoryDevice {
    bytes: Rc<RefCell<Vec<u8>>>,
}

impl MemoryDevice {
    /// A zeroed slice of `len` bytes, whole blocks.
    pub fn new(len: u64) -> MemoryDevice {
        MemoryDevice::of_bytes(vec![0; usize::try_from(len).expect("a memory device fits into memory")])
    }

    /// A slice that holds `bytes`, whole blocks.
    pub fn of_bytes(bytes: Vec<u8>) -> MemoryDevice {
        assert_eq!(bytes.len() as u64 % BLOCK, 0, "a device has whole blocks");
        MemoryDevice { bytes: Rc::new(RefCell::new(bytes)) }
    }

    /// A copy of all bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.bytes.borrow().clone()
    }

    /// Changes the bytes behind the log's back.
    pub fn change(&self, f: impl FnOnce(&mut [u8])) {
        f(&mut self.bytes.borrow_mut());
    }
}

/// The range `at .. at + len` of a slice of `total` bytes, or the error of a device that ends before it.
pub(super) fn range(at: u64, len: usize, total: usize) -> io::Result<std::ops::Range<usize>> {
    let start = usize::try_from(at).map_err(|_| io::ErrorKind::UnexpectedEof)?;
    match start.checked_add(len) {
        Some(end) if end <= total => Ok(start..end),
        _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "past the end of the WAL slice")),
    }
}

/// The place of a write, checked as O_DIRECT would.
pub(super) fn aligned(at: u64, len: usize, total: usize) -> io::Result<std::ops::Range<usize>> {
    if at % BLOCK != 0 || len as u64 % BLOCK != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a write is not of whole blocks"));
    }
    range(at, len, total)
}

impl Device for MemoryDevice {
    fn len(&self) -> u64 {
        self.bytes.borrow().len() as u64
    }

    fn alloc(&self, blocks: u32) -> IoBuf {
        IoBuf::heap(blocks)
    }

    fn write(&self, at: u64, b: IoBuf) -> LocalBoxFuture<'static, (io::Result<()>, IoBuf)> {
        let bytes = self.bytes.clone();
        Box::pin(async move {
            let mut bytes = bytes.borrow_mut();
            let done = aligned(at, b.len(), bytes.len()).map(|place| bytes[place].copy_from_slice(b.as_ref()));
            (done, b)
        })
    }

    fn read(&self, at: u64, len: usize) -> LocalBoxFuture<'static, io::Result<Bytes>> {
        let bytes = self.bytes.clone();
        Box::pin(async move {
            let bytes = bytes.borrow();
            range(at, len, bytes.len()).map(|place| Bytes::copy_from_slice(&bytes[place]))
        })
    }
}
