use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ProduceRequest, ProduceResponse, TransactionalId,
        produce_request::{PartitionProduceData, TopicProduceData},
        produce_response::PartitionProduceResponse,
    },
    protocol::StrBytes,
};
use thalweg_record::{BatchHead, HEAD_LEN, Offset};
use thalweg_shards::{
    codec::Compression,
    msg::{AppendRequest, Appended, PartitionError, Reply, Request},
};

use super::{
    super::fake::{FakeBroker, snapshot, topic_id, topic_name},
    *,
};

fn head() -> BatchHead {
    let mut head = BatchHead([0; HEAD_LEN]);
    head.0[16] = 2;
    head.set_batch_length(49 + 4);
    head.set_record_count(1);
    head.set_producer_id(-1);
    head.set_producer_epoch(-1);
    head.set_base_sequence(-1);
    head
}

fn batch(change: impl FnOnce(&mut BatchHead)) -> Bytes {
    let mut head = head();
    change(&mut head);
    Bytes::from([&head.0[..], b"body"].concat())
}

fn topic(name: &'static str, partitions: Vec<(i32, Bytes)>) -> TopicProduceData {
    let partitions = partitions
        .into_iter()
        .map(|(index, records)| PartitionProduceData::default().with_index(index).with_records(Some(records)));
    TopicProduceData::default().with_name(topic_name(name)).with_partition_data(partitions.collect())
}

fn request(topics: Vec<TopicProduceData>) -> ProduceRequest {
    ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(topics)
}

fn append(broker: &FakeBroker, shard: usize) -> AppendRequest {
    let Request::Append(append) = broker.request(shard) else { panic!("an append") };
    *append
}

fn at(offset: i64) -> Result<Appended, PartitionError> {
    Ok(Appended { base_offset: Offset(offset), log_append_time: None, log_start: Offset(3) })
}

fn outcomes(response: &ProduceResponse) -> Vec<(i32, i16, i64)> {
    let partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    partitions.map(|p| (p.index, p.error_code, p.base_offset)).collect()
}

fn only(response: &ProduceResponse) -> &PartitionProduceResponse {
    &response.responses[0].partition_responses[0]
}

/// The answer to one batch that never reaches a shard.
fn refused(version: i16, records: Bytes) -> PartitionProduceResponse {
    let broker = FakeBroker::new(2, &[("t", 4)]);
    let asked = broker.ask(&API, version, &request(vec![topic("t", vec![(0, records)])]));
    let response: ProduceResponse = broker.finish(asked);
    assert!(broker.inboxes.iter().all(|inbox| inbox.data.is_empty()), "nothing reached a shard");
    only(&response).clone()
}

#[test]
fn one_message_per_shard_and_answers_in_the_order_of_the_request() {
    let broker = FakeBroker::new(2, &[("t", 4)]);
    let parts = (0..4).rev().map(|index| (index, batch(|_| ()))).collect();
    let asked = broker.ask(&API, 9, &request(vec![topic("t", parts)]));
    for shard in [1, 0] {
        let append = append(&broker, shard);
        assert_eq!(append.batches.len(), 2);
        assert!(broker.inboxes[shard].data.is_empty(), "one message");
        let results = append.batches.iter().map(|(partition, _)| at(100 + i64::from(partition.index))).collect();
        append.reply.send(Reply::Append { results, throttle: Duration::ZERO, returned: Vec::new() });
    }
    let response: ProduceResponse = broker.finish(asked);
    assert_eq!(outcomes(&response), [(3, 0, 103), (2, 0, 102), (1, 0, 101), (0, 0, 100)]);
    assert_eq!((only(&response).log_start_offset, only(&response).log_append_time_ms), (3, -1));
}

#[test]
fn records_are_slices_of_the_frame() {
    let broker = FakeBroker::new(1, &[("t", 1)]);
    let mut frame = BytesMut::new();
    let asked = request(vec![topic("t", vec![(0, batch(|_| ()))])]);
    kafka_protocol::protocol::Encodable::encode(&asked, &mut frame, 9).expect("encodable");
    let frame = frame.freeze();
    let span = frame.as_ptr_range();
    let _asked = broker.ask_bytes(&API, 9, frame.clone());
    let append = append(&broker, 0);
    assert!(span.contains(&append.batches[0].1.body.as_ptr()), "no copy was made");
}

/// Allocations from the frame to the answer, with as many partitions as said, whose batches have bodies of `size` bytes.
fn allocations(partitions: i32, size: usize) -> u64 {
    let broker = FakeBroker::new(1, &[("t", 16)]);
    let records = |_| {
        let mut head = head();
        head.set_batch_length((HEAD_LEN - 12 + size) as i32);
        head.set_last_offset_delta(599);
        head.set_record_count(600);
        Bytes::from([&head.0[..], &vec![0; size]].concat())
    };
    let parts = (0..partitions).map(|index| (index, records(index))).collect();
    let mut frame = BytesMut::new();
    let asked = request(vec![topic("t", parts)]);
    kafka_protocol::protocol::Encodable::encode(&asked, &mut frame, 9).expect("encodable");
    let frame = frame.freeze();
    let measured = (0..20).map(|_| {
        let produce = || {
            let asked = broker.ask_bytes(&API, 9, frame.clone());
            let append = append(&broker, 0);
            let results = append.batches.iter().map(|_| at(1)).collect();
            append.reply.send(Reply::Append { results, throttle: Duration::ZERO, returned: Vec::new() });
            assert!(broker.outcome(asked).is_ok());
        };
        allocation_counter::measure(produce).count_total
    });
    measured.min().expect("twenty of them")
}

#[test]
fn a_produce_allocates_by_the_request_and_by_the_partition_never_by_the_record() {
    let (lone, large) = (allocations(1, 600), allocations(1, 60_000));
    assert_eq!(lone, large, "600 records of one byte or of a hundred");
    let each = (allocations(16, 600) - lone).div_ceil(15);
    assert!(lone <= 35 && each <= 2, "{lone} for a request of one partition, {each} for each further one");
}

#[test]
fn batches_that_the_wire_shows_to_be_wrong_are_refused() {
    let wrong: [(&str, Bytes, i16); 10] = [
        ("none", Bytes::new(), 87),
        ("two", Bytes::from([batch(|_| ()), batch(|_| ())].concat()), 87),
        ("cut", batch(|_| ()).slice(..64), 87),
        ("magic", batch(|head| head.0[16] = 1), 87),
        ("base offset", batch(|head| head.0[7] = 1), 87),
        ("control", batch(|head| head.set_attributes(0x20)), 87),
        ("count", batch(|head| head.set_record_count(0)), 87),
        ("delta", batch(|head| head.set_last_offset_delta(1)), 87),
        ("sequence", batch(|head| head.set_producer_id(5)), 87),
        ("codec", batch(|head| head.set_attributes(5)), 76),
    ];
    for (what, records, code) in wrong {
        let answer = refused(9, records);
        assert_eq!((answer.error_code, answer.base_offset, answer.log_start_offset), (code, -1, -1), "{what}");
    }
    assert_eq!(refused(6, batch(|head| head.set_attributes(4))).error_code, 76, "zstd before v7");
    assert_eq!(refused(9, batch(|head| head.set_attributes(0x10))).error_code, 53, "transactional batch");
}

#[test]
fn one_bad_partition_does_not_fail_the_others() {
    let broker = FakeBroker::new(1, &[("t", 2), ("__internal", 1)]);
    let good = || batch(|_| ());
    let topics = vec![
        topic("t", vec![(0, good()), (2, good()), (-1, good()), (0, good())]),
        topic("gone", vec![(0, good())]),
        topic("__internal", vec![(0, good())]),
    ];
    let asked = broker.ask(&API, 12, &request(topics));
    append(&broker, 0).reply.send(Reply::Append {
        results: vec![at(7)],
        throttle: Duration::ZERO,
        returned: Vec::new(),
    });
    let response: ProduceResponse = broker.finish(asked);
    let expected = [(0, 0, 7), (2, 3, -1), (-1, 3, -1), (0, 87, -1), (0, 3, -1), (0, 17, -1)];
    assert_eq!(outcomes(&response), expected);
}

#[test]
fn topics_are_found_by_id_from_version_13_on() {
    let broker = FakeBroker::new(1, &[("t", 1)]);
    let by_id =
        |name: &str| topic("", vec![(0, batch(|_| ()))]).with_topic_id(uuid::Uuid::from_bytes(topic_id(name).0));
    let asked = broker.ask(&API, 13, &request(vec![by_id("t"), by_id("gone")]));
    append(&broker, 0).reply.send(Reply::Append {
        results: vec![at(7)],
        throttle: Duration::ZERO,
        returned: Vec::new(),
    });
    let response: ProduceResponse = broker.finish(asked);
    assert_eq!(outcomes(&response), [(0, 0, 7), (0, 100, -1)]);
    assert_eq!(response.responses[0].topic_id.as_bytes(), &topic_id("t").0);
}

#[test]
fn acks_and_transactions_are_checked_for_all() {
    let broker = FakeBroker::new(1, &[("t", 1)]);
    let plain = || request(vec![topic("t", vec![(0, batch(|_| ()))])]);
    let asked = broker.ask(&API, 9, &plain().with_acks(2));
    assert_eq!(only(&broker.finish(asked)).error_code, 21);
    let id = TransactionalId(StrBytes::from_static_str("tx"));
    let asked = broker.ask(&API, 9, &plain().with_transactional_id(Some(id)));
    assert_eq!(only(&broker.finish(asked)).error_code, 53);
}

#[test]
fn a_partition_that_is_not_here_names_the_leader() {
    let broker = FakeBroker::new(1, &[("t", 1)]);
    let asked = broker.ask(&API, 10, &request(vec![topic("t", vec![(0, batch(|_| ()))])]));
    append(&broker, 0).reply.send(Reply::Append {
        results: vec![Err(PartitionError::Moved(9))],
        throttle: Duration::ZERO,
        returned: Vec::new(),
    });
    let response: ProduceResponse = broker.finish(asked);
    let answer = only(&response);
    assert_eq!((answer.error_code, answer.current_leader.leader_id.0, answer.current_leader.leader_epoch), (6, 1, 2));
    assert_eq!((response.node_endpoints[0].host.as_str(), response.node_endpoints[0].port), ("this.example", 9099));
    let asked = broker.ask(&API, 3, &request(vec![topic("t", vec![(0, batch(|_| ()))])]));
    drop(append(&broker, 0));
    assert_eq!(only(&broker.finish(asked)).error_code, 6, "a shard that stops has appended nothing it tells of");
}

#[test]
fn a_topic_that_a_shard_has_closed_already_is_unknown() {
    let broker = FakeBroker::new(1, &[("t", 1)]);
    let asked = broker.ask(&API, 10, &request(vec![topic("t", vec![(0, batch(|_| ()))])]));
    append(&broker, 0).reply.send(Reply::Append {
        results: vec![Err(PartitionError::Moved(3))],
        throttle: Duration::ZERO,
        returned: Vec::new(),
    });
    assert!(!broker.settled(&asked), "the snapshot that knows of it is waited for");
    broker.edge.publish(snapshot(3, 1, &[]));
    assert_eq!(only(&broker.finish(asked)).error_code, 3);
}

#[test]
fn acks_0_is_silent_and_an_error_closes() {
    let broker = FakeBroker::new(1, &[("t", 1)]);
    for (result, closes) in [(at(7), false), (Err(PartitionError::CorruptMessage), true)] {
        let asked = broker.ask(&API, 9, &request(vec![topic("t", vec![(0, batch(|_| ()))])]).with_acks(0));
        let append = append(&broker, 0);
        append.reply.send(Reply::Append { results: vec![result], throttle: Duration::ZERO, returned: Vec::new() });
        let answer = broker.outcome(asked);
        assert_eq!(answer.is_err(), closes);
        assert!(answer.map_or(true, |response| response.silent));
    }
}

#[test]
fn a_batch_to_be_stored_otherwise_is_opened_before_its_shard_sees_it() {
    let broker = FakeBroker::new(1, &[("t", 2)]);
    broker.configure("t", |settings| settings.compression = Some(Compression::Zstd(3)));
    let record = [&[20, 0, 0, 0][..], &[2, b'k', 6, b'v', b'v', b'v', 0]].concat();
    let sound = |index| {
        let mut head = head();
        head.set_batch_length(49 + record.len() as i32);
        head.set_crc(head.compute_crc(&record));
        (index, Bytes::from([&head.0[..], &record].concat()))
    };
    let asked = broker.ask(&API, 9, &request(vec![topic("t", vec![(0, batch(|_| ())), sound(1)])]));
    let append = append(&broker, 0);
    assert_eq!(append.batches.len(), 1, "the corrupt one went nowhere");
    let stored = &append.batches[0].1;
    assert_eq!((stored.head.codec(), stored.verify_crc()), (4, Ok(())));
    append.reply.send(Reply::Append { results: vec![at(7)], throttle: Duration::ZERO, returned: Vec::new() });
    assert_eq!(outcomes(&broker.finish(asked)), [(0, 2, -1), (1, 0, 7)]);
}
