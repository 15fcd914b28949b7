//! The partition itself: its offsets and the transitions between them.

use std::{rc::Rc, sync::Arc};

use thalweg_record::{BatchHead, LeaderEpoch, Offset, PartitionId, Wall};
use thalweg_wal::Lsn;

use super::{EpochHistory, ObjectList, ProducerTable, RingIndex, Verdict};
use crate::{
    meta::{CommitRange, CommittedObject, ManifestRef},
    msg::{PartitionError, PartitionSettings, PartitionSpec, PartitionView, ProducerBatch},
};

/// How many objects a cold read is shown: enough for any one answer, few enough to clone per read.
const OBJECTS_PER_READ: usize = 8;

/// Which tier serves an offset.
#[derive(Debug)]
pub enum Tier {
    /// Memory or the ring: the index knows the batch.
    Ring,
    /// Committed objects, from the one that holds the offset on.
    Objects(Vec<Rc<CommittedObject>>),
    /// A committed object that this manifest lists.
    Listed(Rc<ManifestRef>),
    /// Nothing there yet.
    End,
}

/// One partition on its owner shard.
#[derive(Debug)]
pub struct Partition {
    /// Identity.
    pub id: PartitionId,
    /// Its topic's name.
    pub topic_name: Arc<str>,
    /// Settings in force.
    pub settings: PartitionSettings,
    /// Leader epoch that appends are stamped with.
    pub epoch: LeaderEpoch,
    /// First offset that may be read.
    pub log_start: Offset,
    /// The next offset to assign; batches from the high watermark on are staged.
    pub next: Offset,
    /// First offset that is not durable.
    pub high_watermark: Offset,
    /// First offset that no committed object holds.
    pub committed_end: Offset,
    /// First offset that no upload has taken up.
    pub upload_cursor: Offset,
    /// Idempotent producers, staged batches included.
    pub producers: ProducerTable,
    /// Leader epochs.
    pub epochs: EpochHistory,
    /// Batches in the ring and the tail cache.
    pub ring: RingIndex,
    /// Committed objects.
    pub objects: ObjectList,
    /// First offset that no cleaning has seen.
    pub cleaned: Offset,
    /// Whether coordinators follow its ownership.
    pub internal: bool,
    /// Below this the ring is not read, for cleaning may have been there before the start.
    ring_from: Offset,
}

impl Partition {
    /// Opens a partition as the metadata describes it; the ring's batches follow through [`Partition::recover`].
    pub fn open(spec: PartitionSpec) -> Partition {
        let cleanable = spec.settings.compact || spec.cleaned > Offset(0);
        let rewritten = spec.committed.iter().rev().find(|part| cleanable && part.level > 0);
        let listed = spec.manifests.last().filter(|_| cleanable).map(|manifest| manifest.last.next());
        let ring_from = rewritten.map(|part| part.last.next()).max(listed).unwrap_or_default().max(spec.cleaned);
        Partition {
            ring_from,
            id: spec.partition,
            topic_name: spec.topic_name,
            settings: spec.settings,
            epoch: spec.leader_epoch,
            log_start: spec.log_start,
            next: spec.committed_end,
            high_watermark: spec.committed_end,
            committed_end: spec.committed_end,
            upload_cursor: spec.committed_end,
            producers: ProducerTable::new(spec.producers),
            epochs: EpochHistory::new(spec.epochs),
            ring: RingIndex::default(),
            objects: ObjectList::new(spec.manifests, spec.committed),
            cleaned: spec.cleaned,
            internal: spec.internal,
        }
    }

    /// Takes in a durable batch that recovery found in the ring, in log order.
    ///
    /// # Errors
    /// The offset that should have come, when batches are missing between the committed end and this one.
    pub fn recover(&mut self, head: &BatchHead, lsn: Lsn) -> Result<(), Offset> {
        let (base, last) = (head.base_offset(), head.last_offset());
        if last < self.committed_end {
            // An object holds it; the ring serves it too as long as what follows is contiguous.
            if last >= self.ring_from && (self.ring.is_empty() || self.ring.end() == Some(base)) {
                self.ring.push(head, lsn);
            }
            return Ok(());
        }
        if base < self.next {
            return Ok(());
        }
        if base != self.next {
            return Err(self.next);
        }
        self.ring.push(head, lsn);
        self.note(head, base, last);
        self.high_watermark = self.next;
        Ok(())
    }

    /// All that the ring holds was taken in. After `--accept-loss` the log may end below a log start that the metadata
    /// recorded; as in Kafka it then begins anew at the log start, so that no deleted offset is given out twice.
    pub fn recovered(&mut self) {
        if self.high_watermark < self.log_start {
            self.ring = RingIndex::default();
            self.next = self.log_start;
            self.high_watermark = self.log_start;
            self.committed_end = self.log_start;
            self.upload_cursor = self.log_start;
        }
    }

    /// Judges a batch by its producer, before anything is assigned.
    ///
    /// # Errors
    /// What the client is told.
    pub fn judge(&self, head: &BatchHead) -> Result<Option<ProducerBatch>, PartitionError> {
        if head.producer_id() < 0 {
            return Ok(None);
        }
        match self.producers.judge(head) {
            Verdict::Append => Ok(None),
            Verdict::Duplicate(original) => Ok(Some(original)),
            Verdict::OutOfOrder => Err(PartitionError::OutOfOrderSequence),
            Verdict::OldEpoch => Err(PartitionError::InvalidProducerEpoch),
        }
    }

    /// Assigns offsets to a batch and stamps its head. The batch is staged: readers see it after
    /// [`Partition::promote`].
    pub fn stage(&mut self, head: &mut BatchHead) -> Offset {
        let base = self.next;
        head.stamp(base, self.epoch);
        self.note(head, base, head.last_offset());
        base
    }

    /// The LogAppendTime stamp of the batch that begins at `base`, if the topic has one and the ring still knows it.
    pub fn stamp_of(&self, base: Offset) -> Option<Wall> {
        let stamped = self.settings.log_append_time;
        self.ring.from(base, base.next()).next().filter(|entry| stamped && entry.base == base).map(|e| e.max_timestamp)
    }

    fn note(&mut self, head: &BatchHead, base: Offset, last: Offset) {
        assert!(last >= base, "a batch holds at least one record");
        self.epochs.note(head.leader_epoch(), base);
        if head.producer_id() >= 0 {
            self.producers.note(head, base, last);
        }
        self.next = last.next();
    }

    /// Everything below `end` is durable.
    pub fn promote(&mut self, end: Offset) {
        assert!(end <= self.next && end >= self.high_watermark, "the high watermark never falls");
        self.high_watermark = end;
    }

    /// First offset that a reader of either isolation must not see. Without transactions both ends are the same.
    pub fn readable_end(&self) -> Offset {
        self.high_watermark
    }

    /// Checks what a reader says of the leader epoch (KIP-320).
    ///
    /// # Errors
    /// Fenced when the reader is behind, unknown when it is ahead.
    pub fn check_epoch(&self, current: Option<LeaderEpoch>) -> Result<(), PartitionError> {
        match current {
            Some(epoch) if epoch < self.epoch => Err(PartitionError::FencedLeaderEpoch),
            Some(epoch) if epoch > self.epoch => Err(PartitionError::UnknownLeaderEpoch),
            _ => Ok(()),
        }
    }

    /// Checks that a reader may ask for `offset`.
    ///
    /// # Errors
    /// Out of range below the log start and above the log end.
    pub fn check_offset(&self, offset: Offset) -> Result<(), PartitionError> {
        if offset < self.log_start || offset > self.next {
            let (log_start, high_watermark) = (self.log_start, self.high_watermark);
            return Err(PartitionError::OffsetOutOfRange { log_start, high_watermark });
        }
        Ok(())
    }

    /// Which tier serves `offset`.
    pub fn tier(&self, offset: Offset) -> Tier {
        if offset >= self.readable_end() {
            Tier::End
        } else if self.ring.first().is_some_and(|first| offset >= first) {
            Tier::Ring
        } else {
            self.stored(offset)
        }
    }

    /// Which objects serve `offset`, that lies below the committed end.
    pub fn stored(&self, offset: Offset) -> Tier {
        match self.objects.manifest_of(offset) {
            Some(manifest) => Tier::Listed(manifest),
            None => Tier::Objects(self.objects.from(offset, OBJECTS_PER_READ)),
        }
    }

    /// An object of this partition's next range is committed.
    pub fn commit(&mut self, object: CommittedObject) {
        assert_eq!(object.base, self.committed_end, "commits are contiguous");
        self.committed_end = object.last.next();
        if object.last >= self.log_start {
            self.objects.push(object);
        }
    }

    /// What the metadata needs to know of `[base, last]`, the range of an upload.
    pub fn commit_range(&self, base: Offset, last: Offset, size_bytes: u64, max_timestamp: Wall) -> CommitRange {
        CommitRange {
            partition: self.id,
            base,
            last,
            size_bytes,
            max_timestamp,
            epochs: self.epochs.beginning_in(base, last),
            producers: self.producers.touched(base, last),
        }
    }

    /// An object with cleaned records has taken the place of others. The ring gives up what it has of them: a reader that got an old
    /// value from there, and then no tombstone from the objects, would keep what was deleted.
    pub fn take_cleaned(&mut self, object: CommittedObject) {
        self.ring.prune(Lsn(u64::MAX), object.last.next());
        self.objects.replace(object);
    }

    /// Raises the log start; what lies below is gone for readers at once.
    pub fn raise_log_start(&mut self, to: Offset) {
        if to > self.log_start {
            self.log_start = to.min(self.high_watermark);
            self.objects.raise_start(self.log_start);
        }
    }

    /// Bytes in committed objects and, beyond them, in the ring.
    pub fn size_bytes(&self) -> u64 {
        self.objects.size_bytes() + self.ring.bytes_from(self.committed_end, self.high_watermark).0
    }

    /// The figures that others may see.
    pub fn view(&self, watches: u32) -> PartitionView {
        PartitionView {
            partition: self.id,
            leader_epoch: self.epoch,
            log_start: self.log_start,
            committed_end: self.committed_end,
            high_watermark: self.high_watermark,
            last_stable: self.readable_end(),
            size_bytes: self.size_bytes(),
            watches,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg_record::TopicId;

    fn partition() -> Partition {
        Partition::open(PartitionSpec {
            partition: PartitionId { topic: TopicId([1; 16]), index: 0 },
            topic_name: "t".into(),
            leader_epoch: LeaderEpoch(4),
            settings: PartitionSettings {
                max_message_bytes: 1_000_000,
                retention_ms: None,
                timestamp_after_max_ms: None,
                ..PartitionSettings::KAFKA_DEFAULTS
            },
            log_start: Offset(0),
            manifests: vec![],
            committed: vec![],
            epochs: vec![(LeaderEpoch(2), Offset(0))],
            producers: vec![],
            committed_end: Offset(20),
            cleaned: Offset(0),
            internal: false,
        })
    }

    fn batch(base: i64, count: i32, epoch: i32) -> BatchHead {
        let mut head = BatchHead([0; 61]);
        head.set_batch_length(88);
        head.set_last_offset_delta(count - 1);
        head.set_producer_id(-1);
        head.stamp(Offset(base), LeaderEpoch(epoch));
        head
    }

    #[test]
    fn what_was_cleaned_is_not_read_from_the_ring() {
        let object = |id, base: i64, last: i64, level| CommittedObject {
            object: crate::meta::ObjectId(id),
            key: thalweg_objectstore::ObjectKey::new(format!("k{id}")).expect("a key"),
            object_bytes: 1,
            base: Offset(base),
            last: Offset(last),
            size_bytes: 1,
            max_timestamp: Wall(0),
            epoch: LeaderEpoch(2),
            level,
        };
        let (uploads, settings) = (
            [object(1, 0, 9, 0), object(2, 10, 19, 0)],
            PartitionSettings { compact: true, ..PartitionSettings::KAFKA_DEFAULTS },
        );
        let spec = |committed: Vec<CommittedObject>, cleaned| PartitionSpec {
            partition: PartitionId { topic: TopicId([1; 16]), index: 0 },
            topic_name: "t".into(),
            leader_epoch: LeaderEpoch(4),
            settings: settings.clone(),
            log_start: Offset(0),
            manifests: vec![],
            committed,
            epochs: vec![(LeaderEpoch(2), Offset(0))],
            producers: vec![],
            committed_end: Offset(20),
            cleaned: Offset(cleaned),
            internal: false,
        };
        let recovered = |spec| {
            let mut p = Partition::open(spec);
            for base in [0, 10, 20] {
                p.recover(&batch(base, 10, 2), Lsn(4096 * base.unsigned_abs())).expect("contiguous");
            }
            p
        };
        let mut p = recovered(spec(uploads.to_vec(), 0));
        assert_eq!(p.ring.first(), Some(Offset(0)));
        p.take_cleaned(object(3, 0, 9, 1));
        assert_eq!(p.ring.first(), Some(Offset(10)));
        assert!(matches!(p.tier(Offset(3)), Tier::Objects(found) if found[0].object.0 == 3));
        // After a crash before the dirty point moved, and after it.
        assert_eq!(recovered(spec(vec![object(3, 0, 9, 1), uploads[1].clone()], 0)).ring.first(), Some(Offset(10)));
        assert_eq!(recovered(spec(uploads.to_vec(), 20)).ring.first(), Some(Offset(20)));
    }

    #[test]
    fn staged_batches_are_invisible_until_promoted() {
        let mut p = partition();
        let mut head = batch(0, 10, 0);
        assert_eq!(p.stage(&mut head), Offset(20));
        assert_eq!((head.base_offset(), head.leader_epoch()), (Offset(20), LeaderEpoch(4)));
        p.ring.push(&head, Lsn(0));
        assert!(matches!(p.tier(Offset(20)), Tier::End));
        p.promote(Offset(30));
        assert!(matches!(p.tier(Offset(20)), Tier::Ring));
        assert_eq!(p.epochs.end_of(LeaderEpoch(2), p.next), Some((LeaderEpoch(2), Offset(20))));
    }

    #[test]
    fn recovery_skips_what_is_committed_and_refuses_a_gap() {
        let mut p = partition();
        p.recover(&batch(10, 10, 2), Lsn(0)).expect("committed already");
        assert_eq!(p.next, Offset(20));
        p.recover(&batch(20, 5, 3), Lsn(4096)).expect("contiguous");
        p.recover(&batch(20, 5, 3), Lsn(8192)).expect("a second copy is skipped");
        assert_eq!((p.high_watermark, p.ring.first(), p.ring.end()), (Offset(25), Some(Offset(10)), Some(Offset(25))));
        assert_eq!(p.recover(&batch(26, 1, 3), Lsn(12288)), Err(Offset(25)));
    }

    #[test]
    fn a_log_that_ends_below_its_start_begins_there() {
        let mut p = partition();
        p.log_start = Offset(30);
        p.recovered();
        assert_eq!(p.stage(&mut batch(0, 5, 0)), Offset(30));
        assert_eq!((p.committed_end, p.high_watermark, p.next), (Offset(30), Offset(30), Offset(35)));
        assert!(p.check_offset(Offset(30)).is_ok() && p.check_offset(Offset(29)).is_err());
    }

    #[test]
    fn readers_are_kept_inside_the_log() {
        let mut p = partition();
        p.raise_log_start(Offset(7));
        assert!(p.check_offset(Offset(6)).is_err());
        assert!(p.check_offset(Offset(7)).is_ok());
        assert!(p.check_offset(Offset(20)).is_ok());
        assert!(p.check_offset(Offset(21)).is_err());
        p.raise_log_start(Offset(99));
        assert_eq!(p.log_start, Offset(20), "never past the high watermark");
    }
}
