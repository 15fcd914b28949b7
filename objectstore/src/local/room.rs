//! Room on the disk: data objects leave some of it to others, and what has time leaves some to what has none.
//!
//! The disk's free bytes tell nothing of objects that are still being written, so each of those claims what it has yet to write.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// What a put that has time leaves beside all others: about one upload, which must find room when it comes.
const LEFT_TO_UPLOADS_BYTES: u64 = 64 << 20;

/// The room of one store.
#[derive(Debug)]
pub(super) struct Room {
    /// What data objects leave to others, in bytes; 0: nothing is looked at.
    keep_free_bytes: u64,
    /// Bytes that puts without time have yet to write.
    urgent: AtomicU64,
    /// Bytes that puts with time have yet to write.
    slow: AtomicU64,
}

impl Room {
    pub(super) fn new(keep_free_bytes: u64) -> Arc<Room> {
        Arc::new(Room { keep_free_bytes, urgent: AtomicU64::new(0), slow: AtomicU64::new(0) })
    }

    /// Claims `bytes` until they are written, or the claim is dropped.
    pub(super) fn claim(self: &Arc<Self>, bytes: u64, has_time: bool) -> Claim {
        let claim = Claim { room: self.clone(), bytes: if self.keep_free_bytes > 0 { bytes } else { 0 }, has_time };
        claim.counter().fetch_add(claim.bytes, Ordering::Relaxed);
        claim
    }
}

/// What a put has yet to write.
#[derive(Debug)]
pub(super) struct Claim {
    room: Arc<Room>,
    bytes: u64,
    has_time: bool,
}

impl Claim {
    fn counter(&self) -> &AtomicU64 {
        if self.has_time { &self.room.slow } else { &self.room.urgent }
    }

    /// How many bytes the disk must have free for this claim to hold, beside those of others; `None` when nothing is looked at.
    /// An upload does not mind what has time: that looks again as it goes, and gives way.
    pub(super) fn wants_free_bytes(&self) -> Option<u64> {
        let Room { keep_free_bytes, urgent, slow } = &*self.room;
        let mut wanted = keep_free_bytes.saturating_add(urgent.load(Ordering::Relaxed));
        if self.has_time {
            wanted = wanted.saturating_add(slow.load(Ordering::Relaxed)).saturating_add(LEFT_TO_UPLOADS_BYTES);
        }
        (self.bytes > 0).then_some(wanted)
    }

    /// What the others are to find, in words.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.room.keep_free_bytes
    }

    /// So many more bytes are on the disk, whose free bytes leave them out by now.
    pub(super) fn written(&mut self, bytes: u64) {
        let written = bytes.min(self.bytes);
        self.bytes -= written;
        self.counter().fetch_sub(written, Ordering::Relaxed);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.written(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_written_is_not_counted_twice() {
        let room = Room::new(MIB);
        let mut first = room.claim(100 * MIB, false);
        assert_eq!(first.wants_free_bytes(), Some(101 * MIB));
        first.written(90 * MIB);
        let second = room.claim(5 * MIB, false);
        assert_eq!(second.wants_free_bytes(), Some(16 * MIB), "its own, what the first has yet to write, what is kept");
        drop(first);
        assert_eq!(second.wants_free_bytes(), Some(6 * MIB));
        drop(second);
        assert_eq!(room.urgent.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_last_room_is_for_uploads() {
        let room = Room::new(MIB);
        let compaction = room.claim(256 * MIB, true);
        assert_eq!(compaction.wants_free_bytes(), Some((1 + 256 + 64) * MIB));
        let upload = room.claim(64 * MIB, false);
        assert_eq!(upload.wants_free_bytes(), Some(65 * MIB), "what has time gives way");
        assert_eq!(compaction.wants_free_bytes(), Some((1 + 256 + 64 + 64) * MIB), "and does so from now on");
    }

    #[test]
    fn where_nothing_is_kept_nothing_is_looked_at() {
        let room = Room::new(0);
        assert_eq!(room.claim(MIB, false).wants_free_bytes(), None);
        assert_eq!(Room::new(MIB).claim(0, true).wants_free_bytes(), None);
    }
}
