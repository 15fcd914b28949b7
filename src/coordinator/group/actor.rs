//! The group coordinator of one core: the mailbox, the log and the clock around the groups.
//!
//! Lives on its shard's core, in the hot queue. It owns the groups of every `__consumer_offsets` partition that the shard
//! serves, and waits for nothing but its lanes: requests, ownership, answers of the shard, and one timer. A partition's
//! records are read before anything is answered for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

use flume::{Receiver, Sender};
use futures_lite::future::or;
use thalweg_record::{LeaderEpoch, Mono, PartitionId, failpoint};
use thalweg_shards::{
    mailbox::{Answer, ReplyTo, ShardLane},
    msg::{AppendRequest, Generation, Origin, Ownership, Reply, Request},
    runtime::{LocalBoxFuture, Queue, Runtime},
};

use super::{
    Census, GroupConfig, GroupError, OFFSETS_TOPIC, Positions, batch,
    loader::{Loaded, Loader},
    partition::GroupPartition,
    records::{self, GroupRecord},
    request::{GroupCall, GroupRequest, GroupResult},
    state::{Action, AppendId, Ticket, Turn},
};
use crate::{cluster::ClusterSnapshot, telemetry::GroupMeters};

/// Events handled before the core's other work gets its turn.
const EVENTS_PER_BREATH: u32 = 64;

/// What the coordinator of a core is connected to.
pub struct GroupPorts {
    /// The core's runtime.
    pub runtime: Rc<dyn Runtime>,
    /// The shard of this core.
    pub shard: ShardLane,
    /// What the shard says about its internal partitions.
    pub ownership: Receiver<Ownership>,
    /// Requests of all connections, and snapshots.
    pub inbox: Receiver<GroupRequest>,
    /// The newest snapshot.
    pub snapshot: Arc<ClusterSnapshot>,
    /// Settings.
    pub config: GroupConfig,
    /// Metric handles.
    pub meters: GroupMeters,
}

/// The coordinator of one core.
pub struct GroupActor {
    runtime: Rc<dyn Runtime>,
    shard: ShardLane,
    ownership: Receiver<Ownership>,
    inbox: Receiver<GroupRequest>,
    config: Rc<GroupConfig>,
    meters: GroupMeters,
    snapshot: Arc<ClusterSnapshot>,
    answers: (Sender<Answer>, Receiver<Answer>),
    partitions: BTreeMap<PartitionId, Served>,
    /// What each request to the shard was for.
    asked: BTreeMap<u64, Asked>,
    /// Who waits for which ticket.
    waiting: BTreeMap<Ticket, Sender<GroupResult>>,
    next_number: u64,
    sweep_at: Mono,
    timer: Option<(Mono, LocalBoxFuture<'static, ()>)>,
}

struct Served {
    epoch: LeaderEpoch,
    state: Serving,
}

enum Serving {
    Loading(Loader),
    Ready(GroupPartition),
}

struct Asked {
    partition: PartitionId,
    epoch: LeaderEpoch,
    purpose: Purpose,
}

enum Purpose {
    Load,
    Append { group: Arc<str>, id: AppendId },
}

enum Event {
    Ownership(Ownership),
    Answer(Answer),
    Request(GroupRequest),
    Timer,
    Stop,
}

impl GroupActor {
    /// Starts the coordinator of a core. It ends when its inbox or its ownership lane does.
    pub fn spawn(ports: GroupPorts) {
        let GroupPorts { runtime, shard, ownership, inbox, snapshot, config, meters } = ports;
        let actor = GroupActor {
            sweep_at: runtime.mono().plus(config.offsets_retention_check_interval),
            runtime: Rc::clone(&runtime),
            shard,
            ownership,
            inbox,
            config: Rc::new(config),
            meters,
            snapshot,
            answers: flume::unbounded(),
            partitions: BTreeMap::new(),
            asked: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next_number: 0,
            timer: None,
        };
        runtime.spawn(Queue::Hot, "group coordinator", Box::pin(actor.run()));
    }

    async fn run(mut self) {
        let mut events = 0u32;
        loop {
            match self.next().await {
                Event::Ownership(change) => self.owner_changed(change),
                Event::Answer(answer) => self.shard_answered(answer),
                Event::Request(request) => self.request(request),
                Event::Timer => self.timer_fired(),
                Event::Stop => return,
            }
            events += 1;
            if events % EVENTS_PER_BREATH == 0 {
                self.runtime.breathe().await;
            }
        }
    }

    /// Ownership goes first, so that what a shard serves is known before anybody asks for it.
    async fn next(&mut self) -> Event {
        let at = self.next_wake();
        if self.timer.as_ref().is_none_or(|(armed, _)| at < *armed) {
            self.timer = Some((at, self.runtime.sleep_until(at)));
        }
        let (_, sleep) = self.timer.as_mut().expect("it was just set");
        let (ownership, answers, inbox) = (&self.ownership, &self.answers.1, &self.inbox);
        let first = async { ownership.recv_async().await.map_or(Event::Stop, Event::Ownership) };
        let second = async { answers.recv_async().await.map_or(Event::Stop, Event::Answer) };
        let third = async {
            sleep.await;
            Event::Timer
        };
        let last = async { inbox.recv_async().await.map_or(Event::Stop, Event::Request) };
        or(first, or(second, or(third, last))).await
    }

    fn next_wake(&self) -> Mono {
        let due = self.partitions.values().filter_map(|served| match &served.state {
            Serving::Loading(loader) => loader.retry_at(),
            Serving::Ready(groups) => groups.wake_at(),
        });
        due.min().map_or(self.sweep_at, |at| at.min(self.sweep_at))
    }

    fn owner_changed(&mut self, change: Ownership) {
        match change {
            Ownership::Opened { topic_name, partition, epoch, log_start, end } => {
                if &*topic_name != OFFSETS_TOPIC {
                    return;
                }
                // Opened again without having been sealed: whoever waits must not wait for ever.
                self.seal(partition);
                let loader = Loader::new(partition, self.shard.id, log_start, end);
                self.partitions.insert(partition, Served { epoch, state: Serving::Loading(loader) });
                self.load_on(partition);
            }
            Ownership::Sealed { partition, epoch } => {
                if self.partitions.get(&partition).is_some_and(|served| served.epoch <= epoch) {
                    self.seal(partition);
                }
            }
        }
    }

    fn seal(&mut self, partition: PartitionId) {
        let Some(served) = self.partitions.remove(&partition) else { return };
        if let Serving::Ready(groups) = served.state {
            let config = Rc::clone(&self.config);
            let mut turn = Turn::new(self.runtime.mono(), self.runtime.wall(), &config);
            self.meters.moved(&groups.census(), &Census::default());
            groups.unload(&mut turn);
            self.act(partition, turn);
        }
    }

    /// Reads on, or finishes.
    fn load_on(&mut self, partition: PartitionId) {
        let Some(served) = self.partitions.get_mut(&partition) else { return };
        let Serving::Loading(loader) = &mut served.state else { return };
        let number = self.next_number;
        self.next_number += 1;
        if let Some(take) = loader.next_take(ReplyTo::new(self.answers.0.clone(), number)) {
            self.asked.insert(number, Asked { partition, epoch: served.epoch, purpose: Purpose::Load });
            return self.shard.send(Request::Take(Box::new(take)));
        }
        let replay = loader.take_replay();
        let config = Rc::clone(&self.config);
        let mut turn = Turn::new(self.runtime.mono(), self.runtime.wall(), &config);
        let groups = replay.finish(&mut turn);
        self.meters.moved(&Census::default(), &groups.census());
        served.state = Serving::Ready(groups);
        tracing::debug!(partition = partition.index, epoch = served.epoch.0, "groups are loaded");
        self.act(partition, turn);
    }

    fn shard_answered(&mut self, answer: Answer) {
        let Some(asked) = self.asked.remove(&answer.slot) else { return };
        let partition = asked.partition;
        // What was asked under an earlier epoch concerns nobody any more.
        let Some(served) = self.partitions.get_mut(&partition).filter(|served| served.epoch == asked.epoch) else {
            return;
        };
        match (asked.purpose, &mut served.state) {
            (Purpose::Load, Serving::Loading(loader)) => match loader.answered(answer.reply, self.runtime.mono()) {
                Loaded::More => self.load_on(partition),
                Loaded::Later => {
                    let again = Asked { partition, epoch: asked.epoch, purpose: Purpose::Load };
                    self.asked.insert(answer.slot, again);
                }
                Loaded::Failed => {}
            },
            (Purpose::Append { group, id }, Serving::Ready(_)) => {
                failpoint::pass("group-durable");
                let result = appended(answer.reply);
                self.with(partition, |groups, turn| groups.appended(turn, &group, id, result));
            }
            _ => {}
        }
    }

    fn request(&mut self, request: GroupRequest) {
        match request {
            GroupRequest::Group(call) => self.call(*call),
            GroupRequest::List(reply) => {
                let mut listed = Ok(Vec::new());
                for served in self.partitions.values() {
                    match (&served.state, &mut listed) {
                        (Serving::Ready(groups), Ok(list)) => list.extend(groups.list()),
                        _ => listed = Err(GroupError::LoadInProgress),
                    }
                }
                let _gone = reply.try_send(listed);
            }
            GroupRequest::Positions(limit, reply) => {
                let _gone = reply.try_send(self.positions(limit));
            }
            GroupRequest::Published(snapshot) => self.published(snapshot),
        }
    }

    fn positions(&self, limit: usize) -> Positions {
        let (wall, mut positions) = (self.runtime.wall(), Positions::default());
        for served in self.partitions.values() {
            if let Serving::Ready(groups) = &served.state {
                positions.collect(groups, &self.snapshot, wall, limit);
            }
        }
        positions
    }

    fn call(&mut self, GroupCall { partition, group, event, reply }: GroupCall) {
        let refusal = match self.partitions.get(&partition).map(|served| &served.state) {
            Some(Serving::Ready(_)) => None,
            Some(Serving::Loading(_)) => Some(GroupError::LoadInProgress),
            None => Some(GroupError::NotCoordinator),
        };
        if let Some(why) = refusal {
            let _gone = reply.try_send(Err(why));
            return;
        }
        let ticket = Ticket(self.next_number);
        self.next_number += 1;
        self.waiting.insert(ticket, reply);
        self.with(partition, |groups, turn| groups.event(turn, &group, ticket, event));
    }

    fn published(&mut self, snapshot: Arc<ClusterSnapshot>) {
        if snapshot.revision <= self.snapshot.revision {
            return;
        }
        let earlier = std::mem::replace(&mut self.snapshot, snapshot);
        let now = &self.snapshot.topics;
        let kept = |name: &Arc<str>, id| now.get(name).is_some_and(|topic| topic.id == id);
        let gone: BTreeSet<Arc<str>> =
            earlier.topics.values().filter(|t| !kept(&t.name, t.id)).map(|t| t.name.clone()).collect();
        if !gone.is_empty() {
            self.with_all(|groups, turn| groups.forget_topics(turn, &|topic| gone.contains(topic)));
        }
    }

    fn timer_fired(&mut self) {
        self.timer = None;
        let now = self.runtime.mono();
        let due = |served: &Served| match &served.state {
            Serving::Loading(loader) => loader.retry_at().is_some_and(|at| at <= now),
            Serving::Ready(groups) => groups.wake_at().is_some_and(|at| at <= now),
        };
        let ids: Vec<PartitionId> = self.partitions.iter().filter(|(_, s)| due(s)).map(|(id, _)| *id).collect();
        for id in ids {
            match self.partitions.get(&id).map(|served| &served.state) {
                Some(Serving::Loading(_)) => self.load_on(id),
                _ => self.with(id, GroupPartition::tick),
            }
        }
        if self.sweep_at <= now {
            self.sweep_at = now.plus(self.config.offsets_retention_check_interval);
            let snapshot = Arc::clone(&self.snapshot);
            // A snapshot that lacks our own topic does not know the cluster yet.
            let knows = snapshot.topics.contains_key(OFFSETS_TOPIC);
            self.with_all(|groups, turn| {
                groups.sweep(turn, &|topic| knows && !snapshot.topics.contains_key(topic));
            });
        }
    }

    fn with_all(&mut self, change: impl Fn(&mut GroupPartition, &mut Turn<'_>)) {
        let ids: Vec<PartitionId> = self.partitions.keys().copied().collect();
        for id in ids {
            self.with(id, &change);
        }
    }

    fn with(&mut self, id: PartitionId, change: impl FnOnce(&mut GroupPartition, &mut Turn<'_>)) {
        let config = Rc::clone(&self.config);
        let mut turn = Turn::new(self.runtime.mono(), self.runtime.wall(), &config);
        let Some(Served { state: Serving::Ready(groups), .. }) = self.partitions.get_mut(&id) else { return };
        let before = groups.census();
        change(groups, &mut turn);
        self.meters.moved(&before, &groups.census());
        self.act(id, turn);
    }

    /// Does what came of a turn.
    fn act(&mut self, partition: PartitionId, turn: Turn<'_>) {
        self.meters.rebalances.increment(turn.rebalances);
        self.meters.offset_commits.increment(turn.commits);
        for action in turn.actions {
            match action {
                Action::Answer(ticket, result) => {
                    let reply = self.waiting.remove(&ticket).expect("a ticket is answered once");
                    let _gone = reply.try_send(result);
                }
                Action::Append { group, id, records } => {
                    if let Err(why) = self.append(partition, &group, id, &records) {
                        tracing::warn!(%group, %why, "a group's records cannot be stored");
                        let result = Err(GroupError::Unstorable);
                        self.with(partition, |groups, turn| groups.appended(turn, &group, id, result));
                    }
                }
            }
        }
    }

    fn append(
        &mut self,
        partition: PartitionId,
        group: &Arc<str>,
        id: AppendId,
        records: &[GroupRecord],
    ) -> Result<(), records::RecordError> {
        let encoded: Result<Vec<_>, _> = records.iter().map(|record| records::encode(group, record)).collect();
        let batch = batch::encode(encoded?, self.runtime.wall());
        let number = self.next_number;
        self.next_number += 1;
        let epoch = self.partitions.get(&partition).map_or(LeaderEpoch(-1), |served| served.epoch);
        let purpose = Purpose::Append { group: group.clone(), id };
        self.asked.insert(number, Asked { partition, epoch, purpose });
        failpoint::pass("group-append");
        self.shard.send(Request::Append(Box::new(AppendRequest {
            origin: Origin::Internal,
            deadline: self.runtime.mono().plus(self.config.offsets_commit_timeout),
            // Partitions of internal topics never move.
            generation: Generation(0),
            batches: vec![(partition, batch)],
            reply: ReplyTo::new(self.answers.0.clone(), number),
        })));
        Ok(())
    }
}

/// What the shard's answer to an append means to the group.
fn appended(reply: Reply) -> Result<(), GroupError> {
    match reply {
        Reply::Append { results, .. } => match results.into_iter().next() {
            Some(Ok(_)) => Ok(()),
            Some(Err(why)) => Err(GroupError::from_append(&why)),
            None => Err(GroupError::CoordinatorNotAvailable),
        },
        _ => Err(GroupError::CoordinatorNotAvailable),
    }
}
