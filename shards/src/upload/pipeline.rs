//! The shard's side of uploads: when one starts, what becomes of it, and how far the ring may be trimmed.

use std::rc::Rc;

use thalweg_record::{Mono, PartitionId, failpoint};
use thalweg_wal::Lsn;

use super::{
    job::{self, Job, JobObject, JobPart},
    plan::{self, Pressure, Trigger},
};
use crate::{
    event::{Event, UploadFailure},
    meta::CommittedObject,
    moves::PeerMessage,
    partition::Role,
    runtime::Queue,
    shard::Shard,
};

/// What a shard knows of its uploads.
pub(crate) struct Uploader {
    /// Durable batches below are taken up by an upload (or resolved).
    cursor: Lsn,
    /// Since when something waits.
    since: Mono,
    draining: bool,
    running: usize,
    next_job: u64,
    failures: u32,
    retry_at: Mono,
    /// Signalled with success by the newest upload, when all its commits are in.
    newest: Option<flume::Receiver<bool>>,
    /// A failed upload's batches must be taken up again, as soon as no other runs.
    rewind: bool,
    /// Something may be resolved without a commit that tells: partitions were deleted, or an upload held nothing but theirs.
    resolve_due: bool,
    sequence: u64,
}

impl Uploader {
    pub(crate) fn new(cursor: Lsn, now: Mono) -> Uploader {
        Uploader {
            cursor,
            since: now,
            draining: false,
            running: 0,
            next_job: 0,
            failures: 0,
            retry_at: now,
            newest: None,
            rewind: false,
            resolve_due: false,
            sequence: 0,
        }
    }

    /// Uploads everything from now on, without waiting for more.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
    }

    /// What lies at `lsn` could not be uploaded before, for it was not its turn.
    pub(crate) fn take_up_from(&mut self, lsn: Lsn, now: Mono) {
        if lsn < self.cursor {
            (self.cursor, self.since) = (lsn, self.since.min(now));
        }
    }

    /// A partition is deleted, or some of it counts no more: what the log holds of that is resolved.
    pub(crate) fn deleted(&mut self) {
        self.resolve_due = true;
    }
}

impl Shard {
    /// Starts an upload when one is due; at most one per turn.
    pub(crate) fn plan_uploads(&mut self) {
        if self.uploader.rewind && self.uploader.running == 0 {
            self.rewind_uploads();
        }
        let durable = self.log.durable();
        let ring_bytes = durable.0 - self.uploader.cursor.0;
        if ring_bytes == 0 {
            self.uploader.since = self.now;
            return;
        }
        let full = self.uploader.running >= self.config.upload.jobs;
        if full || self.uploader.rewind || self.now < self.uploader.retry_at {
            return;
        }
        let pressure = Pressure {
            ring_bytes,
            ring_capacity: self.log.capacity_bytes(),
            batches: self.batches_waiting,
            age: self.now.since(self.uploader.since),
            draining: self.uploader.draining,
            lent: self.lends_more(),
        };
        if plan::trigger(&self.config.upload, pressure) != Trigger::Wait {
            // One upload takes about one object's worth: memory stays bounded when much has piled up.
            let to = Lsn(durable.0.min(self.uploader.cursor.0 + self.config.upload.object_bytes.max(1)));
            self.start_upload(to);
        }
    }

    /// Whether another shard waits for an upload that has not begun.
    fn lends_more(&self) -> bool {
        self.lending.iter().any(|id| self.partitions.get(id).is_some_and(|p| p.upload_cursor < p.next))
    }

    fn start_upload(&mut self, to: Lsn) {
        let parts: Vec<plan::Part> = self.partitions.iter().filter_map(|p| plan::part(p, to)).collect();
        self.uploader.cursor = to;
        self.uploader.since = self.now;
        let taken: usize = parts.iter().map(|p| p.batches.len()).sum();
        self.batches_waiting = self.batches_waiting.saturating_sub(taken);
        if parts.is_empty() {
            // Markers, and batches of deleted topics.
            self.resolve();
            return;
        }
        for part in &parts {
            if let Some(partition) = self.partitions.get_mut(&part.id) {
                partition.upload_cursor = part.last().next();
            }
        }
        let first = parts.iter().map(|p| p.batches[0].lsn).min().unwrap_or(to);
        let memory = self.cache.pin(first, to);
        let objects = plan::objects(parts, self.config.upload.split_bytes);
        let objects = objects.into_iter().map(|parts| self.job_object(parts)).collect();
        let (committed, newest) = flume::bounded(1);
        let id = self.uploader.next_job;
        self.uploader.next_job += 1;
        self.uploader.running += 1;
        let job = Job {
            id,
            shard: self.config.id,
            identity: self.config.identity.clone(),
            block_bytes: self.config.upload.block_bytes,
            objects,
            memory,
            before: self.uploader.newest.replace(newest),
            committed,
            device: self.ports.device.clone(),
            ring: self.log.ring(),
            meta: self.ports.meta.clone(),
            store: self.ports.store.clone(),
            events: self.events.clone(),
            meters: self.ports.meters.clone(),
            runtime: self.ports.runtime.clone(),
        };
        self.ports.runtime.spawn(Queue::Upload, "upload", Box::pin(job::run(job)));
    }

    fn job_object(&mut self, parts: Vec<plan::Part>) -> JobObject {
        let sequence = self.uploader.sequence;
        self.uploader.sequence += 1;
        JobObject { sequence, parts: parts.into_iter().filter_map(|part| self.job_part(part)).collect() }
    }

    fn job_part(&self, part: plan::Part) -> Option<JobPart> {
        let partition = self.partitions.get(&part.id)?;
        let max_timestamp = part.batches.iter().map(|e| e.max_timestamp).max()?;
        Some(JobPart {
            range: partition.commit_range(part.base(), part.last(), part.bytes, max_timestamp),
            topic_name: partition.topic_name.clone(),
            settings_version: partition.settings.version,
            leader_epoch: partition.epoch,
            log_start: partition.log_start,
            epochs: partition.epochs.entries().to_vec(),
            batches: part.batches,
        })
    }

    /// Objects of an upload are committed, and the metadata is durable.
    pub(crate) fn committed(&mut self, objects: Vec<(PartitionId, CommittedObject)>) {
        let floor = self.index_floor();
        for (id, object) in objects {
            let Some(partition) = self.partitions.get_mut(&id) else { continue };
            if partition.role == Role::Lender {
                self.pass_on(id, || PeerMessage::Committed(id, object.clone()));
            }
            let Some(partition) = self.partitions.get_mut(&id) else { continue };
            let dropped = partition.commit(object);
            if partition.role != Role::Lender {
                // Only DeleteRecords takes what no object holds yet.
                self.ports.meters.dropped_bytes.delete_records.increment(dropped);
            }
            partition.ring.prune(floor, partition.committed_end);
            self.lent_committed(id);
        }
        self.resolve();
    }

    /// An upload came to its end.
    pub(crate) fn upload_ended(&mut self, job: u64, result: Result<(), UploadFailure>) {
        self.uploader.running -= 1;
        match result {
            Ok(()) => {
                self.uploader.failures = 0;
                self.uploader.resolve_due = true;
            }
            Err(UploadFailure::Retry(why)) => {
                tracing::warn!(shard = self.config.id.0, job, why, "upload failed; it is tried again");
                self.ports.meters.upload_errors.increment(1);
                self.uploader.retry_at = plan::retry_at(self.now, self.uploader.failures);
                self.uploader.failures += 1;
                self.uploader.rewind = true;
            }
            Err(UploadFailure::Fatal(why)) => {
                self.uploader.retry_at = Mono(u64::MAX);
                let _gone = self.ports.failed.try_send(format!("shard {}: {why}", self.config.id));
            }
        }
    }

    /// Everything that is not committed is taken up anew.
    fn rewind_uploads(&mut self) {
        self.uploader.rewind = false;
        self.uploader.newest = None;
        self.batches_waiting = 0;
        for partition in self.partitions.iter_mut() {
            partition.upload_cursor = partition.committed_end;
            self.batches_waiting += partition.waiting();
        }
        self.uploader.cursor = self.resolved();
    }

    /// Up to where every durable batch is committed, or its topic gone.
    fn resolved(&self) -> Lsn {
        let first_open = |p: &crate::partition::Partition| p.ring.from(p.committed_end, p.next).next().map(|e| e.lsn);
        let durable = self.log.durable();
        #[cfg(feature = "planted-bugs")]
        if thalweg_wal::planted(thalweg_wal::Bug::EvictedBeforeCommitted) {
            return durable;
        }
        self.partitions.iter().filter_map(first_open).min().map_or(durable, |lsn| lsn.min(durable))
    }

    /// Lets the trim point follow. The metadata is durable: commits were synced, deletions are before shards hear of them.
    fn resolve(&mut self) {
        self.trim_target = self.trim_target.max(self.resolved());
        self.advance_trim();
    }

    /// Lets the trim point follow deletions, of however many partitions at once.
    pub(crate) fn resolve_deleted(&mut self) {
        if std::mem::take(&mut self.uploader.resolve_due) {
            self.resolve();
        }
    }

    /// Whether what the ring holds now will soon be in objects.
    pub(crate) fn uploads_keep_up(&self) -> bool {
        let (failures, unresolved) = (self.uploader.failures, self.unresolved_bytes());
        plan::keeps_up(&self.config.upload, self.log.capacity_bytes(), failures, unresolved)
    }

    /// Ring bytes that would have to be read again after a stop.
    pub(crate) fn unresolved_bytes(&self) -> u64 {
        self.log.durable().0 - self.resolved().0
    }

    /// Writes the next superblock when the trim point can move; readers hold it back.
    pub(crate) fn advance_trim(&mut self) {
        let floor = self.reading.keys().next().copied().unwrap_or(self.trim_target).min(self.trim_target);
        if self.poisoned || floor <= self.log.trim_point() {
            return;
        }
        let Some(write) = self.log.trim(floor) else { return };
        failpoint::pass("trim-begun");
        self.write_superblock(write);
    }

    /// Hands a superblock to the device.
    pub(crate) fn write_superblock(&mut self, write: thalweg_wal::SuperblockWrite) {
        self.write_device(Queue::Hot, "superblock", write.at, write.buf, |result, _| Event::Superblock(result));
    }

    /// Below this LSN neither memory nor the ring holds a batch.
    pub(crate) fn index_floor(&self) -> Lsn {
        let trimmed = self.log.trim_point();
        self.cache.floor().map_or(trimmed, |oldest| oldest.min(trimmed))
    }

    /// Forgets ring batches that only objects hold.
    pub(crate) fn prune_indexes(&mut self) {
        let floor = self.index_floor();
        for partition in self.partitions.iter_mut() {
            let end = partition.committed_end;
            partition.ring.prune(floor, end);
        }
    }
}

/// A job's handle on what it shares with the shard's core.
pub(super) type SharedRuntime = Rc<dyn crate::runtime::Runtime>;
