//! What lies under a [`GlommioDevice`](super::GlommioDevice): the open file, whose writes alone may be volatile.
//!
//! The one implementation in production is the slice's file. Tests put a layer between device and file that loses what was
//! not durable, fails, or waits; see [`GlommioDevice::open_through`](super::GlommioDevice::open_through).

use std::io;

use bytes::Bytes;

use super::{IoBuf, LocalBoxFuture};

/// A file or block device, addressed in bytes from its start. Who calls keeps the rules of [`Device`](super::Device).
#[allow(clippy::len_without_is_empty)]
pub trait Medium {
    /// Length in bytes; a multiple of 4,096.
    fn len(&self) -> u64;

    /// An empty buffer with room for `blocks` x 4,096 bytes.
    fn alloc(&self, blocks: u32) -> IoBuf;

    /// Writes the whole of `b`, whole blocks, at `at` (a multiple of 4,096). Reads see it then; durable it is only when the
    /// descriptor has O_DSYNC, or after a [`Medium::flush`] that began later.
    fn write(&self, at: u64, b: IoBuf) -> LocalBoxFuture<'static, (io::Result<()>, IoBuf)>;

    /// Reads exactly `len` bytes at `at`; neither needs alignment.
    fn read(&self, at: u64, len: usize) -> LocalBoxFuture<'static, io::Result<Bytes>>;

    /// fdatasync. After an error nothing is known of what was written since the last one that succeeded.
    fn flush(&self) -> LocalBoxFuture<'static, io::Result<()>>;

    /// The flags of the open descriptor, as F_GETFL tells them.
    ///
    /// # Errors
    /// The system does not tell.
    fn flags(&self) -> io::Result<i32>;

    /// Whether first writes into fresh space cost more than later ones.
    fn wants_zeroing(&self) -> bool;
}
