//! What clients are told who may not do what they ask; the client tests ask the same of the whole broker, and of Kafka.

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        BrokerId, FetchRequest, FetchResponse, FindCoordinatorRequest, FindCoordinatorResponse, HeartbeatRequest,
        HeartbeatResponse, InitProducerIdRequest, InitProducerIdResponse, MetadataRequest, MetadataResponse,
        ProduceRequest, ProduceResponse,
        fetch_request::{FetchPartition, FetchTopic},
        metadata_request::MetadataRequestTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::StrBytes,
};
use uuid::Uuid;

use super::*;
use crate::{
    api::{
        fake::{AUTHORIZED, FakeBroker, topic_id, topic_name},
        k00_produce, k01_fetch, k03_metadata, k10_find_coordinator, k12_heartbeat, k22_init_producer_id,
    },
    coordinator::group::GroupRequest,
};

/// A broker with the topics `seen` and `hidden`, of which the caller may see the first.
fn broker(more: &[&str]) -> FakeBroker {
    let broker = FakeBroker::with(AUTHORIZED, 1, &[("seen", 1), ("hidden", 1)]);
    broker.rules(&[&["topic literal seen User:ANONYMOUS 127.0.0.1 describe allow"], more].concat());
    broker
}

fn told(broker: &FakeBroker, version: i16, request: &MetadataRequest) -> Vec<(i16, Option<String>, bool)> {
    let answer: MetadataResponse = broker.finish(broker.ask(&k03_metadata::API, version, request));
    let topics = answer.topics.into_iter();
    topics.map(|t| (t.error_code, t.name.map(|name| name.to_string()), t.topic_id.is_nil())).collect()
}

fn named(names: &[&str]) -> MetadataRequest {
    let topic = |name: &&str| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    MetadataRequest::default()
        .with_topics(Some(names.iter().map(topic).collect()))
        .with_allow_auto_topic_creation(false)
}

#[test]
fn metadata_tells_nothing_of_topics_that_are_not_seen() {
    let broker = broker(&[]);
    let own = |name: &str| Some(name.to_owned());
    assert_eq!(told(&broker, 12, &named(&[]).with_topics(None)), [(0, own("seen"), false)]);
    let asked = told(&broker, 12, &named(&["seen", "hidden", "nope"]));
    assert_eq!(asked, [(0, own("seen"), false), (29, own("hidden"), true), (29, own("nope"), true)]);
    let id = |name| {
        let id = Uuid::from_bytes(topic_id(name).0);
        named(&[]).with_topics(Some(vec![MetadataRequestTopic::default().with_name(None).with_topic_id(id)]))
    };
    assert_eq!(told(&broker, 12, &id("hidden")), [(29, None, false)], "ids are no secret");
    assert_eq!(told(&broker, 12, &id("nope")), [(100, None, false)]);
}

#[test]
fn a_topic_is_created_by_those_who_may() {
    let new = named(&["new"]).with_allow_auto_topic_creation(true);
    let see = "topic prefixed n User:ANONYMOUS * describe allow";
    for (rules, code) in [(&[][..], 29), (&[see][..], 29)] {
        let broker = broker(rules);
        assert_eq!(told(&broker, 9, &new)[0].0, code);
        assert!(broker.control.is_empty(), "nothing was created");
    }
    for create in ["topic literal new User:* * create allow", "cluster literal kafka-cluster User:* * create allow"] {
        let broker = broker(&[see, create]);
        drop(broker.ask(&k03_metadata::API, 9, &new));
        broker.control_request();
    }
}

#[test]
fn operations_are_those_that_are_allowed() {
    let broker = broker(&["topic prefixed s User:ANONYMOUS * read allow", "topic literal seen User:* * alter deny"]);
    let access = broker_access(&broker);
    assert_eq!(access.topic_operations("seen"), 1 << 3 | 1 << 8);
    assert_eq!((access.group_operations("g"), access.cluster_operations()), (0, 0));
    let open = broker_access(&FakeBroker::new(1, &[]));
    assert_eq!((open.topic_operations("t"), open.group_operations("g")), (0b1101_1111_1000, 0b1101_0100_1000));
    assert_eq!(open.cluster_operations(), 0b1_1111_1010_0000);
}

fn broker_access(broker: &FakeBroker) -> Access {
    let (edge, caller) = (Rc::clone(&broker.edge), Rc::clone(&broker.caller));
    Call { edge, caller, version: 0, client_id: None, received: broker.world.mono() }.access()
}

#[test]
fn neither_reads_nor_writes_tell_whether_a_topic_exists() {
    let broker = broker(&[]);
    for name in ["hidden", "nope", "seen"] {
        let data = PartitionProduceData::default().with_records(Some(Bytes::new()));
        let topic = TopicProduceData::default().with_name(topic_name(name)).with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic]);
        let answer: ProduceResponse = broker.finish(broker.ask(&k00_produce::API, 9, &request));
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 29, "{name}");
        let topic = FetchTopic::default().with_topic(topic_name(name)).with_partitions(vec![FetchPartition::default()]);
        let request = FetchRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let answer: FetchResponse = broker.finish(broker.ask(&k01_fetch::API, 12, &request.with_session_epoch(-1)));
        assert_eq!(answer.responses[0].partitions[0].error_code, 29, "{name}");
    }
    assert!(broker.inboxes[0].data.is_empty(), "nothing reached the shard");
}

#[test]
fn groups_are_closed_to_those_who_may_not_use_them() {
    let broker = broker(&["group literal mine User:ANONYMOUS * describe allow"]);
    let find = |group: &'static str| -> i16 {
        let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![StrBytes::from_static_str(group)]);
        let answer: FindCoordinatorResponse = broker.finish(broker.ask(&k10_find_coordinator::API, 4, &request));
        answer.coordinators[0].error_code
    };
    assert_eq!((find("other"), find("")), (30, 30));
    for group in ["mine", "other", ""] {
        let request = HeartbeatRequest::default().with_group_id(StrBytes::from_static_str(group).into());
        let answer: HeartbeatResponse = broker.finish(broker.ask(&k12_heartbeat::API, 4, &request));
        assert_eq!(answer.error_code, 30, "{group}: to see it is not to use it");
    }
    let published = |request| matches!(request, GroupRequest::Published(_));
    assert!(broker.groups[0].try_iter().all(published) && broker.control.is_empty());
}

#[test]
fn producer_ids_are_for_those_who_may_write_somewhere() {
    let code = |rules: &[&str]| -> Option<i16> {
        let broker = broker(rules);
        let request = InitProducerIdRequest::default().with_transactional_id(None);
        let request = request.with_producer_id((-1).into()).with_producer_epoch(-1);
        let asked = broker.ask(&k22_init_producer_id::API, 4, &request);
        let answered = broker.settled(&asked);
        answered.then(|| broker.finish::<InitProducerIdResponse>(asked).error_code)
    };
    assert_eq!(code(&[]), Some(31));
    assert_eq!(code(&["topic literal any User:ANONYMOUS * write allow"]), None, "control is asked");
    assert_eq!(code(&["cluster literal kafka-cluster User:* * idempotent_write allow"]), None);
}
