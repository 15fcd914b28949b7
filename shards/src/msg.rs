//! Everything that crosses shards: requests, answers, control. All `Send`, all small: large parts are boxed or `Bytes`.

mod settings;

use std::time::Duration;

use bytes::Bytes;
use thalweg_record::{Batch, LeaderEpoch, Mono, Offset, PartitionId, Wall};

use crate::batch::BadRecords;
use crate::mailbox::ReplyTo;
use crate::meta::{CommittedObject, ManifestRef};

pub use settings::{CleaningSettings, Millionths, PartitionSettings};

/// Counts how often the owners of partitions changed since the broker started; everybody of one generation agrees on them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Generation(pub u64);

/// A connection of this process, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// What connections and coordinators ask of a shard.
#[derive(Debug)]
pub enum Request {
    /// Append one batch to each of some partitions; answered by [`Reply::Append`].
    Append(Box<AppendRequest>),
    /// How much is there to fetch; answered at once by [`Reply::Probe`], later by at most one [`Reply::Wake`] when it
    /// asked to watch.
    Probe(Box<ProbeRequest>),
    /// Hand out records; answered by [`Reply::Take`], then one [`Reply::Late`] for each part marked pending.
    Take(Box<TakeRequest>),
    /// Look up offsets by time or special value; answered by [`Reply::Offsets`].
    Offsets(Box<OffsetsRequest>),
    /// Where leader epochs end (KIP-101, KIP-320); answered by [`Reply::EpochEnds`].
    EpochEnds(Box<EpochEndsRequest>),
    /// Raise log starts (DeleteRecords); answered by [`Reply::LogStarts`] when durable.
    RaiseLogStart(Box<RaiseLogStartRequest>),
    /// Sizes and offsets for DescribeLogDirs, lag metrics and tests; answered by [`Reply::Describe`].
    Describe(Box<DescribeRequest>),
    /// Which producers partitions remember; answered by [`Reply::Producers`].
    Producers(Box<ProducersRequest>),
    /// The connection is closed: forget its watches.
    ConnGone(ConnId),
    /// Another shard of this broker reads what this one lends; see [`crate::moves`].
    ReadLent(Box<crate::moves::LentRead>),
    /// Another shard looks for a time in what this one lends.
    FindLent(Box<crate::moves::LentSearch>),
}

/// What a shard answers.
#[derive(Debug)]
pub enum Reply {
    /// To [`Request::Append`]: one result per batch, in request order, and how long the producer should pause.
    Append {
        /// What became of each batch.
        results: Vec<Result<Appended, PartitionError>>,
        /// Zero unless the ring is filling up.
        throttle: Duration,
        /// The batches that got [`PartitionError::Moving`], as they were sent, each with its place in the request.
        returned: Vec<(usize, Batch)>,
    },
    /// To [`Request::Probe`], in request order.
    Probe(Vec<Result<ProbeState, PartitionError>>),
    /// Something that a watching probe saw has changed: probe again. Spent by one answer.
    Wake,
    /// To [`Request::Take`], in request order.
    Take(Vec<Result<Taken, PartitionError>>),
    /// A part of a take that was marked [`Records::Pending`]: its place in the request, and what was read; pending for good when it
    /// left the ring before it was read, and is to be asked for again.
    Late(u32, Result<Taken, PartitionError>),
    /// To [`Request::Offsets`], in request order.
    Offsets(Vec<Result<FoundOffset, PartitionError>>),
    /// To [`Request::EpochEnds`], in request order.
    EpochEnds(Vec<Result<EpochEnd, PartitionError>>),
    /// To [`Request::RaiseLogStart`]: the log start in force, in request order.
    LogStarts(Vec<Result<Offset, PartitionError>>),
    /// To [`Request::Describe`], in request order.
    Describe(Vec<Result<PartitionView, PartitionError>>),
    /// To [`Request::Producers`], in request order; of each partition by producer id.
    Producers(Vec<Result<Vec<ProducerView>, PartitionError>>),
    /// Whoever held the request is gone without an answer: the process is stopping.
    Dropped,
}

/// Why a shard did not do what a request asked of one partition. `src/api/errors.rs` maps each to Kafka's code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PartitionError {
    /// Not on this shard: the asker's snapshot is older or newer than the shard's revision given here.
    Moved(u64),
    /// It is moving to another shard, or has moved: ask the owner of this generation, or of a later one. Nothing was done.
    Moving(Generation),
    /// The caller's `current_leader_epoch` is behind (74).
    FencedLeaderEpoch,
    /// The caller's `current_leader_epoch` is ahead (75).
    UnknownLeaderEpoch,
    /// Below the log start or above the log end (1).
    OffsetOutOfRange {
        /// Log start offset.
        log_start: Offset,
        /// High watermark.
        high_watermark: Offset,
    },
    /// CRC or framing of the batch is wrong (2).
    CorruptMessage,
    /// The batch breaks a rule of the format (87): magic, counts, deltas, control bit, sequence without producer.
    InvalidRecord(&'static str),
    /// The greatest timestamp of a batch that is not looked into is outside the topic's limits, or the producer claims to
    /// have stamped LogAppendTime (32).
    InvalidTimestamp,
    /// Records of the batch break the topic's rules (87; 32 when a timestamp is among the faults).
    BadRecords(Box<BadRecords>),
    /// Batch larger than max.message.bytes (10).
    MessageTooLarge,
    /// zstd to a client that is too old, or a codec that does not exist (76).
    UnsupportedCompression,
    /// Sequence out of order (45).
    OutOfOrderSequence,
    /// Producer epoch below the current one (47).
    InvalidProducerEpoch,
    /// Nothing was appended: the ring is full (19).
    RingFull,
    /// The outcome is unknown at `timeout_ms` (7).
    TimedOut,
    /// The WAL slice is poisoned, or the shard is stopping: nothing was appended (6).
    Unavailable,
    /// Records could not be read from the ring or the object store for now (56 KAFKA_STORAGE_ERROR).
    Storage,
    /// The topic's policy forbids it (44).
    PolicyViolation,
}

impl PartitionError {
    /// Whether another shard has the partition, or nobody.
    pub fn is_elsewhere(&self) -> bool {
        matches!(self, PartitionError::Moved(_) | PartitionError::Moving(_))
    }
}

/// Who appends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A client: all checks, and the last 5 % of the ring are closed to it.
    Client,
    /// A coordinator or control: may use the reserve, may write control batches.
    Internal,
}

/// A produce for one shard.
#[derive(Debug)]
pub struct AppendRequest {
    /// Who appends.
    pub origin: Origin,
    /// When to answer [`PartitionError::TimedOut`] in place of waiting on.
    pub deadline: Mono,
    /// Whom the sender takes for the owners. A shard refuses what was sent before a partition came to it: something sent earlier may be on
    /// its way back to the sender.
    pub generation: Generation,
    /// Exactly one batch per partition; a partition appears once.
    pub batches: Vec<(PartitionId, Batch)>,
    /// Where the answer goes.
    pub reply: ReplyTo,
}

/// A batch that was appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Offset of its first record. A duplicate gets the original's.
    pub base_offset: Offset,
    /// The topic's LogAppendTime stamp, if it has one.
    pub log_append_time: Option<Wall>,
    /// Log start offset at that moment.
    pub log_start: Offset,
}

/// Which records a reader may see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Isolation {
    /// Up to the high watermark.
    Uncommitted,
    /// Up to the last stable offset, with the list of aborted transactions.
    Committed,
}

/// One partition of a probe or take.
#[derive(Clone, Copy, Debug)]
pub struct FetchFrom {
    /// The partition.
    pub partition: PartitionId,
    /// First offset wanted.
    pub offset: Offset,
    /// The partition's own limit in bytes.
    pub max_bytes: u32,
    /// The client's idea of the leader epoch; `None` skips the check (-1 on the wire).
    pub current_leader_epoch: Option<LeaderEpoch>,
}

/// A fetch's first pass: what is there?
#[derive(Debug)]
pub struct ProbeRequest {
    /// The connection, key of its watches.
    pub conn: ConnId,
    /// Partitions of this shard, in request order.
    pub parts: Vec<FetchFrom>,
    /// Which records count.
    pub isolation: Isolation,
    /// Register a watch on each part in the same turn, replacing the connection's earlier ones on this shard: one
    /// [`Reply::Wake`] follows at the first change of readable end, log start, epoch or existence.
    pub watch: bool,
    /// Where the answer, and the wake, go.
    pub reply: ReplyTo,
}

/// What a probe found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProbeState {
    /// Bytes readable from the offset asked for, at most the part's `max_bytes` (but never below one batch when there
    /// is one). An estimate within one block for cold parts.
    pub bytes: u64,
    /// Size of the first batch, in bytes; 0 when there is none. A cold one's is an upper bound.
    pub first_batch_bytes: u32,
    /// Whether the first record lies in the ring or in objects, not in memory.
    pub slow: bool,
    /// High watermark.
    pub high_watermark: Offset,
}

/// A fetch's second pass: hand out.
#[derive(Debug)]
pub struct TakeRequest {
    /// The connection, for fairness among cold readers.
    pub conn: ConnId,
    /// Parts with their allotted `max_bytes`, in request order; with 0, only the offsets that go with the answer.
    pub parts: Vec<FetchFrom>,
    /// Which records count.
    pub isolation: Isolation,
    /// Hand out one whole batch from the first non-empty part even if it exceeds `max_bytes` (KIP-74).
    pub at_least_one: bool,
    /// Where the answers go.
    pub reply: ReplyTo,
}

/// Records of one partition with the offsets that belong to them, all from one turn.
#[derive(Debug)]
pub struct Taken {
    /// High watermark.
    pub high_watermark: Offset,
    /// Last stable offset.
    pub last_stable: Offset,
    /// Log start offset.
    pub log_start: Offset,
    /// Aborted transactions that reach into these records (producer id, first offset), by first offset; for
    /// [`Isolation::Committed`] only.
    pub aborted: Vec<(i64, Offset)>,
    /// The records.
    pub records: Records,
}

/// The records of a part.
#[derive(Debug)]
pub enum Records {
    /// Whole batches in offset order, each piece one or more of them; empty when there is nothing.
    Ready(Vec<Bytes>),
    /// They come from the ring or the object store: a [`Reply::Late`] follows.
    Pending,
}

impl Records {
    /// Bytes of what is here already.
    pub fn bytes(&self) -> u64 {
        match self {
            Records::Ready(pieces) => pieces.iter().map(|piece| piece.len() as u64).sum(),
            Records::Pending => 0,
        }
    }
}

/// An offset look-up.
#[derive(Debug)]
pub struct OffsetsRequest {
    /// Partitions of this shard, in request order.
    pub parts: Vec<(PartitionId, OffsetQuery, Option<LeaderEpoch>)>,
    /// Whether the latest offset is the last stable one.
    pub isolation: Isolation,
    /// Where the answer goes.
    pub reply: ReplyTo,
}

/// What to look up (ListOffsets' special timestamps).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OffsetQuery {
    /// -1: high watermark, or last stable offset.
    Latest,
    /// -2: log start.
    Earliest,
    /// -3 (KIP-734): the first record with the greatest timestamp.
    MaxTimestamp,
    /// -4 (KIP-405): log start on this disk; here the log start.
    EarliestLocal,
    /// -5 (KIP-1005): last tiered offset; here none.
    LatestTiered,
    /// The first record whose timestamp is at or after this.
    Time(Wall),
}

/// What a look-up found; none is offset -1, timestamp -1 on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FoundOffset {
    /// The offset, or `None`.
    pub offset: Option<Offset>,
    /// That record's timestamp, or `None` for special values.
    pub timestamp: Option<Wall>,
    /// Leader epoch of that offset.
    pub leader_epoch: Option<LeaderEpoch>,
}

/// OffsetForLeaderEpoch for one shard.
#[derive(Debug)]
pub struct EpochEndsRequest {
    /// Partition, epoch asked for, the client's current leader epoch.
    pub parts: Vec<(PartitionId, LeaderEpoch, Option<LeaderEpoch>)>,
    /// Where the answer goes.
    pub reply: ReplyTo,
}

/// The largest known epoch at or below the one asked for, and where it ends; `None`: -1/-1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochEnd(pub Option<(LeaderEpoch, Offset)>);

/// DeleteRecords for one shard.
#[derive(Debug)]
pub struct RaiseLogStartRequest {
    /// Partition and new log start; `None` is the high watermark.
    pub parts: Vec<(PartitionId, Option<Offset>)>,
    /// Where the answer goes.
    pub reply: ReplyTo,
}

/// A look at partitions.
#[derive(Debug)]
pub struct DescribeRequest {
    /// Which; empty means all of this shard.
    pub partitions: Vec<PartitionId>,
    /// Where the answer goes.
    pub reply: ReplyTo,
}

/// A look at the producers of some partitions.
#[derive(Debug)]
pub struct ProducersRequest {
    /// Which partitions.
    pub parts: Vec<PartitionId>,
    /// Where the answer goes.
    pub reply: ReplyTo,
}

/// A producer as a partition remembers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerView {
    /// Producer id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence of its last durable record.
    pub last_sequence: i32,
    /// Greatest timestamp seen from it.
    pub last_timestamp: Wall,
}

/// A partition's figures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionView {
    /// The partition.
    pub partition: PartitionId,
    /// Leader epoch.
    pub leader_epoch: LeaderEpoch,
    /// Log start offset.
    pub log_start: Offset,
    /// First offset that is not in a committed object.
    pub committed_end: Offset,
    /// High watermark.
    pub high_watermark: Offset,
    /// Last stable offset.
    pub last_stable: Offset,
    /// Bytes in committed objects and the ring.
    pub size_bytes: u64,
    /// Watches registered.
    pub watches: u32,
}

/// Settings of log cleaning that may change while the broker runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CleanerTuning {
    /// `log.cleaner.backoff.ms`: how often a shard looks for work.
    pub backoff: Duration,
    /// `log.cleaner.dedupe.buffer.size`: memory for keys, of all shards together.
    pub dedupe_bytes: u64,
    /// `log.cleaner.io.buffer.load.factor`: how full that may get.
    pub load_factor: Millionths,
}

/// What control says to a shard.
#[derive(Debug)]
pub enum Control {
    /// Bring the shard's partitions to `revision`. Revisions at or below the one in force are ignored (but answered).
    /// `done` gets the shard's id when every partition named is open, closed or changed.
    Apply {
        /// Metadata revision this leads to.
        revision: u64,
        /// What changes.
        changes: Vec<PartitionChange>,
        /// Signalled when in force.
        done: flume::Sender<thalweg_record::ShardId>,
    },
    /// Remember idle producers for this long from now on.
    ExpireProducers {
        /// Since their last batch.
        after: std::time::Duration,
    },
    /// Append no more to these partitions, for they go to other shards, and say which of them may go as soon as all that is in
    /// them is durable. See [`crate::moves`].
    Seal {
        /// Which.
        partitions: Vec<PartitionId>,
        /// In which generation of owners they will be on their new shards.
        generation: Generation,
        /// Those that are sealed; the others stay as they are.
        sealed: flume::Sender<Vec<PartitionId>>,
    },
    /// Hand sealed partitions over.
    HandOver {
        /// To whom.
        moves: Vec<(PartitionId, thalweg_record::ShardId)>,
        /// As in the seal.
        generation: Generation,
        /// Signalled by the new owner of each, when it serves it.
        taken: flume::Sender<PartitionId>,
    },
    /// Another shard of this broker says something about a partition that moved.
    Peer(Box<crate::moves::PeerMessage>),
    /// Tell what partitions cost since the last time.
    Measure(flume::Sender<crate::moves::ShardLoad>),
    /// Clean logs like this from now on.
    TuneCleaner(CleanerTuning),
    /// Stop appending (later appends get [`PartitionError::Unavailable`]), make all that is staged durable, upload and
    /// commit it until `deadline`, then trim; says how many bytes stay in the WAL.
    Stop {
        /// When to give up uploading.
        deadline: Mono,
        /// Un-uploaded WAL bytes that remain.
        done: flume::Sender<u64>,
    },
}

/// One change of a partition on its shard.
#[derive(Clone, Debug)]
pub enum PartitionChange {
    /// Open it (new, or at start-up).
    Open(Box<PartitionSpec>),
    /// Its topic's settings changed.
    Configure(PartitionId, PartitionSettings),
    /// Its topic is deleted: resolve and forget everything.
    Delete(PartitionId),
}

/// All a shard needs to open a partition.
#[derive(Clone, Debug)]
pub struct PartitionSpec {
    /// Identity.
    pub partition: PartitionId,
    /// The topic's name, for objects' properties and logs.
    pub topic_name: std::sync::Arc<str>,
    /// Leader epoch in force from now on.
    pub leader_epoch: LeaderEpoch,
    /// Settings of its topic.
    pub settings: PartitionSettings,
    /// Log start offset recorded in the metadata.
    pub log_start: Offset,
    /// Lists of its oldest committed objects, by offset, contiguous.
    pub manifests: Vec<ManifestRef>,
    /// Committed objects that hold records of it and are not in these lists, by offset, contiguous.
    pub committed: Vec<CommittedObject>,
    /// Epoch history up to the committed end: (epoch, first offset).
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// Idempotent producers at the committed end.
    pub producers: Vec<ProducerEntry>,
    /// First offset after all that was ever committed (the end even when retention took every object).
    pub committed_end: Offset,
    /// First offset that no cleaning has seen.
    pub cleaned: Offset,
    /// Whether coordinators must be told (an internal topic).
    pub internal: bool,
    /// What lies in another shard's log.
    pub loan: Option<crate::moves::Loan>,
}

/// State of one idempotent producer (KIP-98), as it is persisted with commits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProducerEntry {
    /// Producer id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// The last up to five batches, oldest first: first sequence, last sequence, base offset, last offset.
    pub window: Vec<ProducerBatch>,
    /// Greatest timestamp seen from it (for expiry).
    pub last_timestamp: Wall,
}

/// One batch an idempotent producer appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerBatch {
    /// Sequence of its first record.
    pub first_sequence: i32,
    /// Sequence of its last record.
    pub last_sequence: i32,
    /// Its first offset.
    pub base_offset: Offset,
    /// Its last offset.
    pub last_offset: Offset,
}

/// What a shard tells the coordinators of its core about partitions of internal topics, on a lane of their own.
#[derive(Clone, Debug)]
pub enum Ownership {
    /// This shard serves the partition from now on: load what it holds between the two offsets, then answer for it.
    Opened {
        /// The partition's topic name.
        topic_name: std::sync::Arc<str>,
        /// The partition.
        partition: PartitionId,
        /// Its leader epoch.
        epoch: LeaderEpoch,
        /// Log start offset.
        log_start: Offset,
        /// High watermark at the opening: all that must be loaded.
        end: Offset,
    },
    /// This shard serves it no more.
    Sealed {
        /// The partition.
        partition: PartitionId,
        /// The epoch that ends.
        epoch: LeaderEpoch,
    },
}
