//! DeleteRecords (k21, KIP-107): raises log start offsets.

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, DeleteRecordsRequest, DeleteRecordsResponse,
        delete_records_request::DeleteRecordsPartition,
        delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
    },
};
use thalweg_record::{Offset, PartitionId};
use thalweg_shards::msg::{RaiseLogStartRequest, Reply, Request};

use super::{
    Api, Call, Handled,
    access::{self, Access},
    gather,
};
use crate::cluster::ClusterSnapshot;

/// How k21 is served.
pub const API: Api = Api::new(ApiKey::DeleteRecords, 0, 2, handle);

type Ask = (PartitionId, Option<Offset>);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: DeleteRecordsRequest = call.decode(body)?;
        let answer = delete(&call, request).await;
        call.respond(&answer)
    })
}

async fn delete(call: &Call, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let (snapshot, access) = (call.edge.snapshot(), call.access());
    let wanted: Vec<Result<Ask, ResponseError>> = (request.topics.iter())
        .flat_map(|topic| topic.partitions.iter().map(|part| resolve(&snapshot, &access, &topic.name, part)))
        .collect();
    let parts: Vec<Ask> = wanted.iter().filter_map(|part| part.as_ref().ok()).copied().collect();
    let message = |parts, reply| Request::RaiseLogStart(Box::new(RaiseLogStartRequest { parts, reply }));
    let open = |reply| match reply {
        Reply::LogStarts(results) => Some(results),
        _ => None,
    };
    let results = gather::ask(&call.edge, &parts, message, open).await;

    let snapshot = call.edge.snapshot();
    let mut results = (parts.iter().zip(results))
        .map(|((partition, _), result)| result.map_err(|error| gather::code(&snapshot, *partition, &error)));
    let mut wanted = wanted.into_iter();
    let mut raised = |asked: &DeleteRecordsPartition| {
        let result = match wanted.next().expect("one for each partition of the request") {
            Ok(_) => results.next().expect("one for each partition asked"),
            Err(error) => Err(error.code()),
        };
        let answer = DeleteRecordsPartitionResult::default().with_partition_index(asked.partition_index);
        match result {
            Ok(log_start) => answer.with_low_watermark(log_start.0),
            Err(code) => answer.with_low_watermark(-1).with_error_code(code),
        }
    };
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(&mut raised).collect();
        DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions)
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

/// -1 is the high watermark. Records of a topic that is only compacted stay until their keys are overwritten.
fn resolve(
    snapshot: &ClusterSnapshot,
    access: &Access,
    topic: &str,
    asked: &DeleteRecordsPartition,
) -> Result<Ask, ResponseError> {
    access.check(access::DELETE_TOPIC, topic)?;
    let partition = gather::locate(snapshot, topic, asked.partition_index)?;
    if snapshot.topics_by_id.get(&partition.topic).is_some_and(|view| !view.settings.effective.delete) {
        return Err(ResponseError::PolicyViolation);
    }
    match asked.offset {
        -1 => Ok((partition, None)),
        0.. => Ok((partition, Some(Offset(asked.offset)))),
        _ => Err(ResponseError::OffsetOutOfRange),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::delete_records_request::DeleteRecordsTopic;
    use thalweg_shards::msg::PartitionError;

    use super::*;
    use crate::api::fake::{FakeBroker, topic_name};

    #[test]
    fn log_starts_are_raised_where_they_may_be() {
        let broker = FakeBroker::new(1, &[("logs", 3)]);
        let part = |(index, offset)| DeleteRecordsPartition::default().with_partition_index(index).with_offset(offset);
        let topic = DeleteRecordsTopic::default()
            .with_name(topic_name("logs"))
            .with_partitions([(0, -1), (1, 50), (2, 999), (0, -2), (7, 5)].map(part).to_vec());
        let asked = broker.ask(&API, 2, &DeleteRecordsRequest::default().with_topics(vec![topic]));
        let Request::RaiseLogStart(raise) = broker.request(0) else { panic!("not a raise") };
        assert_eq!(
            raise.parts.iter().map(|part| part.1).collect::<Vec<_>>(),
            [None, Some(Offset(50)), Some(Offset(999))]
        );
        let beyond = PartitionError::OffsetOutOfRange { log_start: Offset(0), high_watermark: Offset(90) };
        raise.reply.send(Reply::LogStarts(vec![Ok(Offset(90)), Ok(Offset(50)), Err(beyond)]));
        let answer: DeleteRecordsResponse = broker.finish(asked);
        let got: Vec<_> = answer.topics[0].partitions.iter().map(|p| (p.error_code, p.low_watermark)).collect();
        assert_eq!(got, [(0, 90), (0, 50), (1, -1), (1, -1), (3, -1)]);
    }
}
