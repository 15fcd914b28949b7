//! OffsetFetch (k9, KIP-88, KIP-447, KIP-709, KIP-848): committed offsets. A group that does not exist has none: offset -1
//! without an error.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, OffsetFetchRequest, OffsetFetchResponse,
        offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
            OffsetFetchResponseTopic, OffsetFetchResponseTopics,
        },
    },
};

use super::{
    Api, Call, Close, Handled, Response, access,
    errors::{NONE, ToKafka},
    group_lane::{ask, text, wire},
};
use crate::coordinator::group::{CommittedOffset, GroupAnswer, GroupError, GroupEvent, TopicOffsets};

/// How k9 is served.
pub const API: Api = Api::asking(ApiKey::OffsetFetch, 1, 9, handle);

/// First version with several groups.
const MANY_GROUPS: i16 = 8;

type Wanted = Option<Vec<(Arc<str>, Vec<i32>)>>;
type Found = Vec<TopicOffsets>;

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: OffsetFetchRequest = call.decode(body)?;
        match call.version {
            MANY_GROUPS.. => many(&call, request).await,
            _ => one(&call, request).await,
        }
    })
}

/// The offsets of topics that may be seen, then the topics that were named and may not.
async fn fetch(call: &Call, group: &str, wanted: Wanted) -> Result<(Found, Found), GroupError> {
    let access = call.access();
    let seen = |name: &str| access.allows(access::SEE_TOPIC, name);
    let (wanted, hidden) = match wanted {
        None => (None, Vec::new()),
        Some(topics) => {
            let (wanted, hidden): (Vec<_>, Vec<_>) = topics.into_iter().partition(|(name, _)| seen(name));
            (Some(wanted), hidden)
        }
    };
    let all = wanted.is_none();
    match ask(call, group, GroupEvent::Fetch(wanted)).await? {
        GroupAnswer::Offsets(mut found) => {
            found.retain(|(name, _)| !all || seen(name));
            Ok((found, without_offsets(hidden)))
        }
        _ => Err(GroupError::CoordinatorNotAvailable),
    }
}

/// Partitions of which nothing is told but an error.
fn without_offsets(topics: Vec<(Arc<str>, Vec<i32>)>) -> Found {
    topics.into_iter().map(|(name, parts)| (name, parts.into_iter().map(|part| (part, None)).collect())).collect()
}

async fn many(call: &Call, request: OffsetFetchRequest) -> Result<Response, Close> {
    let mut answer = OffsetFetchResponse::default();
    let mut seen = BTreeSet::new();
    for group in request.groups {
        let wanted: Wanted =
            group.topics.map(|topics| topics.into_iter().map(|t| (text(&t.name), t.partition_indexes)).collect());
        let mut told = OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone());
        // Asked for again and again, a group would be told again and again: a small request, a giant answer.
        match seen.insert(group.group_id.clone()) {
            false => told.error_code = ResponseError::InvalidRequest.code(),
            true => match fetch(call, &group.group_id, wanted).await {
                Ok((found, hidden)) => {
                    let hidden =
                        hidden.into_iter().map(|topic| topic_of_many(topic, access::SEE_TOPIC.refusal().code()));
                    told.topics = found.into_iter().map(|topic| topic_of_many(topic, NONE)).chain(hidden).collect();
                }
                Err(why) => told.error_code = why.code(),
            },
        }
        answer.groups.push(told);
    }
    call.respond(&answer)
}

fn topic_of_many((name, parts): TopicOffsets, error_code: i16) -> OffsetFetchResponseTopics {
    let part = |(index, found): (i32, Option<CommittedOffset>)| {
        let told = OffsetFetchResponsePartitions::default().with_partition_index(index).with_error_code(error_code);
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

async fn one(call: &Call, request: OffsetFetchRequest) -> Result<Response, Close> {
    let wanted: Wanted =
        request.topics.map(|topics| topics.into_iter().map(|t| (text(&t.name), t.partition_indexes)).collect());
    let mut answer = OffsetFetchResponse::default();
    match fetch(call, &request.group_id, wanted.clone()).await {
        Ok((found, hidden)) => {
            let hidden = hidden.into_iter().map(|topic| topic_of_one(topic, access::SEE_TOPIC.refusal().code()));
            answer.topics = found.into_iter().map(|topic| topic_of_one(topic, NONE)).chain(hidden).collect();
        }
        // Version 1 has no place for the group's own error but at each partition.
        Err(why) if call.version < 2 => {
            let none = without_offsets(wanted.unwrap_or_default()).into_iter();
            answer.topics = none.map(|topic| topic_of_one(topic, why.code())).collect();
        }
        Err(why) => answer.error_code = why.code(),
    }
    call.respond(&answer)
}

fn topic_of_one((name, parts): TopicOffsets, error_code: i16) -> OffsetFetchResponseTopic {
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

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::offset_fetch_request::{
        OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    };
    use thalweg_record::Wall;

    use super::*;
    use crate::{api::fake::FakeBroker, coordinator::group::OFFSETS_TOPIC};

    fn found(wanted: Wanted) -> Found {
        let offset = |index| {
            let metadata = "note".into();
            let value =
                CommittedOffset { offset: 7, leader_epoch: 2, metadata, committed_at: Wall(1), expires_at: None };
            (index, Some(value).filter(|_| index == 0))
        };
        let wanted = wanted.unwrap_or_else(|| vec![("all".into(), vec![0])]);
        wanted.into_iter().map(|(name, parts)| (name, parts.into_iter().map(offset).collect())).collect()
    }

    #[test]
    fn several_groups_each_have_their_own_fate() {
        let broker = FakeBroker::new(1, &[(OFFSETS_TOPIC, 50)]);
        let topic = OffsetFetchRequestTopics::default().with_name(wire("t").into()).with_partition_indexes(vec![0, 1]);
        let group =
            |id: &str, topics| OffsetFetchRequestGroup::default().with_group_id(wire(id).into()).with_topics(topics);
        let groups = vec![group("a", Some(vec![topic])), group("b", None), group("c", None)];
        let asked = broker.ask(&API, 8, &OffsetFetchRequest::default().with_groups(groups).with_require_stable(true));
        for id in ["a", "b"] {
            let call = broker.group_call(0);
            assert_eq!(&*call.group, id);
            let GroupEvent::Fetch(wanted) = call.event else { panic!("not a fetch") };
            call.reply.try_send(Ok(GroupAnswer::Offsets(found(wanted)))).expect("it waits");
        }
        broker.group_call(0).reply.try_send(Err(GroupError::LoadInProgress)).expect("it waits");
        let answer: OffsetFetchResponse = broker.finish(asked);
        let parts = &answer.groups[0].topics[0].partitions;
        assert_eq!((parts[0].committed_offset, parts[0].committed_leader_epoch), (7, 2));
        assert_eq!((parts[1].committed_offset, parts[1].committed_leader_epoch, parts[1].error_code), (-1, -1, 0));
        assert_eq!((&**answer.groups[1].topics[0].name, answer.groups[1].error_code), ("all", 0));
        assert_eq!((answer.groups[2].topics.len(), answer.groups[2].error_code), (0, 14));
    }

    #[test]
    fn older_versions_ask_for_one_group() {
        let topic = OffsetFetchRequestTopic::default().with_name(wire("t").into()).with_partition_indexes(vec![0]);
        let request = OffsetFetchRequest::default().with_group_id(wire("a").into()).with_topics(Some(vec![topic]));
        for version in 1..=7 {
            let broker = FakeBroker::new(1, &[(OFFSETS_TOPIC, 50)]);
            let asked = broker.ask(&API, version, &request);
            let call = broker.group_call(0);
            let GroupEvent::Fetch(wanted) = call.event else { panic!("not a fetch") };
            call.reply.try_send(Ok(GroupAnswer::Offsets(found(wanted)))).expect("it waits");
            let answer: OffsetFetchResponse = broker.finish(asked);
            assert_eq!(answer.topics[0].partitions[0].committed_offset, 7, "version {version}");
            let asked = broker.ask(&API, version, &request);
            broker.group_call(0).reply.try_send(Err(GroupError::NotCoordinator)).expect("it waits");
            let answer: OffsetFetchResponse = broker.finish(asked);
            match version {
                1 => assert_eq!(answer.topics[0].partitions[0].error_code, 16),
                _ => assert_eq!(answer.error_code, 16),
            }
        }
    }
}
