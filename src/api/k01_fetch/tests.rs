//! Fetches against shards that the test plays.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        BrokerId, FetchRequest, FetchResponse,
        fetch_request::{FetchPartition, FetchTopic},
        fetch_response::PartitionData,
    },
    protocol::Encodable,
};
use thalweg_record::{BatchHead, HEAD_LEN, Offset, PartitionId, TopicId};
use thalweg_shards::{
    mailbox::ReplyTo,
    msg::{ConnId, FetchFrom, PartitionError, ProbeState, Records, Reply, Request, TakeRequest, Taken},
};
use uuid::Uuid;

use super::API;
use crate::api::fake::{Asked, FakeBroker, snapshot, topic_id, topic_name};

mod cold;

/// Partitions of `logs` by shard: with two shards, the even and the odd ones (or the other way round).
struct Cluster(FakeBroker);

fn cluster() -> Cluster {
    Cluster(FakeBroker::new(2, &[("logs", 4)]))
}

fn request(partitions: &[i32]) -> FetchRequest {
    let partition = |index: &i32| {
        FetchPartition::default().with_partition(*index).with_fetch_offset(10).with_partition_max_bytes(1 << 20)
    };
    let topic = FetchTopic::default()
        .with_topic(topic_name("logs"))
        .with_partitions(partitions.iter().map(partition).collect());
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(500)
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_topics(vec![topic])
}

fn found(bytes: u64) -> Result<ProbeState, PartitionError> {
    Ok(ProbeState { bytes, first_batch_bytes: bytes.min(100) as u32, slow: false, high_watermark: Offset(20) })
}

fn slow(bytes: u64) -> Result<ProbeState, PartitionError> {
    found(bytes).map(|state| ProbeState { slow: true, ..state })
}

fn taken(records: Records) -> Result<Taken, PartitionError> {
    Ok(Taken {
        high_watermark: Offset(20),
        last_stable: Offset(19),
        log_start: Offset(3),
        aborted: vec![(8, Offset(9))],
        records,
    })
}

fn ready(bytes: usize) -> Result<Taken, PartitionError> {
    taken(Records::Ready(if bytes == 0 { vec![] } else { vec![Bytes::from(vec![1; bytes])] }))
}

impl Cluster {
    fn fetch(&self, version: i16, request: &FetchRequest) -> Asked {
        self.0.ask(&API, version, request)
    }

    fn shard_of(&self, index: i32) -> usize {
        let partition = PartitionId { topic: topic_id("logs"), index };
        usize::from(self.0.edge.snapshot().owner(partition).0)
    }

    /// Answers the probe of the shard of `index`; gives what it asked for and the right to wake it.
    fn probed(&self, index: i32, states: Vec<Result<ProbeState, PartitionError>>) -> (Vec<FetchFrom>, bool, ReplyTo) {
        let Request::Probe(probe) = self.0.request(self.shard_of(index)) else { panic!("not a probe") };
        probe.reply.send_more(Reply::Probe(states));
        (probe.parts, probe.watch, probe.reply)
    }

    fn take(&self, index: i32) -> TakeRequest {
        let Request::Take(take) = self.0.request(self.shard_of(index)) else { panic!("not a take") };
        *take
    }

    fn partitions(&self, asked: Asked) -> Vec<PartitionData> {
        let answer: FetchResponse = self.0.finish(asked);
        assert_eq!((answer.error_code, answer.session_id), (0, 0));
        answer.responses.into_iter().flat_map(|topic| topic.partitions).collect()
    }
}

fn sizes(partitions: &[PartitionData]) -> Vec<usize> {
    partitions.iter().map(|p| p.records.as_ref().expect("never null").len()).collect()
}

#[test]
fn records_of_two_shards_come_in_request_order() {
    let c = cluster();
    let asked = c.fetch(12, &request(&[2, 1, 0]));
    let (parts, watch, _even) = c.probed(0, vec![found(300), found(100)]);
    assert_eq!(parts.iter().map(|p| p.partition.index).collect::<Vec<_>>(), [2, 0]);
    assert!(watch, "it may have to park");
    let (_, _, _odd) = c.probed(1, vec![found(200)]);
    let even = c.take(0);
    assert!(even.at_least_one, "partition 2 is the first with anything");
    even.reply.send(Reply::Take(vec![ready(300), ready(100)]));
    let odd = c.take(1);
    assert!(!odd.at_least_one);
    assert_eq!(odd.parts[0].max_bytes, 200);
    odd.reply.send(Reply::Take(vec![ready(200)]));
    let partitions = c.partitions(asked);
    assert_eq!(partitions.iter().map(|p| p.partition_index).collect::<Vec<_>>(), [2, 1, 0]);
    assert_eq!(sizes(&partitions), [300, 200, 100]);
    let first = &partitions[0];
    assert_eq!((first.high_watermark, first.last_stable_offset, first.log_start_offset), (20, 19, 3));
    assert_eq!(first.aborted_transactions, None, "read_uncommitted");
}

#[test]
fn a_fetch_parks_until_a_wake_and_probes_only_that_shard_again() {
    let c = cluster();
    let asked = c.fetch(11, &request(&[0, 1]).with_min_bytes(150));
    let (_, _, even) = c.probed(0, vec![found(0)]);
    let (_, _, odd) = c.probed(1, vec![found(100)]);
    assert!(!c.0.settled(&asked), "100 of 150 bytes");
    even.send(Reply::Wake);
    let (_, watch, _again) = c.probed(0, vec![found(60)]);
    assert!(watch);
    c.take(0).reply.send(Reply::Take(vec![ready(60)]));
    c.take(1).reply.send(Reply::Take(vec![ready(100)]));
    assert_eq!(sizes(&c.partitions(asked)), [60, 100]);
    assert!(c.0.inboxes[1].data.is_empty(), "the other shard's watch stays");
    odd.forget();
}

#[test]
fn a_wake_before_the_other_probe_answers_is_not_lost() {
    let c = cluster();
    let asked = c.fetch(11, &request(&[0, 1]));
    let (_, _, even) = c.probed(0, vec![found(0)]);
    even.send(Reply::Wake);
    assert!(!c.0.settled(&asked));
    let (_, _, _odd) = c.probed(1, vec![found(0)]);
    let before = c.0.world.mono();
    let (_, _, _again) = c.probed(0, vec![found(60)]);
    assert_eq!(c.0.world.mono(), before, "at once, not at max_wait");
    c.take(0).reply.send(Reply::Take(vec![ready(60)]));
    c.take(1).reply.send(Reply::Take(vec![ready(0)]));
    assert_eq!(sizes(&c.partitions(asked)), [60, 0]);
}

#[test]
fn nothing_until_max_wait_is_an_empty_answer() {
    let c = cluster();
    let started = c.0.world.mono();
    let asked = c.fetch(16, &by_id(request(&[0]), topic_id("logs")).with_isolation_level(1));
    let (_, _, _watch) = c.probed(0, vec![found(0)]);
    c.take(0).reply.send(Reply::Take(vec![ready(0)]));
    let partitions = c.partitions(asked);
    assert_eq!(sizes(&partitions), [0]);
    assert_eq!(c.0.world.mono().since(started), Duration::from_millis(500));
    let aborted = partitions[0].aborted_transactions.as_ref().expect("read_committed has a list");
    assert_eq!((aborted[0].producer_id.0, aborted[0].first_offset), (8, 9));
}

#[test]
fn a_reader_at_the_end_of_the_log_is_answered_once_in_a_millisecond() {
    for (bytes, max_wait_ms, waits_us) in
        [(200, 500, 1000), (0, 500, 0), (64 << 10, 500, 0), (200, 0, 0), (199, 500, 0)]
    {
        let c = cluster();
        let asked = c.fetch(11, &request(&[0]));
        let (_, _, _reply) = c.probed(0, vec![found(200)]);
        c.take(0).reply.send(Reply::Take(vec![ready(bytes)]));
        c.partitions(asked);
        let answered = c.0.world.mono();
        let asked = c.fetch(11, &request(&[0]).with_max_wait_ms(max_wait_ms));
        let (_, _, _reply) = c.probed(0, vec![found(200)]);
        let waited = c.0.world.mono().since(answered);
        assert_eq!(waited, Duration::from_micros(waits_us), "after {bytes} bytes");
        c.take(0).reply.send(Reply::Take(vec![ready(200)]));
        c.partitions(asked);
    }
}

#[test]
fn zero_wait_or_min_bytes_answers_at_once_and_sets_no_watch() {
    for (max_wait_ms, min_bytes) in [(0, 1), (500, 0)] {
        let c = cluster();
        let started = c.0.world.mono();
        let asked = c.fetch(11, &request(&[0]).with_max_wait_ms(max_wait_ms).with_min_bytes(min_bytes));
        let (_, watch, _reply) = c.probed(0, vec![found(0)]);
        assert!(!watch);
        c.take(0).reply.send(Reply::Take(vec![ready(0)]));
        assert_eq!(sizes(&c.partitions(asked)), [0]);
        assert_eq!(c.0.world.mono(), started);
    }
}

#[test]
fn no_partitions_answer_at_once() {
    let c = cluster();
    let started = c.0.world.mono();
    assert!(c.partitions(c.fetch(11, &request(&[]).with_topics(vec![]))).is_empty());
    assert_eq!(c.0.world.mono(), started);
}

#[test]
fn a_partition_in_error_answers_at_once_with_nothing_but_its_error() {
    let c = cluster();
    let asked = c.fetch(12, &request(&[0, 2]));
    let out = PartitionError::OffsetOutOfRange { log_start: Offset(20), high_watermark: Offset(30) };
    let (_, _, _watch) = c.probed(0, vec![Err(out), found(0)]);
    let take = c.take(0);
    assert_eq!(take.parts.len(), 1, "the one in error is not asked");
    take.reply.send(Reply::Take(vec![ready(0)]));
    let partitions = c.partitions(asked);
    let failed = &partitions[0];
    assert_eq!(failed.error_code, 1);
    assert_eq!((failed.high_watermark, failed.last_stable_offset, failed.log_start_offset), (-1, -1, -1));
    assert_eq!(failed.records, Some(Bytes::new()));
    assert_eq!(partitions[1].error_code, 0);
}

fn by_id(mut request: FetchRequest, id: TopicId) -> FetchRequest {
    for topic in &mut request.topics {
        topic.topic = topic_name("");
        topic.topic_id = Uuid::from_bytes(id.0);
    }
    request
}

#[test]
fn unknown_topics_and_partitions_have_their_codes() {
    let c = cluster();
    let elsewhere = |mut request: FetchRequest| {
        request.topics[0].topic = topic_name("nowhere");
        request
    };
    let code = |asked| c.partitions(asked)[0].error_code;
    assert_eq!(code(c.fetch(12, &elsewhere(request(&[0])))), 3);
    assert_eq!(code(c.fetch(13, &by_id(request(&[0]), TopicId([9; 16])))), 100);
    assert_eq!(code(c.fetch(12, &request(&[4]))), 3);
    assert_eq!(code(c.fetch(13, &by_id(request(&[-1]), topic_id("logs")))), 3);
}

impl Cluster {
    /// Serves a fetch of partitions 0 and 1, which have so many bytes; gives the answer.
    fn served(&self, asked: Asked, bytes: [usize; 2]) -> FetchResponse {
        for (index, bytes) in [0, 1].into_iter().zip(bytes) {
            let (_, _, _watch) = self.probed(index, vec![found(bytes as u64)]);
        }
        for (index, bytes) in [0, 1].into_iter().zip(bytes) {
            self.take(index).reply.send(Reply::Take(vec![ready(bytes)]));
        }
        self.0.finish(asked)
    }
}

#[test]
fn a_session_names_what_has_changed_only() {
    for version in [7, 12, 13, 18] {
        let c = cluster();
        let in_version = |r: FetchRequest| if version >= 13 { by_id(r, topic_id("logs")) } else { r };
        let full = in_version(request(&[0, 1]).with_session_epoch(0));
        let opened = c.served(c.fetch(version, &full), [50, 0]);
        let id = opened.session_id;
        assert!(opened.error_code == 0 && id > 0, "version {version}");
        assert_eq!(opened.responses[0].partitions.len(), 2, "a full answer");
        let poll = |epoch| request(&[]).with_topics(vec![]).with_session_id(id).with_session_epoch(epoch);
        let second = c.served(c.fetch(version, &poll(1)), [0, 70]);
        assert_eq!((second.session_id, second.responses.len()), (id, 1));
        let topic = &second.responses[0];
        assert_eq!((topic.partitions.len(), topic.partitions[0].partition_index), (1, 1), "nothing new of the other");
        assert_eq!(topic.topic_id.into_bytes() == topic_id("logs").0, version >= 13);
        assert_eq!(topic.topic.as_str() == "logs", version < 13);
        let third = c.served(c.fetch(version, &poll(2).with_max_wait_ms(0)), [0, 0]);
        assert_eq!((third.error_code, third.session_id, third.responses.len()), (0, id, 0));
        assert_eq!(c.0.edge.fetch_sessions.borrow().figures(), (1, 2));
    }
}

#[test]
fn a_session_fetches_from_where_it_was_last_told() {
    let c = cluster();
    let opened = c.served(c.fetch(12, &request(&[0, 1]).with_session_epoch(0)), [50, 50]);
    let mut next = request(&[1]).with_session_id(opened.session_id).with_session_epoch(1);
    next.topics[0].partitions[0].fetch_offset = 20;
    let asked = c.fetch(12, &next);
    let (even, _, _e) = c.probed(0, vec![found(0)]);
    let (odd, _, _o) = c.probed(1, vec![found(9)]);
    assert_eq!((even[0].offset, odd[0].offset), (Offset(10), Offset(20)));
    for index in [0, 1] {
        c.take(index).reply.send(Reply::Take(vec![ready(0)]));
    }
    assert_eq!(c.0.finish::<FetchResponse>(asked).session_id, opened.session_id);
}

#[test]
fn a_topic_that_is_deleted_is_an_error_of_its_session_each_time() {
    let c = cluster();
    let opened = c.served(c.fetch(12, &request(&[0, 1]).with_session_epoch(0)), [50, 50]);
    c.0.edge.publish(snapshot(2, 2, &[]));
    for epoch in [1, 2] {
        let poll = request(&[]).with_topics(vec![]).with_session_id(opened.session_id).with_session_epoch(epoch);
        let answer: FetchResponse = c.0.finish(c.fetch(12, &poll));
        let codes: Vec<i16> = answer.responses[0].partitions.iter().map(|p| p.error_code).collect();
        assert_eq!((answer.session_id, codes), (opened.session_id, vec![3, 3]));
        assert_eq!(answer.responses[0].topic.as_str(), "logs");
    }
}

#[test]
fn a_broker_without_slots_opens_no_sessions() {
    let c = Cluster(FakeBroker::with(&[("max.incremental.fetch.session.cache.slots", "0")], 2, &[("logs", 4)]));
    let answer = c.served(c.fetch(12, &request(&[0, 1]).with_session_epoch(0)), [50, 50]);
    assert_eq!((answer.error_code, answer.session_id), (0, 0));
}

#[test]
fn unknown_sessions_and_followers_are_refused() {
    let c = cluster();
    let session: FetchResponse = c.0.finish(c.fetch(12, &request(&[0]).with_session_epoch(3)));
    assert_eq!((session.error_code, session.session_id, session.responses.len()), (70, 0, 0));
    let follower: FetchResponse = c.0.finish(c.fetch(6, &request(&[0]).with_replica_id(BrokerId(2))));
    assert_eq!(follower.responses[0].partitions[0].error_code, 42);
}

#[test]
fn a_deleted_topic_wakes_and_is_unknown() {
    let c = cluster();
    let asked = c.fetch(13, &by_id(request(&[0]), topic_id("logs")));
    let (_, _, watch) = c.probed(0, vec![found(0)]);
    assert!(!c.0.settled(&asked));
    c.0.edge.publish(snapshot(2, 2, &[]));
    watch.send(Reply::Wake);
    let (_, _, _again) = c.probed(0, vec![Err(PartitionError::Moved(2))]);
    assert_eq!(c.partitions(asked)[0].error_code, 100);
}

#[test]
fn a_shard_behind_the_snapshot_is_asked_again() {
    let c = cluster();
    let asked = c.fetch(12, &request(&[0]));
    let (_, _, _first) = c.probed(0, vec![Err(PartitionError::Moved(0))]);
    let (_, _, _second) = c.probed(0, vec![found(50)]);
    c.take(0).reply.send(Reply::Take(vec![ready(50)]));
    assert_eq!(sizes(&c.partitions(asked)), [50]);
}

#[test]
fn the_budget_is_global_and_the_starved_come_first_next_time() {
    let c = cluster();
    let tight = request(&[0, 1]).with_max_bytes(250);
    let asked = c.fetch(12, &tight);
    let (_, _, _e) = c.probed(0, vec![found(200)]);
    let (_, _, _o) = c.probed(1, vec![found(200)]);
    let even = c.take(0);
    assert_eq!((even.parts[0].max_bytes, even.at_least_one), (200, true));
    even.reply.send(Reply::Take(vec![ready(200)]));
    let odd = c.take(1);
    assert_eq!((odd.parts[0].max_bytes, odd.at_least_one), (0, false), "its first batch has 100 bytes, 50 are left");
    odd.reply.send(Reply::Take(vec![ready(0)]));
    assert_eq!(sizes(&c.partitions(asked)), [200, 0]);

    let asked = c.fetch(12, &tight);
    let (_, _, _e) = c.probed(0, vec![found(200)]);
    let (_, _, _o) = c.probed(1, vec![found(200)]);
    let even = c.take(0);
    assert_eq!((even.parts[0].max_bytes, even.at_least_one), (0, false));
    even.reply.send(Reply::Take(vec![ready(0)]));
    let odd = c.take(1);
    assert_eq!((odd.parts[0].max_bytes, odd.at_least_one), (200, true));
    odd.reply.send(Reply::Take(vec![ready(200)]));
    assert_eq!(sizes(&c.partitions(asked)), [0, 200]);
}

#[test]
fn answers_in_flight_share_a_budget_but_one_batch_always_passes() {
    let c = cluster();
    let free = c.0.edge.admission.response_bytes_free();
    let hog = c.0.edge.admission.try_response(free - 100_000).expect("room");
    let asked = c.fetch(12, &request(&[0, 1]));
    let (_, _, _e) = c.probed(0, vec![found(1_000_000)]);
    let (_, _, _o) = c.probed(1, vec![found(1_000_000)]);
    let even = c.take(0);
    assert_eq!(even.parts[0].max_bytes, 100_000 - 2 * 64, "what is left, but for what is around the records");
    even.reply.send(Reply::Take(vec![ready(150)]));
    assert_eq!(c.take(1).parts[0].max_bytes, 0);
    drop(hog);
    assert_eq!(sizes(&c.partitions(asked))[0], 150);
    assert_eq!(c.0.edge.admission.response_bytes_free(), free, "given back with the answer");
}

#[test]
fn zstd_is_not_sent_to_clients_that_do_not_know_it() {
    let mut head = BatchHead([0; HEAD_LEN]);
    head.0[16] = 2;
    head.set_batch_length((HEAD_LEN - 12) as i32);
    let plain = head.0.to_vec();
    head.set_attributes(4);
    let piece = Bytes::from([plain, head.0.to_vec()].concat());
    for (version, code, bytes) in [(9, 76, 0), (10, 0, 2 * HEAD_LEN)] {
        let c = cluster();
        let asked = c.fetch(version, &request(&[0]));
        let (_, _, _w) = c.probed(0, vec![found(122)]);
        c.take(0).reply.send(Reply::Take(vec![taken(Records::Ready(vec![piece.clone()]))]));
        let partitions = c.partitions(asked);
        assert_eq!((partitions[0].error_code, sizes(&partitions)[0]), (code, bytes), "version {version}");
    }
}

#[test]
fn a_fenced_client_is_told_the_leader() {
    let c = cluster();
    let asked = c.fetch(16, &by_id(request(&[0]), topic_id("logs")));
    let (_, _, _w) = c.probed(0, vec![Err(PartitionError::FencedLeaderEpoch)]);
    let answer: FetchResponse = c.0.finish(asked);
    let partition = &answer.responses[0].partitions[0];
    assert_eq!((partition.error_code, partition.current_leader.leader_id.0), (74, 1));
    assert_eq!(partition.current_leader.leader_epoch, 2);
    assert_eq!((answer.node_endpoints[0].host.as_str(), answer.node_endpoints[0].port), ("this.example", 9099));
}

#[test]
fn a_stopping_shard_answers_not_leader() {
    let c = cluster();
    let asked = c.fetch(12, &request(&[0]));
    drop(c.0.request(c.shard_of(0)));
    assert_eq!(c.partitions(asked)[0].error_code, 6);
}

#[test]
fn every_version_is_served() {
    for version in API.min..=API.max {
        let c = cluster();
        let plain = request(&[0]);
        let asked = c.fetch(version, &if version >= 13 { by_id(plain, topic_id("logs")) } else { plain });
        let (_, _, _w) = c.probed(0, vec![found(50)]);
        c.take(0).reply.send(Reply::Take(vec![ready(50)]));
        let answer: FetchResponse = c.0.finish(asked);
        assert_eq!(answer.responses[0].partitions[0].records.as_ref().map(Bytes::len), Some(50), "version {version}");
        assert!(answer.compute_size(version).is_ok());
    }
}

#[test]
fn a_stop_answers_parked_fetches() {
    let c = cluster();
    let asked = c.fetch(12, &request(&[0]));
    let (_, _, _watch) = c.probed(0, vec![found(0)]);
    assert!(!c.0.settled(&asked));
    let before = c.0.world.mono();
    c.0.edge.stop();
    c.take(0).reply.send(Reply::Take(vec![ready(0)]));
    assert_eq!(sizes(&c.partitions(asked)), [0]);
    assert_eq!(c.0.world.mono(), before);
}
