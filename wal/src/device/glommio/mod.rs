//! A slice as a file, or as a raw block device, with O_DIRECT through glommio.
//!
//! Lives on the executor that opened it; only the [`Bytes`] that it hands out travel. The one module of this crate that
//! sees glommio and the file system.

mod buffers;
mod device;
mod file;
mod slice;
#[cfg(test)]
mod tests;

pub use self::{
    device::GlommioDevice,
    slice::{DeviceError, SliceOptions, WalSync},
};
