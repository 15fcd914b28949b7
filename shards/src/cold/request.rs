//! What the shard asks of the cold reader of its core.

use std::{fmt, rc::Rc};

use bytes::Bytes;
use thalweg_record::{Offset, PartitionId, Wall};

use crate::{
    cold::manifests::Entries,
    meta::{CommittedObject, ManifestRef, ObjectId},
    msg::ConnId,
    records::FoundTime,
};

/// A request. Both ends live on the same core.
#[derive(Debug)]
pub enum ColdRequest {
    /// Reads batches.
    Read(ColdRead),
    /// Finds a record by time.
    FindTime(ColdFindTime),
    /// Tells what a manifest lists.
    Manifest(ColdManifest),
    /// The connection is closed: forget its readahead. What it waits for is still answered.
    ConnGone(ConnId),
}

/// Reads whole batches in offset order, beginning with the one that holds `offset`, or the first after it.
pub struct ColdRead {
    /// Who reads: turns are taken by connection, sequences told by connection and partition.
    pub conn: ConnId,
    /// The partition.
    pub partition: PartitionId,
    /// Committed objects of the partition by offset, contiguous, from the one that holds `offset` on.
    pub objects: Vec<Rc<CommittedObject>>,
    /// First offset wanted.
    pub offset: Offset,
    /// The answer ends before the batch that begins here (high watermark, last stable offset).
    pub up_to: Offset,
    /// At most so many bytes of batches. The answer may be shorter for other reasons, but is empty only when nothing
    /// fits or nothing is there.
    pub max_bytes: u32,
    /// Hand out the first batch even when it alone exceeds `max_bytes` (KIP-74).
    pub at_least_one: bool,
    /// Gets the batches, each piece one or more of them, slices of fetched blocks. Runs inside the cold reader's actor:
    /// it only passes the answer on.
    pub done: Box<dyn FnOnce(Result<Vec<Bytes>, ColdError>)>,
}

/// Finds the first record at or after `from`, before `up_to`, whose timestamp is at or after `time`.
pub struct ColdFindTime {
    /// Who asks.
    pub conn: ConnId,
    /// The partition.
    pub partition: PartitionId,
    /// Committed objects of the partition by offset; those that do not reach `time` may be left out.
    pub objects: Vec<Rc<CommittedObject>>,
    /// The time looked for.
    pub time: Wall,
    /// First offset that counts: the log start.
    pub from: Offset,
    /// First offset that does not (high watermark, last stable offset).
    pub up_to: Offset,
    /// Gets what was found; `None` when no such record lies in these objects. As [`ColdRead::done`].
    pub done: Box<dyn FnOnce(Result<Option<FoundTime>, ColdError>)>,
}

/// Gets what a manifest lists.
pub(super) type ManifestDone = Box<dyn FnOnce(Result<Entries, ColdError>)>;

/// Looks into a manifest.
pub struct ColdManifest {
    /// Whose.
    pub partition: PartitionId,
    /// Which.
    pub manifest: Rc<ManifestRef>,
    /// Gets what it lists. As [`ColdRead::done`].
    pub done: Box<dyn FnOnce(Result<Entries, ColdError>)>,
}

/// Why the cold reader has no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ColdError {
    /// The object is not there any more: look up the partition's objects anew and ask again.
    #[error("object {} is gone", .0.0)]
    Gone(ObjectId),
    /// The store did not give a sound answer until the deadline.
    #[error("cold read failed: {0}")]
    Storage(String),
}

impl fmt::Debug for ColdRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ColdRead({:?} {} {}..{})", self.conn, self.partition, self.offset, self.up_to)
    }
}

impl fmt::Debug for ColdManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ColdManifest({} {})", self.partition, self.manifest.key)
    }
}

impl fmt::Debug for ColdFindTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ColdFindTime({:?} {} {} from {})", self.conn, self.partition, self.time.0, self.from)
    }
}
