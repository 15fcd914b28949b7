//! ElectLeaders (k43, KIP-183, KIP-460): each partition has one replica, which leads it: no election is ever needed (84).
//!
//! As in Kafka, null asks for all partitions; each topic is told, and of its partitions those that had an election: none.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, ElectLeadersRequest, ElectLeadersResponse, TopicName,
        elect_leaders_request::TopicPartitions,
        elect_leaders_response::{PartitionResult, ReplicaElectionResult},
    },
    protocol::StrBytes,
};

use super::{Api, Call, Handled, access, access::UNAUTHORIZED, gather, message};
use crate::cluster::ClusterSnapshot;

/// How k43 is served.
pub const API: Api = Api::asking(ApiKey::ElectLeaders, 0, 2, handle);

/// Election types of the request: preferred, unclean.
const TYPES: std::ops::RangeInclusive<i8> = 0..=1;

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: ElectLeadersRequest = call.decode(body)?;
        let answer = ElectLeadersResponse::default();
        if call.version >= 1 && !TYPES.contains(&request.election_type) {
            return call.respond(&answer.with_error_code(ResponseError::InvalidRequest.code()));
        }
        if let Err(refused) = call.access().check_cluster(access::ALTER_CLUSTER) {
            let topics = request.topic_partitions.into_iter().flatten();
            let results =
                topics.map(|topic| each(topic, |_| (refused, StrBytes::from_static_str(UNAUTHORIZED)))).collect();
            // The whole answer has a code since version 1.
            let code = if call.version >= 1 { refused.code() } else { 0 };
            return call.respond(&answer.with_error_code(code).with_replica_election_results(results));
        }
        let snapshot = call.edge.snapshot();
        let results = match request.topic_partitions {
            None => {
                let quiet = |name: &Arc<str>| TopicName(StrBytes::from_string(name.to_string()));
                snapshot.topics.keys().map(|name| ReplicaElectionResult::default().with_topic(quiet(name))).collect()
            }
            Some(topics) => topics
                .into_iter()
                .map(|topic| {
                    let name = topic.topic.clone();
                    each(topic, |index| outcome(&snapshot, &name, index))
                })
                .collect(),
        };
        call.respond(&answer.with_replica_election_results(results))
    })
}

/// What is said of each partition of a topic.
fn each(asked: TopicPartitions, outcome: impl Fn(i32) -> (ResponseError, StrBytes)) -> ReplicaElectionResult {
    let told = |index: &i32| {
        let (error, why) = outcome(*index);
        PartitionResult::default().with_partition_id(*index).with_error_code(error.code()).with_error_message(Some(why))
    };
    let results = asked.partitions.iter().map(told).collect();
    ReplicaElectionResult::default().with_topic(asked.topic).with_partition_result(results)
}

fn outcome(snapshot: &ClusterSnapshot, topic: &str, index: i32) -> (ResponseError, StrBytes) {
    match gather::locate(snapshot, topic, index) {
        Ok(_) => (
            ResponseError::ElectionNotNeeded,
            StrBytes::from_static_str("Leader election not needed for topic partition."),
        ),
        Err(error) => (error, message(&format!("No such partition as {topic}-{index}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fake::{AUTHORIZED, FakeBroker, topic_name};

    #[test]
    fn no_partition_needs_an_election() {
        let fake = FakeBroker::new(1, &[("logs", 2)]);
        let topic = |name, parts: &[i32]| {
            TopicPartitions::default().with_topic(topic_name(name)).with_partitions(parts.to_vec())
        };
        for version in 0..=2 {
            let request = ElectLeadersRequest::default()
                .with_topic_partitions(Some(vec![topic("logs", &[1, 2]), topic("nope", &[0])]));
            let answer: ElectLeadersResponse = fake.finish(fake.ask(&API, version, &request));
            let parts = answer.replica_election_results.iter().flat_map(|topic| &topic.partition_result);
            let codes: Vec<(i32, i16)> = parts.map(|part| (part.partition_id, part.error_code)).collect();
            assert_eq!((answer.error_code, codes), (0, vec![(1, 84), (2, 3), (0, 3)]), "version {version}");
            let all = ElectLeadersRequest::default().with_topic_partitions(None);
            let answer: ElectLeadersResponse = fake.finish(fake.ask(&API, version, &all));
            let told: Vec<_> =
                answer.replica_election_results.iter().map(|t| (t.topic.as_str(), t.partition_result.len())).collect();
            assert_eq!((answer.error_code, told), (0, vec![("logs", 0)]), "version {version}");
        }
        let strange = ElectLeadersRequest::default().with_election_type(2);
        let answer: ElectLeadersResponse = fake.finish(fake.ask(&API, 2, &strange));
        assert_eq!(answer.error_code, 42);
    }

    #[test]
    fn who_may_not_ask_is_told_so_in_every_version() {
        let fake = FakeBroker::with(AUTHORIZED, 1, &[("logs", 1)]);
        for (version, whole) in [(0, 0), (1, 31), (2, 31)] {
            let topic = TopicPartitions::default().with_topic(topic_name("logs")).with_partitions(vec![0]);
            let request = ElectLeadersRequest::default().with_topic_partitions(Some(vec![topic]));
            let answer: ElectLeadersResponse = fake.finish(fake.ask(&API, version, &request));
            let part = &answer.replica_election_results[0].partition_result[0];
            assert_eq!((answer.error_code, part.error_code), (whole, 31), "version {version}");
        }
    }
}
