//! The actor on a seeded runtime, with a shard that keeps batches in memory.

use std::{cell::RefCell, rc::Rc, time::Duration};

use flume::{Receiver, Sender};
use thalweg_record::{Batch, LeaderEpoch, Offset, PartitionId, ShardId, TopicId};
use thalweg_shards::{
    mailbox::{ReplyTo, ShardInbox, shard_lanes},
    msg::{AppendRequest, Appended, Ownership, PartitionError, Records, Reply, Request, Taken},
    runtime::seeded::{Node, World},
};

use super::bench::*;
use crate::{
    cluster::{Altered, BrokerView, ClusterSnapshot},
    telemetry::GroupMeters,
};

const PARTITION: PartitionId = PartitionId { topic: TopicId([9; 16]), index: 4 };
const POLLS: u64 = 20_000;

struct Core {
    world: Rc<World>,
    ownership: Sender<Ownership>,
    groups: Sender<GroupRequest>,
    shard: ShardInbox,
    log: Rc<RefCell<Vec<Batch>>>,
}

fn snapshot() -> Arc<ClusterSnapshot> {
    let broker = BrokerView { node: thalweg_record::NodeId(1), host: "h".into(), port: 1, rack: None };
    let (cluster_id, topics, topics_by_id) = ("c".into(), BTreeMap::new(), BTreeMap::new());
    Arc::new(ClusterSnapshot {
        revision: 1,
        cluster_id,
        broker,
        leader_epoch: LeaderEpoch(0),
        shards: 1,
        generation: Default::default(),
        moved: Arc::default(),
        topics,
        topics_by_id,
        altered: Altered::none(),
        acls: Arc::default(),
        scram: Arc::default(),
    })
}

impl Core {
    fn new(log: Rc<RefCell<Vec<Batch>>>) -> Core {
        let world = World::new(3);
        let (lane, shard) = shard_lanes(ShardId(0));
        let (ownership, owned) = flume::unbounded();
        let (groups, inbox) = flume::unbounded();
        GroupActor::spawn(GroupPorts {
            runtime: world.runtime(Node(1)),
            shard: lane,
            ownership: owned,
            inbox,
            snapshot: snapshot(),
            config: GroupConfig::default(),
            meters: GroupMeters::new(ShardId(0)),
        });
        Core { world, ownership, groups, shard, log }
    }

    fn open(&self) {
        let end = Offset(self.log.borrow().iter().map(|b| i64::from(b.head.record_count())).sum());
        let opened = Ownership::Opened {
            topic_name: OFFSETS_TOPIC.into(),
            partition: PARTITION,
            epoch: LeaderEpoch(1),
            log_start: Offset(0),
            end,
        };
        self.ownership.try_send(opened).expect("the actor lives");
    }

    fn ask(&self, event: GroupEvent) -> Receiver<GroupResult> {
        let (reply, answer) = flume::bounded(1);
        let call = GroupCall { partition: PARTITION, group: "g".into(), event, reply };
        self.groups.try_send(GroupRequest::Group(Box::new(call))).expect("the actor lives");
        answer
    }

    fn answer(&self, asked: &Receiver<GroupResult>) -> GroupResult {
        self.world.run_until(POLLS, || !asked.is_empty());
        asked.try_recv().expect("an answer")
    }

    fn request(&self) -> Request {
        self.world.run_until(POLLS, || !self.shard.data.is_empty());
        self.shard.data.try_recv().expect("a request to the shard")
    }

    fn next_append(&self) -> AppendRequest {
        match self.request() {
            Request::Append(append) => *append,
            other => panic!("not an append: {other:?}"),
        }
    }

    fn store(&self, mut append: AppendRequest) {
        let (partition, mut batch) = append.batches.pop().expect("one batch");
        assert_eq!((partition, append.batches.len()), (PARTITION, 0));
        let mut log = self.log.borrow_mut();
        let base = log.last().map_or(Offset(0), |b| b.head.last_offset().next());
        batch.head.stamp(base, LeaderEpoch(1));
        log.push(batch);
        let appended = Appended { base_offset: base, log_append_time: None, log_start: Offset(0) };
        append.reply.send(Reply::Append {
            results: vec![Ok(appended)],
            throttle: Duration::ZERO,
            returned: Vec::new(),
        });
    }

    /// The next take: where it begins, and who wants the answer.
    fn next_take(&self) -> (Offset, ReplyTo) {
        match self.request() {
            Request::Take(take) => (take.parts[0].offset, take.reply),
            other => panic!("not a take: {other:?}"),
        }
    }

    /// The batch at `offset`, as a take answers it.
    fn taken(&self, offset: Offset) -> Result<Taken, PartitionError> {
        let log = self.log.borrow();
        let found = log.iter().find(|b| b.head.last_offset() >= offset).expect("nothing is asked for beyond the end");
        let piece = Bytes::from([&found.head.0[..], &found.body[..]].concat());
        let end = log.last().expect("not empty").head.last_offset().next();
        Ok(Taken {
            high_watermark: end,
            last_stable: end,
            log_start: Offset(0),
            aborted: Vec::new(),
            records: Records::Ready(vec![piece]),
        })
    }
}

fn committed(core: &Core, offset: i64) {
    let asked = core.ask(GroupEvent::Commit(commit("", -1, "t", offset)));
    let append = core.next_append();
    assert!(asked.is_empty(), "not before it is durable");
    core.store(append);
    assert_eq!(core.answer(&asked), Ok(GroupAnswer::Committed(vec![Ok(())])));
}

#[test]
fn commits_are_read_back_by_the_next_process() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let core = Core::new(log.clone());
    assert_eq!(core.answer(&core.ask(GroupEvent::Describe)), Err(GroupError::NotCoordinator));
    core.open();
    committed(&core, 5);
    committed(&core, 6);

    let core = Core::new(log);
    core.open();
    let (at, reply) = core.next_take();
    assert_eq!(at, Offset(0));
    assert_eq!(core.answer(&core.ask(GroupEvent::Describe)), Err(GroupError::LoadInProgress));
    // The first part comes late, the second fails once.
    let pending = Taken { records: Records::Pending, ..core.taken(at).expect("there") };
    reply.send_more(Reply::Take(vec![Ok(pending)]));
    assert_eq!(core.answer(&core.ask(GroupEvent::Describe)), Err(GroupError::LoadInProgress));
    reply.send(Reply::Late(0, core.taken(at)));
    let (at, reply) = core.next_take();
    assert_eq!(at, Offset(1));
    reply.send(Reply::Take(vec![Err(PartitionError::Storage)]));
    let (at, reply) = core.next_take();
    assert_eq!(at, Offset(1));
    reply.send(Reply::Take(vec![core.taken(at)]));
    let wanted = GroupEvent::Fetch(Some(vec![("t".into(), vec![0])]));
    let found = loop {
        match core.answer(&core.ask(wanted.clone())) {
            Ok(GroupAnswer::Offsets(found)) => break found,
            Err(GroupError::LoadInProgress) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(found[0].1[0].1.as_ref().map(|o| o.offset), Some(6));
}

#[test]
fn refusals_of_the_log_become_kafkas_errors() {
    let core = Core::new(Rc::default());
    core.open();
    let cases = [
        (PartitionError::RingFull, GroupError::CoordinatorNotAvailable),
        (PartitionError::TimedOut, GroupError::CoordinatorNotAvailable),
        (PartitionError::Moved(4), GroupError::NotCoordinator),
        (PartitionError::MessageTooLarge, GroupError::InvalidCommitOffsetSize),
    ];
    for (told, expected) in cases {
        let asked = core.ask(GroupEvent::Commit(commit("", -1, "t", 1)));
        core.next_append().reply.send(Reply::Append {
            results: vec![Err(told)],
            throttle: Duration::ZERO,
            returned: Vec::new(),
        });
        assert_eq!(core.answer(&asked), Err(expected));
    }
    // A shard that is gone drops the request.
    let asked = core.ask(GroupEvent::Commit(commit("", -1, "t", 1)));
    drop(core.next_append());
    assert_eq!(core.answer(&asked), Err(GroupError::CoordinatorNotAvailable));
}

#[test]
fn a_sealed_partition_is_elsewhere() {
    let core = Core::new(Rc::default());
    core.open();
    let asked = core.ask(GroupEvent::Commit(commit("", -1, "t", 1)));
    let append = core.next_append();
    core.ownership.try_send(Ownership::Sealed { partition: PARTITION, epoch: LeaderEpoch(1) }).expect("it lives");
    assert_eq!(core.answer(&asked), Err(GroupError::NotCoordinator));
    core.store(append);
    assert_eq!(core.answer(&core.ask(GroupEvent::Describe)), Err(GroupError::NotCoordinator));
}

#[test]
fn sessions_end_by_the_runtimes_clock() {
    let core = Core::new(Rc::default());
    core.open();
    let asked = core.ask(GroupEvent::Join(JoinRequest { must_know_id: false, ..join("", "a") }));
    let Ok(GroupAnswer::Joined(joined)) = core.answer(&asked) else { panic!("not joined") };
    let asked = core.ask(sync(&joined.member_id, 1, &[("a", "all")]));
    core.store(core.next_append());
    assert!(core.answer(&asked).is_ok());
    // The member falls silent: the next thing the log hears is the empty group.
    let before = core.world.mono();
    core.store(core.next_append());
    let waited = core.world.mono().since(before).as_millis();
    assert!((9_000..12_000).contains(&waited), "{waited} ms");
    let Ok(GroupAnswer::Described(group)) = core.answer(&core.ask(GroupEvent::Describe)) else { panic!("not there") };
    assert_eq!(group.state, GroupState::Empty);
}
