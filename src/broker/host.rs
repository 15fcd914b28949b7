//! Where the parts of a broker run, and how clients reach them: what [`Broker`](super::Broker) is started on.
//!
//! The binary has executors, threads and sockets (`threads`, `tcp`); the simulation runs the same parts as tasks of one
//! scheduler. Called on the broker's main task at its start and its end only, never by a shard.

use std::{io, rc::Rc, time::Duration};

use flume::Sender;
use thalweg_record::{Mono, Wall};
use thalweg_shards::{
    cleaning::Errand,
    mailbox::ShardLane,
    runtime::{LocalBoxFuture, Runtime},
};

use super::StartError;
use crate::{
    api::{Edge, Opening},
    cluster::{Cluster, ClusterActors, SnapshotUpdate, StopActors},
};

/// What a core does from its start to its end, on the runtime it is given.
pub type CoreBody = Box<dyn FnOnce(Rc<dyn Runtime>) -> LocalBoxFuture<'static, ()> + Send>;

/// Runs a broker's parts.
pub trait Host: Send + Sync {
    /// The monotonic clock.
    fn mono(&self) -> Mono;

    /// The wall clock.
    fn wall(&self) -> Wall;

    /// 64 random bits.
    fn random(&self) -> u64;

    /// Why nothing may be created that makes the metadata grow; `None` when it may.
    fn no_growth(&self) -> Option<String> {
        None
    }

    /// Completes after `duration`.
    fn sleep(&self, duration: Duration) -> LocalBoxFuture<'static, ()>;

    /// Starts a core for each of `bodies`, which come in the order of their shards.
    ///
    /// # Errors
    /// The machine refuses an executor.
    fn start_cores(&self, bodies: Vec<CoreBody>) -> Result<Box<dyn Cores>, StartError>;

    /// Runs one core to its end, before the others start.
    ///
    /// # Errors
    /// As [`Host::start_cores`], or it ended otherwise than by itself.
    fn run_alone(&self, body: CoreBody) -> LocalBoxFuture<'_, Result<(), StartError>>;

    /// Runs the metadata's actors, where they may block.
    ///
    /// # Errors
    /// A thread is refused.
    fn start_metadata(
        &self,
        actors: ClusterActors,
        shards: Vec<ShardLane>,
        edges: Vec<Sender<SnapshotUpdate>>,
    ) -> io::Result<Box<dyn Metadata>>;

    /// Starts what opens batches for `shards` shards.
    ///
    /// # Errors
    /// A thread is refused.
    fn start_openers(&self, shards: u16) -> io::Result<Sender<Opening>>;

    /// Starts what unpacks the records of logs that are cleaned.
    ///
    /// # Errors
    /// A thread is refused.
    fn start_cleaner(&self) -> io::Result<Sender<Errand>>;
}

/// Cores that run.
pub trait Cores {
    /// Completes when all have ended.
    ///
    /// # Errors
    /// One ended otherwise than by itself.
    fn ended(self: Box<Self>) -> LocalBoxFuture<'static, Result<(), String>>;
}

/// The metadata's actors while they run.
pub trait Metadata {
    /// Ends them when what is queued is served and durable, and gives the metadata back.
    fn stop(self: Box<Self>, stop: StopActors) -> LocalBoxFuture<'static, Cluster>;
}

/// How clients reach the cores.
pub trait Network: Send + Sync {
    /// Lets clients in to the core of `edge`.
    ///
    /// # Errors
    /// Why it cannot be reached.
    fn open(&self, edge: &Rc<Edge>) -> Result<(), String>;

    /// Lets no more clients in; those who are connected stay.
    fn stop_accepting(&self);

    /// Clients that are connected.
    fn connected(&self) -> usize;
}
