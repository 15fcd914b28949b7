//! The shard: one actor, one core, short turns.
//!
//! A turn takes what lies in the mailbox (control first, then all completions, then at most 64 requests or 100 us of
//! them), lets the partitions stage it, and seals one WAL group: group commit without a timer. Under load groups grow;
//! idle, a lone record leaves at once. Nothing in a turn waits. The steps of an append are in `append`, those of a read in
//! `read`, uploads in `upload`, retention in `janitor`; all are `impl Shard`, because all touch the same state in turns.

#[cfg(test)]
mod small;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use flume::Sender;
use thalweg_record::{Mono, PartitionId, ShardId, Wall, failpoint};
use thalweg_wal::{Device, Log, Lsn};

use crate::{
    append::{OpenGroup, PendingAppend, SealedGroup},
    cleaning::{Cleaner, CleaningPorts},
    cold::ColdRequest,
    compaction::{CompactionPorts, Compactor},
    event::Event,
    folding::Folder,
    janitor::Janitor,
    mailbox::{ShardInbox, ShardLane},
    meta::MetaRequest,
    meters::{BusyRatio, ShardMeters},
    moves::{Loan, Sealing},
    msg::{Control, Generation, Ownership, PartitionChange, Request},
    pace::DevicePace,
    partition::{Partition, Role},
    partitions::Partitions,
    read::RingReads,
    runtime::{Queue, Runtime},
    store::StoreLane,
    tail_cache::TailCache,
    upload::Uploader,
    watches::Watches,
    woken::{Woken, first_message},
};

/// At most this many requests in a turn.
const REQUESTS_PER_TURN: usize = 64;
/// At most this many control messages in a turn.
const CONTROL_PER_TURN: usize = 16;
/// While the device's limits hold a group back, it takes no more requests beyond this.
const PACED_GROUP_BYTES: u64 = 1 << 20;
/// A turn that has run this long seals.
const TURN: Duration = Duration::from_micros(100);
/// Pace of deadlines, retention and idle markers.
const TICK: Duration = Duration::from_millis(100);

/// Figures and limits of one shard; the process-wide settings divided by the number of shards where they are shared.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Which shard.
    pub id: ShardId,
    /// Identity of this broker, for objects' properties.
    pub identity: crate::upload::WriterIdentity,
    /// Bytes that the tail cache may pin.
    pub tail_cache_bytes: u64,
    /// Groups in flight before a group that is not full waits for company.
    pub groups_in_flight: usize,
    /// A group of this size is written beside another; a smaller one waits until it is alone.
    pub overlap_bytes: u32,
    /// Bytes sealed and not yet durable; beyond them requests wait in the mailbox.
    pub wal_bytes_in_flight: u64,
    /// Bytes of ring reads in flight.
    pub ring_read_bytes: u64,
    /// When to upload, and how objects are cut.
    pub upload: crate::upload::UploadConfig,
    /// `log.retention.check.interval.ms`.
    pub retention_check_interval: Duration,
    /// `producer.id.expiration.ms`.
    pub producer_expiration: Duration,
    /// `metadata.partition.entries.max`, >= 1.
    pub entries_max: usize,
}

/// What a shard talks to.
pub struct ShardPorts {
    /// Its core.
    pub runtime: Rc<dyn Runtime>,
    /// Its WAL slice's device.
    pub device: Rc<dyn Device>,
    /// Its mailbox.
    pub inbox: ShardInbox,
    /// The metadata actor.
    pub meta: Sender<MetaRequest>,
    /// The object-store engine.
    pub store: StoreLane,
    /// What it compacts objects with, if it does.
    pub compaction: Option<CompactionPorts>,
    /// What it cleans logs with, if it does.
    pub cleaning: Option<CleaningPorts>,
    /// The cold reader of this core.
    pub cold: Sender<ColdRequest>,
    /// The coordinators of this core.
    pub ownership: Sender<Ownership>,
    /// All shards of the broker, by id; none when no partition ever moves.
    pub peers: Vec<ShardLane>,
    /// Limits of the device under the log, shared by all shards.
    pub pace: Arc<DevicePace>,
    /// Where a shard that cannot go on says why: the broker then stops with an error.
    pub failed: Sender<String>,
    /// Metric handles.
    pub meters: Rc<ShardMeters>,
}

/// One shard's state. Owned by its actor task.
pub struct Shard {
    pub(crate) config: ShardConfig,
    pub(crate) ports: ShardPorts,
    pub(crate) events: Sender<Event>,
    events_in: flume::Receiver<Event>,
    pub(crate) log: Log,
    pub(crate) partitions: Partitions,
    pub(crate) revision: u64,
    pub(crate) cache: TailCache,
    pub(crate) watches: Watches,
    pub(crate) open_group: OpenGroup,
    pub(crate) sealed: VecDeque<SealedGroup>,
    pub(crate) waiting: VecDeque<PendingAppend>,
    pub(crate) ring_reads: RingReads,
    pub(crate) reading: BTreeMap<Lsn, u32>,
    pub(crate) uploader: Uploader,
    pub(crate) janitor: Janitor,
    pub(crate) compactor: Compactor,
    /// Partitions that were here, and where they went, in which generation.
    pub(crate) moved: BTreeMap<PartitionId, (ShardId, Generation)>,
    pub(crate) sealing: Vec<Sealing>,
    /// Partitions of which this shard lends something to their new owners.
    pub(crate) lending: BTreeSet<PartitionId>,
    /// Time spent in turns since it was last asked for.
    pub(crate) busy_ns: u64,
    pub(crate) cleaner: Cleaner,
    pub(crate) folder: Folder,
    pub(crate) trim_target: Lsn,
    /// Batches that no upload has taken up.
    pub(crate) batches_waiting: usize,
    pub(crate) last_write: Mono,
    busy: BusyRatio,
    /// A wake-up is under way for when the device's limits allow the next write.
    pub(crate) paced: bool,
    pub(crate) poisoned: bool,
    stopping: Option<Stopping>,
    /// Sampled once per turn.
    pub(crate) now: Mono,
    /// Sampled once per turn.
    pub(crate) wall: Wall,
}

struct Stopping {
    deadline: Mono,
    done: Sender<u64>,
}

impl Shard {
    /// A shard on an opened log. Partitions follow through [`Control::Apply`] or [`Shard::adopt`].
    pub fn new(config: ShardConfig, ports: ShardPorts, log: Log) -> Shard {
        let (events, events_in) = flume::unbounded();
        let (now, wall) = (ports.runtime.mono(), ports.runtime.wall());
        Shard {
            cache: TailCache::new(config.tail_cache_bytes),
            ring_reads: RingReads::new(config.ring_read_bytes),
            uploader: Uploader::new(log.trim_point(), now),
            janitor: Janitor::new(now),
            compactor: Compactor::new(now),
            moved: BTreeMap::new(),
            sealing: Vec::new(),
            lending: BTreeSet::new(),
            busy_ns: 0,
            cleaner: Cleaner::new(now),
            folder: Folder::new(now),
            trim_target: log.trim_point(),
            batches_waiting: 0,
            config,
            ports,
            events,
            events_in,
            log,
            partitions: Partitions::default(),
            revision: 0,
            watches: Watches::default(),
            open_group: OpenGroup::default(),
            sealed: VecDeque::new(),
            waiting: VecDeque::new(),
            reading: BTreeMap::new(),
            last_write: now,
            busy: BusyRatio::new(now),
            paced: false,
            poisoned: false,
            stopping: None,
            now,
            wall,
        }
    }

    /// Opens partitions at start-up and gives them the batches that recovery found, in log order. Batches of partitions
    /// that are not among `specs` belong to deleted topics and are resolved.
    ///
    /// # Errors
    /// The partition and the offset at which batches are missing: acknowledged data is damaged.
    pub fn adopt(
        &mut self,
        revision: u64,
        specs: Vec<crate::msg::PartitionSpec>,
        batches: &[thalweg_wal::RecoveredBatch],
    ) -> Result<(), String> {
        self.revision = revision;
        for mut spec in specs {
            let loan = spec.loan.take();
            let mut partition = Partition::open(spec);
            match loan {
                Some(Loan::To(owner)) => {
                    partition.role = Role::Lender;
                    self.lending.insert(partition.id);
                    self.moved.insert(partition.id, (owner, Generation(0)));
                }
                Some(Loan::From { lender, heads }) => {
                    for head in &heads {
                        partition.recover_borrowed(lender, head).map_err(|at| missing(&partition, head, at))?;
                    }
                }
                None => {}
            }
            self.partitions.insert(partition);
        }
        for batch in batches {
            let Some(partition) = self.partitions.get_mut(&batch.partition) else { continue };
            let recovered = partition.recover(&batch.head, batch.lsn);
            recovered.map_err(|at| missing(partition, &batch.head, at))?;
        }
        for partition in self.partitions.iter_mut() {
            partition.recovered();
        }
        for partition in self.partitions.iter().filter(|p| p.internal) {
            let _gone = self.ports.ownership.try_send(opened(partition));
        }
        self.batches_waiting = self.partitions.iter().map(Partition::waiting).sum();
        self.count_partitions();
        Ok(())
    }

    /// The log holds batches that were not adopted because they count no more: they are resolved as soon as it runs.
    pub fn gave_up(&mut self) {
        self.uploader.deleted();
    }

    /// Serves until control says stop and everything is done, or the process ends.
    pub async fn run(mut self) {
        let ticking = Rc::new(Cell::new(true));
        self.start_ticking(ticking.clone());
        self.show_figures();
        self.zero_in_rest();
        loop {
            let (inbox, open) = (&self.ports.inbox, self.accepts_requests());
            let woken = first_message(&inbox.control, &self.events_in, open.then_some(&inbox.data)).await;
            if matches!(woken, Woken::Closed) || self.turn(woken) {
                break;
            }
            if self.has_work() {
                self.ports.runtime.breathe().await;
            }
        }
        ticking.set(false);
        self.finish().await;
    }

    /// The last act: marks an empty slice as closed, and says what stays in it.
    async fn finish(mut self) {
        let left = self.unresolved_bytes();
        failpoint::pass("stop-drained");
        let mark = if left == 0 && !self.poisoned { self.log.close() } else { None };
        if let Some(write) = mark {
            if let (Err(error), _) = self.ports.device.write(write.at, write.buf).await {
                tracing::warn!(shard = self.config.id.0, %error, "the closed WAL slice could not be marked as such");
            }
        }
        failpoint::pass("stop-marked");
        if let Some(stop) = self.stopping {
            let _gone = stop.done.try_send(left);
        }
    }

    fn start_ticking(&self, ticking: Rc<Cell<bool>>) {
        let (runtime, events) = (self.ports.runtime.clone(), self.events.clone());
        let tick = async move {
            while ticking.get() {
                runtime.sleep_until(runtime.mono().plus(TICK)).await;
                if events.try_send(Event::Tick).is_err() {
                    break;
                }
            }
        };
        self.ports.runtime.spawn(Queue::Hot, "tick", Box::pin(tick));
    }

    fn accepts_requests(&self) -> bool {
        let waits_for_device = self.paced && u64::from(self.log.staged_bytes()) > PACED_GROUP_BYTES;
        self.bytes_in_flight() <= self.config.wal_bytes_in_flight && !waits_for_device
    }

    fn has_work(&self) -> bool {
        !self.ports.inbox.control.is_empty()
            || !self.events_in.is_empty()
            || (self.accepts_requests() && !self.ports.inbox.data.is_empty())
    }

    /// One turn; true when the shard is done for good.
    fn turn(&mut self, first: Woken) -> bool {
        self.now = self.ports.runtime.mono();
        self.wall = self.ports.runtime.wall();
        let began = self.now;
        self.ports.meters.mailbox_depth.set(self.ports.inbox.data.len() as f64);
        let mut requests = 0;
        match first {
            Woken::Control(message) => self.control(message),
            Woken::Event(event) => self.event(event),
            Woken::Request(request) => {
                requests = 1;
                self.request(request);
            }
            Woken::Closed => {}
        }
        for _ in 0..CONTROL_PER_TURN {
            let Ok(message) = self.ports.inbox.control.try_recv() else { break };
            self.control(message);
        }
        while let Ok(event) = self.events_in.try_recv() {
            self.event(event);
        }
        // What was said before a request was sent is done before it is served.
        while requests < REQUESTS_PER_TURN && self.accepts_requests() && self.ports.inbox.control.is_empty() {
            let Ok(request) = self.ports.inbox.data.try_recv() else { break };
            self.request(request);
            requests += 1;
            if requests % 8 == 0 && self.ports.runtime.mono().since(began) > TURN {
                break;
            }
        }
        self.end_turn();
        let ended = self.ports.runtime.mono();
        self.ports.meters.turn_seconds.record(ended.since(began).as_secs_f64());
        self.busy_ns += ended.0.saturating_sub(began.0);
        if let Some(ratio) = self.busy.turn(began, ended) {
            self.ports.meters.busy_ratio.set(ratio);
        }
        self.stopped()
    }

    fn end_turn(&mut self) {
        self.seal_if_due();
        self.report_sealed();
        self.plan_uploads();
        self.advance_trim();
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::Append(append) => self.append(*append),
            Request::Probe(probe) => self.probe(*probe),
            Request::Take(take) => self.take(*take),
            Request::Offsets(offsets) => self.offsets(*offsets),
            Request::EpochEnds(ends) => self.epoch_ends(*ends),
            Request::RaiseLogStart(raise) => self.delete_records(*raise),
            Request::Describe(describe) => self.describe(*describe),
            Request::Producers(producers) => self.producers(*producers),
            Request::ReadLent(read) => self.read_lent(*read),
            Request::FindLent(search) => self.find_lent(*search),
            Request::ConnGone(conn) => {
                self.watches.remove(conn);
                let _gone = self.ports.cold.try_send(ColdRequest::ConnGone(conn));
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Written { id, start, result, group } => self.written(id, start, result, group),
            Event::Superblock(result) => match self.log.superblock_written(result) {
                Ok(Some(next)) => {
                    failpoint::pass("trim-between-superblocks");
                    self.write_superblock(next);
                }
                Ok(None) => failpoint::pass("trim-done"),
                Err(poisoned) => self.poison(&poisoned.to_string()),
            },
            Event::Paced => self.paced = false,
            Event::Zeroed(result) => {
                if let Err(poisoned) = self.log.zeroed(result) {
                    self.poison(&poisoned.to_string());
                }
                self.zero_in_rest();
            }
            Event::ReadRing(read) => self.read_ring(read),
            Event::LookUp(again) => self.look_up_again(again),
            Event::RingReadEnded { result, read } => self.ring_read_ended(result, read),
            Event::Committed { objects } => self.committed(objects),
            Event::UploadEnded { job, result } => self.upload_ended(job, result),
            Event::LogStarts(expired) => self.retention_recorded(&expired),
            Event::LogStartsRaised(reply, results, starts) => self.log_starts_raised(&reply, results, &starts),
            Event::Inquiry(inquiry) => self.inquiry(inquiry),
            Event::Compacted { objects } => self.compacted(objects),
            Event::CompactionEnded(result) => self.compaction_ended(result),
            Event::CleaningInquiry(inquiry) => self.cleaning_inquiry(inquiry),
            Event::PartCleaned(partition, object) => self.part_cleaned(partition, object),
            Event::Cleaned(partition, to) => self.cleaned(partition, to),
            Event::CleaningEnded(ended) => self.cleaning_ended(ended),
            Event::Folded(partition, manifest) => self.folded(partition, manifest),
            Event::Unfolded(partition, manifest, entries) => self.unfolded(partition, manifest, entries),
            Event::FoldingEnded(result) => self.folding_ended(result),
            Event::ReadAgain(again) => self.read_again(again),
            Event::Tick => self.tick(),
        }
    }

    fn control(&mut self, message: Control) {
        match message {
            Control::Apply { revision, changes, done } => {
                if revision > self.revision {
                    self.revision = revision;
                    for change in changes {
                        self.change(change);
                    }
                }
                let _gone = done.try_send(self.config.id);
            }
            Control::Seal { partitions, generation, sealed } => self.seal_partitions(partitions, generation, sealed),
            Control::HandOver { moves, generation, taken } => self.hand_over(moves, generation, &taken),
            Control::Peer(message) => self.peer(*message),
            Control::Measure(reply) => {
                let _gone = reply.try_send(self.measure());
            }
            Control::ExpireProducers { after } => self.config.producer_expiration = after,
            Control::TuneCleaner(tuning) => self.tune_cleaner(tuning),
            Control::Stop { deadline, done } => {
                self.stopping = Some(Stopping { deadline, done });
                self.uploader.drain();
            }
        }
    }

    pub(crate) fn change(&mut self, change: PartitionChange) {
        match change {
            PartitionChange::Open(spec) => {
                let partition = Partition::open(*spec);
                if partition.internal {
                    let _gone = self.ports.ownership.try_send(opened(&partition));
                }
                self.partitions.insert(partition);
            }
            PartitionChange::Configure(id, settings) => {
                if let Some(partition) = self.partitions.get_mut(&id) {
                    partition.settings = settings;
                }
            }
            PartitionChange::Delete(id) => {
                let deleted = self.partitions.remove(&id);
                let waited = deleted.as_ref().map_or(0, Partition::waiting);
                self.batches_waiting = self.batches_waiting.saturating_sub(waited);
                if let Some(partition) = deleted.filter(|p| p.internal) {
                    let sealed = Ownership::Sealed { partition: id, epoch: partition.epoch };
                    let _gone = self.ports.ownership.try_send(sealed);
                }
                self.moved.remove(&id);
                self.lending.remove(&id);
                self.watches.wake(id);
                self.uploader.deleted();
            }
        }
        self.count_partitions();
    }

    fn tick(&mut self) {
        self.time_out_appends();
        self.zero_in_rest();
        self.confirm_last_group();
        self.resolve_deleted();
        self.run_janitor();
        self.run_cleaning();
        self.run_compaction();
        self.run_folding();
        self.show_figures();
    }

    pub(crate) fn show_trim_lag(&self) {
        let lag = self.log.durable().0 - self.log.trim_point().0;
        self.ports.meters.wal_trim_lag_bytes.set(lag as f64);
    }

    fn show_figures(&self) {
        let meters = &self.ports.meters;
        meters.wal_used_bytes.set(self.log.used_bytes() as f64);
        meters.wal_capacity_bytes.set(self.log.capacity_bytes() as f64);
        self.show_trim_lag();
        meters.tail_cache_bytes.set(self.cache.bytes() as f64);
        meters.fetch_watches.set(self.watches.connections() as f64);
        meters.staged_bytes.set(self.bytes_in_flight() as f64);
    }

    /// Whether appends are refused because the shard stops.
    pub(crate) fn refuses_appends(&self) -> bool {
        self.poisoned || self.stopping.is_some()
    }

    /// Ends the shard's life as a writer: nothing is acknowledged any more.
    pub(crate) fn poison(&mut self, why: &str) {
        if !self.poisoned {
            self.poisoned = true;
            let text = format!(
                "shard {}: {why}; nothing more is acknowledged. What was acknowledged is durable: look at the disk, then start \
                 again",
                self.config.id
            );
            let _gone = self.ports.failed.try_send(text);
        }
        self.refuse_waiting();
    }

    /// Whether a stop is complete: all durable, uploaded and trimmed, or out of time. A poisoned slice is never trimmed, and what
    /// is staged in it never becomes durable.
    fn stopped(&mut self) -> bool {
        let Some(stop) = &self.stopping else { return false };
        let late = self.now >= stop.deadline;
        let uploaded = self.unresolved_bytes() == 0;
        if self.poisoned {
            return uploaded || late;
        }
        let idle = self.sealed.is_empty() && self.log.staged_bytes() == 0 && self.waiting.is_empty();
        idle && (late || (uploaded && self.log.trim_point() >= self.log.durable()))
    }
}

fn missing(partition: &Partition, head: &thalweg_record::BatchHead, at: thalweg_record::Offset) -> String {
    format!(
        "partition {} of topic {}: the WAL goes on at offset {}, but offset {at} is neither in it nor in a committed object",
        partition.id.index,
        partition.topic_name,
        head.base_offset()
    )
}

fn opened(partition: &Partition) -> Ownership {
    Ownership::Opened {
        topic_name: partition.topic_name.clone(),
        partition: partition.id,
        epoch: partition.epoch,
        log_start: partition.log_start,
        end: partition.high_watermark,
    }
}
