//! A broker's edge for the tests of handlers: virtual time, and shards and control that the test plays itself.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use flume::Receiver;
use kafka_protocol::{
    messages::TopicName,
    protocol::{Decodable, Encodable, StrBytes},
};
use thalweg_record::{LeaderEpoch, Mono, NodeId, PartitionId, ShardId, TopicId};
use thalweg_shards::{
    mailbox::{ShardInbox, shard_lanes},
    msg::{ConnId, Generation, PartitionSettings, Request},
    runtime::{
        Queue,
        seeded::{Node, World},
    },
};

use super::{Api, Call, Caller, Close, Edge, EdgeParts, Handler, Opening, Response};
use crate::{
    auth::{AclRules, tests::rule},
    cluster::{Altered, BrokerView, ClusterSnapshot, ControlRequest, TopicSettings, TopicView},
    config::Config,
    coordinator::group::{GroupCall, GroupRequest},
    net::EdgeLimits,
};

/// Settings of a broker whose authorizer allows what rules say.
pub const AUTHORIZED: &[(&str, &str)] =
    &[("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")];

const POLLS: u64 = 100_000;

/// One executor's edge, and the far ends of its lanes.
pub struct FakeBroker {
    pub world: Rc<World>,
    pub edge: Rc<Edge>,
    pub caller: Rc<Caller>,
    pub inboxes: Vec<ShardInbox>,
    pub groups: Vec<Receiver<GroupRequest>>,
    pub control: Receiver<ControlRequest>,
}

/// An answer that may still be under way.
pub struct Asked {
    answer: Rc<RefCell<Option<Result<Response, Close>>>>,
    version: i16,
}

pub fn topic_id(name: &str) -> TopicId {
    let mut id = [0; 16];
    id[..name.len().min(16)].copy_from_slice(&name.as_bytes()[..name.len().min(16)]);
    TopicId(id)
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

pub fn topic(name: &str, partitions: i32) -> Arc<TopicView> {
    let effective = PartitionSettings {
        max_message_bytes: 1 << 20,
        retention_ms: None,
        timestamp_after_max_ms: None,
        ..PartitionSettings::KAFKA_DEFAULTS
    };
    Arc::new(TopicView {
        name: name.into(),
        id: topic_id(name),
        partitions,
        leader_epoch: LeaderEpoch(2),
        internal: name.starts_with("__"),
        settings: TopicSettings { overrides: BTreeMap::new(), effective },
    })
}

pub fn snapshot(revision: u64, shards: u16, topics: &[(&str, i32)]) -> Arc<ClusterSnapshot> {
    let views: Vec<Arc<TopicView>> = topics.iter().map(|(name, partitions)| topic(name, *partitions)).collect();
    Arc::new(ClusterSnapshot {
        revision,
        cluster_id: "AAAAAAAAAAAAAAAAAAAAAA".into(),
        broker: BrokerView { node: NodeId(1), host: "default.example".into(), port: 1, rack: Some("a".into()) },
        leader_epoch: LeaderEpoch(2),
        shards,
        generation: Generation(0),
        moved: Arc::default(),
        topics: views.iter().map(|view| (Arc::clone(&view.name), Arc::clone(view))).collect(),
        topics_by_id: views.into_iter().map(|view| (view.id, view)).collect(),
        altered: Altered::none(),
        acls: Arc::default(),
        scram: Arc::default(),
    })
}

impl FakeBroker {
    pub fn new(shards: u16, topics: &[(&str, i32)]) -> FakeBroker {
        FakeBroker::with(&[], shards, topics)
    }

    /// With some settings.
    pub fn with(settings: &[(&str, &str)], shards: u16, topics: &[(&str, i32)]) -> FakeBroker {
        let config = Config::with(settings).expect("settings are right");
        let world = World::new(7);
        let (lanes, inboxes) = (0..shards).map(|id| shard_lanes(ShardId(id))).unzip();
        let groups: (Vec<_>, Vec<_>) = (0..shards).map(|_| flume::unbounded()).unzip();
        let (control, requests) = flume::unbounded();
        let (openings, to_open) = flume::unbounded::<Opening>();
        let opening = async move {
            while let Ok(opening) = to_open.recv_async().await {
                opening.run()
            }
        };
        world.runtime(Node(1)).spawn(Queue::Cold, "openings", Box::pin(opening));
        let edge = Edge::new(EdgeParts {
            runtime: world.runtime(Node(1)),
            home: ShardId(0),
            config: Arc::new(config),
            limits: EdgeLimits::default(),
            shards: lanes,
            groups: groups.0,
            control,
            openings,
            snapshot: snapshot(1, shards, topics),
        });
        let peer = "127.0.0.1:4000".parse().expect("an address");
        let caller = Caller::new(ConnId(5), peer, "this.example".into(), 9099);
        FakeBroker { world, edge: Rc::new(edge), caller: Rc::new(caller), inboxes, groups: groups.1, control: requests }
    }

    /// Changes a topic's settings, in the next snapshot.
    pub fn configure(&self, name: &str, change: impl FnOnce(&mut PartitionSettings)) {
        let old = self.edge.snapshot();
        let mut view = topic(name, old.topics[name].partitions);
        change(&mut Arc::get_mut(&mut view).expect("nobody else holds it yet").settings.effective);
        let mut newer = snapshot(old.revision + 1, old.shards, &[]);
        let parts = Arc::get_mut(&mut newer).expect("nobody else holds it yet");
        (parts.topics, parts.topics_by_id) = (old.topics.clone(), old.topics_by_id.clone());
        parts.topics_by_id.insert(view.id, Arc::clone(&view));
        parts.topics.insert(Arc::clone(&view.name), view);
        self.edge.publish(newer);
    }

    /// Alters settings of something else than topics, in the next snapshot.
    pub fn alter(&self, altered: Altered) {
        self.change(|parts| parts.altered = Arc::new(altered));
    }

    /// Has these access rules in force, in the next snapshot; each as `topic literal a User:x * read allow`.
    pub fn rules(&self, rules: &[&str]) {
        self.change(|parts| parts.acls = Arc::new(AclRules::new(rules.iter().map(|text| rule(text)).collect())));
    }

    /// A partition is on that shard, in the next snapshot.
    pub fn relocate(&self, partition: PartitionId, to: ShardId) {
        self.change(|parts| {
            parts.generation = Generation(parts.generation.0 + 1);
            Arc::make_mut(&mut parts.moved).insert(partition, to);
        });
    }

    fn change(&self, change: impl FnOnce(&mut ClusterSnapshot)) {
        let old = self.edge.snapshot();
        let mut newer = snapshot(old.revision + 1, old.shards, &[]);
        let parts = Arc::get_mut(&mut newer).expect("nobody else holds it yet");
        (parts.topics, parts.topics_by_id) = (old.topics.clone(), old.topics_by_id.clone());
        (parts.generation, parts.moved) = (old.generation, old.moved.clone());
        change(parts);
        self.edge.publish(newer);
    }

    /// Sends a request.
    pub fn ask(&self, api: &Api, version: i16, request: &impl Encodable) -> Asked {
        let mut body = BytesMut::new();
        request.encode(&mut body, version).expect("encodable");
        self.ask_bytes(api, version, body.freeze())
    }

    pub fn ask_bytes(&self, api: &Api, version: i16, body: Bytes) -> Asked {
        let call = Call {
            edge: Rc::clone(&self.edge),
            caller: Rc::clone(&self.caller),
            version,
            client_id: None,
            received: self.world.mono(),
        };
        let handled = match api.handler {
            Handler::Alone(handler) | Handler::Asking(handler) => handler(call, body),
            Handler::Ordered(handler) => Box::pin(async move { handler(call, body).await?.await }),
        };
        let answer = Rc::new(RefCell::new(None));
        let to = Rc::clone(&answer);
        let task = async move { *to.borrow_mut() = Some(handled.await) };
        self.edge.runtime.spawn(Queue::Hot, "handler", Box::pin(task));
        Asked { answer, version }
    }

    /// The next request to a shard; time passes while it waits.
    pub fn request(&self, shard: usize) -> Request {
        self.world.run_until(POLLS, || !self.inboxes[shard].data.is_empty());
        self.inboxes[shard].data.try_recv().expect("a request to this shard")
    }

    /// The next request to control.
    pub fn control_request(&self) -> ControlRequest {
        self.world.run_until(POLLS, || !self.control.is_empty());
        self.control.try_recv().expect("a request to control")
    }

    /// What the handler made of it, whenever that comes.
    pub fn outcome(&self, asked: Asked) -> Result<Response, Close> {
        self.world.run_until(POLLS, || asked.answer.borrow().is_some());
        asked.answer.take().expect("an answer")
    }

    /// The next request to a group coordinator that is for one group.
    pub fn group_call(&self, shard: usize) -> Box<GroupCall> {
        self.world.run_until(POLLS, || !self.groups[shard].is_empty());
        match self.groups[shard].try_recv() {
            Ok(GroupRequest::Group(call)) => call,
            other => panic!("not for a group: {other:?}"),
        }
    }

    /// The answer, whenever it comes.
    pub fn finish<T: Decodable>(&self, asked: Asked) -> T {
        self.world.run_until(POLLS, || asked.answer.borrow().is_some());
        let answer = asked.answer.take().expect("an answer");
        let mut bytes = Bytes::from(answer.expect("the connection stays open").pieces.concat());
        let decoded = T::decode(&mut bytes, asked.version).expect("decodable");
        assert!(bytes.is_empty(), "nothing after the answer");
        decoded
    }

    /// Runs everything that can run without time passing; whether the answer is there.
    pub fn settled(&self, asked: &Asked) -> bool {
        let now = self.world.mono();
        let moved = Cell::new(false);
        self.edge.runtime.spawn(Queue::Hot, "settle", {
            let runtime = Rc::clone(&self.edge.runtime);
            Box::pin(async move { runtime.sleep_until(Mono(now.0 + 1)).await })
        });
        self.world.run_until(POLLS, || {
            moved.set(self.world.mono() > now);
            moved.get() || asked.answer.borrow().is_some()
        });
        asked.answer.borrow().is_some()
    }
}
