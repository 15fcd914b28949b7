//! AlterPartitionReassignments (k45, KIP-455): the one replica of a partition is this broker, and stays it.
//!
//! To ask for just that is no move and succeeds; any other list of brokers is refused (39), and there is no move to cancel (85).

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ApiKey, BrokerId,
        alter_partition_reassignments_request::ReassignablePartition,
        alter_partition_reassignments_response::{ReassignablePartitionResponse, ReassignableTopicResponse},
    },
};

use super::{
    Api, Call, Handled,
    access::{self, UNAUTHORIZED},
    errors::NONE,
    gather, message,
};
use crate::cluster::ClusterSnapshot;

/// How k45 is served.
pub const API: Api = Api::asking(ApiKey::AlterPartitionReassignments, 0, 1, handle);

/// Why a partition is not moved, and what is told of it.
type Refusal = (ResponseError, Option<String>);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: AlterPartitionReassignmentsRequest = call.decode(body)?;
        let allowed = call.access().check_cluster(access::ALTER_CLUSTER);
        let snapshot = call.edge.snapshot();
        let topics = request.topics.into_iter().map(|topic| {
            let one = |asked: &ReassignablePartition| {
                let told = ReassignablePartitionResponse::default().with_partition_index(asked.partition_index);
                let refused = |error| (error, Some(UNAUTHORIZED.to_owned()));
                match allowed.map_err(refused).and_then(|()| judge(&snapshot, &topic.name, asked)) {
                    Ok(()) => told.with_error_message(None),
                    Err((error, why)) => {
                        told.with_error_code(error.code()).with_error_message(why.as_deref().map(message))
                    }
                }
            };
            let partitions = topic.partitions.iter().map(one).collect();
            ReassignableTopicResponse::default().with_name(topic.name).with_partitions(partitions)
        });
        let answer = AlterPartitionReassignmentsResponse::default()
            .with_allow_replication_factor_change(request.allow_replication_factor_change)
            .with_error_code(allowed.err().map_or(NONE, |error| error.code()))
            .with_error_message(allowed.err().map(|_| message(UNAUTHORIZED)))
            .with_responses(topics.collect());
        call.respond(&answer)
    })
}

fn judge(snapshot: &ClusterSnapshot, topic: &str, asked: &ReassignablePartition) -> Result<(), Refusal> {
    let index = asked.partition_index;
    gather::locate(snapshot, topic, index)
        .map_err(|error| (error, Some(format!("Unable to find partition {topic}:{index}."))))?;
    // Kafka gives no text with this one.
    let Some(replicas) = &asked.replicas else { return Err((ResponseError::NoReassignmentInProgress, None)) };
    let own = BrokerId(snapshot.broker.node.0);
    let why = match replicas.iter().find(|replica| **replica != own) {
        Some(other) => format!("The assignment names broker {}, which is not registered.", other.0),
        None if replicas.is_empty() => "The assignment is an empty list of brokers.".to_owned(),
        None if replicas.len() > 1 => format!("The assignment names broker {} more than once.", own.0),
        None => return Ok(()),
    };
    Err((ResponseError::InvalidReplicaAssignment, Some(why)))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::alter_partition_reassignments_request::ReassignableTopic;

    use super::*;
    use crate::api::fake::{FakeBroker, topic_name};

    #[test]
    fn a_partition_stays_on_its_one_broker() {
        let fake = FakeBroker::new(1, &[("logs", 2)]);
        let part = |index, replicas: Option<&[i32]>| {
            let replicas = replicas.map(|ids| ids.iter().copied().map(BrokerId).collect());
            ReassignablePartition::default().with_partition_index(index).with_replicas(replicas)
        };
        let asked = [
            part(0, Some(&[1])),
            part(0, Some(&[2])),
            part(0, Some(&[1, 1])),
            part(0, Some(&[1, 2])),
            part(0, Some(&[])),
            part(1, None),
            part(2, Some(&[1])),
        ];
        let topic = |name| ReassignableTopic::default().with_name(topic_name(name)).with_partitions(asked.to_vec());
        for version in 0..=1 {
            let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic("logs"), topic("nope")]);
            let request = if version >= 1 { request.with_allow_replication_factor_change(false) } else { request };
            let answer: AlterPartitionReassignmentsResponse = fake.finish(fake.ask(&API, version, &request));
            let codes = |at: usize| -> Vec<i16> {
                answer.responses[at].partitions.iter().map(|part| part.error_code).collect()
            };
            assert_eq!((answer.error_code, codes(0)), (0, vec![0, 39, 39, 39, 39, 85, 3]), "version {version}");
            assert_eq!(codes(1), [3; 7], "version {version}");
        }
    }
}
