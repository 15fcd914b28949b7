//! Aligned buffers.
use bytes::Bytes;

/// An aligned, zeroed device buffer of whole 4,096-byte blocks, owned by whoever fills it until it is frozen.
pub struct IoBuf(Vec<u8>);

impl IoBuf {
    /// Length in bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// The bytes, to fill.
    pub fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
    /// The bytes.
    pub fn as_ref(&self) -> &[u8] {
        &self.0
    }
    /// Freezes without a copy; the memory goes back to its home core's pool on the last drop, on whatever core that is.
    pub fn freeze(self) -> Bytes {
        Bytes::from(self.0)
    }
}
