//! DescribeProducers (k61, KIP-664): which producers with an id a partition remembers, and how far each has come.

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, DescribeProducersRequest, DescribeProducersResponse, ProducerId,
        describe_producers_response::{PartitionResponse, ProducerState, TopicResponse},
    },
};
use thalweg_record::PartitionId;
use thalweg_shards::msg::{ProducerView, ProducersRequest, Reply, Request};

use super::{Api, Call, Handled, access, gather};

/// How k61 is served.
pub const API: Api = Api::asking(ApiKey::DescribeProducers, 0, 0, handle);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: DescribeProducersRequest = call.decode(body)?;
        let answer = producers(&call, request).await;
        call.respond(&answer)
    })
}

async fn producers(call: &Call, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let (snapshot, access) = (call.edge.snapshot(), call.access());
    let resolve = |topic: &str, index: i32| {
        access.check(access::FETCH, topic)?;
        gather::locate(&snapshot, topic, index)
    };
    let wanted: Vec<Result<PartitionId, ResponseError>> = (request.topics.iter())
        .flat_map(|topic| topic.partition_indexes.iter().map(|index| resolve(&topic.name, *index)))
        .collect();
    let mut parts: Vec<(PartitionId, ())> = wanted.iter().flatten().map(|partition| (*partition, ())).collect();
    parts.sort_unstable();
    // Named again and again, one partition would make a giant answer to a small request.
    parts.dedup();
    let message = |parts: Vec<(PartitionId, ())>, reply| {
        let parts = parts.into_iter().map(|(partition, ())| partition).collect();
        Request::Producers(Box::new(ProducersRequest { parts, reply }))
    };
    let open = |reply| match reply {
        Reply::Producers(results) => Some(results),
        _ => None,
    };
    let results = gather::ask(&call.edge, &parts, message, open).await;
    let snapshot = call.edge.snapshot();
    let mut told: Vec<Option<_>> = results.into_iter().map(Some).collect();
    let mut wanted = wanted.into_iter();
    let mut one = |index: &i32| {
        let answer = PartitionResponse::default().with_partition_index(*index).with_error_message(None);
        let partition = match wanted.next().expect("one for each partition of the request") {
            Ok(partition) => partition,
            Err(error) => return answer.with_error_code(error.code()),
        };
        let at = parts.binary_search(&(partition, ())).expect("every partition that exists was asked");
        match told[at].take() {
            Some(Ok(views)) => answer.with_active_producers(views.into_iter().map(state).collect()),
            Some(Err(error)) => answer.with_error_code(gather::code(&snapshot, partition, &error)),
            None => answer.with_error_code(ResponseError::InvalidRequest.code()),
        }
    };
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(&mut one).collect();
        TopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}

/// There are no transactions: neither a coordinator's epoch nor an open one.
fn state(view: ProducerView) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(view.producer_id))
        .with_producer_epoch(view.epoch.into())
        .with_last_sequence(view.last_sequence)
        .with_last_timestamp(view.last_timestamp.0)
        .with_coordinator_epoch(-1)
        .with_current_txn_start_offset(-1)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::describe_producers_request::TopicRequest;
    use thalweg_record::Wall;
    use thalweg_shards::msg::PartitionError;

    use super::*;
    use crate::api::fake::{AUTHORIZED, FakeBroker, topic_name};

    #[test]
    fn producers_and_errors_stand_at_their_partitions() {
        let broker = FakeBroker::new(1, &[("logs", 3)]);
        let topic = TopicRequest::default().with_name(topic_name("logs")).with_partition_indexes(vec![2, 5, 0, 2]);
        let asked = broker.ask(&API, 0, &DescribeProducersRequest::default().with_topics(vec![topic]));
        let Request::Producers(request) = broker.request(0) else { panic!("not producers") };
        assert_eq!(request.parts.iter().map(|part| part.index).collect::<Vec<_>>(), [0, 2], "each once");
        let view = ProducerView { producer_id: 7, epoch: 3, last_sequence: 11, last_timestamp: Wall(99) };
        request.reply.send(Reply::Producers(vec![Err(PartitionError::Unavailable), Ok(vec![view])]));
        let answer: DescribeProducersResponse = broker.finish(asked);
        let parts = &answer.topics[0].partitions;
        let codes: Vec<_> = parts.iter().map(|part| (part.partition_index, part.error_code)).collect();
        assert_eq!(codes, [(2, 0), (5, 3), (0, 6), (2, 42)]);
        let told = &parts[0].active_producers[0];
        assert_eq!((told.producer_id.0, told.producer_epoch, told.last_sequence, told.last_timestamp), (7, 3, 11, 99));
        assert_eq!((told.coordinator_epoch, told.current_txn_start_offset), (-1, -1));
    }

    #[test]
    fn who_may_not_read_is_not_told_what_there_is() {
        let broker = FakeBroker::with(AUTHORIZED, 1, &[("logs", 1)]);
        broker.rules(&["topic literal logs User:ANONYMOUS * describe allow"]);
        let topic = |name| TopicRequest::default().with_name(topic_name(name)).with_partition_indexes(vec![0, 7]);
        let request = DescribeProducersRequest::default().with_topics(vec![topic("logs"), topic("nope")]);
        let answer: DescribeProducersResponse = broker.finish(broker.ask(&API, 0, &request));
        let parts = answer.topics.iter().flat_map(|topic| &topic.partitions);
        assert_eq!(parts.map(|part| part.error_code).collect::<Vec<_>>(), [29; 4]);
        assert!(broker.inboxes[0].data.is_empty(), "nothing reached the shard");
    }
}
