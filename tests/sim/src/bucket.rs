//! The object store beyond the network: it outlives the broker, answers late, fails, or does what it says it failed to do.
//!
//! Lives on a node of its own. A call that the broker sent before its crash still takes effect afterwards, as on a real
//! network.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    ops::Range,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use flume::{Receiver, Sender};
use thalweg_objectstore::{MemoryStore, ObjectKey, ObjectMeta, ObjectStore, PutCondition, StoreError, StoreFuture};
use thalweg_record::Mono;
use thalweg_shards::{
    runtime::{Queue, Runtime, seeded::Stream},
    store::{StoreLane, StoreRequest},
};

use crate::fuse::{Counts, Fuse};

/// The bucket's own side.
pub(crate) struct Bucket {
    pub(crate) store: MemoryStore,
    runtime: Rc<dyn Runtime>,
    random: RefCell<Stream>,
    fuse: Rc<Fuse>,
    /// One call in so many fails; 0 is none.
    pub(crate) fails_one_in: Cell<u64>,
    /// The longest answer time in microseconds.
    pub(crate) latency_us: Cell<u64>,
    /// Nothing gets through.
    down: Arc<AtomicBool>,
    /// Ranges read.
    pub(crate) gets: Cell<u64>,
    /// Objects deleted.
    pub(crate) deletes: Cell<u64>,
    /// A listing may be this old, key by key, in milliseconds.
    pub(crate) lag_ms: Cell<u64>,
    /// What was put and deleted of late: when, and what was deleted.
    late: RefCell<VecDeque<(Mono, ObjectKey, Option<ObjectMeta>)>>,
    lags: RefCell<Stream>,
}

/// The broker's end of the network.
pub(crate) struct RemoteStore {
    lane: StoreLane,
    sizes: MemoryStore,
}

/// The bucket as the start of a broker sees it: its few calls are answered at once, or not at all.
#[derive(Clone)]
pub(crate) struct Doorstep {
    store: MemoryStore,
    down: Arc<AtomicBool>,
}

impl Doorstep {
    fn pass<'a, T: Send + 'a>(&'a self, call: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
        match self.down.load(Ordering::Relaxed) {
            false => call,
            true => Box::pin(std::future::ready(Err(StoreError::Retry("simulated: the bucket is away".to_owned())))),
        }
    }
}

impl ObjectStore for Doorstep {
    fn put<'a>(&'a self, key: &'a ObjectKey, parts: Vec<Bytes>, condition: PutCondition) -> StoreFuture<'a, ()> {
        self.pass(self.store.put(key, parts, condition))
    }

    fn get_range<'a>(&'a self, key: &'a ObjectKey, range: Range<u64>) -> StoreFuture<'a, Bytes> {
        self.pass(self.store.get_range(key, range))
    }

    fn head<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ObjectMeta> {
        self.pass(self.store.head(key))
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ()> {
        self.pass(self.store.delete(key))
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a ObjectKey>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<ObjectMeta>> {
        self.pass(self.store.list(prefix, after, limit))
    }
}

/// The bucket as the metadata of one life reaches it: over the network while it serves, and at once when a stop waits for the last
/// snapshot without letting go of its thread.
pub(crate) struct Door {
    far: Arc<dyn ObjectStore>,
    near: Doorstep,
    at_once: AtomicBool,
}

impl Door {
    pub(crate) fn new(far: Arc<dyn ObjectStore>, near: Doorstep) -> Door {
        Door { far, near, at_once: AtomicBool::new(false) }
    }

    /// The metadata's actors have ended.
    pub(crate) fn come_near(&self) {
        self.at_once.store(true, Ordering::Relaxed);
    }

    fn store(&self) -> &dyn ObjectStore {
        if self.at_once.load(Ordering::Relaxed) { &self.near } else { &*self.far }
    }
}

impl ObjectStore for Door {
    fn put<'a>(&'a self, key: &'a ObjectKey, parts: Vec<Bytes>, condition: PutCondition) -> StoreFuture<'a, ()> {
        self.store().put(key, parts, condition)
    }

    fn get_range<'a>(&'a self, key: &'a ObjectKey, range: Range<u64>) -> StoreFuture<'a, Bytes> {
        self.store().get_range(key, range)
    }

    fn head<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ObjectMeta> {
        self.store().head(key)
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ()> {
        self.store().delete(key)
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a ObjectKey>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<ObjectMeta>> {
        self.store().list(prefix, after, limit)
    }
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Pass,
    FailBefore,
    FailAfter,
}

impl Bucket {
    /// An empty bucket without faults, and the way to it.
    pub(crate) fn start(
        runtime: Rc<dyn Runtime>,
        random: Stream,
        lags: Stream,
        fuse: Rc<Fuse>,
    ) -> (Rc<Bucket>, RemoteStore) {
        let (lane, inbox) = StoreLane::new();
        let store = MemoryStore::new();
        let bucket = Rc::new(Bucket {
            store: store.clone(),
            runtime: runtime.clone(),
            random: RefCell::new(random),
            fuse,
            fails_one_in: Cell::new(0),
            latency_us: Cell::new(1000),
            down: Arc::default(),
            gets: Cell::new(0),
            deletes: Cell::new(0),
            lag_ms: Cell::new(0),
            late: RefCell::default(),
            lags: RefCell::new(lags),
        });
        runtime.spawn(Queue::Upload, "bucket", Box::pin(bucket.clone().serve(inbox)));
        (bucket, RemoteStore { lane, sizes: store })
    }

    /// An outage begins or ends.
    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    /// What a start sees.
    pub(crate) fn doorstep(&self) -> Doorstep {
        Doorstep { store: self.store.clone(), down: self.down.clone() }
    }

    async fn serve(self: Rc<Self>, inbox: Receiver<StoreRequest>) {
        while let Ok(request) = inbox.recv_async().await {
            let this = self.clone();
            let call = async move { this.call(request).await };
            self.runtime.spawn(Queue::Upload, "store call", Box::pin(call));
        }
    }

    async fn call(&self, request: StoreRequest) {
        self.fuse.count(Counts::Store);
        let (before, after, fate) = {
            let mut random = self.random.borrow_mut();
            let latency = self.latency_us.get();
            let (before, after) = (random.below(latency), random.below(latency));
            let fails = self.fails_one_in.get();
            let fate = match self.down.load(Ordering::Relaxed) {
                true => Fate::FailBefore,
                false => self.fate(fails, &mut random),
            };
            (before, after, fate)
        };
        self.wait(before).await;
        let store = &self.store;
        match request {
            StoreRequest::Put { key, parts, condition, pace: _, reply } => {
                if self.lag_ms.get() > 0 {
                    self.late.borrow_mut().push_back((self.runtime.mono(), key.clone(), None));
                }
                self.answer(fate, store.put(&key, parts, condition), reply, after).await;
            }
            StoreRequest::GetRange { key, range, reply } => {
                self.gets.set(self.gets.get() + 1);
                self.answer(fate, store.get_range(&key, range), reply, after).await;
            }
            StoreRequest::Delete { key, reply } => {
                self.deletes.set(self.deletes.get() + 1);
                if self.lag_ms.get() > 0 {
                    if let Ok(gone) = store.head(&key).await {
                        self.late.borrow_mut().push_back((self.runtime.mono(), key.clone(), Some(gone)));
                    }
                }
                self.answer(fate, store.delete(&key), reply, after).await;
            }
            StoreRequest::List { prefix, after: key, limit, reply } => {
                let list = Box::pin(self.lagging_list(&prefix, key.as_ref(), limit));
                self.answer(fate, list, reply, after).await;
            }
        }
    }

    /// What a listing shows that has not seen all that was done of late.
    async fn lagging_list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        let found = self.store.list(prefix, after, limit).await?;
        let lag = Duration::from_millis(self.lag_ms.get());
        let (now, mut late, mut lags) = (self.runtime.mono(), self.late.borrow_mut(), self.lags.borrow_mut());
        late.retain(|(at, _, _)| at.plus(lag) > now);
        let mut seen: BTreeMap<ObjectKey, ObjectMeta> =
            found.into_iter().map(|meta| (meta.key.clone(), meta)).collect();
        for (_, key, gone) in late.iter() {
            if !key.as_str().starts_with(prefix) || after.is_some_and(|after| key <= after) || lags.one_in(2) {
                continue;
            }
            match gone {
                None => drop(seen.remove(key)),
                Some(meta) => drop(seen.insert(key.clone(), meta.clone())),
            }
        }
        Ok(seen.into_values().take(limit).collect())
    }

    fn fate(&self, fails: u64, random: &mut Stream) -> Fate {
        match fails > 0 && random.one_in(fails) {
            false => Fate::Pass,
            true if random.one_in(2) => Fate::FailBefore,
            true => Fate::FailAfter,
        }
    }

    async fn answer<T>(
        &self,
        fate: Fate,
        call: impl Future<Output = Result<T, StoreError>>,
        reply: Sender<Result<T, StoreError>>,
        after: u64,
    ) {
        let lost = || Err(StoreError::Retry("lost on the network".to_owned()));
        let outcome = match fate {
            Fate::Pass => call.await,
            Fate::FailBefore => lost(),
            Fate::FailAfter => call.await.and_then(|_| lost()),
        };
        self.fuse.count(Counts::Store);
        self.wait(after).await;
        let _gone = reply.try_send(outcome);
    }

    async fn wait(&self, us: u64) {
        self.runtime.sleep_until(self.runtime.mono().plus(Duration::from_micros(us))).await;
    }
}

impl ObjectStore for RemoteStore {
    fn put<'a>(&'a self, key: &'a ObjectKey, parts: Vec<Bytes>, condition: PutCondition) -> StoreFuture<'a, ()> {
        Box::pin(self.lane.put(key.clone(), parts, condition))
    }

    fn get_range<'a>(&'a self, key: &'a ObjectKey, range: Range<u64>) -> StoreFuture<'a, Bytes> {
        Box::pin(self.lane.get_range(key.clone(), range))
    }

    fn head<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ObjectMeta> {
        self.sizes.head(key)
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ()> {
        Box::pin(self.lane.delete(key.clone()))
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a ObjectKey>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<ObjectMeta>> {
        Box::pin(self.lane.list(prefix.to_owned(), after.cloned(), limit))
    }
}
