//! Who reads in sequence, and how far ahead of each to read. Pure.

use std::{collections::BTreeMap, time::Duration};

use thalweg_record::{Mono, Offset, PartitionId};

use crate::msg::ConnId;

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

#[derive(Debug)]
struct Reader {
    next: Offset,
    window_bytes: u64,
    wanted_to: Offset,
    used: Mono,
}

/// All readers of a core, by connection and partition.
#[derive(Debug)]
pub(super) struct Readers {
    budget_bytes: u64,
    readers: BTreeMap<(ConnId, PartitionId), Reader>,
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
        Readers { budget_bytes, readers: BTreeMap::new(), swept: Mono(0), busy: 0, counted: Mono(0) }
    }

    /// A read begins.
    pub(super) fn begin(&mut self, conn: ConnId, partition: PartitionId, offset: Offset, now: Mono) -> Pace {
        if now.since(self.swept) > FORGET_AFTER {
            self.swept = now;
            self.readers.retain(|_, reader| now.since(reader.used) <= FORGET_AFTER);
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
                let reader = Reader { next: offset, window_bytes: 0, wanted_to: offset, used: now };
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

    /// The window in force, and up to where readahead was asked for already.
    pub(super) fn window(&self, conn: ConnId, partition: PartitionId) -> (u64, Offset) {
        self.readers.get(&(conn, partition)).map_or((0, Offset(0)), |reader| (reader.window_bytes, reader.wanted_to))
    }

    /// Readahead was asked for up to `wanted_to` (exclusive).
    pub(super) fn wanted(&mut self, conn: ConnId, partition: PartitionId, wanted_to: Offset) {
        if let Some(reader) = self.readers.get_mut(&(conn, partition)) {
            reader.wanted_to = reader.wanted_to.max(wanted_to);
        }
    }

    /// The connection is closed.
    pub(super) fn gone(&mut self, conn: ConnId) {
        self.readers.retain(|(c, _), _| *c != conn);
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
        assert_eq!(readers.window(conn, partition), (0, Offset(3)));
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
