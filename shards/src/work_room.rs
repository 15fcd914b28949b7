//! Memory for compaction and cleaning, of all shards of the process together.
//!
//! A piece of work holds about the object that it makes, or a map of keys. It takes that much room before it reads, and gives it back when it ends.
//! Who finds none may wait: those that wait are served in the order in which they came, so that neither small work nor who asks again at
//! once keeps others out. Work that is larger than all the room goes alone.
//!
//! Shared by all cores. Its lock is taken a few times for each object, by tasks that no client waits for.
#![expect(
    clippy::disallowed_types,
    reason = "shared by all cores; taken a few times for each object, by tasks that no client waits for"
)]

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Room for work, shared by shards.
#[derive(Debug)]
pub struct WorkRoom {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bytes: u64,
    taken: u64,
    /// Those that wait, by when they came.
    waiting: BTreeSet<u64>,
    next: u64,
}

/// Room that is taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    room: Arc<WorkRoom>,
    bytes: u64,
}

/// A place among those that wait for room, until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    room: Arc<WorkRoom>,
    number: u64,
}

impl State {
    fn fits(&self, bytes: u64) -> bool {
        self.taken == 0 || self.taken.saturating_add(bytes) <= self.bytes
    }
}

impl WorkRoom {
    /// Room for so many bytes of work.
    pub fn new(bytes: u64) -> Arc<WorkRoom> {
        Arc::new(WorkRoom { state: Mutex::new(State { bytes, taken: 0, waiting: BTreeSet::new(), next: 0 }) })
    }

    /// There is so much from now on; what is taken stays taken.
    pub fn resize(&self, bytes: u64) {
        self.state().bytes = bytes;
    }

    /// Takes room for `bytes`, if there is some and nobody waits for it.
    pub(crate) fn take(self: &Arc<Self>, bytes: u64) -> Option<Taken> {
        let mut state = self.state();
        (state.waiting.is_empty() && state.fits(bytes)).then(|| self.taken(&mut state, bytes))
    }

    fn taken(self: &Arc<Self>, state: &mut State, bytes: u64) -> Taken {
        state.taken = state.taken.saturating_add(bytes);
        Taken { room: self.clone(), bytes }
    }

    /// A place behind all that wait already.
    pub(crate) fn wait(self: &Arc<Self>) -> Place {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.waiting.insert(number);
        Place { room: self.clone(), number }
    }

    /// Nothing panics while it holds the lock, so what is behind it is whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Takes room for `bytes`, if there is some and nobody waits for longer.
    pub(crate) fn take(&self, bytes: u64) -> Option<Taken> {
        let mut state = self.room.state();
        let its_turn = state.waiting.first() == Some(&self.number);
        (its_turn && state.fits(bytes)).then(|| self.room.taken(&mut state, bytes))
    }
}

impl Taken {
    /// How much room it is.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.state().waiting.remove(&self.number);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut state = self.room.state();
        state.taken = state.taken.saturating_sub(self.bytes);
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

    #[test]
    fn who_waits_longest_is_served_first() {
        let room = WorkRoom::new(100);
        let one = room.take(60).expect("empty");
        let (first, second) = (room.wait(), room.wait());
        assert!(first.take(80).is_none());
        assert!(
            second.take(10).is_none() && room.take(10).is_none(),
            "it would fit, and the first would wait for ever"
        );
        drop(one);
        assert!(second.take(10).is_none(), "it is not yet its turn");
        let large = first.take(80).expect("its turn");
        drop(first);
        let small = second.take(10).expect("now it is the first");
        drop((large, small));
        drop(room.wait());
        drop(second);
        assert!(room.take(100).is_some(), "who gave up stands in nobody's way");
    }
}
