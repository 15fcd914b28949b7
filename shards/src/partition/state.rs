//! The partition itself: its offsets and the transitions between them.

use std::{cell::Cell, rc::Rc, sync::Arc};

use thalweg_record::{BatchHead, LeaderEpoch, Offset, PartitionId, Wall};
use thalweg_wal::Lsn;

use super::{EpochHistory, ObjectList, ProducerTable, RingIndex, Verdict};
use crate::{
    meta::{CommitRange, CommittedObject, ManifestRef},
    moves::Borrowed,
    msg::{Generation, PartitionError, PartitionSettings, PartitionSpec, PartitionView, ProducerBatch},
};

/// Which tier serves an offset.
#[derive(Debug)]
pub enum Tier {
    /// Memory or the ring: the index knows the batch.
    Ring,
    /// The log of the shard that had it before.
    Lender,
    /// Committed objects ([`ObjectList::to_read`]).
    Objects,
    /// A committed object that this manifest lists.
    Listed(Rc<ManifestRef>),
    /// Nothing there yet.
    End,
}

/// What a shard is to a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Its owner.
    Owner,
    /// Its owner, which appends no more: in this generation it will be another shard's. For good, or what is sent later could be appended
    /// before what was refused.
    Sealed(Generation),
    /// Its owner before: what this log holds of it is uploaded, and lent to the new owner until then.
    Lender,
}

/// What a partition cost since it was last asked.
#[derive(Debug, Default)]
pub struct Load {
    /// Bytes appended, and bytes read that were in memory.
    pub bytes: Cell<u64>,
    /// Appends and reads.
    pub requests: Cell<u64>,
}

impl Load {
    /// Counts one append or read.
    pub fn count(&self, bytes: u64) {
        self.bytes.set(self.bytes.get() + bytes);
        self.requests.set(self.requests.get() + 1);
    }
}

/// One partition on its owner shard, or on the one before.
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
    /// What this shard is to it.
    pub role: Role,
    /// Since when this shard owns it.
    pub since: Generation,
    /// What another shard's log holds of it between the committed end and what this one's does.
    pub borrowed: Option<Borrowed>,
    /// Log starts that the metadata has not yet said are durable.
    pub raising: u32,
    /// What it costs.
    pub load: Load,
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
            role: Role::Owner,
            since: Generation(0),
            borrowed: None,
            raising: 0,
            load: Load::default(),
        }
    }

    /// What another shard needs to open it as it is now, staged batches included.
    pub fn spec(&self) -> PartitionSpec {
        PartitionSpec {
            partition: self.id,
            topic_name: self.topic_name.clone(),
            leader_epoch: self.epoch,
            settings: self.settings.clone(),
            log_start: self.log_start,
            manifests: self.objects.manifests().cloned().collect(),
            committed: self.objects.iter().cloned().collect(),
            epochs: self.epochs.entries().to_vec(),
            producers: self.producers.entries(),
            committed_end: self.committed_end,
            cleaned: self.cleaned,
            internal: self.internal,
            loan: None,
        }
    }

    /// Goes on at `end`, where another shard sealed it; what is not committed before lies in that one's log.
    pub fn go_on_at(&mut self, end: Offset, borrowed: Option<Borrowed>) {
        (self.next, self.high_watermark, self.upload_cursor) = (end, end, end);
        self.borrowed = borrowed;
    }

    /// Takes in the head of a durable batch that lies in the log of the shard that had it before, in order.
    ///
    /// # Errors
    /// The offset that should have come.
    pub fn recover_borrowed(&mut self, from: thalweg_record::ShardId, head: &BatchHead) -> Result<(), Offset> {
        let (base, last) = (head.base_offset(), head.last_offset());
        if base < self.next {
            return Ok(());
        }
        self.pass_over_to(base)?;
        self.note(head, base, last);
        let so_far = self.borrowed.take();
        let (bytes, latest) = so_far.map_or((0, Wall(i64::MIN)), |b| (b.bytes, b.max_timestamp));
        let bytes = bytes + head.size_bytes() as u64;
        let max_timestamp = latest.max(Wall(head.max_timestamp()));
        let end = self.next;
        self.go_on_at(end, Some(Borrowed { from, until: end, bytes, max_timestamp }));
        Ok(())
    }

    /// Takes in a durable batch that recovery found in the ring, in log order.
    ///
    /// # Errors
    /// The offset that should have come, when batches are missing between the committed end and this one.
    pub fn recover(&mut self, head: &BatchHead, lsn: Lsn) -> Result<(), Offset> {
        let (base, last) = (head.base_offset(), head.last_offset());
        if last < self.committed_end {
            // An object holds it; the ring serves it too as long as what follows is contiguous.
            if last >= self.ring_from && self.ring.end().is_none_or(|end| base >= end) {
                self.index(head, lsn);
            }
            return Ok(());
        }
        if base < self.next {
            return Ok(());
        }
        self.pass_over_to(base)?;
        self.index(head, lsn);
        self.note(head, base, last);
        self.high_watermark = self.next;
        Ok(())
    }

    /// Goes on at `base`, when all that is missing before it is deleted: an earlier start had begun anew at the log start.
    fn pass_over_to(&mut self, base: Offset) -> Result<(), Offset> {
        if base == self.next {
            return Ok(());
        }
        if base > self.log_start {
            return Err(self.next);
        }
        self.begin_anew_at(base);
        Ok(())
    }

    /// Nothing before `at` will be uploaded any more.
    fn begin_anew_at(&mut self, at: Offset) {
        self.ring = RingIndex::default();
        self.next = at;
        self.high_watermark = at;
        self.committed_end = at;
        self.upload_cursor = at;
        self.borrowed = None;
    }

    /// Adds a batch to the ring's index, which has no gaps: what lies before one was on another shard meanwhile.
    fn index(&mut self, head: &BatchHead, lsn: Lsn) {
        if self.ring.end().is_some_and(|end| end != head.base_offset()) {
            self.ring = RingIndex::default();
        }
        self.ring.push(head, lsn);
    }

    /// All that the ring holds was taken in. After `--accept-loss` the log may end below a log start that the metadata
    /// recorded; as in Kafka it then begins anew at the log start, so that no deleted offset is given out twice.
    pub fn recovered(&mut self) {
        if self.role == Role::Lender {
            // The owner may have records deleted beyond what is lent, and waits for the commit of that all the same.
            self.log_start = self.log_start.min(self.committed_end);
        } else if self.high_watermark < self.log_start {
            self.begin_anew_at(self.log_start);
        }
        // Batches that were here before the partition was elsewhere for a while do not lead to its end.
        if self.ring.end().is_some_and(|end| end != self.next) {
            self.ring = RingIndex::default();
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

    /// Batches that this shard is to upload, and that no upload has taken up. None of them while another shard uploads what comes before.
    pub fn waiting(&self) -> usize {
        match self.borrowed {
            Some(_) => 0,
            None => self.ring.from(self.upload_cursor, self.next).count(),
        }
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
        } else if self.borrowed.is_some() && offset >= self.committed_end {
            Tier::Lender
        } else {
            self.stored(offset)
        }
    }

    /// Which objects serve `offset`, that lies below the committed end.
    pub fn stored(&self, offset: Offset) -> Tier {
        match self.objects.manifest_of(offset) {
            Some(manifest) => Tier::Listed(manifest),
            None => Tier::Objects,
        }
    }

    /// An object of this partition's next range is committed. Answers its bytes when the log starts behind it already.
    pub fn commit(&mut self, object: CommittedObject) -> u64 {
        assert_eq!(object.base, self.committed_end, "commits are contiguous");
        self.committed_end = object.last.next();
        if object.last < self.log_start {
            return object.size_bytes;
        }
        self.objects.push(object);
        0
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

    /// Raises the log start; what lies below is gone for readers at once. Answers the bytes in objects that went, if it moved.
    pub fn raise_log_start(&mut self, to: Offset) -> Option<u64> {
        let to = to.min(self.high_watermark);
        (to > self.log_start).then(|| {
            self.log_start = to;
            self.objects.raise_start(to)
        })
    }

    /// Bytes in committed objects and, beyond them, in the ring.
    pub fn size_bytes(&self) -> u64 {
        let lent = self.borrowed.as_ref().map_or(0, |borrowed| borrowed.bytes);
        self.objects.size_bytes() + lent + self.ring.bytes_from(self.committed_end, self.high_watermark).0
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
            loan: None,
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
            loan: None,
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
        assert!(matches!(p.tier(Offset(3)), Tier::Objects));
        assert_eq!(p.objects.to_read(Offset(3))[0].object.0, 3);
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
    fn a_log_that_began_anew_at_its_start_is_recovered_from_there() {
        let mut p = partition();
        p.log_start = Offset(30);
        p.recover(&batch(20, 5, 2), Lsn(0)).expect("what was left when it began anew");
        p.recover(&batch(30, 5, 4), Lsn(4096)).expect("all before it is deleted");
        p.recovered();
        assert_eq!((p.committed_end, p.upload_cursor, p.high_watermark), (Offset(30), Offset(30), Offset(35)));
        assert_eq!((p.ring.first(), p.waiting()), (Some(Offset(30)), 1));
        assert_eq!(p.recover(&batch(36, 1, 4), Lsn(8192)), Err(Offset(35)), "this is not deleted");
    }

    #[test]
    fn a_log_goes_on_where_its_start_lies_inside_of_a_batch() {
        let mut p = partition();
        p.log_start = Offset(27);
        p.recover(&batch(25, 5, 4), Lsn(0)).expect("all before it is deleted");
        p.recovered();
        assert_eq!((p.committed_end, p.upload_cursor, p.high_watermark), (Offset(25), Offset(25), Offset(30)));
        assert!(matches!(p.tier(Offset(27)), Tier::Ring));
    }

    #[test]
    fn what_another_log_holds_is_taken_in_and_asked_for_there() {
        let mut p = partition();
        let lender = thalweg_record::ShardId(3);
        p.recover(&batch(0, 10, 2), Lsn(0)).expect("from before it was elsewhere");
        p.recover_borrowed(lender, &batch(20, 5, 3)).expect("contiguous");
        p.recover_borrowed(lender, &batch(25, 5, 3)).expect("contiguous");
        assert_eq!(p.recover_borrowed(lender, &batch(31, 1, 3)), Err(Offset(30)));
        p.recovered();
        assert_eq!((p.high_watermark, p.ring.first()), (Offset(30), None), "readers are not to find a gap");
        p.recover(&batch(30, 5, 4), Lsn(4096)).expect("its own");
        let borrowed = p.borrowed.clone().expect("a loan");
        assert_eq!((borrowed.from, borrowed.until, borrowed.bytes), (lender, Offset(30), 200));
        assert!(matches!(p.tier(Offset(19)), Tier::Objects));
        assert!(matches!(p.tier(Offset(20)), Tier::Lender));
        assert!(matches!(p.tier(Offset(29)), Tier::Lender));
        assert!(matches!(p.tier(Offset(30)), Tier::Ring));
    }

    #[test]
    fn batches_from_before_a_partition_was_elsewhere_leave_no_gap() {
        let mut p = partition();
        p.recover(&batch(0, 5, 2), Lsn(0)).expect("committed");
        p.recover(&batch(20, 5, 3), Lsn(4096)).expect("it came back");
        p.recovered();
        assert_eq!((p.ring.first(), p.ring.end()), (Some(Offset(20)), Some(Offset(25))));
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
