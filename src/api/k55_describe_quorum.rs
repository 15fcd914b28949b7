//! DescribeQuorum (k55, KIP-595, KIP-836, KIP-853): who keeps the cluster's metadata: this broker, the only voter.
//!
//! What Kafka has as the log of `__cluster_metadata` is the metadata store here: its revision stands for the end of that log.

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, BrokerId, DescribeQuorumRequest, DescribeQuorumResponse,
        describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData},
    },
    protocol::StrBytes,
};

use super::{
    Api, Call, Handled,
    access::{self, UNAUTHORIZED},
};

/// How k55 is served.
pub const API: Api = Api::asking(ApiKey::DescribeQuorum, 0, 2, handle);

/// First version that tells how to reach the voters.
const WITH_NODES: i16 = 2;

/// Kafka's name of the metadata's log; it has one partition, 0.
const METADATA_TOPIC: &str = "__cluster_metadata";

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: DescribeQuorumRequest = call.decode(body)?;
        if let Err(refused) = call.access().check_cluster(access::SEE_CLUSTER) {
            let answer = DescribeQuorumResponse::default().with_error_code(refused.code());
            return call.respond(&answer.with_error_message(Some(StrBytes::from_static_str(UNAUTHORIZED))));
        }
        let answer = if is_metadata(&request) { quorum(&call, request) } else { unknown(request) };
        call.respond(&answer)
    })
}

/// Whether the metadata's log is asked about, and nothing else.
fn is_metadata(request: &DescribeQuorumRequest) -> bool {
    match request.topics.as_slice() {
        [topic] if topic.topic_name.as_str() == METADATA_TOPIC => {
            matches!(topic.partitions.as_slice(), [partition] if partition.partition_index == 0)
        }
        _ => false,
    }
}

fn unknown(request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let error = ResponseError::UnknownTopicOrPartition;
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            PartitionData::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(error.code())
                .with_error_message(Some(StrBytes::from_static_str("This server does not host this topic-partition.")))
        });
        TopicData::default().with_topic_name(topic.topic_name.clone()).with_partitions(partitions.collect())
    });
    DescribeQuorumResponse::default().with_error_message(None).with_topics(topics.collect())
}

fn quorum(call: &Call, request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let snapshot = call.edge.snapshot();
    let (node, now) = (BrokerId(snapshot.broker.node.0), call.edge.runtime.wall());
    let end = i64::try_from(snapshot.revision).unwrap_or(i64::MAX);
    let voter = ReplicaState::default()
        .with_replica_id(node)
        .with_log_end_offset(end)
        .with_last_fetch_timestamp(now.0)
        .with_last_caught_up_timestamp(now.0);
    let partition = PartitionData::default()
        .with_error_message(None)
        .with_leader_id(node)
        .with_leader_epoch(snapshot.leader_epoch.0)
        .with_high_watermark(end)
        .with_current_voters(vec![voter]);
    let topics = request
        .topics
        .into_iter()
        .map(|topic| TopicData::default().with_topic_name(topic.topic_name).with_partitions(vec![partition.clone()]));
    let listener = Listener::default()
        .with_name(StrBytes::from_static_str("PLAINTEXT"))
        .with_host(StrBytes::from_string(call.caller.advertised_host.to_string()))
        .with_port(call.caller.advertised_port);
    let answer = DescribeQuorumResponse::default().with_error_message(None).with_topics(topics.collect());
    match call.version {
        ..WITH_NODES => answer,
        _ => answer.with_nodes(vec![Node::default().with_node_id(node).with_listeners(vec![listener])]),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::describe_quorum_request;

    use super::*;
    use crate::api::fake::{FakeBroker, topic_name};

    fn ask(fake: &FakeBroker, version: i16, topics: &[(&str, &[i32])]) -> DescribeQuorumResponse {
        let topics = topics.iter().map(|(name, parts)| {
            let part = |index: &i32| describe_quorum_request::PartitionData::default().with_partition_index(*index);
            describe_quorum_request::TopicData::default()
                .with_topic_name(topic_name(name))
                .with_partitions(parts.iter().map(part).collect())
        });
        let request = DescribeQuorumRequest::default().with_topics(topics.collect());
        fake.finish(fake.ask(&API, version, &request))
    }

    #[test]
    fn this_broker_is_the_only_voter() {
        let fake = FakeBroker::new(1, &[("logs", 1)]);
        for version in 0..=2 {
            let answer = ask(&fake, version, &[(METADATA_TOPIC, &[0])]);
            let partition = &answer.topics[0].partitions[0];
            assert_eq!((answer.error_code, partition.error_code, partition.leader_id.0), (0, 0, 1));
            assert_eq!((partition.leader_epoch, partition.high_watermark), (2, 1), "the snapshot's epoch and revision");
            let voters: Vec<i32> = partition.current_voters.iter().map(|voter| voter.replica_id.0).collect();
            assert_eq!((voters, partition.observers.len()), (vec![1], 0));
            if version >= 2 {
                let listener = &answer.nodes[0].listeners[0];
                assert_eq!((listener.host.as_str(), listener.port), ("this.example", 9099));
            }
        }
    }

    #[test]
    fn other_logs_have_no_quorum() {
        let fake = FakeBroker::new(1, &[("logs", 1)]);
        for asked in [&[("logs", &[0][..])][..], &[(METADATA_TOPIC, &[1])], &[(METADATA_TOPIC, &[0, 0])]] {
            let answer = ask(&fake, 2, asked);
            let codes: Vec<i16> = answer.topics[0].partitions.iter().map(|part| part.error_code).collect();
            assert!(answer.error_code == 0 && codes.iter().all(|code| *code == 3), "{asked:?}: {codes:?}");
        }
    }
}
