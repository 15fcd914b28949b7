//! The read path of a shard over its three tiers: tail cache, ring, objects.
//!
//! Runs inside the shard's turn. What is in memory is handed out at once, without a copy; the rest is marked pending and
//! comes later from a task of the cold queue; who asks has made room for it (`src/api/k01_fetch/room.rs`).

use std::rc::Rc;

use bytes::Bytes;
use flume::Sender;
use metrics::Counter;
use thalweg_record::{Offset, PartitionId, ShardId};
use thalweg_wal::Lsn;

use crate::{
    cold::{ColdError, ColdManifest, ColdRead, ColdRequest, Entries},
    event::Event,
    mailbox::ReplyTo,
    meta::{CommittedObject, ManifestRef, ObjectId},
    moves::{Borrowed, LentRead},
    msg::{
        DescribeRequest, EpochEnd, EpochEndsRequest, FetchFrom, Isolation, PartitionError, ProbeRequest, ProbeState,
        ProducersRequest, RaiseLogStartRequest, Records, Reply, Request, TakeRequest, Taken,
    },
    partition::{Partition, RingEntry, Role, Tier, to_read},
    ring_read::RingRead,
    runtime::Queue,
    shard::Shard,
};

pub(crate) use crate::ring_read::RingReads;

/// How often a read begins anew when its object is gone and another has taken its place.
const TRIES: u32 = 4;

/// Where the first record asked for lies.
enum Source {
    Memory,
    Ring,
    Objects,
    Listed(Rc<ManifestRef>),
    Lender(Borrowed),
    Nothing,
}

impl Shard {
    /// First pass of a fetch: answers at once; the watch is registered in the same turn, so no append slips between.
    pub(crate) fn probe(&mut self, request: ProbeRequest) {
        let ProbeRequest { conn, parts, isolation, watch, reply } = request;
        let states = parts.iter().map(|part| self.probe_part(part, isolation)).collect();
        reply.send_more(Reply::Probe(states));
        if watch {
            self.watches.register(conn, parts.iter().map(|part| part.partition).collect(), reply);
        } else {
            reply.forget();
        }
    }

    fn readable(&self, part: &FetchFrom) -> Result<&Partition, PartitionError> {
        let partition = self.owned(&part.partition)?;
        partition.check_epoch(part.current_leader_epoch)?;
        partition.check_offset(part.offset)?;
        Ok(partition)
    }

    fn probe_part(&self, part: &FetchFrom, _isolation: Isolation) -> Result<ProbeState, PartitionError> {
        let partition = self.readable(part)?;
        let high_watermark = partition.high_watermark;
        let state = |bytes: u64, first: u32, slow| ProbeState {
            bytes: bytes.min(u64::from(part.max_bytes)).max(u64::from(first)),
            first_batch_bytes: first,
            slow,
            high_watermark,
        };
        Ok(match self.source(partition, part.offset) {
            Source::Nothing => state(0, 0, false),
            Source::Memory => {
                let (bytes, first) = partition.ring.bytes_from(part.offset, partition.readable_end());
                state(bytes, first, false)
            }
            Source::Ring => {
                let (bytes, first) = partition.ring.bytes_from(part.offset, partition.readable_end());
                state(bytes, first, true)
            }
            Source::Objects => {
                let batch = partition.settings.max_message_bytes;
                let bytes = partition.objects.bytes_to_read(part.offset, u64::from(part.max_bytes.max(batch)));
                let first = bytes.min(u64::from(batch)) as u32;
                state(bytes, first, true)
            }
            Source::Listed(manifest) => {
                let bytes = manifest.size_bytes;
                state(bytes, bytes.min(u64::from(partition.settings.max_message_bytes)) as u32, true)
            }
            Source::Lender(borrowed) => {
                // An estimate, and there is at least one batch.
                let bytes = borrowed.bytes_from(part.offset, partition.committed_end);
                let first = bytes.clamp(1, u64::from(partition.settings.max_message_bytes)) as u32;
                state(bytes.max(1), first, true)
            }
        })
    }

    fn source(&self, partition: &Partition, offset: Offset) -> Source {
        let ring = match partition.tier(offset) {
            Tier::End => return Source::Nothing,
            Tier::Objects => return Source::Objects,
            Tier::Listed(manifest) => return Source::Listed(manifest),
            Tier::Lender => return partition.borrowed.clone().map_or(Source::Nothing, Source::Lender),
            Tier::Ring => partition.ring.from(offset, partition.readable_end()).next(),
        };
        match ring {
            None => Source::Nothing,
            Some(entry) if self.cached(entry) => Source::Memory,
            Some(entry) if entry.lsn >= self.log.trim_point() => Source::Ring,
            // Trimmed meanwhile, and no longer in memory: its object is committed.
            Some(_) => match partition.stored(offset) {
                Tier::Listed(manifest) => Source::Listed(manifest),
                _ => Source::Objects,
            },
        }
    }

    fn cached(&self, entry: &RingEntry) -> bool {
        self.cache.get(entry.lsn, entry.size as usize).is_some()
    }

    /// Second pass of a fetch: hands out whole batches.
    pub(crate) fn take(&mut self, request: TakeRequest) {
        let TakeRequest { conn, parts, at_least_one, reply, .. } = request;
        let reply = Rc::new(reply);
        let mut owed = at_least_one;
        let mut taken = Vec::with_capacity(parts.len());
        let mut slow = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            let got = self.take_part(part, owed).map(|(head, source)| match source {
                Found::Ready(pieces) => {
                    owed &= pieces.is_empty();
                    Taken { records: Records::Ready(pieces), ..head }
                }
                other => {
                    slow.push((at as u32, other, owed));
                    owed = false;
                    Taken { records: Records::Pending, ..head }
                }
            });
            taken.push(got);
        }
        reply.send_more(Reply::Take(taken));
        let pending = !slow.is_empty();
        for (at, source, owed) in slow {
            let (part, reply) = (parts[at as usize], reply.clone());
            let again = ReadAgain { conn, at, part, owed, reply, tries: TRIES, gone: None };
            self.take_late(again, source);
        }
        if !pending {
            if let Ok(reply) = Rc::try_unwrap(reply) {
                reply.forget();
            }
        }
    }

    fn take_part(&self, part: &FetchFrom, owed: bool) -> Result<(Taken, Found), PartitionError> {
        let partition = self.readable(part)?;
        let head = frame(partition);
        partition.load.count(0);
        if part.max_bytes == 0 && !owed {
            return Ok((head, Found::Ready(Vec::new())));
        }
        let found = match self.source(partition, part.offset) {
            Source::Nothing => Found::Ready(Vec::new()),
            Source::Objects => Found::Objects(partition.objects.to_read(part.offset)),
            Source::Listed(manifest) => Found::Listed(manifest),
            Source::Lender(Borrowed { from, .. }) => Found::Lender(from),
            Source::Memory => {
                let batches = self.within(partition, part, owed, true);
                let pieces = self.in_memory(&batches);
                let meters = &self.ports.meters;
                count_read(&meters.reads.tail, &meters.read_bytes.tail, &pieces);
                partition
                    .load
                    .bytes
                    .set(partition.load.bytes.get() + pieces.iter().map(|p| p.len() as u64).sum::<u64>());
                Found::Ready(pieces)
            }
            Source::Ring => Found::Ring(self.within(partition, part, owed, false)),
        };
        Ok((head, found))
    }

    /// The batches from the part's offset on that fit its limit and lie in the same tier as the first.
    fn within(&self, partition: &Partition, part: &FetchFrom, owed: bool, cached: bool) -> Vec<RingEntry> {
        let mut bytes = 0u64;
        let mut batches = Vec::new();
        for entry in partition.ring.from(part.offset, partition.readable_end()) {
            bytes += u64::from(entry.size);
            let first = batches.is_empty() && owed;
            if (bytes > u64::from(part.max_bytes) && !first) || (!cached && !batches.is_empty() && self.cached(entry)) {
                break;
            }
            batches.push(*entry);
        }
        batches
    }

    /// What memory has of `batches`, never past one that is not here: a reader takes what it is given for all there is.
    pub(crate) fn in_memory(&self, batches: &[RingEntry]) -> Vec<Bytes> {
        runs(batches).map_while(|(lsn, len)| self.cache.get(lsn, len)).collect()
    }

    fn take_late(&mut self, read: ReadAgain, source: Found) {
        let Some(partition) = self.partitions.get(&read.part.partition) else { return };
        let (head, reply, at, part) = (frame(partition), read.reply.clone(), read.at, read.part);
        match source {
            Found::Ready(_) => {}
            Found::Ring(batches) => {
                let done = move |read: std::io::Result<Vec<Bytes>>| {
                    let late = match read {
                        Ok(batches) => Ok(Records::Ready(batches)),
                        // The ring was trimmed meanwhile: the next fetch finds the batches in objects.
                        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(Records::Pending),
                        Err(_) => Err(PartitionError::Storage),
                    };
                    reply.send_more(Reply::Late(at, late.map(|records| Taken { records, ..head })));
                };
                self.read_ring(RingRead::new(batches, Box::new(done)));
            }
            Found::Lender(shard) => {
                let (tell, told) = flume::bounded(1);
                let FetchFrom { partition, offset, max_bytes, .. } = part;
                let ask = LentRead { partition, offset, max_bytes, at_least_one: read.owed, reply: tell };
                if let Some(lane) = self.ports.peers.get(usize::from(shard.0)) {
                    lane.send(Request::ReadLent(Box::new(ask)));
                }
                let wait = async move {
                    let late = match told.recv_async().await {
                        Ok(Some(pieces)) => Ok(Records::Ready(pieces)),
                        // The loan is over: the next fetch finds the batches in objects.
                        Ok(None) => Ok(Records::Pending),
                        Err(_dropped) => Err(PartitionError::Storage),
                    };
                    reply.send_more(Reply::Late(at, late.map(|records| Taken { records, ..head })));
                };
                self.ports.runtime.spawn(Queue::Hot, "lent-read", Box::pin(wait));
            }
            stored @ (Found::Objects(_) | Found::Listed(_)) => {
                let (meters, events) = (self.ports.meters.clone(), self.events.clone());
                let (conn, owed) = (read.conn, read.owed);
                let done = Box::new(move |found: Result<Vec<Bytes>, ColdError>| {
                    count_read(&meters.reads.object, &meters.read_bytes.object, found.as_deref().unwrap_or_default());
                    if let Err(ColdError::Gone(object)) = found {
                        // One that the partition still names after it was asked again is lost, and stays so.
                        if read.tries > 0 && read.gone != Some(object) {
                            let again = ReadAgain { tries: read.tries - 1, gone: Some(object), ..read };
                            let _stopping = events.try_send(Event::ReadAgain(again));
                            return;
                        }
                        tracing::error!(object = object.0, "an object that the metadata names is not in the store");
                    }
                    let late = found.map_err(|_| PartitionError::Storage);
                    reply.send_more(Reply::Late(at, late.map(|p| Taken { records: Records::Ready(p), ..head })));
                });
                let (offset, objects) = (part.offset, Vec::new());
                let cold_read = ColdRead {
                    conn,
                    partition: part.partition,
                    objects,
                    offset,
                    up_to: partition.readable_end(),
                    max_bytes: part.max_bytes,
                    at_least_one: owed,
                    done,
                };
                let cold = self.ports.cold.clone();
                match stored {
                    Found::Listed(manifest) => read_listed(cold, manifest, cold_read),
                    Found::Objects(objects) => {
                        let _gone = cold.try_send(ColdRequest::Read(ColdRead { objects, ..cold_read }));
                    }
                    Found::Ready(_) | Found::Ring(_) | Found::Lender(_) => {}
                }
            }
        }
    }

    /// Begins a read anew whose object is gone: compaction has put another in its place, and the partition knows which.
    pub(crate) fn read_again(&mut self, again: ReadAgain) {
        let (at, reply) = (again.at, again.reply.clone());
        match self.take_part(&again.part, again.owed) {
            Ok((head, Found::Ready(pieces))) => {
                reply.send_more(Reply::Late(at, Ok(Taken { records: Records::Ready(pieces), ..head })));
            }
            Ok((_, source)) => self.take_late(again, source),
            Err(error) => reply.send_more(Reply::Late(at, Err(error))),
        }
    }

    /// Where leader epochs end.
    pub(crate) fn epoch_ends(&mut self, request: EpochEndsRequest) {
        let EpochEndsRequest { parts, reply } = request;
        let ends = parts.into_iter().map(|(id, epoch, current)| {
            let partition = self.owned(&id)?;
            partition.check_epoch(current)?;
            if epoch > partition.epoch {
                return Ok(EpochEnd(None));
            }
            if epoch == partition.epoch {
                return Ok(EpochEnd(Some((epoch, partition.high_watermark))));
            }
            Ok(EpochEnd(partition.epochs.end_of(epoch, partition.high_watermark)))
        });
        let ends = ends.collect();
        reply.send(Reply::EpochEnds(ends));
    }

    /// Figures of partitions.
    pub(crate) fn describe(&mut self, request: DescribeRequest) {
        let DescribeRequest { partitions, reply } = request;
        let view = |p: &Partition| Ok(p.view(self.watches.on(p.id)));
        let views = if partitions.is_empty() {
            self.partitions.iter().filter(|p| p.role != Role::Lender).map(view).collect()
        } else {
            let one = |id: &PartitionId| view(self.owned(id)?);
            partitions.iter().map(one).collect()
        };
        reply.send(Reply::Describe(views));
    }

    /// Producers with a durable batch that is remembered.
    pub(crate) fn producers(&mut self, request: ProducersRequest) {
        let ProducersRequest { parts, reply } = request;
        let views = parts.into_iter().map(|id| {
            let partition = self.owned(&id)?;
            Ok(partition.producers.views(partition.high_watermark))
        });
        let views = views.collect();
        reply.send(Reply::Producers(views));
    }

    /// DeleteRecords: checks, lets the metadata record the new starts, answers when that is durable.
    pub(crate) fn delete_records(&mut self, request: RaiseLogStartRequest) {
        let RaiseLogStartRequest { parts, reply } = request;
        let mut starts = Vec::new();
        let checked = parts.into_iter().map(|(id, to)| {
            let partition = self.owned(&id)?;
            if let Role::Sealed(to_come) = partition.role {
                return Err(PartitionError::Moving(to_come));
            }
            if partition.settings.compact && !partition.settings.delete {
                return Err(PartitionError::PolicyViolation);
            }
            let (log_start, high_watermark) = (partition.log_start, partition.high_watermark);
            let to = to.unwrap_or(high_watermark);
            // Staged records do not count: they may never become durable.
            if to > high_watermark {
                return Err(PartitionError::OffsetOutOfRange { log_start, high_watermark });
            }
            if to > partition.log_start {
                starts.push((id, to));
            }
            Ok(to.max(partition.log_start))
        });
        let results: Vec<_> = checked.collect();
        self.record_log_starts(starts, move |starts| Event::LogStartsRaised(Rc::new(reply), results, starts));
    }

    /// The metadata has the new starts: readers meet them, and the client is answered.
    pub(crate) fn log_starts_raised(
        &mut self,
        reply: &Rc<ReplyTo>,
        results: Vec<Result<Offset, PartitionError>>,
        starts: &[(PartitionId, Offset)],
    ) {
        let meters = self.ports.meters.clone();
        for (id, to) in starts {
            let why = (*to, &meters.log_starts_moved.delete_records, &meters.dropped_bytes.delete_records);
            self.raise_log_start(id, [why]);
        }
        reply.send_more(Reply::LogStarts(results));
    }

    /// Lets readers meet a log start that is durable in the metadata. It moves in steps, of each of which is counted that it moved, and the
    /// bytes that went.
    pub(crate) fn raise_log_start<'a>(
        &mut self,
        id: &PartitionId,
        steps: impl IntoIterator<Item = (Offset, &'a Counter, &'a Counter)>,
    ) {
        let Some(partition) = self.partitions.get_mut(id) else { return };
        partition.raising = partition.raising.saturating_sub(1);
        for (to, moved, dropped_bytes) in steps {
            if let Some(bytes) = partition.raise_log_start(to) {
                moved.increment(1);
                dropped_bytes.increment(bytes);
            }
        }
        self.watches.wake(*id);
    }
}

/// A part of a take that is read from disk or store, and may have to begin anew.
pub(crate) struct ReadAgain {
    conn: crate::msg::ConnId,
    at: u32,
    part: FetchFrom,
    owed: bool,
    reply: Rc<ReplyTo>,
    /// How often it may.
    tries: u32,
    /// The object that was gone last time.
    gone: Option<ObjectId>,
}

/// What a part of a take found.
enum Found {
    Ready(Vec<Bytes>),
    Ring(Vec<RingEntry>),
    Objects(Vec<Rc<CommittedObject>>),
    Listed(Rc<ManifestRef>),
    Lender(ShardId),
}

/// Has a manifest looked into first; then the read goes to what it lists.
fn read_listed(cold: Sender<ColdRequest>, manifest: Rc<ManifestRef>, read: ColdRead) {
    let (partition, then) = (read.partition, cold.clone());
    let done = Box::new(move |listed: Result<Entries, ColdError>| match listed {
        Ok(entries) => {
            let at = entries.partition_point(|entry| entry.last < read.offset);
            let objects = to_read(entries.iter().skip(at));
            let _gone = then.try_send(ColdRequest::Read(ColdRead { objects, ..read }));
        }
        Err(error) => (read.done)(Err(error)),
    });
    let _gone = cold.try_send(ColdRequest::Manifest(ColdManifest { partition, manifest, done }));
}

/// Counts a read that brought something.
pub(crate) fn count_read(reads: &Counter, bytes: &Counter, pieces: &[Bytes]) {
    if !pieces.is_empty() {
        reads.increment(1);
        bytes.increment(pieces.iter().map(|piece| piece.len() as u64).sum());
    }
}

fn frame(partition: &Partition) -> Taken {
    Taken {
        high_watermark: partition.high_watermark,
        last_stable: partition.readable_end(),
        log_start: partition.log_start,
        aborted: Vec::new(),
        records: Records::Pending,
    }
}

/// Joins batches that lie one behind the other into runs: (first LSN, length).
pub(crate) fn runs(batches: &[RingEntry]) -> impl Iterator<Item = (Lsn, usize)> {
    batches.chunk_by(|a, b| a.lsn.0 + u64::from(a.size) == b.lsn.0).map(|run| {
        let bytes = run.iter().map(|e| e.size as usize).sum();
        (run[0].lsn, bytes)
    })
}
