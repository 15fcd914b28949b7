//! The device port: where a WAL slice's bytes live.

mod buf;

use std::io;

use bytes::Bytes;

pub use buf::IoBuf;

/// A future that stays on its core.
pub type LocalBoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + 'a>>;

/// One WAL slice's device: a preallocated file or a raw range, addressed in bytes from its start.
///
/// Callers give each write and read a task of its own and never drop it while pending: dropping cancels the kernel's
/// operation and leaves its outcome unknown.
pub trait Device {
    /// Length of the slice in bytes, superblocks included; a multiple of 4,096.
    fn len(&self) -> u64;

    /// A zeroed buffer of `blocks` x 4,096 bytes: padding must not leak the heap to the disk.
    fn alloc(&self, blocks: u32) -> IoBuf;

    /// Writes the whole of `b` at `at` (a multiple of 4,096). `Ok` means durable, every byte. The buffer comes back.
    fn write(&self, at: u64, b: IoBuf) -> LocalBoxFuture<'static, (io::Result<()>, IoBuf)>;

    /// Reads exactly `len` bytes at `at`, neither needs alignment.
    fn read(&self, at: u64, len: usize) -> LocalBoxFuture<'static, io::Result<Bytes>>;
}
