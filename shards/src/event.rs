//! What a shard's own tasks tell it: completions of device writes, ring reads, uploads, and the tick.
//!
//! A lane of its own, from tasks of the same core; its length is bounded by the work in flight.

use std::{io, rc::Rc};

use bytes::Bytes;
use thalweg_record::{Offset, PartitionId};
use thalweg_wal::{GroupId, Lsn};

use crate::{
    cleaning,
    compaction::{Inquiry, Left},
    janitor::Expired,
    meta::{CommittedObject, ManifestRef, ObjectId},
    msg::PartitionError,
    offsets::LookUp,
    read::ReadAgain,
    rewrite::RewriteFailure,
    ring_read::RingRead,
};

/// A completion.
pub enum Event {
    /// A group's write ended.
    Written {
        /// Which group.
        id: GroupId,
        /// Where it begins.
        start: Lsn,
        /// Ok: durable, every byte.
        result: io::Result<()>,
        /// Its bytes, for the tail cache.
        group: Bytes,
    },
    /// The superblock write in flight ended.
    Superblock(io::Result<()>),
    /// The device's limits allow the next write.
    Paced,
    /// The zeroing in flight ended.
    Zeroed(io::Result<()>),
    /// A task of this shard needs batches of the ring.
    ReadRing(RingRead),
    /// A look-up of an offset begins anew: the ring was trimmed under it.
    LookUp(LookUp),
    /// A ring read ended and freed its part of the budget.
    RingReadEnded {
        /// What came of it; for `read.done`.
        result: io::Result<Vec<Bytes>>,
        /// What was read.
        read: RingRead,
    },
    /// An object was written and committed, and the metadata is durable.
    Committed {
        /// The partitions it holds.
        objects: Vec<(PartitionId, CommittedObject)>,
    },
    /// An upload ended, with all its objects committed or not.
    UploadEnded {
        /// Which.
        job: u64,
        /// What was left out or failed; the shard takes it up again.
        result: Result<(), UploadFailure>,
    },
    /// The metadata has recorded the log starts that retention wants.
    LogStarts(Vec<(PartitionId, Expired)>),
    /// DeleteRecords is durable: answer it.
    LogStartsRaised(Rc<crate::mailbox::ReplyTo>, Vec<Result<Offset, PartitionError>>, Vec<(PartitionId, Offset)>),
    /// Compaction wants to know something.
    Inquiry(Inquiry),
    /// Compaction has put an object in the place of parts of others, and the metadata is durable.
    Compacted {
        /// The partitions it holds.
        objects: Vec<(PartitionId, CommittedObject)>,
    },
    /// Compaction has nothing more to do, or something stands against it.
    CompactionEnded(Result<Left, RewriteFailure>),
    /// Cleaning wants to know something.
    CleaningInquiry(cleaning::Inquiry),
    /// Cleaning has put an object in the place of a partition's parts, and the metadata is durable.
    PartCleaned(PartitionId, CommittedObject),
    /// Cleaning has come as far as this in a partition, and the metadata is durable.
    Cleaned(PartitionId, Offset),
    /// Cleaning has nothing more to do, or something stands against it.
    CleaningEnded(cleaning::Ended),
    /// A manifest has taken the place of a partition's oldest entries, and the metadata is durable.
    Folded(PartitionId, ManifestRef),
    /// What a partition's newest manifest lists has taken its place, and the metadata is durable.
    Unfolded(PartitionId, ObjectId, Vec<CommittedObject>),
    /// Folding has nothing more to do, or something stands against it.
    FoldingEnded(Result<(), RewriteFailure>),
    /// An object that a read was sent to is gone: the read begins anew.
    ReadAgain(ReadAgain),
    /// 100 ms have passed.
    Tick,
}

/// Why an upload did not commit everything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UploadFailure {
    /// The object store or the metadata did not answer in time; try again after a pause.
    Retry(String),
    /// This node's epoch is fenced, or the metadata contradicts the shard: stop the broker.
    Fatal(String),
}
