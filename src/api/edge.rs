//! What the handlers of one executor share, and what they know of their connection.
//!
//! An `Edge` never leaves its core. Cells are borrowed for a moment, never over an await.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
};

use flume::Sender;
use kafka_protocol::protocol::StrBytes;
use thalweg_record::ShardId;
use thalweg_shards::{
    mailbox::ShardLane,
    msg::{ConnId, Request},
    runtime::Runtime,
};

use super::{
    gather::Newer,
    k00_produce::{Opening, Unanswered},
    k01_fetch::{ColdRoom, Sessions, StashCell},
};
use crate::{
    auth::{Authorizer, Principal, host_of},
    cluster::{
        ClusterSnapshot, ControlRequest,
        broker_config::{MAX_CONNECTIONS, MAX_CONNECTIONS_PER_IP},
    },
    config::{AuthorizerClass, Config},
    coordinator::group::GroupRequest,
    net::{Admission, EdgeLimits},
    telemetry::EdgeMeters,
};

/// Producer ids reserved at once.
const PRODUCER_ID_BLOCK: u32 = 1000;

/// The parts an [`Edge`] is made of.
pub struct EdgeParts {
    /// The executor's runtime.
    pub runtime: Rc<dyn Runtime>,
    /// Which shard shares the executor.
    pub home: ShardId,
    /// The broker's settings.
    pub config: Arc<Config>,
    /// Limits of connections.
    pub limits: EdgeLimits,
    /// Lanes to all shards, by id.
    pub shards: Vec<ShardLane>,
    /// Lanes to the group coordinators, by the shard whose core they share.
    pub groups: Vec<Sender<GroupRequest>>,
    /// The lane to the control actor.
    pub control: Sender<ControlRequest>,
    /// The lane to the threads that open batches.
    pub openings: Sender<Opening>,
    /// The newest snapshot.
    pub snapshot: Arc<ClusterSnapshot>,
}

/// One executor's edge.
pub struct Edge {
    /// The executor's runtime.
    pub runtime: Rc<dyn Runtime>,
    /// Which shard shares the executor.
    pub home: ShardId,
    /// The broker's settings.
    pub config: Arc<Config>,
    /// Limits of connections.
    pub limits: EdgeLimits,
    /// Lanes to all shards, by id.
    pub shards: Vec<ShardLane>,
    /// Lanes to the group coordinators, by the shard whose core they share.
    pub groups: Vec<Sender<GroupRequest>>,
    /// The lane to the control actor.
    pub control: Sender<ControlRequest>,
    /// The lane to the threads that open batches.
    pub openings: Sender<Opening>,
    /// Permits of this executor.
    pub admission: Admission,
    /// What its connections and handlers count.
    pub meters: EdgeMeters,
    /// Decides what clients may do; without one they may do everything.
    pub authorizer: Option<Authorizer>,
    /// Fetch sessions of its connections.
    pub fetch_sessions: RefCell<Sessions>,
    /// What its connections may have read for them from the ring and the object store.
    pub cold_room: ColdRoom,
    snapshot: RefCell<Arc<ClusterSnapshot>>,
    waiting: RefCell<Vec<(Newer, Sender<()>)>>,
    producer_ids: Cell<(i64, i64)>,
    connections: Cell<u64>,
    stop: RefCell<Option<Sender<Infallible>>>,
    stopping: flume::Receiver<Infallible>,
}

/// The control actor is gone: the process is stopping.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the broker is stopping")]
pub struct Stopping;

impl Edge {
    /// Puts an edge together.
    ///
    /// # Panics
    /// When `shards` or `groups` is not one lane for every shard in the order of its id.
    pub fn new(parts: EdgeParts) -> Edge {
        let EdgeParts { runtime, home, config, limits, shards, groups, control, openings, snapshot } = parts;
        assert!(shards.iter().enumerate().all(|(at, lane)| usize::from(lane.id.0) == at), "lanes are by shard id");
        assert_eq!(shards.len(), groups.len(), "every core has a group coordinator");
        let (stop, stopping) = flume::bounded(1);
        Edge {
            stop: RefCell::new(Some(stop)),
            stopping,
            admission: Admission::new(&limits, shards.len(), Rc::clone(&runtime)),
            meters: EdgeMeters::new(home),
            fetch_sessions: RefCell::new(Sessions::new(
                home,
                shards.len(),
                config.max_incremental_fetch_session_cache_slots as usize,
            )),
            // Half as much again as answers may take, which these records become.
            cold_room: ColdRoom::new(u64::from(limits.response_bytes) / 2),
            authorizer: authorizer(&config),
            runtime,
            home,
            config,
            limits,
            shards,
            groups,
            control,
            openings,
            snapshot: RefCell::new(snapshot),
            waiting: RefCell::default(),
            producer_ids: Cell::new((0, 0)),
            connections: Cell::new(0),
        }
    }

    /// The newest snapshot this executor was given.
    pub fn snapshot(&self) -> Arc<ClusterSnapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// Connections of the whole broker, and from one address, that are served: as altered, or as read at the start.
    pub fn max_connections(&self) -> (u32, u32) {
        let snapshot = self.snapshot.borrow();
        let altered = |name| snapshot.altered.number(name).and_then(|n| u32::try_from(n).ok());
        let all = altered(MAX_CONNECTIONS).unwrap_or(self.limits.max_connections);
        (all, altered(MAX_CONNECTIONS_PER_IP).unwrap_or(self.limits.max_connections_per_ip))
    }

    /// Takes a snapshot, unless it is older than the one at hand, tells this core's coordinator, and wakes who waits for
    /// it.
    pub fn publish(&self, newer: Arc<ClusterSnapshot>) {
        let revision = newer.revision;
        if revision < self.snapshot.borrow().revision {
            return;
        }
        *self.snapshot.borrow_mut() = Arc::clone(&newer);
        if let Some(coordinator) = self.groups.get(usize::from(self.home.0)) {
            let _stopping = coordinator.try_send(GroupRequest::Published(Arc::clone(&newer)));
        }
        self.waiting.borrow_mut().retain(|(wanted, wake)| {
            if !wanted.is_met_by(&newer) {
                return true;
            }
            let _gone = wake.try_send(());
            false
        });
    }

    /// The newest snapshot, as soon as it is as new as wanted. Waits for ever for one that never comes: bound it with a
    /// deadline.
    pub async fn snapshot_at(&self, wanted: Newer) -> Arc<ClusterSnapshot> {
        if !wanted.is_met_by(&self.snapshot.borrow()) {
            let (wake, woken) = flume::bounded(1);
            self.waiting.borrow_mut().push((wanted, wake));
            let _published = woken.recv_async().await;
        }
        self.snapshot()
    }

    /// The lane to a shard.
    pub fn shard(&self, id: ShardId) -> &ShardLane {
        &self.shards[usize::from(id.0)]
    }

    /// A producer id that was never handed out before.
    ///
    /// # Errors
    /// [`Stopping`] when the control actor is gone.
    pub async fn next_producer_id(&self) -> Result<i64, Stopping> {
        loop {
            let (next, end) = self.producer_ids.get();
            if next < end {
                self.producer_ids.set((next + 1, end));
                return Ok(next);
            }
            let (reply, answer) = flume::bounded(1);
            let ask = ControlRequest::ReserveProducerIds { count: PRODUCER_ID_BLOCK, reply };
            self.control.try_send(ask).map_err(|_| Stopping)?;
            let first = answer.recv_async().await.map_err(|_| Stopping)?;
            // Another handler may have filled the block meanwhile; its rest is given up, ids are plenty.
            self.producer_ids.set((first, first + i64::from(PRODUCER_ID_BLOCK)));
        }
    }

    /// The broker is stopping: parked requests answer, connections end when nothing is in flight.
    pub fn stop(&self) {
        self.stop.borrow_mut().take();
    }

    /// Completes when the broker is stopping.
    pub async fn stopping(&self) {
        // Nothing is ever sent: the only end is that the sender is dropped.
        let _dropped = self.stopping.recv_async().await;
    }

    /// A connection id, unique in this process: the shard in the upper 16 bits.
    pub fn next_connection(&self) -> ConnId {
        let count = self.connections.get() + 1;
        self.connections.set(count);
        ConnId(u64::from(self.home.0) << 48 | count)
    }

    /// Tells every shard that a connection is closed, and gives its room to others.
    pub fn connection_gone(&self, conn: ConnId) {
        self.cold_room.gone(conn);
        self.shards.iter().for_each(|lane| lane.send(Request::ConnGone(conn)));
    }
}

fn authorizer(config: &Config) -> Option<Authorizer> {
    (config.authorizer_class_name == AuthorizerClass::Standard).then(|| Authorizer {
        super_users: config.super_users.0.clone(),
        allow_if_no_rule: config.allow_everyone_if_no_acl_found,
    })
}

/// Who calls: one per connection.
#[derive(Debug)]
pub struct Caller {
    /// The connection.
    pub conn: ConnId,
    /// The client's address.
    pub peer: SocketAddr,
    /// That address as it stands in access rules.
    pub host: Box<str>,
    /// Who it is.
    pub principal: RefCell<Principal>,
    /// Host that this connection's listener advertises.
    pub advertised_host: Arc<str>,
    /// Port that this connection's listener advertises.
    pub advertised_port: u16,
    /// Name and version of the client's software (KIP-511), once it has said so.
    pub software: RefCell<Option<(StrBytes, StrBytes)>>,
    /// A Produce waits for its batches to be opened; meanwhile the connection is not read.
    pub opening: Cell<bool>,
    /// Its Produces that are not answered.
    pub unanswered: Rc<Unanswered>,
    /// What its last fetch left behind.
    pub stash: Rc<StashCell>,
}

impl Caller {
    /// A connection that has said nothing yet.
    pub fn new(conn: ConnId, peer: SocketAddr, advertised_host: Arc<str>, advertised_port: u16) -> Caller {
        let (software, stash) = Default::default();
        Caller {
            conn,
            peer,
            host: host_of(peer.ip()),
            principal: RefCell::new(Principal::anonymous()),
            advertised_host,
            advertised_port,
            software,
            opening: Cell::new(false),
            unanswered: Rc::default(),
            stash,
        }
    }
}
