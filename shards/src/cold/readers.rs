//! Who reads in sequence, and how far ahead of each to read. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use thalweg_record::{Mono, Offset, PartitionId};

use super::ahead::Trail;
use crate::{meta::ObjectId, msg::ConnId};

/// Readahead of the second read in sequence.
const FIRST_WINDOW_BYTES: u64 = 512 * 1024;
/// Readahead never grows past this.
const LAST_WINDOW_BYTES: u64 = 32 * 1024 * 1024;
/// A reader that has been quiet for so long is forgotten: its readahead is cold by then.
const FORGET_AFTER: Duration = Duration::from_secs(30);
/// One that has been quiet for so long has no share of the budget until it reads again.
const IDLE_AFTER: Duration = Duration::from_secs(2);
/// How often the busy ones are counted.
const COUNT_EVERY: Duration = Duration::from_millis(500);

/// A reader: a connection, and the partition that it reads.
pub(super) type ReaderKey = (ConnId, PartitionId);

/// Up to where readahead was asked for, both exclusive: nothing is asked for twice, whatever becomes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct WantedTo {
    pub(super) blocks: Offset,
    pub(super) indexes: Offset,
}

#[derive(Debug)]
struct Reader {
    next: Offset,
    window_bytes: u64,
    wanted_to: WantedTo,
    trail: Option<Trail>,
    /// The object whose index the readahead cannot go on without.
    awaits: Option<ObjectId>,
    used: Mono,
}

/// All readers of a core, by connection and partition.
#[derive(Debug)]
pub(super) struct Readers {
    budget_bytes: u64,
    readers: BTreeMap<ReaderKey, Reader>,
    /// Who awaits an object's index.
    awaiting: BTreeMap<ObjectId, BTreeSet<ReaderKey>>,
    swept: Mono,
    /// How many are not idle, as of `counted`, and those that began since.
    busy: u64,
    counted: Mono,
}

/// What a new read is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    /// It goes on where the last one ended: read so many bytes ahead.
    Sequence(u64),
    /// It does not: drop what was read ahead.
    Seek,
}

impl Readers {
    /// `budget_bytes`: what all readahead together may take of the cache.
    pub(super) fn new(budget_bytes: u64) -> Readers {
        Readers {
            budget_bytes,
            readers: BTreeMap::new(),
            awaiting: BTreeMap::new(),
            swept: Mono(0),
            busy: 0,
            counted: Mono(0),
        }
    }

    /// A read begins.
    pub(super) fn begin(&mut self, conn: ConnId, partition: PartitionId, offset: Offset, now: Mono) -> Pace {
        if now.since(self.swept) > FORGET_AFTER {
            self.swept = now;
            self.forget(|_, reader| now.since(reader.used) > FORGET_AFTER);
        }
        if now.since(self.counted) > COUNT_EVERY {
            self.counted = now;
            self.busy = self.readers.values().filter(|reader| now.since(reader.used) <= IDLE_AFTER).count() as u64;
        }
        let known = self.readers.get_mut(&(conn, partition));
        // New since the busy were counted, or idle then.
        if known.as_ref().is_none_or(|reader| self.counted.since(reader.used) > IDLE_AFTER) {
            self.busy += 1;
        }
        let share = self.budget_bytes / self.busy.max(1);
        match known {
            Some(reader) if reader.next == offset => {
                let grown = (reader.window_bytes * 2).clamp(FIRST_WINDOW_BYTES, LAST_WINDOW_BYTES);
                reader.window_bytes = grown.min(share);
                reader.used = now;
                Pace::Sequence(reader.window_bytes)
            }
            _ => {
                self.awaits((conn, partition), None);
                let wanted_to = WantedTo { blocks: offset, indexes: offset };
                let reader = Reader { next: offset, window_bytes: 0, wanted_to, trail: None, awaits: None, used: now };
                self.readers.insert((conn, partition), reader);
                Pace::Seek
            }
        }
    }

    /// A read ended: the reader's next one in sequence begins at `next`.
    pub(super) fn ended(&mut self, conn: ConnId, partition: PartitionId, next: Offset) {
        if let Some(reader) = self.readers.get_mut(&(conn, partition)) {
            reader.next = next;
        }
    }

    /// What it reads along from now on.
    pub(super) fn follow(&mut self, conn: ConnId, partition: PartitionId, trail: Trail) {
        if let Some(reader) = self.readers.get_mut(&(conn, partition)) {
            reader.trail = Some(trail);
        }
    }

    /// A reader in sequence: its window, what it reads along, and up to where that was asked for already.
    pub(super) fn in_sequence(&self, key: ReaderKey) -> Option<(u64, &Trail, WantedTo)> {
        let reader = self.readers.get(&key).filter(|reader| reader.window_bytes > 0)?;
        Some((reader.window_bytes, reader.trail.as_ref()?, reader.wanted_to))
    }

    /// Readahead was asked for up to there, and goes on when the index of `awaits` is here.
    pub(super) fn wanted(&mut self, key: ReaderKey, wanted_to: WantedTo, awaits: Option<ObjectId>) {
        if let Some(reader) = self.readers.get_mut(&key) {
            reader.wanted_to = wanted_to;
            self.awaits(key, awaits);
        }
    }

    fn awaits(&mut self, key: ReaderKey, awaits: Option<ObjectId>) {
        let Some(reader) = self.readers.get_mut(&key) else { return };
        let before = std::mem::replace(&mut reader.awaits, awaits);
        if before != awaits {
            before.into_iter().for_each(|object| self.awaits_no_more(key, object));
            if let Some(object) = awaits {
                self.awaiting.entry(object).or_default().insert(key);
            }
        }
    }

    fn awaits_no_more(&mut self, key: ReaderKey, object: ObjectId) {
        if let Some(keys) = self.awaiting.get_mut(&object) {
            keys.remove(&key);
            if keys.is_empty() {
                self.awaiting.remove(&object);
            }
        }
    }

    /// An object's index is here, or will not come: those who awaited it do no more.
    pub(super) fn take_awaiting(&mut self, object: ObjectId) -> BTreeSet<ReaderKey> {
        let keys = self.awaiting.remove(&object).unwrap_or_default();
        for key in &keys {
            if let Some(reader) = self.readers.get_mut(key) {
                reader.awaits = None;
            }
        }
        keys
    }

    /// The connection is closed.
    pub(super) fn gone(&mut self, conn: ConnId) {
        self.forget(|key, _| key.0 == conn);
    }

    fn forget(&mut self, forgotten: impl Fn(&ReaderKey, &Reader) -> bool) {
        let gone: Vec<ReaderKey> = self.readers.iter().filter(|(k, r)| forgotten(k, r)).map(|(k, _)| *k).collect();
        for key in gone {
            self.awaits(key, None);
            self.readers.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_doubles_in_sequence_and_falls_on_a_seek() {
        let mut readers = Readers::new(1 << 40);
        let (conn, partition, kib) = (ConnId(1), PartitionId::default(), 1024);
        assert_eq!(readers.begin(conn, partition, Offset(0), Mono(0)), Pace::Seek);
        let mut windows = Vec::new();
        for next in 1..10 {
            readers.ended(conn, partition, Offset(next));
            windows.push(readers.begin(conn, partition, Offset(next), Mono(0)));
        }
        let doubling = [512, 1024, 2048, 4096, 8192, 16384, 32768, 32768, 32768].map(|w| Pace::Sequence(w * kib));
        assert_eq!(windows, doubling);
        assert_eq!(readers.begin(conn, partition, Offset(3), Mono(0)), Pace::Seek);
        assert!(readers.in_sequence((conn, partition)).is_none(), "nothing is read ahead");
    }

    #[test]
    fn readers_share_the_budget_and_are_forgotten() {
        let mut readers = Readers::new(1024 * 1024);
        let partition = PartitionId::default();
        for conn in 0..4 {
            readers.begin(ConnId(conn), partition, Offset(0), Mono(0));
            readers.ended(ConnId(conn), partition, Offset(1));
        }
        assert_eq!(readers.begin(ConnId(0), partition, Offset(1), Mono(0)), Pace::Sequence(256 * 1024));
        let alone = Mono(0).plus(IDLE_AFTER * 2);
        assert_eq!(
            readers.begin(ConnId(0), partition, Offset(1), alone),
            Pace::Sequence(512 * 1024),
            "the idle have no share"
        );
        readers.gone(ConnId(1));
        assert_eq!(readers.readers.len(), 3);
        let later = Mono(0).plus(FORGET_AFTER * 2);
        readers.begin(ConnId(9), partition, Offset(0), later);
        assert_eq!(readers.readers.len(), 1);
    }
}
