//! DescribeTopicPartitions (k75, KIP-966): partitions of topics in pages, sorted by name.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
        describe_topic_partitions_request::Cursor as From,
        describe_topic_partitions_response::{
            Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
        },
    },
    protocol::StrBytes,
};
use uuid::Uuid;

use super::{
    Api, Call, Handled,
    access::{self, Access},
    k03_metadata::{is_internal, unknown},
};
use crate::cluster::{ClusterSnapshot, TopicView};

/// How k75 is served.
pub const API: Api = Api::asking(ApiKey::DescribeTopicPartitions, 0, 0, handle);

/// Partitions in one answer at most (Kafka's `max.request.partition.size.limit`).
const LIMIT: i32 = 2000;

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: DescribeTopicPartitionsRequest = call.decode(body)?;
        call.respond(&describe(&call.edge.snapshot(), &call.access(), &request))
    })
}

fn describe(
    snapshot: &ClusterSnapshot,
    access: &Access,
    request: &DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let all = request.topics.is_empty();
    let from = request.cursor.as_ref().map_or("", |cursor| cursor.topic_name.as_str());
    let names: BTreeSet<&str> = match all {
        true => snapshot.topics.keys().map(|name| &**name).filter(|name| *name >= from).collect(),
        false => request.topics.iter().map(|topic| topic.name.as_str()).filter(|name| *name >= from).collect(),
    };
    if request.cursor.as_ref().is_some_and(|cursor| !is_valid(cursor, all, &names)) {
        let refused = |topic: &TopicName| topic_answer(topic).with_error_code(ResponseError::InvalidRequest.code());
        let topics = request.topics.iter().map(|topic| refused(&topic.name)).collect();
        return DescribeTopicPartitionsResponse::default().with_topics(topics);
    }
    let first_of = |name: &str| match &request.cursor {
        Some(cursor) if cursor.topic_name.as_str() == name => cursor.partition_index,
        _ => 0,
    };
    // Of topics that one may not see, those named are told of last, and nothing but that.
    let (names, hidden): (BTreeSet<&str>, BTreeSet<&str>) =
        names.into_iter().partition(|name| access.allows(access::SEE_TOPIC, name));
    let mut answer = page(snapshot, &names, first_of, request.response_partition_limit.clamp(1, LIMIT));
    for topic in answer.topics.iter_mut() {
        topic.topic_authorized_operations =
            access.topic_operations(topic.name.as_ref().map_or("", |name| name.as_str()));
    }
    let refused = hidden.into_iter().filter(|_| !all).map(|name| {
        DescribeTopicPartitionsResponseTopic::default()
            .with_error_code(access::SEE_TOPIC.refusal().code())
            .with_name(Some(TopicName(StrBytes::from_string(name.to_owned()))))
    });
    answer.topics.extend(refused);
    answer
}

fn is_valid(cursor: &From, all: bool, names: &BTreeSet<&str>) -> bool {
    cursor.partition_index >= 0 && (all || names.contains(cursor.topic_name.as_str()))
}

/// The topics in order until `limit` partitions are told; then the place to go on from.
fn page(
    snapshot: &ClusterSnapshot,
    names: &BTreeSet<&str>,
    first_of: impl Fn(&str) -> i32,
    limit: i32,
) -> DescribeTopicPartitionsResponse {
    let mut answer = DescribeTopicPartitionsResponse::default();
    let mut left = limit;
    for name in names {
        let topic_name = TopicName(StrBytes::from_string((*name).to_owned()));
        let next = |topic_name, index| Some(Cursor::default().with_topic_name(topic_name).with_partition_index(index));
        if left == 0 {
            answer.next_cursor = next(topic_name, 0);
            break;
        }
        let Some(view) = snapshot.topics.get(*name) else {
            answer.topics.push(topic_answer(&topic_name).with_error_code(unknown(name).code()));
            continue;
        };
        let first = first_of(name);
        let end = view.partitions.min(first.saturating_add(left));
        answer.topics.push(
            topic_answer(&topic_name)
                .with_topic_id(Uuid::from_bytes(view.id.0))
                .with_partitions((first..end).map(|index| partition(snapshot, view, index)).collect()),
        );
        left -= (end - first).max(0);
        if end < view.partitions {
            answer.next_cursor = next(topic_name, end);
            break;
        }
    }
    answer
}

fn topic_answer(name: &TopicName) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default().with_is_internal(is_internal(name)).with_name(Some(name.clone()))
}

/// Every list is there: clients trip over null ones.
fn partition(snapshot: &ClusterSnapshot, view: &TopicView, index: i32) -> DescribeTopicPartitionsResponsePartition {
    let node = BrokerId(snapshot.broker.node.0);
    DescribeTopicPartitionsResponsePartition::default()
        .with_partition_index(index)
        .with_leader_id(node)
        .with_leader_epoch(view.leader_epoch.0)
        .with_replica_nodes(vec![node])
        .with_isr_nodes(vec![node])
        .with_eligible_leader_replicas(Some(Vec::new()))
        .with_last_known_elr(Some(Vec::new()))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::describe_topic_partitions_request::TopicRequest;

    use super::*;
    use crate::api::fake::{FakeBroker, topic_name};

    fn request(names: &[&str], limit: i32) -> DescribeTopicPartitionsRequest {
        let topics = names.iter().map(|name| TopicRequest::default().with_name(topic_name(name)));
        DescribeTopicPartitionsRequest::default()
            .with_topics(topics.collect())
            .with_response_partition_limit(limit)
            .with_cursor(None)
    }

    fn from(name: &str, index: i32) -> Option<From> {
        Some(From::default().with_topic_name(topic_name(name)).with_partition_index(index))
    }

    fn told(answer: &DescribeTopicPartitionsResponse) -> Vec<(String, i16, Vec<i32>)> {
        let topics = answer.topics.iter();
        let indexes =
            |t: &DescribeTopicPartitionsResponseTopic| t.partitions.iter().map(|p| p.partition_index).collect();
        topics.map(|t| (t.name.as_ref().expect("named").to_string(), t.error_code, indexes(t))).collect()
    }

    fn ask(broker: &FakeBroker, request: &DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
        broker.finish(broker.ask(&API, 0, request))
    }

    #[test]
    fn pages_follow_each_other_through_all_topics() {
        let broker = FakeBroker::new(1, &[("b", 3), ("a", 2), ("c", 1)]);
        let (mut cursor, mut seen) = (None, Vec::new());
        loop {
            let answer = ask(&broker, &request(&[], 2).with_cursor(cursor));
            seen.extend(
                told(&answer)
                    .into_iter()
                    .flat_map(|(name, _, parts)| parts.into_iter().map(move |p| (name.clone(), p))),
            );
            let Some(next) = answer.next_cursor else { break };
            cursor = from(&next.topic_name, next.partition_index);
        }
        let all = [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2), ("c", 0)];
        assert_eq!(seen, all.map(|(name, index)| (name.to_owned(), index)));
    }

    #[test]
    fn named_topics_come_sorted_with_their_errors() {
        let broker = FakeBroker::new(1, &[("b", 1)]);
        let answer = ask(&broker, &request(&["nope", "b", "a b"], 0));
        assert_eq!(
            told(&answer),
            [("a b".into(), 17, vec![]), ("b".into(), 0, vec![0])],
            "a limit below one is one, and nothing is told past it"
        );
        let answer = ask(&broker, &request(&["nope", "b"], i32::MAX));
        assert_eq!(told(&answer)[1], ("nope".into(), 3, vec![]));
        let partition = &answer.topics[0].partitions[0];
        assert!(partition.eligible_leader_replicas.is_some() && partition.last_known_elr.is_some());
    }

    #[test]
    fn a_cursor_outside_the_question_is_refused() {
        let broker = FakeBroker::new(1, &[("b", 1)]);
        for cursor in [from("z", 0), from("b", -1)] {
            assert_eq!(told(&ask(&broker, &request(&["b"], 5).with_cursor(cursor)))[0].1, 42);
        }
        let past_the_end = ask(&broker, &request(&["b"], 5).with_cursor(from("b", 9)));
        assert_eq!(told(&past_the_end), [("b".into(), 0, vec![])]);
    }
}
