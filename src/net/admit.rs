//! Admission: permits bound what this executor's connections have under way.
//!
//! Each executor holds a quota per destination shard, in messages and in bytes, so the mailboxes behind them need no
//! bound of their own. Nothing else waits for a mailbox. To be free of deadlock everybody acquires in one order: request
//! bytes, decoded bytes, opened bytes, response bytes, shards by ascending id. A want beyond a whole quota waits for all of it, and then
//! passes. Requests and answers have two lanes each, so that small ones never wait for large ones; who waits has the
//! connections in its way closed (`pressure`).

use std::{pin::pin, rc::Rc, sync::Arc};

use futures_lite::future::or;
use thalweg_record::ShardId;
use thalweg_shards::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    EdgeLimits,
    pressure::{LOOK_AFTER, Pressure},
};

/// A request whose elements take less than this is bounded by the number of connections alone.
const SMALL_DECODED_BYTES: usize = 64 << 10;
/// The largest of the small lane.
const SMALL_BYTES: usize = 64 << 10;

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

/// Two halves of a budget: for what is small, and for the rest.
#[derive(Debug)]
struct Lanes {
    small: Budget,
    large: Budget,
}

impl Lanes {
    fn new(total: u32) -> Lanes {
        Lanes { small: Budget::new(total / 2), large: Budget::new(total - total / 2) }
    }

    fn of(&self, bytes: usize) -> &Budget {
        if bytes <= SMALL_BYTES { &self.small } else { &self.large }
    }
}

/// One executor's budgets.
pub struct Admission {
    runtime: Rc<dyn Runtime>,
    /// Its connections.
    pub pressure: Pressure,
    requests: Lanes,
    decoded: Budget,
    opened: Budget,
    responses: Lanes,
    shards: Vec<(Budget, Budget)>,
}

impl Admission {
    /// Budgets for `shards` destinations.
    pub fn new(limits: &EdgeLimits, shards: usize, runtime: Rc<dyn Runtime>) -> Admission {
        let lane = || (Budget::new(limits.shard_messages), Budget::new(limits.shard_bytes));
        Admission {
            runtime,
            pressure: Pressure::default(),
            requests: Lanes::new(limits.request_bytes),
            decoded: Budget::new(limits.decoded_bytes),
            opened: Budget::new(limits.opened_bytes),
            responses: Lanes::new(limits.response_bytes),
            shards: (0..shards).map(|_| lane()).collect(),
        }
    }

    /// Waits for room (for `requests`, or for answers), and has those closed who hold it and do not move.
    async fn wait(&self, budget: &Budget, want: usize, requests: bool) -> Permit {
        let mut acquired = pin!(budget.acquire(want));
        loop {
            let look = async {
                self.runtime.sleep_until(self.runtime.mono().plus(LOOK_AFTER)).await;
                None
            };
            match or(async { Some(acquired.as_mut().await) }, look).await {
                Some(held) => return Permit { _held: [Some(held), None] },
                None => self.pressure.relieve(self.runtime.mono(), requests),
            }
        }
    }

    /// Waits for room for a request that takes `bytes`.
    pub async fn request(&self, bytes: usize) -> Permit {
        self.wait(self.requests.of(bytes), bytes, true).await
    }

    /// Waits for room for a request whose elements take `bytes` decoded; small ones, which most are, pass at once.
    pub async fn decoded(&self, bytes: usize) -> Permit {
        if bytes < SMALL_DECODED_BYTES {
            return Permit::default();
        }
        self.wait(&self.decoded, bytes, true).await
    }

    /// Waits for room for batches that may unfold to `bytes`.
    pub async fn opened(&self, bytes: usize) -> Permit {
        Permit { _held: [Some(self.opened.acquire(bytes).await), None] }
    }

    /// Waits for room for an answer of `bytes`. Attach it to the answer ([`crate::api::Response::holding`]), so that it
    /// lasts until the answer is written.
    pub async fn response(&self, bytes: usize) -> Permit {
        self.wait(self.responses.of(bytes), bytes, false).await
    }

    /// Room for an answer of `bytes` if there is now; otherwise ask for less.
    pub fn try_response(&self, bytes: usize) -> Option<Permit> {
        self.responses.of(bytes).try_acquire(bytes).map(|held| Permit { _held: [Some(held), None] })
    }

    /// Bytes of answers that are free now, or what a small one may take.
    pub fn response_bytes_free(&self) -> usize {
        self.responses.large.semaphore.available_permits().max(SMALL_BYTES)
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
    use thalweg_shards::runtime::seeded::{Node, World};

    use super::*;

    fn tight() -> (Rc<World>, Admission) {
        let limits =
            EdgeLimits { request_bytes: 400 << 10, shard_messages: 2, shard_bytes: 100, ..EdgeLimits::default() };
        let world = World::new(7);
        let admission = Admission::new(&limits, 2, world.runtime(Node(1)));
        (world, admission)
    }

    #[test]
    fn small_requests_do_not_wait_for_large_ones() {
        block_on(async {
            let (_world, admission) = tight();
            let large = admission.request(200 << 10).await;
            assert!(poll_once(admission.request(70 << 10)).await.is_none(), "the large lane is full");
            assert!(poll_once(admission.request(60 << 10)).await.is_some());
            drop(large);
            assert!(poll_once(admission.request(70 << 10)).await.is_some());
        });
    }

    #[test]
    fn a_full_shard_holds_the_next_until_a_permit_is_dropped() {
        block_on(async {
            let (_world, admission) = tight();
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
            let (_world, admission) = tight();
            let small = admission.shard(ShardId(0), 1).await;
            let mut huge = Box::pin(admission.shard(ShardId(0), usize::MAX));
            assert!(poll_once(&mut huge).await.is_none());
            drop(small);
            assert!(poll_once(&mut huge).await.is_some());
        });
    }
}
