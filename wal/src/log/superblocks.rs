//! Trimming and closing: one superblock in flight at a time, the two slots in turn.

use std::io;

use super::{Link, Log, Poisoned};
use crate::{
    Device, IoBuf, Lsn,
    format::{BLOCK, Superblock},
};

/// One superblock to write, to be carried to the device as it is and reported with [`Log::superblock_written`].
#[must_use = "the log waits for `superblock_written`"]
pub struct SuperblockWrite {
    /// Offset on the device in bytes.
    pub at: u64,
    /// One block.
    pub buf: IoBuf,
}

/// What the two slots hold.
pub(crate) struct Superblocks {
    newest: Superblock,
    /// Trim point of the slot that the next superblock overwrites.
    older_trim: Lsn,
    in_flight: Option<Superblock>,
    wanted: Link,
    closed: bool,
}

impl Superblocks {
    /// Both slots hold the trim point of `newest`, as after each opening.
    pub(crate) fn new(newest: Superblock) -> Superblocks {
        let wanted = Link { lsn: newest.trim, crc: newest.trim_crc };
        Superblocks { newest, older_trim: newest.trim, in_flight: None, wanted, closed: false }
    }

    pub(crate) fn newest(&self) -> &Superblock {
        &self.newest
    }

    pub(super) fn trim_point(&self) -> Lsn {
        #[cfg(feature = "planted-bugs")]
        if crate::planted(crate::Bug::OneSuperblock) {
            return self.newest.trim;
        }
        self.newest.trim.min(self.older_trim)
    }

    pub(super) fn closed(&self) -> bool {
        self.closed
    }

    fn wants_trim(&self) -> bool {
        self.in_flight.is_none() && !self.closed && self.trim_point() < self.wanted.lsn
    }
}

/// The block of a superblock, to be written at its [`Superblock::device_offset`].
pub(crate) fn superblock_block(device: &dyn Device, superblock: &Superblock) -> IoBuf {
    let mut buf = device.alloc(1);
    buf.put(&superblock.encode());
    buf.zero_to(BLOCK as usize);
    buf
}

impl Log {
    /// All below `to` is resolved: the log may begin there. Rounded down to the end of a group, and to steps of 1/4096
    /// of the ring; the durable end is met exactly.
    ///
    /// Space becomes free when both superblocks are durable, so one trim takes two writes: this returns the first,
    /// [`Log::superblock_written`] the second. `None` while one is in flight, or when there is nothing to move.
    pub fn trim(&mut self, to: Lsn) -> Option<SuperblockWrite> {
        let reached = if to >= self.data_end { Some(self.durable) } else { self.links.advance_to(to) };
        if let Some(link) = reached.filter(|link| link.lsn > self.superblocks.wanted.lsn) {
            self.superblocks.wanted = link;
        }
        if self.superblocks.wants_trim() { self.write_superblock(false) } else { None }
    }

    /// Marks the slice as closed in order; from then on it takes no batches.
    ///
    /// `None` while something is staged, in flight, or the log is poisoned: seal, wait and call again. When the write is
    /// durable and [`Log::is_empty`] holds, the slice is closed empty.
    pub fn close(&mut self) -> Option<SuperblockWrite> {
        let busy = self.open.is_some() || !self.in_flight.is_empty() || self.superblocks.in_flight.is_some();
        if busy || self.superblocks.closed {
            return None;
        }
        let write = self.write_superblock(true)?;
        self.superblocks.closed = true;
        Some(write)
    }

    /// Whether nothing lies between the trim point of both superblocks and the durable end.
    pub fn is_empty(&self) -> bool {
        self.open.is_none() && self.in_flight.is_empty() && self.trim_point() == self.durable.lsn
    }

    /// Tells what came of a superblock's write. Returns the next one, if space is still to be freed.
    ///
    /// # Errors
    /// An I/O error poisons the log, as in [`Log::written`].
    pub fn superblock_written(&mut self, r: io::Result<()>) -> Result<Option<SuperblockWrite>, Poisoned> {
        self.check(r)?;
        let superblocks = &mut self.superblocks;
        let written = superblocks.in_flight.take().expect("a superblock's write is reported once");
        superblocks.older_trim = superblocks.newest.trim;
        superblocks.newest = written;
        Ok(if superblocks.wants_trim() { self.write_superblock(false) } else { None })
    }

    fn write_superblock(&mut self, clean: bool) -> Option<SuperblockWrite> {
        if self.poisoned.is_some() {
            return None;
        }
        let superblocks = &mut self.superblocks;
        let next = Superblock {
            generation: superblocks.newest.generation + 1,
            trim: superblocks.wanted.lsn,
            trim_crc: superblocks.wanted.crc,
            durable: self.durable.lsn,
            zeroed: self.zeroing.frontier(),
            clean,
            ..superblocks.newest
        };
        superblocks.in_flight = Some(next);
        Some(SuperblockWrite { at: next.device_offset(), buf: superblock_block(&*self.device, &next) })
    }
}
