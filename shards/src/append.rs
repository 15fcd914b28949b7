//! The produce path of a shard, from the request to the acknowledgement, one function per step, in order.
//!
//! Runs inside the shard's turn. Ring room is reserved before an offset is assigned; offsets and producer state are staged
//! and become visible when the group is durable; the one copy of the records is into the group's aligned buffer.

use std::{io, time::Duration};

use bytes::Bytes;
use thalweg_record::{Batch, Mono, Offset, PartitionId, failpoint};
use thalweg_wal::{GroupId, IoBuf, Lsn};

use crate::{
    batch::validate_records,
    event::Event,
    mailbox::ReplyTo,
    msg::{AppendRequest, Appended, Generation, Origin, PartitionError, Reply},
    partition::Role,
    pressure::throttle,
    runtime::Queue,
    shard::Shard,
};

/// Zeroing ahead goes in pieces of this size, one in flight.
const ZERO_CHUNK_BYTES: u32 = 1 << 20;
/// Zeros keep this far ahead of the head as fast as a device takes them that has no groups under way; beyond, they go on while the
/// device rests.
const ZERO_LEAD_BYTES: u64 = 128 << 20;
/// When a device counts as resting.
const ZERO_AFTER: Duration = Duration::from_secs(1);
/// A log that rests this long gets a marker, so that its last group is confirmed.
const CONFIRM_AFTER: Duration = Duration::from_millis(100);

/// What a group holds, to be counted when it is durable.
#[derive(Clone, Copy, Default)]
struct Tally {
    batches: u64,
    records: u64,
    bytes: u64,
}

/// What was staged since the last seal.
#[derive(Default)]
pub(crate) struct OpenGroup {
    /// Partition and its next offset after each batch, in order.
    parts: Vec<(PartitionId, Offset)>,
    tally: Tally,
    /// Requests whose last batch is in this group.
    appends: Vec<Waiter>,
}

/// A group in flight.
pub(crate) struct SealedGroup {
    end: Lsn,
    sealed_at: Mono,
    bytes: u64,
    parts: Vec<(PartitionId, Offset)>,
    tally: Tally,
}

struct Waiter {
    reply: ReplyTo,
    results: Vec<Result<Appended, PartitionError>>,
    returned: Vec<(usize, Batch)>,
    deadline: Mono,
}

/// A request that waits for the log to be durable up to `need`.
pub(crate) struct PendingAppend {
    need: Lsn,
    waiter: Option<Waiter>,
}

/// Tells a producer that its records may or may not become durable; what was refused stays refused.
fn outcome_unknown(waiter: Waiter) {
    let results = waiter.results.into_iter().map(|r| r.and(Err(PartitionError::TimedOut))).collect();
    waiter.reply.send(Reply::Append { results, throttle: Duration::ZERO, returned: waiter.returned });
}

/// A bug to be found: a shard goes on appending to what it sealed.
fn ignores_seal() -> bool {
    #[cfg(feature = "planted-bugs")]
    return thalweg_wal::planted(thalweg_wal::Bug::AppendedAfterSeal);
    #[cfg(not(feature = "planted-bugs"))]
    false
}

/// What came of one batch before durability.
enum Staged {
    /// It is in the open group.
    New(Appended),
    /// It repeats an earlier one, which is durable.
    Repeated(Appended),
    /// It repeats one that is still on its way.
    RepeatedInFlight(Appended),
}

impl Shard {
    /// Step 1: takes a request; each partition meets its own fate.
    pub(crate) fn append(&mut self, request: AppendRequest) {
        let AppendRequest { origin, deadline, generation, batches, reply } = request;
        let mut wait = false;
        let mut results = Vec::with_capacity(batches.len());
        let mut returned = Vec::new();
        for (at, (partition, mut batch)) in batches.into_iter().enumerate() {
            results.push(match self.stage((origin, generation), partition, &mut batch) {
                Ok(Staged::New(appended) | Staged::RepeatedInFlight(appended)) => {
                    wait = true;
                    Ok(appended)
                }
                Ok(Staged::Repeated(appended)) => Ok(appended),
                Err(error) => {
                    if matches!(error, PartitionError::Moving(_)) {
                        returned.push((at, batch));
                    }
                    Err(error)
                }
            });
        }
        if !wait {
            let throttle = self.throttle();
            reply.send(Reply::Append { results, throttle, returned });
        } else {
            self.open_group.appends.push(Waiter { reply, results, returned, deadline });
        }
    }

    /// Step 2: checks a batch, reserves room, assigns offsets, copies it into the open group.
    fn stage(
        &mut self,
        (origin, generation): (Origin, Generation),
        id: PartitionId,
        batch: &mut Batch,
    ) -> Result<Staged, PartitionError> {
        if self.refuses_appends() {
            return Err(PartitionError::Unavailable);
        }
        let size = u32::try_from(batch.size_bytes()).map_err(|_| PartitionError::MessageTooLarge)?;
        self.check((origin, generation), &id, batch, size)?;
        if !self.log.would_fit(size) {
            self.seal();
            if !self.log.would_fit(size) {
                // The log waits for the device (bytes in flight, zeros ahead of the head): the client tries again.
                self.ports.meters.appends_refused.increment(1);
                return Err(PartitionError::RingFull);
            }
        }
        let partition = self.partitions.get_mut(&id).ok_or(PartitionError::Moved(self.revision))?;
        if let Some(original) = partition.judge(&batch.head)? {
            let log_start = partition.log_start;
            let stamp = partition.stamp_of(original.base_offset);
            let appended = Appended { base_offset: original.base_offset, log_append_time: stamp, log_start };
            let durable = original.last_offset < partition.high_watermark;
            #[cfg(feature = "planted-bugs")]
            let durable = durable || thalweg_wal::planted(thalweg_wal::Bug::DuplicateEarly);
            return Ok(if durable { Staged::Repeated(appended) } else { Staged::RepeatedInFlight(appended) });
        }
        let room = match origin {
            Origin::Client => self.log.reserve(size),
            Origin::Internal => self.log.reserve_internal(size),
        };
        let Ok(room) = room else {
            #[cfg(feature = "planted-bugs")]
            if thalweg_wal::planted(thalweg_wal::Bug::OffsetBeforeRoom) {
                partition.stage(&mut batch.head);
            }
            self.ports.meters.appends_refused.increment(1);
            return Err(PartitionError::RingFull);
        };
        failpoint::pass("append-reserved");
        let base_offset = partition.stage(&mut batch.head);
        let lsn = self.log.push(room, id, &batch.head, &batch.body);
        partition.ring.push(&batch.head, lsn);
        partition.load.count(u64::from(size));
        self.open_group.parts.push((id, partition.next));
        let tally = &mut self.open_group.tally;
        tally.batches += 1;
        tally.records += u64::try_from(batch.head.record_count()).unwrap_or(0);
        tally.bytes += u64::from(size);
        self.batches_waiting += usize::from(partition.borrowed.is_none());
        let log_append_time = partition.settings.log_append_time.then_some(self.wall);
        // Another offset than the batch has.
        let lies = origin == Origin::Client && failpoint::lies("append-answered");
        let base_offset = if lies { base_offset.next() } else { base_offset };
        Ok(Staged::New(Appended { base_offset, log_append_time, log_start: partition.log_start }))
    }

    fn check(
        &self,
        (origin, generation): (Origin, Generation),
        id: &PartitionId,
        batch: &mut Batch,
        size: u32,
    ) -> Result<(), PartitionError> {
        let partition = self.owned(id)?;
        match partition.role {
            Role::Sealed(to_come) if !ignores_seal() => return Err(PartitionError::Moving(to_come)),
            _ if generation < partition.since => return Err(PartitionError::Moving(partition.since)),
            _ => {}
        }
        if size > partition.settings.max_message_bytes && origin == Origin::Client {
            return Err(PartitionError::MessageTooLarge);
        }
        batch.verify_crc().map_err(|_| PartitionError::CorruptMessage)?;
        match origin {
            Origin::Client => validate_records(batch, &partition.settings, self.wall),
            Origin::Internal => Ok(()),
        }
    }

    /// Step 3, at the end of the turn: seals what was staged, unless enough groups are in flight already; then the next
    /// completion seals a larger one.
    pub(crate) fn seal_if_due(&mut self) {
        if self.log.staged_bytes() == 0 {
            // Only repetitions of batches still in flight: they need what is sealed already.
            self.queue_appends(self.log.head());
        } else if self.is_worth_a_write() && self.device_is_free() {
            self.seal();
        }
    }

    /// Whether what is staged should not wait for the groups under way: each write costs the same, however little it carries, so a
    /// small group waits for the one before it and grows meanwhile.
    fn is_worth_a_write(&self) -> bool {
        let staged = self.log.staged_bytes();
        match self.sealed.len() {
            0 => true,
            under_way => under_way < self.config.groups_in_flight && staged >= self.config.overlap_bytes,
        }
    }

    /// Whether the limits of the log's device allow a write now; if not, a turn follows when they do.
    fn device_is_free(&mut self) -> bool {
        let Some(at) = self.ports.pace.wait(self.now) else { return true };
        if !std::mem::replace(&mut self.paced, true) {
            let (runtime, events) = (self.ports.runtime.clone(), self.events.clone());
            let wake = async move {
                runtime.sleep_until(at).await;
                let _gone = events.try_send(Event::Paced);
            };
            self.ports.runtime.spawn(Queue::Hot, "pace", Box::pin(wake));
        }
        false
    }

    fn seal(&mut self) {
        if self.poisoned {
            return self.refuse_waiting();
        }
        let Some(write) = self.log.seal(self.now) else { return };
        self.queue_appends(write.end);
        self.ports.meters.wal_group_bytes.record(write.buf.len() as f64);
        self.submit(write);
    }

    fn queue_appends(&mut self, need: Lsn) {
        for waiter in std::mem::take(&mut self.open_group.appends) {
            self.waiting.push_back(PendingAppend { need, waiter: Some(waiter) });
        }
    }

    /// Step 4: hands the group to the device, in a task that nobody drops.
    fn submit(&mut self, write: thalweg_wal::GroupWrite) {
        let thalweg_wal::GroupWrite { id, at, start, end, buf } = write;
        let (parts, tally) = (std::mem::take(&mut self.open_group.parts), std::mem::take(&mut self.open_group.tally));
        #[cfg(feature = "planted-bugs")]
        if thalweg_wal::planted(thalweg_wal::Bug::PromotedEarly) {
            parts.iter().for_each(|(partition, end)| self.expose(*partition, *end));
        }
        self.sealed.push_back(SealedGroup { end, sealed_at: self.now, bytes: buf.len() as u64, parts, tally });
        self.last_write = self.now;
        self.ports.pace.group(self.now);
        failpoint::pass("append-sealed");
        self.write_device(Queue::Hot, "wal-write", at, buf, move |result, buf| Event::Written {
            id,
            start,
            result,
            group: buf.freeze(),
        });
    }

    /// Writes to the slice in a task that nobody drops, at the expense of the device's limits; `ended` is what the shard is
    /// told then.
    pub(crate) fn write_device(
        &self,
        queue: Queue,
        name: &'static str,
        at: u64,
        buf: IoBuf,
        ended: impl FnOnce(io::Result<()>, IoBuf) -> Event + 'static,
    ) {
        self.ports.pace.spend(self.now, buf.len() as u64);
        let (done, events) = (self.ports.device.write(at, buf), self.events.clone());
        let task = async move {
            let (result, buf) = done.await;
            let _gone = events.try_send(ended(result, buf));
        };
        self.ports.runtime.spawn(queue, name, Box::pin(task));
    }

    /// Step 5: a group is durable (or not): exposes the contiguous durable prefix.
    pub(crate) fn written(&mut self, id: GroupId, start: Lsn, result: io::Result<()>, group: Bytes) {
        let durable = match self.log.written(id, result) {
            Ok(durable) => durable,
            Err(poisoned) => return self.poison(&poisoned.to_string()),
        };
        failpoint::pass("append-durable");
        self.cache.insert(start, group);
        while self.sealed.front().is_some_and(|g| g.end <= durable) {
            let Some(group) = self.sealed.pop_front() else { break };
            self.count_durable(&group);
            for (partition, end) in group.parts {
                self.expose(partition, end);
            }
        }
        failpoint::pass("append-exposed");
        self.acknowledge(durable);
        failpoint::pass("append-acknowledged");
    }

    fn count_durable(&self, group: &SealedGroup) {
        let meters = &self.ports.meters;
        meters.wal_commit_seconds.record(self.now.since(group.sealed_at).as_secs_f64());
        meters.appended_batches.increment(group.tally.batches);
        meters.appended_records.increment(group.tally.records);
        meters.appended_bytes.increment(group.tally.bytes);
        // Before anybody is answered: whoever was, and looks, sees that the log holds something.
        self.show_trim_lag();
    }

    /// Step 6: a partition's batches become visible, and parked fetches learn of it.
    fn expose(&mut self, id: PartitionId, end: Offset) {
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        if end > partition.high_watermark && end <= partition.next {
            partition.promote(end);
            self.watches.wake(id);
        }
    }

    /// Step 7: answers everybody whose records are durable.
    fn acknowledge(&mut self, durable: Lsn) {
        let throttle = self.throttle();
        while self.waiting.front().is_some_and(|p| p.need <= durable) {
            if let Some(Waiter { reply, results, returned, .. }) = self.waiting.pop_front().and_then(|p| p.waiter) {
                reply.send(Reply::Append { results, throttle, returned });
            }
        }
    }

    /// How long producers should pause, by what the ring has left for them.
    fn throttle(&self) -> Duration {
        throttle(self.log.free_bytes(), self.log.capacity_bytes())
    }

    /// Answers those whose time is up: the outcome is unknown to them, the batch stays.
    pub(crate) fn time_out_appends(&mut self) {
        let now = self.now;
        let staged = std::mem::take(&mut self.open_group.appends);
        let (late, in_time): (Vec<Waiter>, Vec<Waiter>) = staged.into_iter().partition(|w| w.deadline <= now);
        self.open_group.appends = in_time;
        let sealed = self.waiting.iter_mut().filter_map(|pending| pending.waiter.take_if(|w| w.deadline <= now));
        late.into_iter().chain(sealed).for_each(outcome_unknown);
    }

    /// After the slice is poisoned: the outcome of what was in flight is unknown.
    pub(crate) fn refuse_waiting(&mut self) {
        self.queue_appends(self.log.head());
        std::mem::take(&mut self.waiting).into_iter().filter_map(|p| p.waiter).for_each(outcome_unknown);
        // Nothing of it is exposed any more, and later requests are to hear that the slice is gone.
        self.sealed.clear();
    }

    /// Bytes sealed and not yet durable.
    pub(crate) fn bytes_in_flight(&self) -> u64 {
        self.sealed.iter().map(|g| g.bytes).sum()
    }

    /// Zeroes ahead of the head on the first lap, so that no append pays for unwritten extents: up to the lead, or to the ring's end
    /// while no shard has written for a while, or none yet. The next step follows when this one is done.
    pub(crate) fn zero_in_rest(&mut self) {
        let quiet_for = self.ports.pace.quiet_for(self.now);
        self.zero_ahead(self.sealed.is_empty() && quiet_for >= ZERO_AFTER);
    }

    /// Zeroes one step ahead of the head, up to the lead or `beyond_lead`.
    ///
    /// Not while groups are under way: zeros double what the device writes, and cost records more than unwritten extents do.
    pub(crate) fn zero_ahead(&mut self, beyond_lead: bool) {
        let far_enough = !beyond_lead && self.log.zeroed_ahead_bytes() >= ZERO_LEAD_BYTES;
        if self.poisoned || far_enough || !self.sealed.is_empty() || self.ports.pace.wait(self.now).is_some() {
            return;
        }
        let Some(write) = self.log.zero_ahead(ZERO_CHUNK_BYTES) else { return };
        self.write_device(Queue::Upload, "wal-zero", write.at, write.buf, |result, _| Event::Zeroed(result));
    }

    /// After a burst, a marker group carries the durable LSN past the last group, so that damage to it is known as such.
    pub(crate) fn confirm_last_group(&mut self) {
        let resting = self.sealed.is_empty() && self.now.since(self.last_write) >= CONFIRM_AFTER;
        if !resting || self.poisoned || self.log.staged_bytes() != 0 {
            return;
        }
        if let Some(write) = self.log.marker(self.now) {
            self.submit(write);
        }
    }
}
