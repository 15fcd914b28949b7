//! Zeros ahead of the head, in the first lap.
//!
//! A file that was only allocated has unwritten extents, and each write into one pays for the file system's journal.
//! Zeros written in the background take that cost off the path of the records, and off the start.

use std::io;

use super::{Log, Poisoned};
use crate::{
    IoBuf, Lsn,
    format::{BLOCK, SUPERBLOCKS, round_up},
};

/// Zeros to write, to be carried to the device as they are and reported with [`Log::zeroed`].
#[must_use = "the log waits for `zeroed`"]
pub struct ZeroWrite {
    /// Offset on the device in bytes.
    pub at: u64,
    /// Zeros, whole blocks.
    pub buf: IoBuf,
}

/// How far the ring is known to be written.
pub(super) struct Zeroing {
    /// In the first lap, LSN and place in the ring are the same.
    frontier: u64,
    wanted: bool,
    in_flight: Option<(u64, u64)>,
}

impl Zeroing {
    pub(super) fn new(frontier: Lsn, wanted: bool) -> Zeroing {
        Zeroing { frontier: frontier.0, wanted, in_flight: None }
    }

    pub(super) fn frontier(&self) -> Lsn {
        Lsn(self.frontier)
    }

    /// Whether a write of `len` bytes at device offset `at` would cross the zeros in flight.
    pub(super) fn overlaps(&self, at: u64, len: u64) -> bool {
        let from = at - SUPERBLOCKS * BLOCK;
        self.in_flight.is_some_and(|(start, end)| from < end && start < from + len)
    }
}

impl Log {
    /// The next zeros to write ahead of the head, at most `chunk_bytes` of them (at least one block).
    ///
    /// `None` when the first lap is zeroed to its end, or a chunk is in flight. A group never overtakes a chunk in
    /// flight: [`Log::seal`] waits for it, so keep chunks to about a MiB.
    pub fn zero_ahead(&mut self, chunk_bytes: u32) -> Option<ZeroWrite> {
        let idle = self.zeroing.in_flight.is_none() && self.poisoned.is_none() && !self.superblocks.closed();
        if !idle || !self.zeroing.wanted {
            return None;
        }
        // While groups are on their way, zeros at the head itself would only be overtaken or waited for.
        let busy = self.open.is_some() || !self.in_flight.is_empty();
        let lead = if busy { 2 * u64::from(self.config.max_group_bytes) } else { 0 };
        let start = self.zeroing.frontier.max(self.head.lsn.0 + lead);
        let end = (start + round_up(u64::from(chunk_bytes.max(1)))).min(self.capacity_bytes());
        if start >= end {
            self.zeroing.wanted = false;
            return None;
        }
        let len = end - start;
        let mut buf = self.device.alloc((len / BLOCK) as u32);
        buf.zero_to(len as usize);
        self.zeroing.in_flight = Some((start, end));
        Some(ZeroWrite { at: SUPERBLOCKS * BLOCK + start, buf })
    }

    /// How far before the head the ring is known to be written; 0 when the head has overtaken the zeros.
    pub fn zeroed_ahead_bytes(&self) -> u64 {
        self.zeroing.frontier.saturating_sub(self.head.lsn.0)
    }

    /// Tells what came of a zero write.
    ///
    /// # Errors
    /// An I/O error poisons the log, as in [`Log::written`].
    pub fn zeroed(&mut self, r: io::Result<()>) -> Result<(), Poisoned> {
        self.check(r)?;
        let (_, end) = self.zeroing.in_flight.take().expect("a zero write is reported once");
        self.zeroing.frontier = end;
        Ok(())
    }
}
