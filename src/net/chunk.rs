//! Pooled receive chunks of one executor.
//!
//! A chunk is filled by one connection, frozen into `Bytes`, and comes back when the last slice of it is dropped, on
//! whatever core that happens. Chunks are initialised once: a fresh zeroed megabyte costs a quarter of the CPU.
#![expect(
    clippy::disallowed_types,
    reason = "chunks come back from any core; held for as long as a push or a pop takes"
)]

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Length of a smallest chunk in bytes.
pub const CHUNK_LEN: usize = 64 << 10;
/// Largest chunk that is kept, as a power of two times [`CHUNK_LEN`].
const CLASSES: usize = 8;
/// Free bytes that a pool keeps.
const KEEP_BYTES: usize = 32 << 20;

#[derive(Debug, Default)]
struct Shelves {
    free: [Vec<Vec<u8>>; CLASSES],
    bytes: usize,
}

/// The free chunks of one executor.
#[derive(Clone, Debug, Default)]
pub struct ChunkPool {
    shelves: Arc<Mutex<Shelves>>,
}

fn class_of(len: usize) -> usize {
    len.div_ceil(CHUNK_LEN).next_power_of_two().trailing_zeros() as usize
}

impl ChunkPool {
    /// A chunk of at least `len` bytes, with content of no meaning.
    pub fn take(&self, len: usize) -> Chunk {
        let class = class_of(len);
        if class >= CLASSES {
            return Chunk { bytes: vec![0; len], filled: 0, pool: self.clone() };
        }
        let kept = {
            let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = shelves.free[class].pop();
            shelves.bytes -= kept.as_ref().map_or(0, Vec::len);
            kept
        };
        Chunk { bytes: kept.unwrap_or_else(|| vec![0; CHUNK_LEN << class]), filled: 0, pool: self.clone() }
    }

    fn give_back(&self, bytes: Vec<u8>) {
        let class = class_of(bytes.len());
        if class >= CLASSES || bytes.len() != CHUNK_LEN << class {
            return;
        }
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        if shelves.bytes + bytes.len() <= KEEP_BYTES {
            shelves.bytes += bytes.len();
            shelves.free[class].push(bytes);
        }
    }

    /// Free bytes kept now.
    #[cfg(test)]
    pub fn free_bytes(&self) -> usize {
        self.shelves.lock().expect("no panic under the lock").bytes
    }
}

/// A chunk that is being filled.
#[derive(Debug)]
pub struct Chunk {
    bytes: Vec<u8>,
    filled: usize,
    pool: ChunkPool,
}

impl Chunk {
    /// Length of the chunk that is taken for `len` bytes.
    pub fn len_for(len: usize) -> usize {
        let class = class_of(len);
        if class >= CLASSES { len } else { CHUNK_LEN << class }
    }

    /// Appends `bytes`.
    ///
    /// # Panics
    /// When they do not fit.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
    }

    /// The room that is left, up to the first `limit` bytes of the chunk.
    pub fn room(&mut self, limit: usize) -> &mut [u8] {
        let end = limit.min(self.bytes.len());
        &mut self.bytes[self.filled..end]
    }

    /// `count` bytes of [`Chunk::room`] were filled.
    pub fn advance(&mut self, count: usize) {
        assert!(self.filled + count <= self.bytes.len(), "a reader filled more than its buffer");
        self.filled += count;
    }

    /// Bytes filled.
    pub fn len(&self) -> usize {
        self.filled
    }

    /// What was filled, as shared bytes; the chunk goes back to its pool with the last of them.
    pub fn freeze(self) -> Bytes {
        let filled = self.filled;
        Bytes::from_owner(self).slice(..filled)
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_comes_back_with_its_last_slice() {
        let pool = ChunkPool::default();
        let mut chunk = pool.take(10);
        chunk.extend(b"abcdef");
        let all = chunk.freeze();
        let tail = all.slice(4..);
        drop(all);
        assert_eq!(pool.free_bytes(), 0);
        assert_eq!(&tail[..], b"ef");
        drop(tail);
        assert_eq!(pool.free_bytes(), CHUNK_LEN);
        drop(pool.take(CHUNK_LEN));
        assert_eq!(pool.free_bytes(), CHUNK_LEN, "the kept one was used");
    }

    #[test]
    fn sizes_are_classes_and_giants_are_not_kept() {
        let pool = ChunkPool::default();
        assert_eq!(pool.take(CHUNK_LEN + 1).as_ref().len(), 2 * CHUNK_LEN);
        assert_eq!(pool.free_bytes(), 2 * CHUNK_LEN);
        drop(pool.take(100 << 20));
        assert_eq!(pool.free_bytes(), 2 * CHUNK_LEN);
        let many: Vec<Chunk> = (0..KEEP_BYTES / CHUNK_LEN + 9).map(|_| pool.take(1)).collect();
        drop(many);
        assert!(pool.free_bytes() <= KEEP_BYTES);
    }
}
