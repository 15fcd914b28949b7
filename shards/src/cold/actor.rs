//! The cold reader's I/O: one actor per core, and a task for each fetch and each search, all on the queue `Cold`.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use bytes::Bytes;
use flume::Sender;
use futures_lite::future::or;
use thalweg_record::{BatchHead, Offset, Wall};

use super::{
    ColdError, ColdFindTime, ColdManifest, ColdRead, ColdRequest, Entries,
    fetch::{Fetcher, fetch_index, fetch_manifest, fetch_run},
    manifests::{Asked, Manifests},
    plan::{Action, Bounds, Fetched, FlightId, JobId, Plan},
    read_job::ReadAsk,
    time_job::TimeAsk,
};
use crate::{
    meta::ObjectId,
    meters::ShardMeters,
    records::{FoundTime, first_record_at},
    runtime::{LocalBoxFuture, Queue, Runtime},
    store::StoreLane,
};

/// Events handled, and blocks cut, before the actor lets others run.
const EVENTS_PER_TURN: u32 = 4;
/// Of the cache, this part is for manifests.
const MANIFESTS_PART: u64 = 8;

/// Bounds of one core's cold reader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ColdConfig {
    /// `cache.read.bytes`, this core's share: indexes and blocks.
    pub cache_bytes: u64,
    /// Bytes of fetches in flight; a single larger block goes alone. Half of it is open to readahead.
    pub in_flight_bytes: u64,
    /// Fetches in flight, >= 1.
    pub in_flight_requests: usize,
    /// How long a fetch is tried again before its readers get [`ColdError::Storage`].
    pub retry_for: Duration,
}

impl ColdConfig {
    /// The bounds that go with a cache of `cache_bytes`.
    pub fn with_cache(cache_bytes: u64) -> ColdConfig {
        ColdConfig {
            cache_bytes,
            in_flight_bytes: (cache_bytes / 2).clamp(1 << 20, 64 << 20),
            in_flight_requests: 16,
            retry_for: Duration::from_secs(20),
        }
    }
}

/// Starts the cold reader of a core. It ends when the last sender is dropped; requests then in hand are dropped with
/// their `done`. Of `meters` it keeps those of the cold cache.
pub fn start(
    runtime: Rc<dyn Runtime>,
    store: StoreLane,
    config: ColdConfig,
    meters: ShardMeters,
) -> Sender<ColdRequest> {
    let (requests, inbox) = flume::unbounded();
    let (events, completions) = flume::unbounded();
    let bounds = Bounds {
        cache_bytes: config.cache_bytes - config.cache_bytes / MANIFESTS_PART,
        in_flight_bytes: config.in_flight_bytes,
        in_flight_requests: config.in_flight_requests.max(1),
    };
    let actor = Actor {
        fetcher: Rc::new(Fetcher { runtime: runtime.clone(), store, retry_for: config.retry_for }),
        runtime: runtime.clone(),
        plan: Plan::new(bounds),
        manifests: Manifests::new(config.cache_bytes / MANIFESTS_PART),
        meters,
        next_job: 0,
        reads: BTreeMap::new(),
        look_ups: BTreeMap::new(),
        events,
    };
    runtime.spawn(Queue::Cold, "cold reader", Box::pin(actor.run(inbox, completions)));
    requests
}

enum Event {
    Request(ColdRequest),
    Fetched(FlightId, Result<Fetched, ColdError>),
    Searched(JobId, Option<FoundTime>),
    Listed(ObjectId, Result<Entries, ColdError>),
}

type ReadDone = Box<dyn FnOnce(Result<Vec<Bytes>, ColdError>)>;
type FoundDone = Box<dyn FnOnce(Result<Option<FoundTime>, ColdError>)>;

struct Actor {
    runtime: Rc<dyn Runtime>,
    fetcher: Rc<Fetcher>,
    plan: Plan,
    manifests: Manifests,
    meters: ShardMeters,
    next_job: u64,
    reads: BTreeMap<JobId, ReadDone>,
    look_ups: BTreeMap<JobId, FoundDone>,
    events: Sender<Event>,
}

impl Actor {
    async fn run(mut self, inbox: flume::Receiver<ColdRequest>, completions: flume::Receiver<Event>) {
        let mut handled = 0;
        loop {
            // Completions first: they free budget.
            let event = or(async { completions.recv_async().await.ok() }, async {
                inbox.recv_async().await.ok().map(Event::Request)
            });
            let Some(event) = event.await else { return };
            self.handle(event);
            loop {
                for action in self.plan.take_actions() {
                    self.act(action);
                }
                if !self.plan.cut_next() {
                    break;
                }
                // One block that was fetched may be what a hundred readers wait for.
                self.breathe_after(&mut handled).await;
            }
            self.count();
            self.breathe_after(&mut handled).await;
        }
    }

    async fn breathe_after(&self, handled: &mut u32) {
        *handled += 1;
        if *handled % EVENTS_PER_TURN == 0 {
            self.runtime.breathe().await;
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Request(ColdRequest::Read(read)) => self.read(read),
            Event::Request(ColdRequest::FindTime(find)) => self.find_time(find),
            Event::Request(ColdRequest::Manifest(ask)) => self.list(ask),
            Event::Request(ColdRequest::ConnGone(conn)) => self.plan.conn_gone(conn),
            Event::Fetched(flight, result) => self.plan.fetched(flight, result),
            Event::Searched(job, found) => self.plan.searched(job, found),
            Event::Listed(id, found) => {
                self.manifests.fetched(id, &found).into_iter().for_each(|done| done(found.clone()));
            }
        }
    }

    fn count(&mut self) {
        let (size_bytes, hits, misses) = self.plan.cache.take_figures();
        self.meters.cold_cache_bytes.set((size_bytes + self.manifests.size_bytes()) as f64);
        self.meters.cold_cache_hits.increment(hits);
        self.meters.cold_cache_misses.increment(misses);
    }

    fn list(&mut self, ask: ColdManifest) {
        let ColdManifest { partition, manifest, done } = ask;
        match self.manifests.ask(manifest.id, done) {
            Asked::Known(done, entries) => done(Ok(entries)),
            Asked::Waits => {}
            Asked::Fetch => {
                let (fetcher, events) = (self.fetcher.clone(), self.events.clone());
                let task = async move {
                    let found = fetch_manifest(&fetcher, partition, &manifest).await;
                    let entries = found.map(|entries| Rc::new(entries.into_iter().map(Rc::new).collect()));
                    let _stopping = events.try_send(Event::Listed(manifest.id, entries));
                };
                self.runtime.spawn(Queue::Cold, "cold manifest", Box::pin(task));
            }
        }
    }

    fn new_job(&mut self) -> JobId {
        self.next_job += 1;
        JobId(self.next_job)
    }

    fn read(&mut self, read: ColdRead) {
        let job = self.new_job();
        self.reads.insert(job, read.done);
        let ask = ReadAsk {
            partition: read.partition,
            objects: read.objects.into(),
            offset: read.offset,
            up_to: read.up_to,
            max_bytes: read.max_bytes,
            at_least_one: read.at_least_one,
        };
        self.plan.read(job, read.conn, ask, self.runtime.mono());
    }

    fn find_time(&mut self, find: ColdFindTime) {
        let job = self.new_job();
        self.look_ups.insert(job, find.done);
        let ask = TimeAsk {
            partition: find.partition,
            objects: find.objects,
            time: find.time,
            from: find.from,
            up_to: find.up_to,
        };
        self.plan.find_time(job, find.conn, ask);
    }

    fn act(&mut self, action: Action) {
        let (fetcher, events) = (self.fetcher.clone(), self.events.clone());
        let task: LocalBoxFuture<'static, ()> = match action {
            Action::FetchIndex(flight, object) => Box::pin(async move {
                let fetched = fetch_index(&fetcher, &object).await.map(Fetched::Index);
                let _stopping = events.try_send(Event::Fetched(flight, fetched));
            }),
            Action::FetchRun(flight, object, blocks) => Box::pin(async move {
                let fetched = fetch_run(&fetcher, &object, &blocks).await.map(Fetched::Run);
                let _stopping = events.try_send(Event::Fetched(flight, fetched));
            }),
            Action::Search(job, block, from, time) => {
                let runtime = self.runtime.clone();
                Box::pin(async move {
                    let found = search(&*runtime, block, from, time).await;
                    let _stopping = events.try_send(Event::Searched(job, found));
                })
            }
            Action::Read(job, result) => {
                let done = self.reads.remove(&job).expect("a read ends once");
                return done(result);
            }
            Action::Found(job, result) => {
                let done = self.look_ups.remove(&job).expect("a look-up ends once");
                return done(result);
            }
        };
        self.runtime.spawn(Queue::Cold, "cold task", task);
    }
}

/// Walks the records of a block for the first at or after `from` and `time`, one batch at a time.
async fn search(runtime: &dyn Runtime, mut block: Bytes, from: Offset, time: Wall) -> Option<FoundTime> {
    while let Ok(head) = BatchHead::parse(&block) {
        let batch = block.split_to(head.size_bytes().min(block.len()));
        if head.last_offset() >= from {
            if let Some(found) = first_record_at(&batch, time, from) {
                return Some(found);
            }
            runtime.breathe().await;
        }
    }
    None
}
