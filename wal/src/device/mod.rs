//! The device port: where a WAL slice's bytes live.

mod buf;
#[cfg(test)]
mod contract;
mod glommio;
mod medium;
mod memory;
mod simulated;

use std::io;

use bytes::Bytes;

pub use buf::{IoBuf, Region};
pub use glommio::{DeviceError, GlommioDevice, SliceOptions, WalSync};
pub use medium::Medium;
pub use memory::MemoryDevice;
pub use simulated::{Operation, SimulatedDevice, SimulatedFaults};

/// A future that stays on its core.
pub type LocalBoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + 'a>>;

/// One WAL slice's device: a preallocated file or a raw range, addressed in bytes from its start.
///
/// Callers give each write and read a task of its own and never drop it while pending: dropping cancels the kernel's
/// operation and leaves its outcome unknown.
#[allow(clippy::len_without_is_empty)]
pub trait Device {
    /// Length of the slice in bytes, superblocks included; a multiple of 4,096.
    fn len(&self) -> u64;

    /// An empty buffer with room for `blocks` x 4,096 bytes.
    fn alloc(&self, blocks: u32) -> IoBuf;

    /// Writes the whole of `b`, whole blocks, at `at` (a multiple of 4,096). `Ok` means durable, every byte. The buffer
    /// comes back. Writes under way at the same time do not overlap.
    fn write(&self, at: u64, b: IoBuf) -> LocalBoxFuture<'static, (io::Result<()>, IoBuf)>;

    /// Reads exactly `len` bytes at `at`; neither needs alignment. `UnexpectedEof` past the end of the slice.
    fn read(&self, at: u64, len: usize) -> LocalBoxFuture<'static, io::Result<Bytes>>;

    /// Whether first writes into fresh space cost more than later ones, so that zeros written ahead pay off.
    fn wants_zeroing(&self) -> bool {
        true
    }
}
