//! The broker's parts as tasks of one scheduler: every core, the metadata and the codecs are nodes of their own.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    thread,
    time::Duration,
};

use flume::{Receiver, Sender};
use thalweg::{
    api::Opening,
    broker::{CoreBody, Cores, Host, Metadata, StartError},
    cluster::{BucketPorts, Cluster, ClusterActors, SnapshotUpdate, StopActors},
};
use thalweg_record::{Mono, Wall};
use thalweg_shards::{
    cleaning::Errand,
    mailbox::ShardLane,
    runtime::{LocalBoxFuture, Queue, Runtime, seeded::Node, seeded::World},
};

use crate::{bucket::Door, fuse::Fuse};

/// Nodes of one life: the main task, ...
const MAIN: u32 = 0;
/// ... the cores from here on, ...
const CORES: u32 = 1;
/// ... and what has threads of its own in the binary.
const METADATA: u32 = 90;
const OPENERS: u32 = 91;
const ALONE: u32 = 92;
/// Lives are so far apart.
const NODES: u32 = 100;

/// What stays on the one thread of the simulation, although the broker's ports could cross threads.
pub(crate) struct OneThread<T> {
    inner: T,
    owner: thread::ThreadId,
}

// SAFETY: every access asserts that it happens on the thread that made it.
unsafe impl<T> Send for OneThread<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for OneThread<T> {}

impl<T> OneThread<T> {
    pub(crate) fn new(inner: T) -> OneThread<T> {
        OneThread { inner, owner: thread::current().id() }
    }

    pub(crate) fn get(&self) -> &T {
        assert_eq!(self.owner, thread::current().id(), "the simulation has one thread");
        &self.inner
    }
}

/// Where one life of the broker runs.
pub(crate) struct SimulatedHost(OneThread<Inner>);

struct Inner {
    world: Rc<World>,
    main: Rc<dyn Runtime>,
    base: u32,
    fuse: Rc<Fuse>,
    door: Arc<Door>,
}

/// A pause that stays on its thread.
struct Nap(OneThread<RefCell<LocalBoxFuture<'static, ()>>>);

impl Future for Nap {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.get().borrow_mut().as_mut().poll(cx)
    }
}

impl SimulatedHost {
    /// The host of the `life`-th start, whose metadata reaches the bucket through `door`.
    pub(crate) fn new(world: &Rc<World>, life: u32, fuse: Rc<Fuse>, door: Door) -> SimulatedHost {
        let base = NODES * (life + 1);
        let main = world.runtime(Node(base + MAIN));
        SimulatedHost(OneThread::new(Inner { world: world.clone(), main, base, fuse, door: Arc::new(door) }))
    }

    /// What the keeper of the metadata snapshots works with.
    pub(crate) fn bucket_ports(&self, interval: Duration) -> BucketPorts {
        let clock = OneThread::new(self.runtime(METADATA));
        let sleep = move |duration| -> Pin<Box<dyn Future<Output = ()> + Send>> {
            let clock = clock.get();
            Box::pin(Nap(OneThread::new(RefCell::new(clock.sleep_until(clock.mono().plus(duration))))))
        };
        BucketPorts { objects: self.0.get().door.clone(), interval, sleep: Box::new(sleep) }
    }

    /// The main task's runtime.
    pub(crate) fn main(&self) -> Rc<dyn Runtime> {
        self.0.get().main.clone()
    }

    /// The node of a core.
    pub(crate) fn core(&self, shard: u16) -> Node {
        Node(self.0.get().base + CORES + u32::from(shard))
    }

    /// Everything stops at once.
    pub(crate) fn crash(&self) {
        let Inner { world, base, .. } = self.0.get();
        world.crash_all(Node(*base)..Node(base + NODES));
    }

    fn runtime(&self, node: u32) -> Rc<dyn Runtime> {
        let Inner { world, base, .. } = self.0.get();
        world.runtime(Node(base + node))
    }

    fn start(&self, node: u32, body: CoreBody) -> Receiver<()> {
        let (runtime, (done, ended)) = (self.runtime(node), flume::bounded(1));
        let running = body(runtime.clone());
        let task = async move {
            running.await;
            let _gone = done.try_send(());
        };
        runtime.spawn(Queue::Hot, "core", Box::pin(task));
        ended
    }
}

impl Host for SimulatedHost {
    fn mono(&self) -> Mono {
        self.0.get().main.mono()
    }

    fn wall(&self) -> Wall {
        self.0.get().main.wall()
    }

    fn random(&self) -> u64 {
        self.0.get().main.random()
    }

    fn sleep(&self, duration: Duration) -> LocalBoxFuture<'static, ()> {
        let main = &self.0.get().main;
        main.sleep_until(main.mono().plus(duration))
    }

    fn start_cores(&self, bodies: Vec<CoreBody>) -> Result<Box<dyn Cores>, StartError> {
        let cores = (CORES..).zip(bodies).map(|(node, body)| self.start(node, body)).collect();
        Ok(Box::new(Running(cores)))
    }

    fn run_alone(&self, body: CoreBody) -> LocalBoxFuture<'_, Result<(), StartError>> {
        let ended = self.start(ALONE, body);
        Box::pin(async move { ended.recv_async().await.map_err(|e| StartError::Executor(e.to_string())) })
    }

    fn start_metadata(
        &self,
        actors: ClusterActors,
        shards: Vec<ShardLane>,
        edges: Vec<Sender<SnapshotUpdate>>,
    ) -> io::Result<Box<dyn Metadata>> {
        // The process aborts; what is left of this poll reaches nobody.
        let fuse = OneThread::new(self.0.get().fuse.clone());
        let fatal = Box::new(move |_why: &str| fuse.get().blow());
        let (back, returned) = flume::bounded(1);
        let task = async move {
            let _gone = back.try_send(actors.run(shards, edges, fatal).await);
        };
        self.runtime(METADATA).spawn(Queue::Hot, "metadata", Box::pin(task));
        Ok(Box::new(Actors { returned, door: self.0.get().door.clone() }))
    }

    fn start_openers(&self, _shards: u16) -> io::Result<Sender<Opening>> {
        let (lane, openings) = flume::unbounded::<Opening>();
        let task = async move {
            while let Ok(opening) = openings.recv_async().await {
                opening.run();
            }
        };
        self.runtime(OPENERS).spawn(Queue::Hot, "openers", Box::pin(task));
        Ok(lane)
    }

    fn start_cleaner(&self) -> io::Result<Sender<Errand>> {
        let (lane, errands) = flume::unbounded::<Errand>();
        let task = async move {
            while let Ok(errand) = errands.recv_async().await {
                errand.run();
            }
        };
        self.runtime(OPENERS).spawn(Queue::Janitor, "cleaner", Box::pin(task));
        Ok(lane)
    }
}

struct Running(Vec<Receiver<()>>);

impl Cores for Running {
    fn ended(self: Box<Self>) -> LocalBoxFuture<'static, Result<(), String>> {
        Box::pin(async move {
            for core in self.0 {
                core.recv_async().await.map_err(|e| e.to_string())?;
            }
            Ok(())
        })
    }
}

struct Actors {
    returned: Receiver<Cluster>,
    door: Arc<Door>,
}

impl Metadata for Actors {
    fn stop(self: Box<Self>, stop: StopActors) -> LocalBoxFuture<'static, Cluster> {
        drop(stop);
        Box::pin(async move {
            let cluster = self.returned.recv_async().await.expect("the metadata gives itself back");
            self.door.come_near();
            cluster
        })
    }
}
