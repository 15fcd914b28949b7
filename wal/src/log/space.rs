//! Room in the ring: reserved first, so that nothing is assigned to a batch that cannot be kept.

use super::Log;
use crate::{Lsn, config::ring_bytes};

/// Room in the ring for one batch. Ends in [`Log::push`] or [`Log::release`]; dropped, it stays taken.
#[derive(Debug)]
#[must_use = "a room that is neither pushed into nor released stays taken"]
pub struct Room {
    batch_bytes: u32,
}

impl Room {
    pub(super) fn covers(&self, bytes: u32) -> bool {
        bytes <= self.batch_bytes
    }
}

/// Why there is no room. Nothing was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Full {
    /// The ring is full until something is trimmed: retriable.
    #[error("the WAL ring is full: {needed} bytes needed, {free} free")]
    Ring {
        /// Ring bytes that the batch would need.
        needed: u64,
        /// Ring bytes that are free to the caller.
        free: u64,
    },
    /// The batch is larger than the largest group can carry: never.
    #[error("a batch of {bytes} bytes cannot be kept, the largest is {max}")]
    Batch {
        /// Size of the batch in bytes.
        bytes: u32,
        /// The largest in bytes.
        max: u32,
    },
    /// The log is poisoned or closed: never again.
    #[error("the WAL slice takes no more batches")]
    Ended,
}

/// Ring bytes given out but not yet pushed.
#[derive(Default)]
pub(super) struct Space {
    reserved: u64,
}

impl Space {
    pub(super) fn release(&mut self, room: Room) {
        self.reserved -= ring_bytes(room.batch_bytes);
    }
}

impl Log {
    /// Takes room for a batch of `bytes`, head included, and leaves the last [`crate::LogConfig::reserve_percent`] of
    /// the ring free.
    ///
    /// # Errors
    /// [`Full`]; nothing was taken.
    pub fn reserve(&mut self, bytes: u32) -> Result<Room, Full> {
        self.reserve_within(bytes, self.free_bytes())
    }

    /// As [`Log::reserve`], for transaction markers, offset commits and control records: may fill the whole ring.
    ///
    /// # Errors
    /// [`Full`]; nothing was taken.
    pub fn reserve_internal(&mut self, bytes: u32) -> Result<Room, Full> {
        self.reserve_within(bytes, self.free_for_internal())
    }

    fn reserve_within(&mut self, bytes: u32, free: u64) -> Result<Room, Full> {
        if self.poisoned.is_some() || self.superblocks.closed() {
            return Err(Full::Ended);
        }
        let max = self.config.max_batch_bytes();
        if bytes > max {
            return Err(Full::Batch { bytes, max });
        }
        let needed = ring_bytes(bytes);
        if needed > free {
            return Err(Full::Ring { needed, free });
        }
        self.space.reserved += needed;
        Ok(Room { batch_bytes: bytes })
    }

    /// Gives back a room that is not pushed into.
    pub fn release(&mut self, room: Room) {
        self.space.release(room);
    }

    /// Ring bytes that the next [`Log::reserve`] may take.
    pub fn free_bytes(&self) -> u64 {
        let kept = self.capacity_bytes() / 100 * u64::from(self.config.reserve_percent);
        self.free_for_internal().saturating_sub(kept)
    }

    pub(super) fn free_for_internal(&self) -> u64 {
        // The group at the end of the ring may claim up to a largest group more than it needs.
        let limit = self.capacity_bytes() - u64::from(self.config.max_group_bytes);
        limit.saturating_sub(self.used_bytes() + self.space.reserved)
    }

    /// Ring bytes from the trim point to the head, the open group included.
    pub fn used_bytes(&self) -> u64 {
        let open = crate::format::round_up(u64::from(self.staged_bytes()));
        self.head.lsn.0 + open - self.trim_point().0
    }

    /// Length of the ring in bytes.
    pub fn capacity_bytes(&self) -> u64 {
        self.ring.capacity_bytes()
    }

    /// The trim point of both durable superblocks: from here on the ring is readable and will not be reused.
    pub fn trim_point(&self) -> Lsn {
        self.superblocks.trim_point()
    }
}
