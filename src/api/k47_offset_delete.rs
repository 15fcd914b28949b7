//! OffsetDelete (k47, KIP-496): offsets of topics that a group no longer subscribes to, answered when durable.

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, OffsetDeleteRequest, OffsetDeleteResponse,
        offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
    },
};

use super::{
    Api, Call, Handled, access,
    errors::ToKafka,
    group_lane::{ask, code, text},
};
use crate::coordinator::group::{GroupAnswer, GroupError, GroupEvent};

/// How k47 is served.
pub const API: Api = Api::new(ApiKey::OffsetDelete, 0, 0, handle);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: OffsetDeleteRequest = call.decode(body)?;
        let mut answer = OffsetDeleteResponse::default();
        let mut partitions = Vec::new();
        let (snapshot, access) = (call.edge.snapshot(), call.access());
        for topic in &request.topics {
            let name = text(&topic.name);
            let allowed = access.check(access::USE_OFFSETS, &name);
            let count = snapshot.topics.get(&name).map_or(0, |view| view.partitions);
            let mut parts = Vec::new();
            for part in &topic.partitions {
                let mut told = OffsetDeleteResponsePartition::default().with_partition_index(part.partition_index);
                if let Err(refused) = allowed {
                    told.error_code = refused.code();
                } else if (0..count).contains(&part.partition_index) {
                    partitions.push((name.clone(), part.partition_index));
                } else {
                    told.error_code = ResponseError::UnknownTopicOrPartition.code();
                }
                parts.push(told);
            }
            let told = OffsetDeleteResponseTopic::default().with_name(topic.name.clone()).with_partitions(parts);
            answer.topics.push(told);
        }
        let results = match ask(&call, &request.group_id, GroupEvent::DeleteOffsets(partitions)).await {
            Ok(GroupAnswer::OffsetsDeleted(results)) => results,
            Ok(_) => return call.respond(&refused(&GroupError::CoordinatorNotAvailable)),
            Err(why) => return call.respond(&refused(&why)),
        };
        // Only the partitions that are not refused yet were asked about, in this order.
        let open = answer.topics.iter_mut().flat_map(|t| &mut t.partitions).filter(|p| p.error_code == 0);
        for (told, result) in open.zip(&results) {
            told.error_code = code(result);
        }
        call.respond(&answer)
    })
}

fn refused(why: &GroupError) -> OffsetDeleteResponse {
    OffsetDeleteResponse::default().with_error_code(why.code())
}
