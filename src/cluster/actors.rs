//! The two actors of the cluster metadata, and the thread they share.
//!
//! Both are async code over flume mailboxes: in production they share one thread that may block in the store, in the
//! simulation they are one task. While control waits for shards to bring a change in force, commits go on.
#![expect(clippy::disallowed_methods, reason = "owns the metadata thread, which may block")]

use std::{cell::RefCell, convert::Infallible, rc::Rc, sync::Arc, thread};

use flume::{Receiver, Sender};
use futures_lite::future;
use thalweg_shards::{mailbox::ShardLane, meta::MetaRequest};

use super::{
    bucket::{self, BucketPorts},
    control_actor::{self, Control},
    control_msg::ControlRequest,
    ledger::{Fault, Ledger},
    meta_actor,
    open::{Cluster, WallClock},
    snapshot::SnapshotUpdate,
};

/// Requests taken in one turn.
const TURN: usize = 64;

/// Called when the metadata cannot be written any more; must end the process, for what was promised cannot be kept.
pub type Fatal = Box<dyn Fn(&str) + Send>;

/// A mailbox that also ends when the actors are told to stop.
pub(super) struct Inbox<T> {
    requests: Receiver<T>,
    stop: Receiver<Infallible>,
}

impl<T> Inbox<T> {
    /// All requests at hand, at least one; `None` at the end.
    pub(super) async fn next(&self) -> Option<Vec<T>> {
        let request = async { self.requests.recv_async().await.ok() };
        let stopped = async {
            // Nothing is ever sent: the only end is that the sender is dropped.
            let _dropped = self.stop.recv_async().await;
            None
        };
        let first = future::or(request, stopped).await?;
        Some(std::iter::once(first).chain(self.requests.try_iter()).take(TURN).collect())
    }
}

/// The actors before they run; requests may be sent already, and wait.
pub struct ClusterActors {
    cluster: Cluster,
    bucket: Option<BucketPorts>,
    meta: Inbox<MetaRequest>,
    control: Inbox<ControlRequest>,
}

/// What the actors are reached by.
pub struct ClusterLanes {
    /// For the shards.
    pub meta: Sender<MetaRequest>,
    /// For the edges.
    pub control: Sender<ControlRequest>,
    /// Ends the actors when it is dropped, after what is queued.
    pub stop: StopActors,
}

/// The right to end the actors: they serve what is queued, then end, when it is dropped.
pub struct StopActors {
    _ends_when_dropped: Sender<Infallible>,
}

impl Cluster {
    /// Makes the lanes and the actors behind them. Requests may be sent at once, and wait until the actors run.
    pub fn actors(self) -> (ClusterActors, ClusterLanes) {
        let (meta, meta_in) = flume::unbounded();
        let (control, control_in) = flume::unbounded();
        let (stop, stopped) = flume::bounded(0);
        let actors = ClusterActors {
            cluster: self,
            bucket: None,
            meta: Inbox { requests: meta_in, stop: stopped.clone() },
            control: Inbox { requests: control_in, stop: stopped },
        };
        (actors, ClusterLanes { meta, control, stop: StopActors { _ends_when_dropped: stop } })
    }
}

impl ClusterActors {
    /// Has metadata snapshots written to the bucket while the actors run.
    pub fn with_bucket(self, ports: BucketPorts) -> ClusterActors {
        ClusterActors { bucket: Some(ports), ..self }
    }

    /// Runs both actors until they are stopped, then gives the metadata back; everything is durable then. `shards` are
    /// the lanes to all shards in the order of their ids; each of `edges` gets every new snapshot.
    pub async fn run(self, shards: Vec<ShardLane>, edges: Vec<Sender<SnapshotUpdate>>, fatal: Fatal) -> Cluster {
        let views = self.cluster.views();
        let Cluster { ledger, mut settings, cluster_id, cluster_uuid } = self.cluster;
        let ledger = Rc::new(RefCell::new(ledger));
        let stop = self.control.stop.clone();
        let control = Control { ledger: ledger.clone(), views, shards, edges, stop: stop.clone() };
        let meta = meta_actor::serve(self.meta, ledger.clone(), &settings.wall);
        let control = control_actor::serve(self.control, control, &mut settings.random, &settings.no_growth);
        let kept = keep_until(self.bucket, stop, ledger.clone(), cluster_id.clone(), &settings.wall);
        let ended = future::try_zip(future::try_zip(meta, control), kept).await.map(|_| ());
        let store = ledger.borrow().store();
        if let Err(fault) = ended.and_then(|()| Ok(store.sync()?)) {
            fatal(&fault.to_string());
        }
        let ledger = Rc::into_inner(ledger).expect("both actors have ended");
        Cluster { ledger: ledger.into_inner(), settings, cluster_id, cluster_uuid }
    }

    /// Runs the actors on a thread of their own.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        self,
        shards: Vec<ShardLane>,
        edges: Vec<Sender<SnapshotUpdate>>,
        fatal: Fatal,
    ) -> std::io::Result<ClusterThread> {
        let run = move || future::block_on(self.run(shards, edges, fatal));
        Ok(ClusterThread(thread::Builder::new().name("thalweg-meta".into()).spawn(run)?))
    }
}

/// Has snapshots written until the actors are told to stop.
async fn keep_until(
    ports: Option<BucketPorts>,
    stop: Receiver<Infallible>,
    ledger: Rc<RefCell<Ledger>>,
    cluster_id: Arc<str>,
    wall: &WallClock,
) -> Result<(), Fault> {
    let Some(ports) = ports else { return Ok(()) };
    let stopped = async {
        let _dropped = stop.recv_async().await;
        Ok(())
    };
    future::or(bucket::keep(ports, ledger, cluster_id, wall), stopped).await
}

/// The thread of the running actors.
pub struct ClusterThread(thread::JoinHandle<Cluster>);

impl ClusterThread {
    /// Ends the actors and gives the metadata back, to close WAL slices. Blocks until what is queued is served and
    /// everything is durable.
    ///
    /// # Panics
    /// When the thread has panicked.
    pub fn stop(self, stop: StopActors) -> Cluster {
        drop(stop);
        self.0.join().expect("the metadata thread ends without a panic")
    }
}
