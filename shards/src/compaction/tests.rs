//! A shard that compacts, over real objects: what it makes holds the same batches, and a reader that was sent to what is gone by then
//! does not notice.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_lite::future::block_on;
use thalweg_objectstore::{
    Call, Fate, FaultHook, MemoryStore, ObjectStore, Operation, PutCondition, data_key,
    format::{AbortedTransaction, Footer, ObjectEncoder, PartitionProperties, Properties},
};
use thalweg_record::{Batch, BatchHead, HEAD_LEN, LeaderEpoch, NodeId, Offset, PartitionId, ShardId, TopicId};
use thalweg_wal::{LogConfig, SliceIdentity, create, device::MemoryDevice, open};

use super::*;
use crate::{
    cold,
    mailbox::{Answer, ReplyTo, ShardLane, shard_lanes},
    meta::{CommittedObject, Compaction, CompactionOutcome, MetaRequest, ObjectId},
    meters::{ShardMeters, StoreMeters},
    msg::{
        ConnId, FetchFrom, Isolation, PartitionError, PartitionSettings, PartitionSpec, Records, Reply, Request,
        TakeRequest,
    },
    pace::DevicePace,
    runtime::{
        Queue,
        seeded::{Ended, Node, World},
    },
    shard::{Shard, ShardConfig, ShardPorts},
    store,
    work_room::WorkRoom,
};

const SHARD: ShardId = ShardId(0);
const IDENTITY: SliceIdentity = SliceIdentity { cluster: [1; 16], node: NodeId(1), shard: SHARD, slice: [2; 16] };
const RING_BYTES: u64 = 1 << 20;
const UPLOADS: u64 = 3;
const OUTPUT: ObjectId = ObjectId(70);

fn partition(index: i32) -> PartitionId {
    PartitionId { topic: TopicId([7; 16]), index }
}

/// Holds the first read of the first upload back until it is released.
struct Gate {
    gets: AtomicU64,
    opened: flume::Receiver<()>,
}

impl FaultHook for Gate {
    fn fate(&self, call: &Call<'_>) -> Pin<Box<dyn Future<Output = Fate> + Send>> {
        let counts = call.operation == Operation::GetRange && call.key == data_key(1, NodeId(1), 1).as_str();
        let first = counts && self.gets.fetch_add(1, Ordering::Relaxed) == 0;
        let opened = self.opened.clone();
        Box::pin(async move {
            if first {
                let _open = opened.recv_async().await;
            }
            Fate::Pass
        })
    }
}

fn batch(base: i64) -> Batch {
    let body = Bytes::from(vec![base as u8; 100]);
    let mut head = BatchHead([0; HEAD_LEN]);
    head.0[16] = 2;
    head.set_batch_length((HEAD_LEN - 12 + body.len()) as i32);
    head.set_last_offset_delta(4);
    head.set_record_count(5);
    head.set_producer_id(-1);
    head.set_crc(head.compute_crc(&body));
    head.stamp(Offset(base), LeaderEpoch(1));
    Batch { head, body }
}

/// Uploads of two partitions; answers what the metadata has of each, and the bytes of all batches of one.
fn uploads(store: &MemoryStore) -> (Vec<Vec<CommittedObject>>, Vec<u8>) {
    uploads_telling(store, |_| Vec::new())
}

/// The same; each tells of `aborted` transactions of the second partition, by its id.
fn uploads_telling(
    store: &MemoryStore,
    aborted: impl Fn(u64) -> Vec<AbortedTransaction>,
) -> (Vec<Vec<CommittedObject>>, Vec<u8>) {
    let (mut committed, mut appended) = (vec![Vec::new(), Vec::new()], Vec::new());
    for id in 1..=UPLOADS {
        let mut encoder = ObjectEncoder::new(id, 256);
        let mut properties = Properties::default();
        for index in [0, 1] {
            for n in 0..4 {
                let one = batch((id as i64 - 1) * 20 + n * 5);
                if index == 0 {
                    appended.extend_from_slice(&[&one.head.0[..], &one.body].concat());
                }
                encoder.push(partition(index), &one);
            }
            let aborted = if index == 1 { aborted(id) } else { Vec::new() };
            let about = PartitionProperties { partition: partition(index), aborted, ..PartitionProperties::default() };
            properties.partitions.push(about);
        }
        let made = encoder.finish(&properties);
        let key = data_key(id, NodeId(1), 1);
        for (range, committed) in made.ranges.iter().zip(&mut committed) {
            committed.push(CommittedObject {
                object: ObjectId(id),
                key: key.clone(),
                object_bytes: made.size_bytes,
                base: range.base,
                last: range.last,
                size_bytes: range.size_bytes,
                max_timestamp: range.max_timestamp,
                epoch: range.leader_epoch,
                level: 0,
            });
        }
        block_on(store.put(&key, made.parts, PutCondition::IfAbsent)).expect("memory");
    }
    (committed, appended)
}

fn spec(index: i32, committed: Vec<CommittedObject>) -> PartitionSpec {
    PartitionSpec {
        partition: partition(index),
        topic_name: "t".into(),
        leader_epoch: LeaderEpoch(2),
        settings: PartitionSettings::KAFKA_DEFAULTS,
        log_start: Offset(0),
        committed_end: committed.last().expect("uploads").last.next(),
        manifests: Vec::new(),
        committed,
        epochs: vec![(LeaderEpoch(1), Offset(0))],
        producers: Vec::new(),
        cleaned: Offset(0),
        internal: false,
        loan: None,
    }
}

/// Plays the metadata: takes one compaction, then has the uploads deleted.
async fn metadata(requests: flume::Receiver<MetaRequest>, store: MemoryStore, seen: Rc<RefCell<Vec<Compaction>>>) {
    while let Ok(request) = requests.recv_async().await {
        match request {
            MetaRequest::ReserveObjects { reply, .. } => drop(reply.try_send(OUTPUT)),
            MetaRequest::MostlyDead { reply } => drop(reply.try_send(Vec::new())),
            MetaRequest::TakeStaleReservations { reply, .. } => drop(reply.try_send(Vec::new())),
            MetaRequest::Compact { compaction, reply, .. } => {
                let _gone = reply.try_send(CompactionOutcome::Committed(1));
                for id in 1..=UPLOADS {
                    store.delete(&data_key(id, NodeId(1), 1)).await.expect("memory");
                }
                seen.borrow_mut().push(*compaction);
            }
            _ => {}
        }
    }
}

/// A shard with uploads of two partitions, its mailbox, and what it compacted.
struct Scene {
    world: Rc<World>,
    lane: ShardLane,
    seen: Rc<RefCell<Vec<Compaction>>>,
    answers: (flume::Sender<Answer>, flume::Receiver<Answer>),
}

fn scene(seed: u64, store: &MemoryStore, committed: Vec<Vec<CommittedObject>>, compacts: bool) -> Scene {
    let world = World::new(seed);
    let runtime = world.runtime(Node(1));
    let device = Rc::new(MemoryDevice::new(RING_BYTES + 8192));
    let limits = LogConfig { max_group_bytes: 64 << 10, max_in_flight_bytes: 1 << 20, ..LogConfig::default() };
    let log = block_on(async {
        create(device.clone(), IDENTITY, limits, 1).await.expect("created");
        open(device.clone(), IDENTITY, limits, 2, false).await.expect("opened").log
    });
    let (lane, inbox) = shard_lanes(SHARD);
    let (meta, requests) = flume::unbounded();
    let seen = Rc::new(RefCell::new(Vec::new()));
    runtime.spawn(Queue::Hot, "metadata", Box::pin(metadata(requests, store.clone(), seen.clone())));
    let serve = |queue| store::serve(&runtime, queue, Arc::new(store.clone()), 4, Rc::new(StoreMeters::new()));
    let compaction = compacts.then(|| CompactionPorts {
        config: CompactionConfig {
            interval: Duration::from_millis(50),
            objects: UPLOADS as usize,
            output_bytes: 1 << 20,
            split_bytes: 1 << 20,
            block_bytes: 4096,
            bytes_per_second: 1 << 20,
            upload_bytes: 1 << 20,
        },
        store: serve(Queue::Janitor),
        room: WorkRoom::new(1 << 20),
    });
    let reads = cold::ColdConfig::with_cache(1 << 20);
    let (ownership, failed) = (flume::unbounded(), flume::unbounded());
    let ports = ShardPorts {
        runtime: runtime.clone(),
        device,
        inbox,
        meta,
        store: serve(Queue::Upload),
        compaction,
        cleaning: None,
        cold: cold::start(runtime.clone(), serve(Queue::Cold), reads, ShardMeters::new(SHARD)),
        ownership: ownership.0,
        peers: Vec::new(),
        pace: Arc::new(DevicePace::new(0, 0)),
        failed: failed.0,
        meters: Rc::new(ShardMeters::new(SHARD)),
    };
    let mut shard = Shard::new(ShardConfig::small(SHARD), ports, log);
    let specs = committed.into_iter().enumerate().map(|(index, list)| spec(index as i32, list)).collect();
    shard.adopt(1, specs, &[]).expect("whole");
    runtime.spawn(Queue::Hot, "shard", Box::pin(shard.run()));
    Scene { world, lane, seen, answers: flume::unbounded() }
}

impl Scene {
    /// Reads the first partition from its start.
    fn ask(&self) {
        let (partition, offset) = (partition(0), Offset(0));
        let from = FetchFrom { partition, offset, max_bytes: 1 << 20, current_leader_epoch: None };
        self.lane.send(Request::Take(Box::new(TakeRequest {
            conn: ConnId(1),
            parts: vec![from],
            isolation: Isolation::Uncommitted,
            at_least_one: true,
            reply: ReplyTo::new(self.answers.0.clone(), 1),
        })));
    }

    /// What came of it.
    fn late(&self) -> Result<Vec<u8>, PartitionError> {
        let found = RefCell::new(None);
        let late = || {
            for answer in self.answers.1.try_iter() {
                if let Reply::Late(_, late) = answer.reply {
                    found.replace(Some(late));
                }
            }
            found.borrow().is_some()
        };
        assert_eq!(self.world.run_until(1_000_000, late), Ended::Done);
        let Records::Ready(pieces) = found.take().expect("it is here")?.records else { panic!("it has to wait") };
        Ok(pieces.concat())
    }
}

#[test]
fn a_reader_does_not_notice_that_what_it_reads_was_compacted() {
    let (store, (open_gate, opened)) = (MemoryStore::new(), flume::bounded(1));
    let (committed, appended) = uploads(&store);
    store.set_hook(Some(Arc::new(Gate { gets: AtomicU64::new(0), opened })));
    let scene = scene(5, &store, committed, true);
    scene.ask();
    // The read holds on to an upload; meanwhile all of them are compacted and deleted.
    assert_eq!(scene.world.run_until(1_000_000, || !scene.seen.borrow().is_empty()), Ended::Done);
    let made = &scene.seen.borrow()[0];
    let ranges: Vec<_> =
        made.ranges.iter().map(|r| (r.range.partition.index, r.range.base.0, r.range.last.0)).collect();
    assert_eq!(ranges, [(0, 0, 59), (1, 0, 59)]);
    assert_eq!(made.ranges[1].parts.len(), UPLOADS as usize);
    open_gate.send(()).expect("the read waits");
    assert_eq!(scene.late(), Ok(appended), "every batch, as it was");
}

#[test]
fn aborted_transactions_are_carried_over() {
    let transaction = |producer_id, first, last| AbortedTransaction {
        producer_id,
        first_offset: Offset(first),
        last_offset: Offset(last),
    };
    let (own, spans, later) = (transaction(1, 3, 8), transaction(2, 15, 24), transaction(1, 26, 39));
    let (kept, beyond) = (transaction(3, 2, 49), transaction(2, 42, 55));
    let store = MemoryStore::new();
    let (mut committed, _) = uploads_telling(&store, |id| match id {
        1 => vec![own],
        2 => vec![spans, later],
        _ => vec![kept, beyond],
    });
    // A rebuild took less of the last upload than it holds: one of its two blocks.
    let last = committed[1].last_mut().expect("uploads");
    (last.last, last.size_bytes) = (Offset(49), last.size_bytes / 2);
    let scene = scene(7, &store, committed, true);
    assert_eq!(scene.world.run_until(1_000_000, || !scene.seen.borrow().is_empty()), Ended::Done);
    let made = scene.seen.borrow()[0].clone();
    assert_eq!(made.ranges.iter().map(|r| r.range.last.0).collect::<Vec<_>>(), [59, 49]);
    let content = block_on(store.get_range(&made.key, 0..made.object_bytes)).expect("it was put");
    let footer = Footer::parse(&content, made.object_bytes).expect("whole");
    let about = footer.properties_range();
    let told = Properties::parse(&footer, &content[about.start as usize..about.end as usize]).expect("whole");
    let aborted: Vec<_> = told.partitions.into_iter().map(|about| about.aborted).collect();
    assert_eq!(aborted, [vec![], vec![own, spans, later, kept]], "each once, and none whose marker was not taken");
}

#[test]
fn an_object_that_is_lost_is_asked_for_once_more_and_no_further() {
    let (store, (open_gate, opened)) = (MemoryStore::new(), flume::bounded(1));
    let (committed, _) = uploads(&store);
    let gate = Arc::new(Gate { gets: AtomicU64::new(0), opened });
    store.set_hook(Some(gate.clone()));
    block_on(store.delete(&committed[0][0].key)).expect("memory");
    open_gate.send(()).expect("nobody waits yet");
    let scene = scene(6, &store, committed, false);
    let began = scene.world.mono();
    scene.ask();
    assert_eq!(scene.late(), Err(PartitionError::Storage));
    let took = scene.world.mono().since(began);
    assert!(took < Duration::from_millis(50), "a store that says so is not given time: {took:?}");
    assert_eq!(gate.gets.load(Ordering::Relaxed), 2);
}
