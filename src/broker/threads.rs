//! The machine as a [`Host`]: glommio executors under a watchdog, a thread for the metadata, threads for codecs, tokio's timer.
#![expect(clippy::disallowed_methods, reason = "the main thread may block, at the start and at the stop")]

use std::{io, sync::Arc, time::Duration};

use flume::Sender;
use thalweg_record::{Mono, ShardId, Wall};
use thalweg_shards::{
    cleaning::Errand,
    mailbox::ShardLane,
    runtime::{Executor, LocalBoxFuture, Watchdog, mono_now, random_bits, start_executor, wall_now},
};
use tokio::runtime::Handle;

use super::{CoreBody, Cores, Host, Metadata, StartError, ballast::Ballast, openers};
use crate::{
    api::Opening,
    cluster::{Cluster, ClusterActors, ClusterThread, SnapshotUpdate, StopActors},
    telemetry::Health,
};

/// Threads of this process.
pub(super) struct Threads {
    tokio: Handle,
    health: Health,
    ballast: Option<Arc<Ballast>>,
}

impl Threads {
    /// Executors are watched by `health`; the main thread's timer is tokio's.
    pub(super) fn new(tokio: Handle, health: Health) -> Threads {
        Threads { tokio, health, ballast: None }
    }

    /// Has the metadata grow only while there is room for its ballast.
    pub(super) fn with_ballast(self, ballast: Arc<Ballast>) -> Threads {
        Threads { ballast: Some(ballast), ..self }
    }
}

/// Executors, and who wakes them.
struct Executors {
    running: Vec<Executor>,
    watchdog: Watchdog,
}

impl Executors {
    fn start(bodies: Vec<CoreBody>, watch: impl FnOnce(&Watchdog)) -> Result<Executors, StartError> {
        let watchdog = Watchdog::start(bodies.len())?;
        watch(&watchdog);
        let start = |(n, (body, heart)): (usize, (CoreBody, _))| start_executor(ShardId(n as u16), heart, body);
        let cores = bodies.into_iter().zip(watchdog.hearts().to_vec()).enumerate();
        let running: Result<Vec<Executor>, String> = cores.map(start).collect();
        Ok(Executors { running: running.map_err(StartError::Executor)?, watchdog })
    }

    fn join(self) -> Result<(), String> {
        let joined = self.running.into_iter().try_for_each(Executor::join);
        drop(self.watchdog);
        joined
    }
}

impl Host for Threads {
    fn mono(&self) -> Mono {
        mono_now()
    }

    fn wall(&self) -> Wall {
        wall_now()
    }

    fn random(&self) -> u64 {
        random_bits()
    }

    fn no_growth(&self) -> Option<String> {
        self.ballast.as_ref()?.no_growth()
    }

    fn sleep(&self, duration: Duration) -> LocalBoxFuture<'static, ()> {
        let _timer = self.tokio.enter();
        Box::pin(tokio::time::sleep(duration))
    }

    fn start_cores(&self, bodies: Vec<CoreBody>) -> Result<Box<dyn Cores>, StartError> {
        Ok(Box::new(Executors::start(bodies, |watchdog| self.health.watch(watchdog.hearts()))?))
    }

    fn run_alone(&self, body: CoreBody) -> LocalBoxFuture<'_, Result<(), StartError>> {
        Box::pin(async move { Executors::start(vec![body], |_| {})?.join().map_err(StartError::Executor) })
    }

    fn start_metadata(
        &self,
        actors: ClusterActors,
        shards: Vec<ShardLane>,
        edges: Vec<Sender<SnapshotUpdate>>,
    ) -> io::Result<Box<dyn Metadata>> {
        let fatal = Box::new(|why: &str| {
            tracing::error!(why, "the metadata cannot be written: the process ends before anything more is promised");
            std::process::abort()
        });
        Ok(Box::new(actors.start(shards, edges, fatal)?))
    }

    fn start_openers(&self, shards: u16) -> io::Result<Sender<Opening>> {
        openers::start(shards)
    }

    fn start_cleaner(&self) -> io::Result<Sender<Errand>> {
        openers::start_cleaner()
    }
}

impl Cores for Executors {
    fn ended(self: Box<Self>) -> LocalBoxFuture<'static, Result<(), String>> {
        Box::pin(async move { self.join() })
    }
}

impl Metadata for ClusterThread {
    fn stop(self: Box<Self>, stop: StopActors) -> LocalBoxFuture<'static, Cluster> {
        Box::pin(async move { ClusterThread::stop(*self, stop) })
    }
}
