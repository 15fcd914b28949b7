//! Reads a partition of `__consumer_offsets` from its log start to the end it had when it was opened.
//!
//! One take is under way at a time; cold parts come late. What cannot be read is tried again: a partition that would
//! forget commits must not be served.

use std::time::Duration;

use thalweg_record::{Mono, Offset, PartitionId, ShardId};
use thalweg_shards::{
    mailbox::ReplyTo,
    msg::{ConnId, FetchFrom, Isolation, PartitionError, Records, Reply, TakeRequest, Taken},
};

use super::{batch, load::Replay};

/// Bytes asked for at once.
const TAKE_BYTES: u32 = 1 << 20;
/// Pause after a failed read.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// A load under way.
#[derive(Debug)]
pub struct Loader {
    partition: PartitionId,
    conn: ConnId,
    next: Offset,
    end: Offset,
    replay: Replay,
    retry_at: Option<Mono>,
}

/// What came of a shard's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loaded {
    /// Ask for the next part.
    More,
    /// The same question will be answered again.
    Later,
    /// Try again at [`Loader::retry_at`].
    Failed,
}

impl Loader {
    /// Will read `partition` from `log_start` up to `end`, on `shard`.
    pub fn new(partition: PartitionId, shard: ShardId, log_start: Offset, end: Offset) -> Loader {
        // Connections count up from below within each shard; no connection gets that far.
        let conn = ConnId(u64::from(shard.0) << 48 | ((1 << 48) - 1));
        Loader { partition, conn, next: log_start, end, replay: Replay::default(), retry_at: None }
    }

    /// When to ask again after a failure.
    pub fn retry_at(&self) -> Option<Mono> {
        self.retry_at
    }

    /// The next thing to ask the shard, or `None` when all is read.
    pub fn next_take(&mut self, reply: ReplyTo) -> Option<TakeRequest> {
        self.retry_at = None;
        if self.next >= self.end {
            reply.forget();
            return None;
        }
        let part = FetchFrom {
            partition: self.partition,
            offset: self.next,
            max_bytes: TAKE_BYTES,
            current_leader_epoch: None,
        };
        Some(TakeRequest {
            conn: self.conn,
            parts: vec![part],
            isolation: Isolation::Uncommitted,
            at_least_one: true,
            reply,
        })
    }

    /// Takes what was read in.
    pub fn answered(&mut self, reply: Reply, now: Mono) -> Loaded {
        let result = match reply {
            Reply::Take(mut parts) if parts.len() == 1 => parts.pop().expect("there is one"),
            Reply::Late(_, result) => result,
            _ => Err(PartitionError::Unavailable),
        };
        match result {
            Ok(Taken { records: Records::Pending, .. }) => Loaded::Later,
            Ok(Taken { records: Records::Ready(pieces), high_watermark, .. }) if high_watermark >= self.end => {
                self.read(pieces, now)
            }
            Ok(_) => self.failed(now, "the high watermark lies below the end at the opening"),
            // Retention or compaction went ahead of us.
            Err(PartitionError::OffsetOutOfRange { log_start, .. }) if log_start > self.next => {
                self.next = log_start;
                Loaded::More
            }
            Err(why) => self.failed(now, &format!("{why:?}")),
        }
    }

    fn read(&mut self, pieces: Vec<bytes::Bytes>, now: Mono) -> Loaded {
        let before = self.next;
        for piece in pieces {
            match batch::walk(piece, |key, value| self.replay.apply(key, value)) {
                Ok(Some(end)) => self.next = self.next.max(end),
                Ok(None) => {}
                Err(why) => return self.failed(now, &why.to_string()),
            }
        }
        // An answer without records, below the end: what was there is compacted away.
        if self.next == before {
            self.next = self.end;
        }
        Loaded::More
    }

    fn failed(&mut self, now: Mono, why: &str) -> Loaded {
        tracing::warn!(partition = self.partition.index, offset = self.next.0, why, "loading groups: trying again");
        self.retry_at = Some(now.plus(RETRY_AFTER));
        Loaded::Failed
    }

    /// What was read.
    pub fn take_replay(&mut self) -> Replay {
        std::mem::take(&mut self.replay)
    }
}
