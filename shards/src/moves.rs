//! Partitions that move between the shards of one broker, without a copy of what they hold.
//!
//! The old owner *seals* the partition: it refuses further appends, waits until what it took is durable, and tells control. Then it
//! *hands over* all it knows of it; the new owner goes on at the sealed end, in its own log. What no object holds yet stays in the
//! old owner's log, as a *loan*: the old owner goes on uploading it, tells the new one of each commit, and reads it for the new
//! one's readers. The new owner's uploads of the partition wait until the loan is over, for commits are contiguous.
//!
//! Invariants: at most one shard appends to a partition; a loan lies before everything that the new owner appends; a partition moves
//! on only when its loan is over, so that at most two logs hold what is not committed of it.

use bytes::Bytes;
use flume::Sender;
use thalweg_record::{BatchHead, Offset, PartitionId, ShardId, Wall, failpoint};

use crate::{
    meta::CommittedObject,
    msg::{Control, FoundOffset, Generation, PartitionError, PartitionSpec},
    partition::{Partition, Role},
    read::count_read,
    ring_read::RingRead,
    shard::Shard,
};

/// What another shard's log holds of a partition, from the committed end on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Borrowed {
    /// Whose log.
    pub from: ShardId,
    /// The offset after it.
    pub until: Offset,
    /// How much it is, at most.
    pub bytes: u64,
    /// Greatest timestamp in it.
    pub max_timestamp: Wall,
}

/// A loan as a start finds it.
#[derive(Clone, Debug)]
pub enum Loan {
    /// The shard is not the owner, which is this one: it lends what its log holds.
    To(ShardId),
    /// That shard's log holds what lies between the committed end and the owner's log.
    From {
        /// Which shard.
        lender: ShardId,
        /// The heads of its batches, in order.
        heads: Vec<BatchHead>,
    },
}

/// What shards of one broker say to each other.
#[derive(Debug)]
pub enum PeerMessage {
    /// The partition is yours.
    TakeOver(Box<TakeOver>),
    /// An object holds more of what was lent; the metadata is durable.
    Committed(PartitionId, CommittedObject),
    /// An object that a compaction made has taken the place of others.
    Compacted(PartitionId, CommittedObject),
}

/// A partition on its way.
#[derive(Debug)]
pub struct TakeOver {
    /// As it is at its old owner.
    pub(crate) spec: PartitionSpec,
    /// Where it goes on.
    pub(crate) end: Offset,
    pub(crate) borrowed: Option<Borrowed>,
    pub(crate) generation: Generation,
    pub(crate) taken: Sender<PartitionId>,
}

/// A read of what was lent. The answer is `None` when it is lent no more: an object holds it.
#[derive(Debug)]
pub struct LentRead {
    pub(crate) partition: PartitionId,
    pub(crate) offset: Offset,
    pub(crate) max_bytes: u32,
    pub(crate) at_least_one: bool,
    pub(crate) reply: Sender<Option<Vec<Bytes>>>,
}

/// A search for the first record at or after a time in what was lent. The outer answer is `None` when it is lent no more, the inner when nothing there is as late.
#[derive(Debug)]
pub struct LentSearch {
    pub(crate) partition: PartitionId,
    pub(crate) time: Wall,
    /// The first offset that counts.
    pub(crate) from: Offset,
    /// Up to where the asker knows of objects: what lies in later ones it would not find.
    pub(crate) committed_end: Offset,
    pub(crate) reply: Sender<Option<Option<FoundOffset>>>,
}

/// What a shard's partitions cost since it was last asked.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ShardLoad {
    /// How long its turns took, in nanoseconds.
    pub busy_ns: u64,
    /// Those of its partitions that may move and cost anything: bytes, and appends and reads.
    pub partitions: Vec<(PartitionId, u64, u64)>,
    /// What all the others cost, in the same terms: they stay for now.
    pub staying: (u64, u64),
}

/// Partitions that are to go once they are durable.
pub(crate) struct Sealing {
    partitions: Vec<PartitionId>,
    sealed: Sender<Vec<PartitionId>>,
}

impl Shard {
    /// A partition that this shard owns.
    pub(crate) fn owned(&self, id: &PartitionId) -> Result<&Partition, PartitionError> {
        let owned = self.partitions.get(id).filter(|partition| partition.role != Role::Lender);
        owned.ok_or_else(|| self.absent(id))
    }

    /// What to say of a partition that this shard does not own.
    fn absent(&self, id: &PartitionId) -> PartitionError {
        match self.moved.get(id) {
            Some((_, generation)) => PartitionError::Moving(*generation),
            None => PartitionError::Moved(self.revision),
        }
    }

    /// Appends no more to `partitions`, as far as they may move.
    pub(crate) fn seal_partitions(
        &mut self,
        partitions: Vec<PartitionId>,
        generation: Generation,
        sealed: Sender<Vec<PartitionId>>,
    ) {
        // The loan must soon be over: until it is, the new owner's log is held too.
        let serves = !self.refuses_appends() && self.uploads_keep_up();
        let (cleaned, folder) = (self.cleaner.at_work_on(), &self.folder);
        let may_go = |id: &PartitionId| {
            let Some(partition) = self.partitions.get_mut(id) else { return false };
            let owned = partition.role == Role::Owner && partition.borrowed.is_none();
            let may = serves && owned && !partition.internal && cleaned != Some(*id) && !folder.is_at_work_on(*id);
            if may {
                partition.role = Role::Sealed(generation);
            }
            may
        };
        let partitions = partitions.into_iter().filter(may_go).collect();
        failpoint::pass("move-sealed");
        self.sealing.push(Sealing { partitions, sealed });
    }

    /// Tells control of sealed partitions in which all is durable.
    pub(crate) fn report_sealed(&mut self) {
        if self.sealing.is_empty() {
            return;
        }
        let partitions = &self.partitions;
        let rests = |id: &PartitionId| partitions.get(id).is_none_or(|p| is_at_rest(p) && p.raising == 0);
        let (done, open) =
            std::mem::take(&mut self.sealing).into_iter().partition(|sealing| sealing.partitions.iter().all(rests));
        self.sealing = open;
        let done: Vec<Sealing> = done;
        for Sealing { partitions, sealed } in done {
            let _stopping = sealed.try_send(partitions);
        }
    }

    /// Hands sealed partitions over to other shards.
    pub(crate) fn hand_over(
        &mut self,
        moves: Vec<(PartitionId, ShardId)>,
        generation: Generation,
        taken: &Sender<PartitionId>,
    ) {
        for (id, to) in moves {
            let Some(partition) = self.partitions.get_mut(&id) else { continue };
            let (end, committed_end) = (partition.high_watermark, partition.committed_end);
            let mut spec = partition.spec();
            #[cfg(feature = "planted-bugs")]
            if thalweg_wal::planted(thalweg_wal::Bug::ProducersLeftBehind) {
                spec.producers.clear();
            }
            let borrowed = (committed_end < end).then(|| Borrowed {
                from: self.config.id,
                until: end,
                bytes: partition.ring.bytes_from(committed_end, end).0,
                max_timestamp: partition
                    .ring
                    .max_timestamp(committed_end, end)
                    .map_or(Wall(i64::MIN), |e| e.max_timestamp),
            });
            partition.role = Role::Lender;
            if borrowed.is_none() {
                self.partitions.remove(&id);
            } else {
                self.lending.insert(id);
            }
            self.moved.insert(id, (to, generation));
            spec.loan = None;
            let message = TakeOver { spec, end, borrowed, generation, taken: taken.clone() };
            failpoint::pass("move-handed-over");
            self.tell(to, PeerMessage::TakeOver(Box::new(message)));
            self.watches.wake(id);
        }
        self.count_partitions();
    }

    /// A partition of another shard is this one's from now on.
    pub(crate) fn take_over(&mut self, message: TakeOver) {
        let TakeOver { spec, end, borrowed, generation, taken } = message;
        let mut partition = Partition::open(spec);
        partition.go_on_at(end, borrowed);
        partition.since = generation;
        let id = partition.id;
        self.moved.remove(&id);
        self.partitions.insert(partition);
        self.count_partitions();
        self.ports.meters.partitions_taken.increment(1);
        failpoint::pass("move-taken-over");
        let _stopping = taken.try_send(id);
    }

    /// What another shard says.
    pub(crate) fn peer(&mut self, message: PeerMessage) {
        match message {
            PeerMessage::TakeOver(partition) => self.take_over(*partition),
            PeerMessage::Committed(id, object) => self.loan_committed(id, object),
            PeerMessage::Compacted(id, object) => self.compacted(vec![(id, object)]),
        }
    }

    /// Something was said of a partition that this shard does not own any more: its new owner must know.
    pub(crate) fn pass_on(&self, id: PartitionId, message: impl FnOnce() -> PeerMessage) {
        if let Some((to, _)) = self.moved.get(&id) {
            self.tell(*to, message());
        }
    }

    fn tell(&self, shard: ShardId, message: PeerMessage) {
        if let Some(lane) = self.ports.peers.get(usize::from(shard.0)) {
            lane.control(Control::Peer(Box::new(message)));
        }
    }

    /// An object holds more of what this shard lends; after the last of it the loan is over.
    pub(crate) fn lent_committed(&mut self, id: PartitionId) {
        let over = |p: &Partition| p.role == Role::Lender && p.committed_end >= p.high_watermark;
        if self.partitions.get(&id).is_some_and(over) {
            self.partitions.remove(&id);
            self.lending.remove(&id);
            self.count_partitions();
        }
    }

    /// An object holds more of what this shard borrows; after the last of it this shard uploads what follows.
    fn loan_committed(&mut self, id: PartitionId, object: CommittedObject) {
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        let Some(borrowed) = &mut partition.borrowed else { return };
        borrowed.bytes = borrowed.bytes.saturating_sub(object.size_bytes);
        let until = borrowed.until;
        let dropped = partition.commit(object);
        self.ports.meters.dropped_bytes.delete_records.increment(dropped);
        if partition.committed_end < until {
            return;
        }
        partition.borrowed = None;
        partition.upload_cursor = partition.committed_end;
        self.batches_waiting += partition.waiting();
        if let Some(first) = partition.ring.first_lsn() {
            self.uploader.take_up_from(first, self.now);
        }
    }

    /// Reads what this shard lends.
    pub(crate) fn read_lent(&mut self, read: LentRead) {
        let LentRead { partition, offset, max_bytes, at_least_one, reply } = read;
        // What objects hold may have been cleaned there, by the new owner; and what the ring has forgotten is in objects too.
        let has =
            |lent: &&Partition| offset >= lent.committed_end && lent.ring.first().is_some_and(|first| first <= offset);
        let Some(lent) = self.lent(&partition).filter(has) else {
            let _gone = reply.try_send(None);
            return;
        };
        let mut bytes = 0u64;
        let fits = |entry: &&crate::partition::RingEntry| {
            let first = bytes == 0 && at_least_one;
            bytes += u64::from(entry.size);
            first || bytes <= u64::from(max_bytes)
        };
        let batches: Vec<_> = lent.ring.from(offset, lent.high_watermark).take_while(fits).copied().collect();
        #[cfg(feature = "planted-bugs")]
        let batches = match thalweg_wal::planted(thalweg_wal::Bug::LoanReadAhead) {
            true => batches.into_iter().skip(1).collect(),
            false => batches,
        };
        let pieces = self.in_memory(&batches);
        let read: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        if batches.is_empty() || read == batches.iter().map(|e| u64::from(e.size)).sum::<u64>() {
            let meters = &self.ports.meters;
            count_read(&meters.reads.tail, &meters.read_bytes.tail, &pieces);
            let _gone = reply.try_send(Some(pieces));
            return;
        }
        let done = move |read: std::io::Result<Vec<Bytes>>| {
            let answer = match read {
                Ok(batches) => Some(batches),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => None,
                // Nobody answers: the reader hears that the storage fails.
                Err(_) => return,
            };
            let _gone = reply.try_send(answer);
        };
        self.read_ring(RingRead::new(batches, Box::new(done)));
    }

    /// A partition that this shard lends.
    pub(crate) fn lent(&self, id: &PartitionId) -> Option<&Partition> {
        self.partitions.get(id).filter(|partition| partition.role == Role::Lender)
    }

    /// What partitions cost since the last time.
    pub(crate) fn measure(&mut self) -> ShardLoad {
        let mut load = ShardLoad { busy_ns: std::mem::take(&mut self.busy_ns), ..ShardLoad::default() };
        for partition in self.partitions.iter() {
            let (bytes, requests) = (partition.load.bytes.take(), partition.load.requests.take());
            let may_move = partition.role == Role::Owner && partition.borrowed.is_none() && !partition.internal;
            if !may_move {
                load.staying = (load.staying.0 + bytes, load.staying.1 + requests);
            } else if requests > 0 {
                load.partitions.push((partition.id, bytes, requests));
            }
        }
        load
    }

    pub(crate) fn count_partitions(&self) {
        self.ports.meters.partitions.set(self.partitions.len() as f64);
    }
}

impl Borrowed {
    /// About how much lies from `offset` on, when it begins at `committed_end`.
    pub(crate) fn bytes_from(&self, offset: Offset, committed_end: Offset) -> u64 {
        let records = |from: Offset| u64::try_from(self.until.0 - from.0).unwrap_or(0);
        let (all, left) = (records(committed_end).max(1), records(offset.max(committed_end)));
        (u128::from(self.bytes) * u128::from(left) / u128::from(all)) as u64
    }
}

/// Whether all that was appended is durable.
fn is_at_rest(partition: &Partition) -> bool {
    #[cfg(feature = "planted-bugs")]
    if thalweg_wal::planted(thalweg_wal::Bug::SealedBeforeDurable) {
        return true;
    }
    partition.next == partition.high_watermark
}

#[cfg(test)]
mod tests;
