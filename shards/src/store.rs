//! The way from a shard's actors to the object store's engine, and its bound.
//!
//! Each user of the store on a core (uploader, cold reader, janitor) starts a lane of its own on its own queue, so that
//! none can take the other's share. A lane runs at most so many requests at once; the rest wait in its mailbox, whose
//! length is bounded by what its one user has in hand. The engine itself works off the shard (port `ObjectStore`); it does
//! the retries that belong to its transport. Requests of a lane may end in any order.

use std::{num::NonZeroU64, ops::Range, rc::Rc, sync::Arc};

use bytes::Bytes;
use flume::{Receiver, Sender};
use metrics::{Counter, Histogram};
use thalweg_objectstore::{ObjectKey, ObjectMeta, ObjectStore, PutCondition, StoreError, StoreFuture};

use crate::{
    meters::{ByOperation, StoreMeters},
    runtime::{Queue, Runtime},
};

/// One request to the store, with the lane its answer takes.
#[derive(Debug)]
pub enum StoreRequest {
    /// [`ObjectStore::put`].
    Put {
        /// Where to.
        key: ObjectKey,
        /// What, in pieces.
        parts: Vec<Bytes>,
        /// Whether it may replace.
        condition: PutCondition,
        /// Bytes per second at most, when it has time.
        pace: Option<NonZeroU64>,
        /// The outcome.
        reply: Sender<Result<(), StoreError>>,
    },
    /// [`ObjectStore::get_range`].
    GetRange {
        /// The object.
        key: ObjectKey,
        /// Bytes wanted.
        range: Range<u64>,
        /// Exactly these bytes.
        reply: Sender<Result<Bytes, StoreError>>,
    },
    /// [`ObjectStore::delete`].
    Delete {
        /// The object.
        key: ObjectKey,
        /// The outcome.
        reply: Sender<Result<(), StoreError>>,
    },
    /// [`ObjectStore::list`].
    List {
        /// What keys start with.
        prefix: String,
        /// The key to go on after.
        after: Option<ObjectKey>,
        /// At most this many.
        limit: usize,
        /// In key order.
        reply: Sender<Result<Vec<ObjectMeta>, StoreError>>,
    },
}

/// The sending end of a store lane.
#[derive(Clone, Debug)]
pub struct StoreLane(Sender<StoreRequest>);

impl StoreLane {
    /// A lane and its mailbox, for whoever plays the store: [`serve`], or a test.
    pub fn new() -> (StoreLane, Receiver<StoreRequest>) {
        let (sender, inbox) = flume::unbounded();
        (StoreLane(sender), inbox)
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(Sender<Result<T, StoreError>>) -> StoreRequest,
    ) -> Result<T, StoreError> {
        let (reply, answer) = flume::bounded(1);
        let stopping = || StoreError::Retry("the broker is stopping".to_owned());
        self.0.try_send(request(reply)).map_err(|_| stopping())?;
        answer.recv_async().await.map_err(|_| stopping())?
    }

    /// As [`ObjectStore::put`].
    ///
    /// # Errors
    /// As there; [`StoreError::Retry`] also when the lane is gone.
    pub async fn put(&self, key: ObjectKey, parts: Vec<Bytes>, condition: PutCondition) -> Result<(), StoreError> {
        self.put_paced(key, parts, condition, None).await
    }

    /// As [`ObjectStore::put_slowly`] at `pace` bytes per second, if there is one, else as [`ObjectStore::put`].
    ///
    /// # Errors
    /// As there; [`StoreError::Retry`] also when the lane is gone.
    pub async fn put_paced(
        &self,
        key: ObjectKey,
        parts: Vec<Bytes>,
        condition: PutCondition,
        pace: Option<NonZeroU64>,
    ) -> Result<(), StoreError> {
        self.ask(|reply| StoreRequest::Put { key, parts, condition, pace, reply }).await
    }

    /// As [`ObjectStore::get_range`].
    ///
    /// # Errors
    /// As there; [`StoreError::Retry`] also when the lane is gone.
    pub async fn get_range(&self, key: ObjectKey, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.ask(|reply| StoreRequest::GetRange { key, range, reply }).await
    }

    /// As [`ObjectStore::delete`].
    ///
    /// # Errors
    /// As there; [`StoreError::Retry`] also when the lane is gone.
    pub async fn delete(&self, key: ObjectKey) -> Result<(), StoreError> {
        self.ask(|reply| StoreRequest::Delete { key, reply }).await
    }

    /// As [`ObjectStore::list`].
    ///
    /// # Errors
    /// As there; [`StoreError::Retry`] also when the lane is gone.
    pub async fn list(
        &self,
        prefix: String,
        after: Option<ObjectKey>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        self.ask(|reply| StoreRequest::List { prefix, after, limit, reply }).await
    }
}

/// Starts serving a new lane from `store` on `queue`, at most `in_flight` requests at once, counted in `meters`. Ends when
/// the last [`StoreLane`] is dropped.
pub fn serve(
    runtime: &Rc<dyn Runtime>,
    queue: Queue,
    store: Arc<dyn ObjectStore>,
    in_flight: usize,
    meters: Rc<StoreMeters>,
) -> StoreLane {
    let (lane, inbox) = StoreLane::new();
    let spawner = runtime.clone();
    runtime.spawn(
        queue,
        "store lane",
        Box::pin(async move {
            let (permits, free) = flume::unbounded();
            (0..in_flight.max(1)).for_each(|_| permits.try_send(()).expect("both ends are held here"));
            while let Ok(request) = inbox.recv_async().await {
                free.recv_async().await.expect("the sender is held here");
                let (store, permits, meters, clock) = (store.clone(), permits.clone(), meters.clone(), spawner.clone());
                let work = async move {
                    run(&*store, request, &Meter { meters: &meters, clock: &*clock }).await;
                    let _lane_ended = permits.try_send(());
                };
                spawner.spawn(queue, "store request", Box::pin(work));
            }
        }),
    );
    lane
}

/// Counts requests as they end.
struct Meter<'a> {
    meters: &'a StoreMeters,
    clock: &'a dyn Runtime,
}

impl Meter<'_> {
    /// Awaits a call and counts it; `bytes` tells how many a success moved.
    async fn count<T>(
        &self,
        call: StoreFuture<'_, T>,
        of: impl Fn(&ByOperation<Counter>) -> &Counter,
        seconds: &Histogram,
        bytes: impl Fn(&T) -> u64,
    ) -> Result<T, StoreError> {
        let began = self.clock.mono();
        let outcome = call.await;
        seconds.record(self.clock.mono().since(began).as_secs_f64());
        of(&self.meters.requests).increment(1);
        match &outcome {
            Ok(done) => of(&self.meters.bytes).increment(bytes(done)),
            Err(_) => of(&self.meters.errors).increment(1),
        }
        outcome
    }
}

/// Does one request. An asker that is gone is no error.
async fn run(store: &dyn ObjectStore, request: StoreRequest, meter: &Meter<'_>) {
    let seconds = &meter.meters.seconds;
    match request {
        StoreRequest::Put { key, parts, condition, pace, reply } => {
            let size = parts.iter().map(|part| part.len() as u64).sum();
            let call = match pace {
                None => store.put(&key, parts, condition),
                Some(pace) => store.put_slowly(&key, parts, condition, pace),
            };
            let _gone = reply.try_send(meter.count(call, |of| &of.put, &seconds.put, |()| size).await);
        }
        StoreRequest::GetRange { key, range, reply } => {
            let call = store.get_range(&key, range);
            let size = |content: &Bytes| content.len() as u64;
            let _gone = reply.try_send(meter.count(call, |of| &of.get, &seconds.get, size).await);
        }
        StoreRequest::Delete { key, reply } => {
            let call = store.delete(&key);
            let _gone = reply.try_send(meter.count(call, |of| &of.delete, &seconds.delete, |()| 0).await);
        }
        StoreRequest::List { prefix, after, limit, reply } => {
            let call = store.list(&prefix, after.as_ref(), limit);
            let _gone = reply.try_send(meter.count(call, |of| &of.list, &seconds.list, |_| 0).await);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        pin::Pin,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use thalweg_objectstore::{Call, Fate, FaultHook, MemoryStore};

    use super::*;
    use crate::runtime::seeded::{Ended, Node, World};

    /// Counts the calls that are running; each stays for some polls.
    #[derive(Default)]
    struct Crowd {
        running: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
    }

    impl FaultHook for Crowd {
        fn fate(&self, _: &Call<'_>) -> Pin<Box<dyn Future<Output = Fate> + Send>> {
            let (running, most) = (self.running.clone(), self.most.clone());
            Box::pin(async move {
                most.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                for _ in 0..10 {
                    futures_lite::future::yield_now().await;
                }
                running.fetch_sub(1, Ordering::Relaxed);
                Fate::Pass
            })
        }
    }

    #[test]
    fn a_lane_runs_so_many_requests_and_no_more() {
        let world = World::new(7);
        let runtime = world.runtime(Node(0));
        let (store, crowd) = (MemoryStore::new(), Arc::new(Crowd::default()));
        store.set_hook(Some(crowd.clone()));
        let lane = serve(&runtime, Queue::Upload, Arc::new(store.clone()), 3, Rc::new(StoreMeters::new()));
        let done = Rc::new(Cell::new(0));
        for n in 0..20 {
            let (lane, done) = (lane.clone(), done.clone());
            let put = async move {
                let key = ObjectKey::new(format!("k/{n}")).expect("a key");
                let parts = vec![Bytes::from_static(b"content")];
                assert_eq!(lane.put(key.clone(), parts, PutCondition::IfAbsent).await, Ok(()));
                assert_eq!(lane.get_range(key, 3..7).await.as_deref(), Ok(&b"tent"[..]));
                done.set(done.get() + 1);
            };
            runtime.spawn(Queue::Upload, "user", Box::pin(put));
        }
        assert_eq!(world.run_until(100_000, || done.get() == 20), Ended::Done);
        assert_eq!(crowd.most.load(Ordering::Relaxed), 3);
        assert_eq!(store.objects().len(), 20);
    }

    #[test]
    fn a_lane_without_a_store_says_so() {
        let (lane, inbox) = StoreLane::new();
        drop(inbox);
        let key = ObjectKey::new("k").expect("a key");
        let answer = futures_lite::future::block_on(lane.delete(key));
        assert!(matches!(answer, Err(StoreError::Retry(_))), "{answer:?}");
    }
}
