//! ListOffsets (k2, KIP-79, KIP-207, KIP-734, KIP-405, KIP-1005): offsets by time, and the ends of a partition.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, ListOffsetsRequest, ListOffsetsResponse, TopicName,
        list_offsets_request::ListOffsetsPartition,
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
    },
};
use thalweg_record::{LeaderEpoch, PartitionId, Wall};
use thalweg_shards::msg::{FoundOffset, Isolation, OffsetQuery, OffsetsRequest, Reply, Request};

use super::{Api, Call, Handled, access, errors, gather};

/// How k2 is served.
pub const API: Api = Api::new(ApiKey::ListOffsets, 1, 10, handle);

type Ask = (OffsetQuery, Option<LeaderEpoch>);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: ListOffsetsRequest = call.decode(body)?;
        let answer = list(&call, request).await;
        call.respond(&answer)
    })
}

async fn list(call: &Call, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let wanted = resolve(call, &request);
    let parts: Vec<(PartitionId, Ask)> = wanted.iter().filter_map(|part| part.as_ref().ok()).copied().collect();
    let isolation = if request.isolation_level == 1 { Isolation::Committed } else { Isolation::Uncommitted };
    let message = |parts: Vec<(PartitionId, Ask)>, reply| {
        let parts = parts.into_iter().map(|(partition, (query, epoch))| (partition, query, epoch)).collect();
        Request::Offsets(Box::new(OffsetsRequest { parts, isolation, reply }))
    };
    let open = |reply| match reply {
        Reply::Offsets(results) => Some(results),
        _ => None,
    };
    let results = gather::ask(&call.edge, &parts, message, open).await;
    let snapshot = call.edge.snapshot();
    let coded = (parts.iter().zip(results))
        .map(|((partition, _), result)| result.map_err(|error| gather::code(&snapshot, *partition, &error)));
    answer(call.version, request, wanted, coded)
}

/// For each partition of the request, in order: what to ask, or why not.
fn resolve(call: &Call, request: &ListOffsetsRequest) -> Vec<Result<(PartitionId, Ask), ResponseError>> {
    let (snapshot, access) = (call.edge.snapshot(), call.access());
    let named = || request.topics.iter().flat_map(|topic| topic.partitions.iter().map(move |part| (&topic.name, part)));
    let (mut seen, mut twice) = (BTreeSet::new(), BTreeSet::new());
    for (name, part) in named() {
        if !seen.insert((name, part.partition_index)) {
            twice.insert((name, part.partition_index));
        }
    }
    let part = |(name, part): (&TopicName, &ListOffsetsPartition)| {
        access.check(access::SEE_TOPIC, name)?;
        if twice.contains(&(name, part.partition_index)) {
            return Err(ResponseError::InvalidRequest);
        }
        let query = query(call.version, part.timestamp)?;
        let partition = gather::locate(&snapshot, name, part.partition_index)?;
        Ok((partition, (query, gather::leader_epoch(part.current_leader_epoch))))
    };
    named().map(part).collect()
}

/// Negative timestamps are special, each from some version on.
fn query(version: i16, timestamp: i64) -> Result<OffsetQuery, ResponseError> {
    match timestamp {
        0.. => Ok(OffsetQuery::Time(Wall(timestamp))),
        -1 => Ok(OffsetQuery::Latest),
        -2 => Ok(OffsetQuery::Earliest),
        -3 if version >= 7 => Ok(OffsetQuery::MaxTimestamp),
        -4 if version >= 8 => Ok(OffsetQuery::EarliestLocal),
        -5 if version >= 9 => Ok(OffsetQuery::LatestTiered),
        _ => Err(ResponseError::UnsupportedVersion),
    }
}

fn answer(
    version: i16,
    request: ListOffsetsRequest,
    wanted: Vec<Result<(PartitionId, Ask), ResponseError>>,
    mut results: impl Iterator<Item = Result<FoundOffset, i16>>,
) -> ListOffsetsResponse {
    let mut wanted = wanted.into_iter();
    let mut part = |asked: &ListOffsetsPartition| {
        let answer = ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
        let result = match wanted.next().expect("one for each partition of the request") {
            Ok(_) => results.next().expect("one for each partition asked"),
            Err(error) => Err(error.code()),
        };
        match result {
            Err(code) => answer.with_error_code(code).with_offset(-1).with_timestamp(-1),
            Ok(found) => {
                let epoch = found.leader_epoch.filter(|_| version >= 4).map_or(-1, |epoch| epoch.0);
                answer
                    .with_error_code(errors::NONE)
                    .with_offset(found.offset.map_or(-1, |offset| offset.0))
                    .with_timestamp(found.timestamp.map_or(-1, |timestamp| timestamp.0))
                    .with_leader_epoch(epoch)
            }
        }
    };
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(&mut part).collect();
        ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{BrokerId, list_offsets_request::ListOffsetsTopic};
    use thalweg_record::Offset;
    use thalweg_shards::msg::PartitionError;

    use super::*;
    use crate::api::fake::{FakeBroker, snapshot, topic_name};

    fn request(parts: &[(i32, i64)]) -> ListOffsetsRequest {
        let part = |(index, timestamp): &(i32, i64)| {
            ListOffsetsPartition::default().with_partition_index(*index).with_timestamp(*timestamp)
        };
        let topic =
            ListOffsetsTopic::default().with_name(topic_name("logs")).with_partitions(parts.iter().map(part).collect());
        ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic])
    }

    fn at(offset: i64) -> Result<FoundOffset, PartitionError> {
        Ok(FoundOffset { offset: Some(Offset(offset)), timestamp: Some(Wall(77)), leader_epoch: Some(LeaderEpoch(2)) })
    }

    fn answered(answer: ListOffsetsResponse) -> Vec<(i16, i64, i64, i32)> {
        let parts = answer.topics.into_iter().flat_map(|topic| topic.partitions);
        parts.map(|part| (part.error_code, part.offset, part.timestamp, part.leader_epoch)).collect()
    }

    #[test]
    fn offsets_come_back_in_request_order_from_all_shards() {
        let broker = FakeBroker::new(2, &[("logs", 4)]);
        let asked = broker.ask(&API, 6, &request(&[(3, -1), (0, 50), (1, -2)]));
        for shard in 0..2 {
            let Request::Offsets(offsets) = broker.request(shard) else { panic!("not offsets") };
            let results = offsets.parts.iter().map(|(partition, ..)| at(i64::from(partition.index) * 10));
            offsets.reply.send(Reply::Offsets(results.collect()));
        }
        assert_eq!(answered(broker.finish(asked)), [(0, 30, 77, 2), (0, 0, 77, 2), (0, 10, 77, 2)]);
    }

    #[test]
    fn nothing_found_is_no_error() {
        let broker = FakeBroker::new(1, &[("logs", 4)]);
        let asked = broker.ask(&API, 3, &request(&[(0, 50)]));
        let Request::Offsets(offsets) = broker.request(0) else { panic!("not offsets") };
        offsets.reply.send(Reply::Offsets(vec![Ok(FoundOffset { offset: None, timestamp: None, leader_epoch: None })]));
        assert_eq!(answered(broker.finish(asked)), [(0, -1, -1, -1)]);
    }

    #[test]
    fn special_values_are_known_from_their_versions_on() {
        for (timestamp, from) in [(-1, 1), (-2, 1), (-3, 7), (-4, 8), (-5, 9)] {
            assert!(query(from, timestamp).is_ok(), "{timestamp}");
            assert!(from == 1 || query(from - 1, timestamp).is_err(), "{timestamp}");
        }
        assert_eq!(query(10, -6), Err(ResponseError::UnsupportedVersion));
        assert_eq!(query(10, i64::MIN), Err(ResponseError::UnsupportedVersion));
    }

    #[test]
    fn duplicates_and_strangers_are_refused_alone() {
        let broker = FakeBroker::new(1, &[("logs", 2)]);
        let asked = broker.ask(&API, 6, &request(&[(0, -1), (1, -1), (0, -2), (2, -1), (1, -9)]));
        assert_eq!(answered(broker.finish(asked)).iter().map(|part| part.0).collect::<Vec<_>>(), [42, 42, 42, 3, 42]);
    }

    #[test]
    fn a_partition_that_moved_is_asked_again_and_a_deleted_one_is_unknown() {
        let broker = FakeBroker::new(1, &[("logs", 2)]);
        let asked = broker.ask(&API, 6, &request(&[(0, -1), (1, -1)]));
        let Request::Offsets(first) = broker.request(0) else { panic!("not offsets") };
        first.reply.send(Reply::Offsets(vec![at(4), Err(PartitionError::Moved(2))]));
        let Request::Offsets(again) = broker.request(0) else { panic!("not offsets") };
        assert_eq!(again.parts.len(), 1, "only the one that moved");
        broker.edge.publish(snapshot(3, 1, &[]));
        again.reply.send(Reply::Offsets(vec![Err(PartitionError::Moved(3))]));
        assert_eq!(answered(broker.finish(asked)), [(0, 4, 77, 2), (3, -1, -1, -1)]);
    }
}
