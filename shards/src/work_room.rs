//! Memory for compaction and cleaning, of all shards of the process together.
//!
//! A piece of work holds about the object that it makes, or a map of keys. It takes that much room before it reads, and gives it back when it ends; who
//! finds none looks again later. Work that is larger than all the room goes alone.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Room for work, shared by shards.
#[derive(Debug)]
pub struct WorkRoom {
    bytes: AtomicU64,
    taken: AtomicU64,
}

/// Room that is taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    room: Arc<WorkRoom>,
    bytes: u64,
}

impl WorkRoom {
    /// Of objects as much as `object.compaction.bytes`: one of full size at a time, or several small ones.
    pub fn new(bytes: u64) -> Arc<WorkRoom> {
        Arc::new(WorkRoom { bytes: AtomicU64::new(bytes), taken: AtomicU64::new(0) })
    }

    /// There is so much from now on; what is taken stays taken.
    pub fn resize(&self, bytes: u64) {
        self.bytes.store(bytes, Relaxed);
    }

    /// Takes room for `bytes`, if there is some.
    pub(crate) fn take(self: &Arc<Self>, bytes: u64) -> Option<Taken> {
        let all = self.bytes.load(Relaxed);
        let fits = |taken: u64| (taken == 0 || taken.saturating_add(bytes) <= all).then(|| taken.saturating_add(bytes));
        self.taken.fetch_update(Relaxed, Relaxed, fits).ok()?;
        Some(Taken { room: self.clone(), bytes })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shares_the_room_and_the_largest_goes_alone() {
        let room = WorkRoom::new(100);
        let one = room.take(60).expect("empty");
        assert!(room.take(60).is_none());
        let other = room.take(40).expect("it fits");
        drop(one);
        assert!(room.take(200).is_none(), "not beside another");
        drop(other);
        let large = room.take(200).expect("alone");
        assert!(room.take(1).is_none());
        drop(large);
        assert!(room.take(100).is_some());
    }
}
