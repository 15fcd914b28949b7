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
    Api, Call, Handled,
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
        let snapshot = call.edge.snapshot();
        for topic in &request.topics {
            let name = text(&topic.name);
            let count = snapshot.topics.get(&name).map_or(0, |view| view.partitions);
            let mut parts = Vec::new();
            for part in &topic.partitions {
                let mut told = OffsetCommitResponsePartition::default().with_partition_index(part.partition_index);
                if (0..count).contains(&part.partition_index) {
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
            Err(why) => vec![Err(why); asked],
        };
        // Only the partitions that are not refused yet were asked about, in this order.
        let open = answer.topics.iter_mut().flat_map(|t| &mut t.partitions).filter(|p| p.error_code == 0);
        for (told, result) in open.zip(&results) {
            told.error_code = code(result);
        }
        Ok(call.respond(&answer))
    })
}

fn new_offset(part: &OffsetCommitRequestPartition) -> NewOffset {
    NewOffset {
        offset: part.committed_offset,
        leader_epoch: part.committed_leader_epoch,
        metadata: text_or_none(part.committed_metadata.as_ref()).unwrap_or_default(),
    }
}
