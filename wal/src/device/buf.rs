//! Aligned buffers that are filled from the front.

use std::any::Any;

use bytes::Bytes;

use crate::format::{BLOCK, round_up};

/// Memory of a device, behind an [`IoBuf`].
pub trait Region: 'static {
    /// All of it. What was not put there through the `IoBuf` has no meaning.
    fn memory(&self) -> &[u8];
    /// All of it, to fill.
    fn memory_mut(&mut self) -> &mut [u8];
    /// Bytes of memory that live as long as the region does.
    fn pinned_bytes(&self) -> usize {
        self.memory().len()
    }
    /// Gives up the region for its first `len` bytes, without a copy.
    fn freeze(self: Box<Self>, len: usize) -> Bytes;
    /// For the device, to find its own kind again.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// A device buffer of whole blocks, empty at first and filled from the front.
///
/// Only what was put into it can be seen or written, so nothing that the memory held before gets to the disk, and
/// reused memory need not be zeroed. Owned by whoever fills it until it is frozen.
pub struct IoBuf {
    region: Box<dyn Region>,
    len: usize,
}

impl IoBuf {
    /// An empty buffer over `region`.
    pub fn new(region: Box<dyn Region>) -> IoBuf {
        IoBuf { region, len: 0 }
    }

    /// An empty buffer of `blocks` x 4,096 bytes on the heap.
    pub fn heap(blocks: u32) -> IoBuf {
        IoBuf::new(Box::new(HeapRegion(vec![0; blocks as usize * BLOCK as usize])))
    }

    /// Bytes put in so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was put in yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory that the buffer, and what it is frozen to, keep from other use.
    pub fn pinned_bytes(&self) -> usize {
        self.region.pinned_bytes()
    }

    /// Bytes that fit in all.
    pub fn capacity(&self) -> usize {
        self.region.memory().len()
    }

    /// Appends `bytes`. The caller made sure that they fit.
    pub fn put(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        self.region.memory_mut()[self.len..end].copy_from_slice(bytes);
        self.len = end;
    }

    /// Appends zeros until `len` bytes are in. The caller made sure that they fit.
    pub fn zero_to(&mut self, len: usize) {
        if len > self.len {
            self.region.memory_mut()[self.len..len].fill(0);
            self.len = len;
        }
    }

    /// Appends zeros to the end of the block that is begun.
    pub fn pad_to_block(&mut self) {
        self.zero_to(round_up(self.len as u64) as usize);
    }

    /// Takes the buffer apart: its memory, and how much of it is filled.
    pub fn into_region(self) -> (Box<dyn Region>, usize) {
        (self.region, self.len)
    }

    /// The buffer around a region of which the first `len` bytes are filled.
    pub fn filled(region: Box<dyn Region>, len: usize) -> IoBuf {
        assert!(len <= region.memory().len(), "a buffer cannot be fuller than its memory");
        IoBuf { region, len }
    }

    /// Freezes without a copy; the memory goes back to its home core on the last drop, on whatever core that is.
    pub fn freeze(self) -> Bytes {
        self.region.freeze(self.len)
    }
}

impl AsRef<[u8]> for IoBuf {
    fn as_ref(&self) -> &[u8] {
        &self.region.memory()[..self.len]
    }
}

impl AsMut<[u8]> for IoBuf {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.region.memory_mut()[..self.len]
    }
}

pub(super) struct HeapRegion(Vec<u8>);

impl Region for HeapRegion {
    fn memory(&self) -> &[u8] {
        &self.0
    }

    fn memory_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn freeze(self: Box<Self>, len: usize) -> Bytes {
        Bytes::from(self.0).slice(..len)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
