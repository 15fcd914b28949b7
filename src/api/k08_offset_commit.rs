//! OffsetCommit (k8, KIP-32, KIP-211, KIP-320, KIP-345): offsets of a group, answered when durable.

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, OffsetCommitRequest, OffsetCommitResponse,
        offset_commit_request::OffsetCommitRequestPartition,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
    },
};

use super::{
    Api, Call, Handled, access,
    errors::NONE,
    group_lane::{ask, code, text, text_or_none},
};
use crate::coordinator::group::{CommitRequest, GroupAnswer, GroupError, GroupEvent, MemberRef, NewOffset};

/// How k8 is served.
pub const API: Api = Api::new(ApiKey::OffsetCommit, 2, 9, handle);

/// First version whose clients know GROUP_ID_NOT_FOUND here.
const KNOWS_MISSING_GROUP: i16 = 9;

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: OffsetCommitRequest = call.decode(body)?;
        let mut answer = OffsetCommitResponse::default();
        let mut offsets = Vec::new();
        let (snapshot, access) = (call.edge.snapshot(), call.access());
        for topic in &request.topics {
            let name = text(&topic.name);
            let allowed = access.check(access::USE_OFFSETS, &name);
            let count = snapshot.topics.get(&name).map_or(0, |view| view.partitions);
            let mut parts = Vec::new();
            for part in &topic.partitions {
                let mut told = OffsetCommitResponsePartition::default().with_partition_index(part.partition_index);
                if let Err(refused) = allowed {
                    told.error_code = refused.code();
                } else if (0..count).contains(&part.partition_index) {
                    offsets.push((name.clone(), part.partition_index, new_offset(part)));
                } else {
                    told.error_code = ResponseError::UnknownTopicOrPartition.code();
                }
                parts.push(told);
            }
            let told = OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(parts);
            answer.topics.push(told);
        }
        let asked = offsets.len();
        let commit = CommitRequest {
            member: MemberRef {
                id: text(&request.member_id),
                instance: text_or_none(request.group_instance_id.as_ref()),
                generation: request.generation_id_or_member_epoch,
            },
            offsets,
            retention_ms: Some(request.retention_time_ms).filter(|ms| *ms >= 0),
            knows_missing_group: call.version >= KNOWS_MISSING_GROUP,
        };
        let results = match ask(&call, &request.group_id, GroupEvent::Commit(commit)).await {
            Ok(GroupAnswer::Committed(results)) => results,
            Ok(_) => vec![Err(GroupError::Unstorable); asked],
            Err(why) => {
                // Who may not use the group learns nothing of the topics either.
                if why == GroupError::Unauthorized {
                    answer.topics.iter_mut().flat_map(|t| &mut t.partitions).for_each(|p| p.error_code = NONE);
                }
                vec![Err(why); answer.topics.iter().map(|t| t.partitions.len()).sum()]
            }
        };
        // Only the partitions that are not refused yet were asked about, in this order.
        let open = answer.topics.iter_mut().flat_map(|t| &mut t.partitions).filter(|p| p.error_code == 0);
        for (told, result) in open.zip(&results) {
            told.error_code = code(result);
        }
        call.respond(&answer)
    })
}

fn new_offset(part: &OffsetCommitRequestPartition) -> NewOffset {
    NewOffset {
        offset: part.committed_offset,
        leader_epoch: part.committed_leader_epoch,
        metadata: text_or_none(part.committed_metadata.as_ref()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;

    use super::*;
    use crate::{
        api::{fake::FakeBroker, group_lane::wire},
        coordinator::group::OFFSETS_TOPIC,
    };

    fn request() -> OffsetCommitRequest {
        let part = |index| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(index)
                .with_committed_offset(5)
                .with_committed_metadata(None)
        };
        let topic = |name: &str| {
            OffsetCommitRequestTopic::default().with_name(wire(name).into()).with_partitions(vec![
                part(0),
                part(2),
                part(1),
            ])
        };
        OffsetCommitRequest::default().with_group_id(wire("g").into()).with_topics(vec![topic("gone"), topic("t")])
    }

    fn codes(answer: &OffsetCommitResponse) -> Vec<i16> {
        answer.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code).collect()
    }

    #[test]
    fn unknown_partitions_are_refused_and_the_others_keep_their_places() {
        for version in [2, 5, 9] {
            let broker = FakeBroker::new(1, &[(OFFSETS_TOPIC, 50), ("t", 2)]);
            let asked = broker.ask(&API, version, &request());
            let call = broker.group_call(0);
            let GroupEvent::Commit(commit) = call.event else { panic!("not a commit") };
            let indexes: Vec<i32> = commit.offsets.iter().map(|(_, index, _)| *index).collect();
            assert_eq!(indexes, [0, 1]);
            assert_eq!((commit.knows_missing_group, commit.retention_ms), (version >= 9, None));
            assert_eq!((&*commit.offsets[0].2.metadata, commit.offsets[0].2.leader_epoch), ("", -1));
            let results = vec![Ok(()), Err(GroupError::OffsetMetadataTooLarge)];
            call.reply.try_send(Ok(GroupAnswer::Committed(results))).expect("it waits");
            assert_eq!(codes(&broker.finish(asked)), [3, 3, 3, 0, 3, 12]);
        }
    }

    #[test]
    fn an_error_of_the_group_is_told_for_each_partition() {
        let broker = FakeBroker::new(1, &[(OFFSETS_TOPIC, 50), ("t", 3)]);
        let asked = broker.ask(&API, 9, &request());
        broker.group_call(0).reply.try_send(Err(GroupError::IllegalGeneration)).expect("it waits");
        assert_eq!(codes(&broker.finish(asked)), [3, 3, 3, 22, 22, 22]);
    }
}
