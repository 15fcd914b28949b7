//! CreatePartitions (k37, KIP-195): raises the partition count of topics.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, CreatePartitionsRequest, CreatePartitionsResponse, create_partitions_request::CreatePartitionsTopic,
        create_partitions_response::CreatePartitionsTopicResult,
    },
};

use super::{
    Api, Call, Handled, Stopping, access, control, errors::ToKafka, k19_create_topics::check_replicas, message,
};
use crate::cluster::{ClusterSnapshot, ControlRequest};

/// How k37 is served.
pub const API: Api = Api::new(ApiKey::CreatePartitions, 0, 3, handle);

/// Why a topic gets no partitions.
type Refusal = (ResponseError, String);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: CreatePartitionsRequest = call.decode(body)?;
        let answer = raise(&call, &request).await?;
        call.respond(&answer)
    })
}

async fn raise(call: &Call, request: &CreatePartitionsRequest) -> Result<CreatePartitionsResponse, Stopping> {
    let (snapshot, access) = (call.edge.snapshot(), call.access());
    let (mut seen, mut twice) = (BTreeSet::new(), BTreeSet::new());
    for topic in &request.topics {
        if !seen.insert(&topic.name) {
            twice.insert(&topic.name);
        }
    }
    let check = |topic: &CreatePartitionsTopic| match twice.contains(&topic.name) {
        true => refuse(ResponseError::InvalidRequest, "Duplicate topic name."),
        false if !access.allows(access::EXTEND_TOPIC, &topic.name) => {
            refuse(access::EXTEND_TOPIC.refusal(), "Not authorized to alter this topic.")
        }
        false => check(&snapshot, topic),
    };
    let checked: Vec<Result<(), Refusal>> = request.topics.iter().map(check).collect();
    let good = request.topics.iter().zip(&checked).filter(|(_, checked)| checked.is_ok());
    let topics: Vec<(String, i32)> = good.map(|(topic, _)| (topic.name.to_string(), topic.count)).collect();
    let validate_only = request.validate_only;
    let mut results = match topics.is_empty() {
        true => Vec::new(),
        false => {
            control::ask(&call.edge, |reply| ControlRequest::CreatePartitions { topics, validate_only, reply }).await?
        }
    }
    .into_iter();
    let answers = request.topics.iter().zip(checked).map(|(topic, checked)| {
        let outcome = checked.and_then(|()| {
            let result = results.next().expect("control answers for each topic");
            result.map_err(|error| (error.to_kafka(), error.to_string()))
        });
        let result = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
        match outcome {
            Ok(()) => result,
            Err((error, why)) => result.with_error_code(error.code()).with_error_message(Some(message(&why))),
        }
    });
    Ok(CreatePartitionsResponse::default().with_results(answers.collect()))
}

/// Checks the topic, its new count, and the assignment of the partitions to add, if one is given.
fn check(snapshot: &ClusterSnapshot, topic: &CreatePartitionsTopic) -> Result<(), Refusal> {
    let Some(view) = snapshot.topics.get(topic.name.as_str()) else {
        return refuse(ResponseError::UnknownTopicOrPartition, "This server does not host this topic.");
    };
    let more = i64::from(topic.count) - i64::from(view.partitions);
    match &topic.assignments {
        _ if more == 0 => {
            refuse(ResponseError::InvalidPartitions, format!("Topic already has {} partition(s).", view.partitions))
        }
        _ if more < 0 => refuse(
            ResponseError::InvalidPartitions,
            format!(
                "The topic {} currently has {} partition(s); {} would not be an increase.",
                view.name, view.partitions, topic.count
            ),
        ),
        None => Ok(()),
        Some(assignments) if assignments.len() as i64 != more => refuse(
            ResponseError::InvalidReplicaAssignment,
            format!("{more} partition(s) are to be added, but {} assignment(s) were given.", assignments.len()),
        ),
        Some(assignments) => {
            assignments.iter().try_for_each(|partition| check_replicas(snapshot.broker.node, &partition.broker_ids))
        }
    }
}

fn refuse<T>(error: ResponseError, why: impl Into<String>) -> Result<T, Refusal> {
    Err((error, why.into()))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{BrokerId, create_partitions_request::CreatePartitionsAssignment};

    use super::*;
    use crate::api::fake::{FakeBroker, topic_name};

    fn topic(name: &str, count: i32, assignments: Option<&[i32]>) -> CreatePartitionsTopic {
        let assignment = |id: &i32| CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(*id)]);
        CreatePartitionsTopic::default()
            .with_name(topic_name(name))
            .with_count(count)
            .with_assignments(assignments.map(|ids| ids.iter().map(assignment).collect()))
    }

    #[test]
    fn only_sound_increases_reach_control() {
        let broker = FakeBroker::new(1, &[("a", 2), ("b", 2), ("c", 2), ("d", 2), ("e", 2), ("f", 2)]);
        let mut request = CreatePartitionsRequest::default().with_topics(vec![
            topic("a", 4, None),
            topic("nope", 4, None),
            topic("b", 4, Some(&[1])),
            topic("c", 4, Some(&[1, 2])),
            topic("d", 4, Some(&[1, 1])),
            topic("e", 2, None),
            topic("e2", 1, None),
            topic("f", 3, None),
            topic("f", 4, None),
        ]);
        request.validate_only = true;
        let asked = broker.ask(&API, 3, &request);
        let ControlRequest::CreatePartitions { topics, validate_only, reply } = broker.control_request() else {
            panic!("not an increase")
        };
        assert!(validate_only);
        assert_eq!(topics, [("a".to_owned(), 4), ("d".to_owned(), 4)]);
        reply.try_send(vec![Ok(()), Ok(())]).expect("awaited");
        let answer: CreatePartitionsResponse = broker.finish(asked);
        let codes: Vec<i16> = answer.results.iter().map(|topic| topic.error_code).collect();
        assert_eq!(codes, [0, 3, 39, 39, 0, 37, 3, 42, 42]);
    }

    #[test]
    fn a_decrease_is_refused_with_both_counts() {
        let broker = FakeBroker::new(1, &[("a", 3)]);
        let request = CreatePartitionsRequest::default().with_topics(vec![topic("a", 2, None)]);
        let answer: CreatePartitionsResponse = broker.finish(broker.ask(&API, 0, &request));
        let message = answer.results[0].error_message.as_ref().expect("a reason");
        assert_eq!(answer.results[0].error_code, 37);
        assert!(message.contains("has 3 partition(s); 2 would"), "{}", message.as_str());
    }
}
