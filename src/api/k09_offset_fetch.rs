//! OffsetFetch (k9, KIP-88, KIP-447, KIP-709, KIP-848): committed offsets. A group that does not exist has none: offset -1
//! without an error.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, OffsetFetchRequest, OffsetFetchResponse,
    offset_fetch_response::{
        OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
        OffsetFetchResponseTopic, OffsetFetchResponseTopics,
    },
};

use super::{
    Api, Call, Handled, Response,
    errors::{NONE, ToKafka},
    group_lane::{ask, text, wire},
};
use crate::coordinator::group::{CommittedOffset, GroupAnswer, GroupError, GroupEvent};

/// How k9 is served.
pub const API: Api = Api::new(ApiKey::OffsetFetch, 1, 9, handle);

/// First version with several groups.
const MANY_GROUPS: i16 = 8;

type Wanted = Option<Vec<(Arc<str>, Vec<i32>)>>;
type Found = Vec<(Arc<str>, Vec<(i32, Option<CommittedOffset>)>)>;

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: OffsetFetchRequest = call.decode(body)?;
        match call.version {
            MANY_GROUPS.. => Ok(many(&call, request).await),
            _ => Ok(one(&call, request).await),
        }
    })
}

async fn fetch(call: &Call, group: &str, wanted: Wanted) -> Result<Found, GroupError> {
    match ask(call, group, GroupEvent::Fetch(wanted)).await? {
        GroupAnswer::Offsets(found) => Ok(found),
        _ => Err(GroupError::CoordinatorNotAvailable),
    }
}

async fn many(call: &Call, request: OffsetFetchRequest) -> Response {
    let mut answer = OffsetFetchResponse::default();
    for group in request.groups {
        let wanted: Wanted =
            group.topics.map(|topics| topics.into_iter().map(|t| (text(&t.name), t.partition_indexes)).collect());
        let mut told = OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone());
        match fetch(call, &group.group_id, wanted).await {
            Ok(found) => told.topics = found.into_iter().map(topic_of_many).collect(),
            Err(why) => told.error_code = why.code(),
        }
        answer.groups.push(told);
    }
    call.respond(&answer)
}

fn topic_of_many((name, parts): (Arc<str>, Vec<(i32, Option<CommittedOffset>)>)) -> OffsetFetchResponseTopics {
    let part = |(index, found): (i32, Option<CommittedOffset>)| {
        let told = OffsetFetchResponsePartitions::default().with_partition_index(index);
        match found {
            Some(found) => told
                .with_committed_offset(found.offset)
                .with_committed_leader_epoch(found.leader_epoch)
                .with_metadata(Some(wire(&found.metadata))),
            None => told.with_committed_offset(-1).with_committed_leader_epoch(-1).with_metadata(Some(wire(""))),
        }
    };
    OffsetFetchResponseTopics::default()
        .with_name(wire(&name).into())
        .with_partitions(parts.into_iter().map(part).collect())
}

async fn one(call: &Call, request: OffsetFetchRequest) -> Response {
    let wanted: Wanted =
        request.topics.map(|topics| topics.into_iter().map(|t| (text(&t.name), t.partition_indexes)).collect());
    let mut answer = OffsetFetchResponse::default();
    match fetch(call, &request.group_id, wanted.clone()).await {
        Ok(found) => answer.topics = found.into_iter().map(|topic| topic_of_one(topic, NONE)).collect(),
        // Version 1 has no place for the group's own error but at each partition.
        Err(why) if call.version < 2 => {
            let none = wanted.unwrap_or_default().into_iter();
            let none = none.map(|(name, parts)| (name, parts.into_iter().map(|p| (p, None)).collect()));
            answer.topics = none.map(|topic| topic_of_one(topic, why.code())).collect();
        }
        Err(why) => answer.error_code = why.code(),
    }
    call.respond(&answer)
}

fn topic_of_one(
    (name, parts): (Arc<str>, Vec<(i32, Option<CommittedOffset>)>),
    error_code: i16,
) -> OffsetFetchResponseTopic {
    let part = |(index, found): (i32, Option<CommittedOffset>)| {
        let told = OffsetFetchResponsePartition::default().with_partition_index(index).with_error_code(error_code);
        match found {
            Some(found) => told
                .with_committed_offset(found.offset)
                .with_committed_leader_epoch(found.leader_epoch)
                .with_metadata(Some(wire(&found.metadata))),
            None => told.with_committed_offset(-1).with_committed_leader_epoch(-1).with_metadata(Some(wire(""))),
        }
    };
    OffsetFetchResponseTopic::default()
        .with_name(wire(&name).into())
        .with_partitions(parts.into_iter().map(part).collect())
}
