//! What a shard borrows and lends, told and asked in its own turn.

use std::{rc::Rc, sync::Arc};

use futures_lite::future::block_on;
use thalweg_objectstore::{MemoryStore, data_key, manifest_key};
use thalweg_record::{HEAD_LEN, LeaderEpoch, NodeId, TimestampType, TopicId};
use thalweg_wal::{LogConfig, Lsn, RecoveredBatch, SliceIdentity, create, device::MemoryDevice, open};

use super::*;
use crate::{
    cleaning::Inquiry,
    event::Event,
    mailbox::{Answer, ReplyTo, shard_lanes},
    meta::{ManifestRef, ObjectId},
    meters::{ShardMeters, StoreMeters},
    msg::{Isolation, OffsetQuery, OffsetsRequest, PartitionChange, PartitionSettings, Reply, Request},
    pace::DevicePace,
    runtime::{
        Queue,
        seeded::{Node, World},
    },
    shard::{ShardConfig, ShardPorts},
    store,
};

const SHARD: ShardId = ShardId(0);
const OTHER: ShardId = ShardId(1);
const IDENTITY: SliceIdentity = SliceIdentity { cluster: [1; 16], node: NodeId(1), shard: SHARD, slice: [2; 16] };
const PARTITION: PartitionId = PartitionId { topic: TopicId([7; 16]), index: 0 };
const BATCH_BYTES: u64 = 100;

/// A shard that does not run: what it is told and asked is done at once.
fn shard(world: &Rc<World>, specs: Vec<PartitionSpec>, batches: &[RecoveredBatch]) -> Shard {
    let runtime = world.runtime(Node(1));
    let device = Rc::new(MemoryDevice::new((1 << 20) + 8192));
    let limits = LogConfig { max_group_bytes: 64 << 10, max_in_flight_bytes: 1 << 20, ..LogConfig::default() };
    let log = block_on(async {
        create(device.clone(), IDENTITY, limits, 1).await.expect("created");
        open(device.clone(), IDENTITY, limits, 2, false).await.expect("opened").log
    });
    let ports = ShardPorts {
        runtime: runtime.clone(),
        device,
        inbox: shard_lanes(SHARD).1,
        meta: flume::unbounded().0,
        store: store::serve(&runtime, Queue::Upload, Arc::new(MemoryStore::new()), 4, Rc::new(StoreMeters::new())),
        compaction: None,
        cleaning: None,
        cold: flume::unbounded().0,
        ownership: flume::unbounded().0,
        peers: Vec::new(),
        pace: Arc::new(DevicePace::new(0, 0)),
        failed: flume::unbounded().0,
        meters: Rc::new(ShardMeters::new(SHARD)),
    };
    let config = ShardConfig { entries_max: 2, ..ShardConfig::small(SHARD) };
    let mut shard = Shard::new(config, ports, log);
    shard.adopt(1, specs, batches).expect("whole");
    shard
}

fn spec(committed_end: i64, loan: Option<Loan>) -> PartitionSpec {
    PartitionSpec {
        partition: PARTITION,
        topic_name: "t".into(),
        leader_epoch: LeaderEpoch(2),
        settings: PartitionSettings::KAFKA_DEFAULTS,
        log_start: Offset(0),
        manifests: Vec::new(),
        committed: Vec::new(),
        epochs: vec![(LeaderEpoch(1), Offset(0))],
        producers: Vec::new(),
        committed_end: Offset(committed_end),
        cleaned: Offset(0),
        internal: false,
        loan,
    }
}

/// Batches of ten records each.
fn batches(bases: &[i64]) -> Vec<RecoveredBatch> {
    let one = |(n, base): (usize, &i64)| {
        let mut head = BatchHead([0; HEAD_LEN]);
        head.set_batch_length(BATCH_BYTES as i32 - 12);
        head.set_last_offset_delta(9);
        head.set_producer_id(-1);
        head.set_max_timestamp(*base);
        head.stamp(Offset(*base), LeaderEpoch(1));
        RecoveredBatch { partition: PARTITION, lsn: Lsn(n as u64 * BATCH_BYTES), head }
    };
    bases.iter().enumerate().map(one).collect()
}

fn heads(bases: &[i64]) -> Vec<BatchHead> {
    batches(bases).into_iter().map(|batch| batch.head).collect()
}

fn object(base: i64, last: i64) -> CommittedObject {
    CommittedObject {
        object: ObjectId(1),
        key: data_key(1, NodeId(1), 1),
        object_bytes: BATCH_BYTES,
        base: Offset(base),
        last: Offset(last),
        size_bytes: BATCH_BYTES,
        max_timestamp: Wall(0),
        epoch: LeaderEpoch(1),
        level: 0,
    }
}

fn borrower(world: &Rc<World>) -> Shard {
    let loan = Loan::From { lender: OTHER, heads: heads(&[0, 10]) };
    shard(world, vec![spec(0, Some(loan))], &batches(&[20, 30, 40]))
}

fn lender(world: &Rc<World>) -> Shard {
    shard(world, vec![spec(10, Some(Loan::To(OTHER)))], &batches(&[0, 10, 20]))
}

#[test]
fn what_waits_for_a_loan_counts_when_it_is_over_and_not_before() {
    let world = World::new(1);
    let mut shard = borrower(&world);
    assert_eq!(shard.batches_waiting, 0);
    shard.peer(PeerMessage::Committed(PARTITION, object(0, 9)));
    assert_eq!(shard.batches_waiting, 0, "the loan is not over");
    shard.peer(PeerMessage::Committed(PARTITION, object(10, 19)));
    assert_eq!(shard.batches_waiting, 3);
    shard.change(PartitionChange::Delete(PARTITION));
    assert_eq!(shard.batches_waiting, 0);
}

#[test]
fn what_waits_for_a_loan_and_is_deleted_was_not_counted() {
    let world = World::new(1);
    let mut shard = borrower(&world);
    shard.batches_waiting = 7;
    shard.change(PartitionChange::Delete(PARTITION));
    assert_eq!(shard.batches_waiting, 7, "of others");
}

#[test]
fn a_lender_counts_what_it_lends() {
    let world = World::new(1);
    assert_eq!(lender(&world).batches_waiting, 2, "one is committed");
}

#[test]
fn owner_and_lender_agree_where_a_log_goes_on_behind_a_loss() {
    let world = World::new(1);
    // From 0 to 9 is lost; the log start lies inside of what is lent, or behind it.
    for log_start in [10, 15, 25] {
        let spec = |loan| PartitionSpec { log_start: Offset(log_start), ..spec(0, Some(loan)) };
        let of_owner = spec(Loan::From { lender: OTHER, heads: heads(&[10]) });
        let owner = shard(&world, vec![of_owner], &batches(&[20, 30]));
        let lender = shard(&world, vec![spec(Loan::To(OTHER))], &batches(&[10]));
        let goes_on = |shard: &Shard| {
            let p = shard.partitions.get(&PARTITION).expect("it is there");
            (p.committed_end, p.upload_cursor, p.high_watermark)
        };
        assert_eq!(goes_on(&lender), (Offset(10), Offset(10), Offset(20)));
        let (committed_end, _, high_watermark) = goes_on(&owner);
        assert_eq!((committed_end, high_watermark), (Offset(10), Offset(40)));
        assert_eq!((lender.batches_waiting, owner.batches_waiting), (1, 0), "what is lent goes first");
    }
}

#[test]
fn a_lender_reads_only_what_no_object_holds() {
    let world = World::new(1);
    let mut shard = lender(&world);
    let mut read = |offset| {
        let (reply, answer) = flume::bounded(1);
        let read = LentRead { partition: PARTITION, offset: Offset(offset), max_bytes: 0, at_least_one: false, reply };
        shard.read_lent(read);
        answer.try_recv().expect("at once")
    };
    assert_eq!(read(9), None, "it may have been cleaned there");
    assert_eq!(read(10), Some(Vec::new()), "nothing fits");
    assert_eq!(read(29), Some(Vec::new()));
}

#[test]
fn a_lender_sends_whoever_does_not_know_its_newest_object_to_look_there() {
    let world = World::new(1);
    let mut shard = lender(&world);
    let mut find = |from, committed_end| {
        let (reply, answer) = flume::bounded(1);
        let (partition, from, committed_end) = (PARTITION, Offset(from), Offset(committed_end));
        shard.find_lent(LentSearch { partition, time: Wall(1 << 40), from, committed_end, reply });
        world.run_until(1000, || !answer.is_empty() || answer.is_disconnected());
        answer.try_recv().expect("an answer")
    };
    assert_eq!(find(0, 0), None, "the object that holds 0 to 9 is not known there");
    assert_eq!(find(10, 10), Some(None), "nothing is as late");
}

/// Batches whose records all bear these timestamps, and their bytes.
fn appended(at: &[(i64, i64)]) -> (Vec<RecoveredBatch>, Bytes) {
    let mut batches = batches(&at.iter().map(|(base, _)| *base).collect::<Vec<_>>());
    let mut bytes = Vec::new();
    for (batch, (_, time)) in batches.iter_mut().zip(at) {
        batch.head.0[16] = 2;
        batch.head.set_timestamp_type(TimestampType::LogAppendTime);
        batch.head.set_max_timestamp(*time);
        batch.head.set_record_count(10);
        bytes.extend_from_slice(&batch.head.0);
        bytes.resize(bytes.len() + BATCH_BYTES as usize - HEAD_LEN, 0);
    }
    (batches, bytes.into())
}

/// Batches of two records, the first and the tenth, with their own timestamps, and their bytes.
fn created(at: &[(i64, [i64; 2])]) -> (Vec<RecoveredBatch>, Bytes) {
    let mut batches = batches(&at.iter().map(|(base, _)| *base).collect::<Vec<_>>());
    let mut bytes = Vec::new();
    for (n, (batch, (_, times))) in batches.iter_mut().zip(at).enumerate() {
        batch.head.0[16] = 2;
        batch.head.set_max_timestamp(times[0].max(times[1]));
        batch.head.set_record_count(2);
        bytes.extend_from_slice(&batch.head.0);
        for (offset, time) in [0u8, 9].into_iter().zip(times) {
            let zigzag = (time << 1).unsigned_abs();
            let time = [zigzag as u8 & 0x7f | 0x80, (zigzag >> 7) as u8];
            // Length, attributes, time, offset, no key, no value, no headers.
            bytes.extend_from_slice(&[14, 0, time[0], time[1], offset << 1, 1, 1, 0]);
        }
        bytes.resize((n + 1) * BATCH_BYTES as usize, 0);
    }
    (batches, bytes.into())
}

#[test]
fn the_latest_record_is_found_although_some_of_a_loan_is_deleted() {
    let world = World::new(1);
    let latest_of = |log_start, (lent, lent_bytes): (Vec<RecoveredBatch>, Bytes), (own, own_bytes): (Vec<_>, Bytes)| {
        let loan = Loan::From { lender: OTHER, heads: lent.iter().map(|batch| batch.head).collect() };
        let spec_of_owner = PartitionSpec { log_start: Offset(log_start), ..spec(0, Some(loan)) };
        let (mut owner, mut lender) =
            (shard(&world, vec![spec_of_owner], &own), shard(&world, vec![spec(0, Some(Loan::To(SHARD)))], &lent));
        owner.cache.insert(Lsn(0), own_bytes);
        lender.cache.insert(Lsn(0), lent_bytes);
        let (lanes, inboxes): (Vec<_>, Vec<_>) = [SHARD, OTHER].map(shard_lanes).into_iter().unzip();
        owner.ports.peers = lanes;
        let (events, told) = flume::unbounded();
        owner.events = events;
        let (lane, answers) = flume::unbounded();
        let (parts, isolation) = (vec![(PARTITION, OffsetQuery::MaxTimestamp, None)], Isolation::Uncommitted);
        owner.offsets(OffsetsRequest { parts, isolation, reply: ReplyTo::new(lane, 0) });
        while answers.is_empty() {
            world.run_until(1000, || !inboxes[1].data.is_empty() || !told.is_empty() || !answers.is_empty());
            if let Ok(Request::FindLent(search)) = inboxes[1].data.try_recv() {
                lender.find_lent(*search);
            } else if let Ok(Event::LookUp(again)) = told.try_recv() {
                owner.look_up_again(again);
            } else {
                assert!(!answers.is_empty(), "no answer");
            }
        }
        let Ok(Answer { reply: Reply::Offsets(found), .. }) = answers.try_recv() else { panic!("another answer") };
        let found = found[0].as_ref().expect("found");
        (found.offset.map(|offset| offset.0), found.timestamp.map(|time| time.0))
    };
    let latest = |log_start, lent: &[_], own: &[_]| latest_of(log_start, appended(lent), appended(own));
    let lent = [(0, 500), (10, 100)];
    assert_eq!(latest(0, &lent, &[(20, 7)]), (Some(0), Some(500)));
    assert_eq!(latest(10, &lent, &[(20, 7)]), (Some(10), Some(100)), "in what is left of the loan");
    assert_eq!(latest(15, &lent, &[(20, 100)]), (Some(15), Some(100)), "the first of several");
    assert_eq!(latest(10, &lent, &[(20, 101)]), (Some(20), Some(101)), "in the owner's own log");
    assert_eq!(latest(10, &lent, &[]), (Some(10), Some(100)));
    assert_eq!(latest(20, &lent, &[(20, 7)]), (Some(20), Some(7)), "all of the loan is deleted");
    // The greatest timestamp is that of a record that is deleted, in a batch of which others are left.
    let latest = |log_start, lent: &[_], own: &[_]| latest_of(log_start, created(lent), created(own));
    let partly = (0, [500, 300]);
    assert_eq!(latest(0, &[partly], &[(10, [7, 7])]), (Some(0), Some(500)));
    assert_eq!(latest(5, &[partly, (10, [100, 100])], &[(20, [7, 7])]), (Some(9), Some(300)));
    assert_eq!(latest(5, &[(0, [500, 50]), (10, [100, 100])], &[(20, [7, 7])]), (Some(10), Some(100)));
    assert_eq!(latest(5, &[partly], &[(10, [400, 400])]), (Some(10), Some(400)), "in the owner's own log");
    assert_eq!(latest(5, &[partly], &[]), (Some(9), Some(300)));
    assert_eq!(
        latest(5, &[partly], &[(10, [40, 80]), (20, [60, 7])]),
        (Some(9), Some(300)),
        "not the first, nor what lies behind"
    );
    assert_eq!(
        latest(5, &[(0, [500, 50])], &[(10, [70, 80]), (20, [120, 90])]),
        (Some(20), Some(120)),
        "the latest of the rest"
    );
    assert_eq!(latest(10, &[(0, [500, 50])], &[(10, [70, 80])]), (Some(19), Some(80)), "all of the loan is deleted");
    assert_eq!(latest(15, &[(0, [500, 50]), (10, [500, 60])], &[]), (Some(19), Some(60)));
    assert_eq!(latest(5, &[], &[partly]), (Some(9), Some(300)), "without a loan");
    assert_eq!(latest(5, &[], &[(0, [500, 50]), (10, [100, 100])]), (Some(10), Some(100)), "without a loan");
}

#[test]
fn what_is_on_loan_or_lags_behind_stays() {
    let world = World::new(1);
    let seal = |mut shard: Shard| {
        let (sealed, answer) = flume::bounded(1);
        shard.seal_partitions(vec![PARTITION], Generation(1), sealed);
        shard.report_sealed();
        answer.try_recv().expect("all is durable")
    };
    assert_eq!(seal(shard(&world, vec![spec(20, None)], &[])), [PARTITION]);
    assert!(seal(borrower(&world)).is_empty());
    assert!(seal(lender(&world)).is_empty());
}

#[test]
fn what_a_shard_cannot_give_away_is_counted_together() {
    let world = World::new(1);
    let (mut own, mut borrowed) = (shard(&world, vec![spec(20, None)], &[]), borrower(&world));
    for shard in [&own, &borrowed] {
        shard.partitions.get(&PARTITION).expect("it is open").load.count(30);
    }
    assert_eq!(own.measure().partitions, [(PARTITION, 30, 1)]);
    let load = borrowed.measure();
    assert_eq!((load.partitions.len(), load.staying), (0, (30, 1)));
    assert_eq!(borrowed.measure().staying, (0, 0), "since the last time");
}

#[test]
fn an_estimate_of_a_loan_shrinks_towards_its_end() {
    let borrowed = Borrowed { from: OTHER, until: Offset(120), bytes: 1000, max_timestamp: Wall(0) };
    let bytes = |offset| borrowed.bytes_from(Offset(offset), Offset(20));
    assert_eq!([bytes(20), bytes(70), bytes(119), bytes(120)], [1000, 500, 10, 0]);
}

#[test]
fn what_is_being_folded_does_not_move_and_what_is_sealed_is_not_folded() {
    let world = World::new(1);
    let manifest = ManifestRef {
        id: ObjectId(9),
        key: manifest_key(9, NodeId(1), 1),
        bytes: 1,
        base: Offset(0),
        last: Offset(9),
        entries: 2,
        size_bytes: BATCH_BYTES,
        max_timestamp: Wall(0),
    };
    let committed: Vec<CommittedObject> = (1..5).map(|n| object(10 * n, 10 * n + 9)).collect();
    let of = PartitionSpec { manifests: vec![manifest], committed, ..spec(50, None) };
    let mut shard = shard(&world, vec![of.clone()], &[]);
    let seal = |shard: &mut Shard| {
        let (tell, told) = flume::bounded(1);
        shard.seal_partitions(vec![PARTITION], Generation(1), tell);
        shard.report_sealed();
        told.try_recv().expect("nothing is on its way to the log")
    };
    shard.run_folding();
    assert!(shard.folder.is_at_work_on(PARTITION));
    assert_eq!(seal(&mut shard), []);
    shard.folding_ended(Ok(()));
    assert_eq!(seal(&mut shard), [PARTITION]);
    shard.run_folding();
    assert!(!shard.folder.is_at_work_on(PARTITION));
    let handed_over = shard.partitions.get(&PARTITION).expect("there").spec();
    assert_eq!((handed_over.manifests, handed_over.committed), (of.manifests, of.committed));
}

#[test]
fn what_is_being_folded_is_not_cleaned_and_what_is_being_cleaned_not_folded() {
    let world = World::new(1);
    let committed: Vec<CommittedObject> = (0..4).map(|n| object(10 * n, 10 * n + 9)).collect();
    let mut shard = shard(&world, vec![PartitionSpec { committed, ..spec(40, None) }], &[]);
    let begins = |shard: &mut Shard| {
        let (reply, told) = flume::bounded(1);
        shard.cleaning_inquiry(Inquiry::Describe { partition: PARTITION, reply });
        told.try_recv().expect("answered at once").is_some()
    };
    shard.run_folding();
    assert!(shard.folder.is_at_work_on(PARTITION));
    assert!(!begins(&mut shard), "its entries are just going into a manifest");
    shard.folding_ended(Ok(()));
    assert!(begins(&mut shard));
    shard.run_folding();
    assert!(!shard.folder.is_at_work_on(PARTITION), "its entries are just being replaced");
}
