//! Admission: permits bound what this executor's connections have under way.
//!
//! Each executor holds a quota per destination shard, in messages and in bytes, so the mailboxes behind them need no
//! bound of their own. Nothing else waits for a mailbox. To be free of deadlock everybody acquires in one order: request
//! bytes, decoded bytes, opened bytes, response bytes, shards by ascending id. A want beyond a whole quota waits for all of it, and then passes.

use std::sync::Arc;

use thalweg_record::ShardId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::EdgeLimits;

/// A request whose elements take less than this is bounded by the number of connections alone.
const SMALL_DECODED_BYTES: usize = 64 << 10;

/// The right to have something under way; given back when dropped.
#[derive(Debug, Default)]
pub struct Permit {
    _held: [Option<OwnedSemaphorePermit>; 2],
}

/// A budget of bytes or messages.
#[derive(Debug)]
struct Budget {
    semaphore: Arc<Semaphore>,
    total: u32,
}

impl Budget {
    fn new(total: u32) -> Budget {
        Budget { semaphore: Arc::new(Semaphore::new(total as usize)), total }
    }

    fn cost(&self, want: usize) -> u32 {
        u32::try_from(want).unwrap_or(u32::MAX).min(self.total)
    }

    async fn acquire(&self, want: usize) -> OwnedSemaphorePermit {
        let acquired = Arc::clone(&self.semaphore).acquire_many_owned(self.cost(want)).await;
        acquired.expect("admission budgets are never closed")
    }

    fn try_acquire(&self, want: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.semaphore).try_acquire_many_owned(self.cost(want)).ok()
    }
}

/// One executor's budgets.
#[derive(Debug)]
pub struct Admission {
    requests: Budget,
    decoded: Budget,
    opened: Budget,
    responses: Budget,
    shards: Vec<(Budget, Budget)>,
}

impl Admission {
    /// Budgets for `shards` destinations.
    pub fn new(limits: &EdgeLimits, shards: usize) -> Admission {
        let lane = || (Budget::new(limits.shard_messages), Budget::new(limits.shard_bytes));
        Admission {
            requests: Budget::new(limits.request_bytes),
            decoded: Budget::new(limits.decoded_bytes),
            opened: Budget::new(limits.opened_bytes),
            responses: Budget::new(limits.response_bytes),
            shards: (0..shards).map(|_| lane()).collect(),
        }
    }

    /// Waits for room for a request of `bytes`.
    pub async fn request(&self, bytes: usize) -> Permit {
        Permit { _held: [Some(self.requests.acquire(bytes).await), None] }
    }

    /// Waits for room for a request whose elements take `bytes` decoded; small ones, which most are, pass at once.
    pub async fn decoded(&self, bytes: usize) -> Permit {
        if bytes < SMALL_DECODED_BYTES {
            return Permit::default();
        }
        Permit { _held: [Some(self.decoded.acquire(bytes).await), None] }
    }

    /// Waits for room for batches that may unfold to `bytes`.
    pub async fn opened(&self, bytes: usize) -> Permit {
        Permit { _held: [Some(self.opened.acquire(bytes).await), None] }
    }

    /// Waits for room for an answer of `bytes`. Attach it to the answer ([`crate::api::Response::holding`]), so that it
    /// lasts until the answer is written.
    pub async fn response(&self, bytes: usize) -> Permit {
        Permit { _held: [Some(self.responses.acquire(bytes).await), None] }
    }

    /// Room for an answer of `bytes` if there is now; otherwise ask for less.
    pub fn try_response(&self, bytes: usize) -> Option<Permit> {
        self.responses.try_acquire(bytes).map(|held| Permit { _held: [Some(held), None] })
    }

    /// Bytes of answers that are free now.
    pub fn response_bytes_free(&self) -> usize {
        self.responses.semaphore.available_permits()
    }

    /// Waits for room for one message of `bytes` to `shard`. A request to several shards asks in ascending order.
    pub async fn shard(&self, shard: ShardId, bytes: usize) -> Permit {
        let (messages, volume) = &self.shards[usize::from(shard.0)];
        let message = messages.acquire(1).await;
        Permit { _held: [Some(message), Some(volume.acquire(bytes).await)] }
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    fn tight() -> Admission {
        Admission::new(&EdgeLimits { shard_messages: 2, shard_bytes: 100, ..EdgeLimits::default() }, 2)
    }

    #[test]
    fn a_full_shard_holds_the_next_until_a_permit_is_dropped() {
        block_on(async {
            let admission = tight();
            let first = admission.shard(ShardId(1), 60).await;
            let mut second = Box::pin(admission.shard(ShardId(1), 60));
            assert!(poll_once(&mut second).await.is_none());
            assert!(poll_once(admission.shard(ShardId(0), 60)).await.is_some(), "the other shard is free");
            drop(first);
            assert!(poll_once(&mut second).await.is_some());
        });
    }

    #[test]
    fn a_want_beyond_the_quota_passes_alone() {
        block_on(async {
            let admission = tight();
            let small = admission.shard(ShardId(0), 1).await;
            let mut huge = Box::pin(admission.shard(ShardId(0), usize::MAX));
            assert!(poll_once(&mut huge).await.is_none());
            drop(small);
            assert!(poll_once(&mut huge).await.is_some());
        });
    }
}
