//! What must hold of a partition whose log is cleaned: of each key the newest record stays, a tombstone for a while, and what was
//! deleted does not come back.
//!
//! Part of the model: it knows every record of every batch that has a place, and is shown what a reader found who went through the
//! whole log.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use thalweg_record::{Batch, Mono, Wall};
use thalweg_shards::{
    codec::decompress,
    records::{Malformed, RecordWalk},
};

/// How long tombstones stay, by the topic's settings.
pub(crate) const DELETE_RETENTION: Duration = Duration::from_secs(3);

/// A record of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) delta: i64,
    pub(crate) time: i64,
    pub(crate) key: Bytes,
    pub(crate) tombstone: bool,
    /// Key, value and headers, byte by byte.
    content: Bytes,
}

/// The records of a batch; what is wrong with it otherwise.
pub(crate) fn records(batch: &Batch) -> Result<Vec<Record>, String> {
    let section = decompress(batch.head.codec(), &batch.body, 1 << 20).map_err(|e| format!("{e:?}"))?;
    let record = |record: Result<_, Malformed>| {
        let view: thalweg_shards::records::RecordView<'_> = record.map_err(|_| "a malformed record".to_owned())?;
        Ok(Record {
            delta: view.offset_delta,
            time: batch.head.base_timestamp() + view.timestamp_delta,
            key: Bytes::copy_from_slice(view.key.unwrap_or_default()),
            tombstone: view.null_value,
            content: Bytes::copy_from_slice(view.content),
        })
    };
    let records: Vec<Record> = RecordWalk::new(&section).map(record).collect::<Result<_, String>>()?;
    if records.len() as i64 == i64::from(batch.head.record_count()) {
        Ok(records)
    } else {
        Err(format!("{} records, where its head counts {}", records.len(), batch.head.record_count()))
    }
}

/// Whether what was read may be what cleaning left of what was sent.
pub(crate) fn is_left_of(read: &[Record], sent: &[Record]) -> bool {
    let mut rest = sent.iter();
    read.iter().all(|record| rest.any(|other| other == record))
}

/// The clocks of a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) mono: Mono,
    pub(crate) wall: Wall,
}

impl Moment {
    /// Whether less than tombstones stay has passed since, on both clocks.
    fn is_close(self, now: Moment) -> bool {
        let wall = Duration::from_millis((now.wall.0 - self.wall.0).unsigned_abs());
        // A clock that jumped there and back again in between cannot be told from one that did not.
        now.mono.since(self.mono) < DELETE_RETENTION && wall < DELETE_RETENTION
    }
}

/// The newest record of a key.
#[derive(Clone, Debug)]
struct Newest {
    offset: i64,
    tombstone: bool,
    sent: Moment,
}

/// A reader's way through the whole log.
#[derive(Debug)]
pub(crate) struct Pass {
    began: Moment,
    /// All below is read in this pass.
    end: i64,
    /// The newest offset seen of each key.
    seen: BTreeMap<Bytes, i64>,
}

impl Pass {
    pub(crate) fn new(began: Moment, end: i64) -> Pass {
        Pass { began, end, seen: BTreeMap::new() }
    }

    /// The pass found records.
    pub(crate) fn see(&mut self, found: Vec<(i64, Bytes)>) {
        self.seen.extend(found.into_iter().map(|(offset, key)| (key, offset)));
    }

    /// Judges it by all that was sent to the partition: each record with its offset, unless it has no known place, and when it was sent.
    pub(crate) fn judge<'a>(
        &self,
        sent: impl Iterator<Item = (Option<i64>, &'a Record, Moment)>,
        now: Moment,
    ) -> Result<(), String> {
        let mut newest: BTreeMap<&Bytes, Newest> = BTreeMap::new();
        // Keys of which a later record is, or may be, on its way.
        let mut moving: BTreeSet<&Bytes> = BTreeSet::new();
        for (place, record, sent) in sent {
            match place.filter(|offset| *offset < self.end) {
                None => {
                    moving.insert(&record.key);
                }
                Some(offset) if newest.get(&record.key).is_none_or(|n| n.offset < offset) => {
                    newest.insert(&record.key, Newest { offset, tombstone: record.tombstone, sent });
                }
                Some(_) => {}
            }
        }
        newest.retain(|key, _| !moving.contains(key));
        let quick = self.began.is_close(now);
        for (key, Newest { offset, tombstone, sent }) in newest {
            let seen = self.seen.get(key).copied();
            let told = key.escape_ascii();
            match seen {
                Some(seen) if seen == offset => {}
                _ if !tombstone => {
                    return Err(format!("the newest record of key {told}, at {offset}, is gone: {seen:?}"));
                }
                None if sent.is_close(now) => {
                    return Err(format!("the tombstone of key {told} at {offset} is gone too early"));
                }
                None => {}
                Some(seen) if quick => {
                    return Err(format!("key {told} was deleted at {offset}, and is back as of {seen}"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}
