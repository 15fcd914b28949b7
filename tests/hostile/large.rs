//! Requests that are right and small, but ask for much: answers many times their size, the same thing a hundred thousand
//! times, and many of them at once from clients that read nothing.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::{
    BrokerId, DescribeConfigsRequest, FetchRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest, TopicName,
    describe_configs_request::DescribeConfigsResource,
    fetch_request::{FetchPartition, FetchTopic},
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    produce_request::{PartitionProduceData, TopicProduceData},
};
use thalweg_rig::{Broker, Client, Pulse, batch, encoded, frame, wait_for};

use crate::attacked::{Attacked, HEALTHY, str_of};

fn topic() -> TopicName {
    str_of("large").into()
}

/// Fills the partitions with `count` batches each of about `bytes`.
pub fn fill(client: &mut Client, partitions: i32, count: usize, bytes: usize) {
    let value = vec![b'x'; bytes];
    for _ in 0..count {
        let data =
            |index| PartitionProduceData::default().with_index(index).with_records(Some(batch::plain(&[&value])));
        let data =
            TopicProduceData::default().with_name(topic()).with_partition_data((0..partitions).map(data).collect());
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![data]);
        let answer = client.ask(9, &request).expect("an answer");
        assert!(answer.responses[0].partition_responses.iter().all(|p| p.error_code == 0), "taken");
    }
}

pub fn fetch(partitions: impl Iterator<Item = i32>, max_bytes: i32) -> FetchRequest {
    let part = |index| FetchPartition::default().with_partition(index).with_partition_max_bytes(max_bytes);
    let topics = vec![FetchTopic::default().with_topic(topic()).with_partitions(partitions.map(part).collect())];
    let request = FetchRequest::default().with_replica_id(BrokerId(-1)).with_max_bytes(max_bytes);
    request.with_max_wait_ms(1).with_min_bytes(1).with_topics(topics)
}

/// Opens connections that send `requests` times the same and read nothing; they live as long as the value.
fn deaf(broker: &Broker, connections: usize, requests: usize, key: i16, version: i16, body: &Bytes) -> Vec<Client> {
    let one = frame(key, version, 1, body);
    (0..connections)
        .map(|_| {
            let mut client = broker.connect();
            client.patience(Duration::from_millis(200));
            for _ in 0..requests {
                // When the broker stops reading us, that is what we are here for.
                if client.write(&one).is_err() {
                    break;
                }
            }
            client
        })
        .collect()
}

/// The healthy client is served while the attack lasts, not only after it.
pub fn rounds_go_on(attacked: &Attacked, pulse: &Pulse, what: &str) {
    let (before, began) = (pulse.rounds(), Instant::now());
    let beats = wait_for(attacked.on_this_machine(HEALTHY), || pulse.rounds() >= before + 20);
    assert!(beats, "{what}: {} rounds in {:?}", pulse.rounds() - before, began.elapsed());
}

#[test]
fn clients_that_read_nothing_cost_no_more_than_their_limits() {
    let attacked = Attacked::start();
    attacked.create("large", 4, &[]);
    for n in 0..40 {
        attacked.create(&format!("wide-{n}"), 100, &[]);
    }
    fill(&mut attacked.broker.connect(), 4, 8, 900_000);
    let pulse = attacked.pulse();
    let broker = &attacked.broker;
    let fetches = deaf(broker, 100, 20, 1, 11, &encoded(&fetch(0..4, 4 << 20), 11));
    rounds_go_on(&attacked, &pulse, "fetches nobody reads");
    let metadata = MetadataRequest::default().with_topics(None);
    let all_topics = deaf(broker, 200, 40, 3, 12, &encoded(&metadata, 12));
    rounds_go_on(&attacked, &pulse, "metadata nobody reads");
    println!("{} MiB resident", broker.process().resident_bytes() >> 20);
    drop((fetches, all_topics));
    attacked.check(pulse, "clients that read nothing");
}

#[test]
fn small_requests_with_giant_answers_are_bounded() {
    let attacked = Attacked::start();
    attacked.create("large", 4, &[]);
    let pulse = attacked.pulse();
    let resource = DescribeConfigsResource::default().with_resource_type(4).with_resource_name(str_of("1"));
    let resource = resource.with_configuration_keys(None);
    for count in [1, 100, 2000, 50_000] {
        let request = DescribeConfigsRequest::default().with_resources(vec![resource.clone(); count]);
        let request = request.with_include_synonyms(true).with_include_documentation(true);
        let mut client = attacked.broker.connect();
        let began = Instant::now();
        client.send(4, &request).expect("sent");
        let answered = client.receive_frame().map(|answer| answer.len());
        println!("{count} times the broker's settings: {answered:?} in {:?}", began.elapsed());
    }
    rounds_go_on(&attacked, &pulse, "settings of the broker, many times");
    attacked.check(pulse, "giant answers");
}

#[test]
fn the_same_partition_a_hundred_thousand_times_holds_nobody_up() {
    // A tail cache of next to nothing: what is read comes from the ring.
    let attacked = Attacked::start_with(|setup| setup.set("cache.tail.bytes", 65_536));
    attacked.create("large", 2, &[]);
    fill(&mut attacked.broker.connect(), 1, 400, 1000);
    let pulse = attacked.pulse();
    for count in [1000, 100_000] {
        let mut client = attacked.broker.connect();
        for max_bytes in [100, 100, 4 << 20, 4 << 20] {
            let began = Instant::now();
            client.send(11, &fetch((0..count).map(|_| 0), max_bytes)).expect("sent");
            let answered = client.receive_frame().map(|answer| answer.len());
            println!("fetch of {count} times the same: {answered:?} in {:?}", began.elapsed());
        }
        let part = ListOffsetsPartition::default().with_partition_index(0).with_timestamp(batch::now_ms() - 600_000);
        let topics = vec![ListOffsetsTopic::default().with_name(topic()).with_partitions(vec![part; count as usize])];
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics);
        let began = Instant::now();
        client.send(5, &request).expect("sent");
        let answered = client.receive_frame().map(|answer| answer.len());
        println!("offsets of {count} times the same: {answered:?} in {:?}", began.elapsed());
    }
    attacked.check(pulse, "many times the same");
}
