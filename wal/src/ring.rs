//! Where an LSN lies on the device.

use std::{io, rc::Rc};

use bytes::Bytes;

use crate::{
    Device, Lsn,
    format::{BLOCK, SUPERBLOCKS},
};

/// The ring behind the superblocks: turns an LSN into a device offset. Plain and copyable, so that readers need no log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ring {
    capacity: u64,
}

impl Ring {
    /// The ring of a device of `len` bytes: whole blocks behind the superblocks. `None` when there is none.
    pub fn of_device(len: u64) -> Option<Ring> {
        let capacity = (len / BLOCK * BLOCK).checked_sub(SUPERBLOCKS * BLOCK)?;
        (capacity > 0).then_some(Ring { capacity })
    }

    /// Length of the ring in bytes.
    pub fn capacity_bytes(self) -> u64 {
        self.capacity
    }

    /// Offset on the device of the byte at `lsn`.
    pub fn device_offset(self, lsn: Lsn) -> u64 {
        SUPERBLOCKS * BLOCK + lsn.0 % self.capacity
    }

    /// Bytes from `lsn` to the end of the ring: what can be read or written in one piece.
    pub fn until_end(self, lsn: Lsn) -> u64 {
        self.capacity - lsn.0 % self.capacity
    }
}

/// Reads `len` bytes at `lsn` from the ring: a batch, or part of one group (neither straddles the ring's end).
///
/// The place may be reused while the read is under way. After the await the caller checks that `lsn` still is at or
/// above [`crate::Log::trim_point`]; below it, the bytes mean nothing.
///
/// # Errors
/// What the device says; `InvalidInput` when the range straddles the end of the ring.
pub async fn read(device: Rc<dyn Device>, ring: Ring, lsn: Lsn, len: usize) -> io::Result<Bytes> {
    if len as u64 > ring.until_end(lsn) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "read straddles the end of the WAL ring"));
    }
    device.read(ring.device_offset(lsn), len).await
}
