//! The bench that scenarios run on: time, log and answers are all in the test's hands.

pub use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

pub use bytes::Bytes;
use thalweg_record::{Mono, Wall};

pub use super::super::*;
use super::super::{
    load::Replay,
    records::{self, GroupRecord},
    state::{Action, AppendId, Turn},
};
pub use super::super::{partition::GroupPartition, state::Ticket};

pub const SESSION_MS: i32 = 10_000;
pub const REBALANCE_MS: i32 = 60_000;

/// A partition with a log and a clock.
pub struct Bench {
    pub now: Mono,
    pub wall: Wall,
    pub config: GroupConfig,
    pub partition: GroupPartition,
    /// What is durable.
    pub log: Vec<(Arc<str>, GroupRecord)>,
    pub appends: VecDeque<(Arc<str>, AppendId, Vec<GroupRecord>)>,
    /// Appends wait until [`Bench::complete`].
    pub hold: bool,
    pub answers: BTreeMap<Ticket, GroupResult>,
    pub asked: u64,
    pub rebalances: u64,
    pub commits: u64,
}

impl Bench {
    pub fn new() -> Bench {
        Bench {
            now: Mono(1_000_000_000),
            wall: Wall(1_700_000_000_000),
            config: GroupConfig::default(),
            partition: GroupPartition::default(),
            log: Vec::new(),
            appends: VecDeque::new(),
            hold: false,
            answers: BTreeMap::new(),
            asked: 0,
            rebalances: 0,
            commits: 0,
        }
    }

    pub fn turn(&mut self, change: impl FnOnce(&mut GroupPartition, &mut Turn<'_>)) {
        let config = self.config.clone();
        let mut turn = Turn::new(self.now, self.wall, &config);
        change(&mut self.partition, &mut turn);
        self.rebalances += turn.rebalances;
        self.commits += turn.commits;
        for action in turn.actions {
            match action {
                Action::Answer(ticket, result) => {
                    assert!(self.answers.insert(ticket, result).is_none(), "{ticket:?} is answered twice");
                }
                Action::Append { group, id, records } => self.appends.push_back((group, id, records)),
            }
        }
        if !self.hold {
            self.complete(Ok(()));
        }
    }

    /// All appends under way become durable, or fail.
    pub fn complete(&mut self, result: Result<(), GroupError>) {
        while let Some((group, id, records)) = self.appends.pop_front() {
            if result.is_ok() {
                self.log.extend(records.into_iter().map(|record| (group.clone(), record)));
            }
            let result = result.clone();
            self.turn(|partition, turn| partition.appended(turn, &group, id, result));
        }
    }

    pub fn send(&mut self, event: GroupEvent) -> Ticket {
        self.send_to("g", event)
    }

    pub fn send_to(&mut self, group: &str, event: GroupEvent) -> Ticket {
        self.asked += 1;
        let ticket = Ticket(self.asked);
        self.turn(|partition, turn| partition.event(turn, &group.into(), ticket, event));
        ticket
    }

    /// Sends, and expects the answer at once.
    pub fn ask(&mut self, event: GroupEvent) -> GroupResult {
        let ticket = self.send(event);
        self.answer(ticket)
    }

    pub fn answer(&mut self, ticket: Ticket) -> GroupResult {
        self.answers.remove(&ticket).expect("the request is answered")
    }

    pub fn waits(&self, ticket: Ticket) -> bool {
        !self.answers.contains_key(&ticket)
    }

    pub fn joined(&mut self, ticket: Ticket) -> Joined {
        match self.answer(ticket) {
            Ok(GroupAnswer::Joined(joined)) => *joined,
            other => panic!("not joined: {other:?}"),
        }
    }

    pub fn synced(&mut self, ticket: Ticket) -> Bytes {
        match self.answer(ticket) {
            Ok(GroupAnswer::Synced(synced)) => synced.assignment,
            other => panic!("not synced: {other:?}"),
        }
    }

    /// Lets time pass, with every timer on the way.
    pub fn pass(&mut self, ms: u64) {
        let until = self.now.plus(Duration::from_millis(ms));
        while let Some(at) = self.partition.wake_at().filter(|at| *at <= until) {
            self.set(at.max(self.now));
            self.turn(GroupPartition::tick);
        }
        self.set(until);
    }

    fn set(&mut self, now: Mono) {
        self.wall.0 += now.since(self.now).as_millis() as i64;
        self.now = now;
    }

    pub fn sweep(&mut self) {
        self.turn(|partition, turn| partition.sweep(turn, &|_| false));
    }

    /// The process dies, and another one reads the log, through the bytes of its records.
    pub fn crash(self) -> Bench {
        let mut replay = Replay::default();
        for (group, record) in &self.log {
            let (key, value) = records::encode(group, record).expect("it was encoded before");
            replay.apply(&key, value.as_deref());
        }
        let mut next = Bench { now: self.now, wall: self.wall, config: self.config, log: self.log, ..Bench::new() };
        next.turn(|partition, turn| *partition = replay.finish(turn));
        next
    }

    /// Joins a group whose other members are waited for by nobody: a new dynamic member, in both steps.
    pub fn join_both_steps(&mut self, name: &str) -> (Arc<str>, Ticket) {
        let Err(GroupError::MemberIdRequired(id)) = self.ask(GroupEvent::Join(join("", name))) else {
            panic!("the first join tells the id");
        };
        let ticket = self.send(GroupEvent::Join(join(&id, name)));
        (id, ticket)
    }

    /// A stable group of one.
    pub fn stable_one(&mut self) -> Arc<str> {
        let (id, ticket) = self.join_both_steps("a");
        let generation = self.joined(ticket).generation;
        let sync = self.send(sync(&id, generation, &[(&id, "all")]));
        assert_eq!(self.synced(sync), "all");
        id
    }

    pub fn state(&mut self) -> GroupState {
        match self.ask(GroupEvent::Describe) {
            Ok(GroupAnswer::Described(group)) => group.state,
            Err(GroupError::GroupIdNotFound) => GroupState::Dead,
            other => panic!("not described: {other:?}"),
        }
    }

    pub fn heartbeat(&mut self, id: &str, generation: i32) -> Result<(), GroupError> {
        self.ask(GroupEvent::Heartbeat(member(id, generation))).map(|_| ())
    }

    /// The committed offset of partition 0 of a topic.
    pub fn offset_of(&mut self, topic: &str) -> Option<CommittedOffset> {
        match self.ask(GroupEvent::Fetch(Some(vec![(topic.into(), vec![0])]))) {
            Ok(GroupAnswer::Offsets(found)) => found[0].1[0].1.clone(),
            other => panic!("not fetched: {other:?}"),
        }
    }
}

pub fn join(id: &str, new: &str) -> JoinRequest {
    JoinRequest {
        member_id: id.into(),
        new_member_id: new.into(),
        instance: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), subscription(&["t"])), ("roundrobin".into(), subscription(&["t"]))],
        must_know_id: true,
        can_skip_assignment: true,
    }
}

pub fn static_join(id: &str, new: &str, instance: &str) -> JoinRequest {
    JoinRequest { instance: Some(instance.into()), ..join(id, new) }
}

pub fn member(id: &str, generation: i32) -> MemberRef {
    MemberRef { id: id.into(), instance: None, generation }
}

pub fn sync(id: &str, generation: i32, given: &[(&str, &'static str)]) -> GroupEvent {
    let assignments = given.iter().map(|(id, part)| (Arc::from(*id), Bytes::from_static(part.as_bytes()))).collect();
    GroupEvent::Sync(SyncRequest { member: member(id, generation), protocol_type: None, protocol: None, assignments })
}

pub fn leave(id: &str) -> GroupEvent {
    GroupEvent::Leave(vec![LeavingMember { id: id.into(), instance: None }])
}

pub fn commit(id: &str, generation: i32, topic: &str, offset: i64) -> CommitRequest {
    let value = NewOffset { offset, leader_epoch: 3, metadata: "note".into() };
    CommitRequest {
        member: member(id, generation),
        offsets: vec![(topic.into(), 0, value)],
        retention_ms: None,
        knows_missing_group: true,
    }
}

/// A version 0 subscription to these topics.
pub fn subscription(topics: &[&str]) -> Bytes {
    let mut bytes = vec![0, 0];
    bytes.extend((topics.len() as i32).to_be_bytes());
    for topic in topics {
        bytes.extend((topic.len() as i16).to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    bytes.extend((-1i32).to_be_bytes());
    bytes.into()
}
