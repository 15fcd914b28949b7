//! SyncGroup (k14, KIP-345, KIP-559): the leader assigns, and every member gets its part.

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, SyncGroupRequest, SyncGroupResponse};

use super::{
    Api, Call, Handled,
    errors::ToKafka,
    group_lane::{ask_named, blob, text, text_or_none, wire_or_none},
};
use crate::coordinator::group::{GroupAnswer, GroupError, GroupEvent, MemberRef, SyncRequest};

/// How k14 is served.
pub const API: Api = Api::new(ApiKey::SyncGroup, 0, 5, handle);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: SyncGroupRequest = call.decode(body)?;
        let sync = SyncRequest {
            member: MemberRef {
                id: text(&request.member_id),
                instance: text_or_none(request.group_instance_id.as_ref()),
                generation: request.generation_id,
            },
            protocol_type: text_or_none(request.protocol_type.as_ref()),
            protocol: text_or_none(request.protocol_name.as_ref()),
            assignments: request.assignments.iter().map(|a| (text(&a.member_id), blob(&a.assignment))).collect(),
        };
        let answer = SyncGroupResponse::default();
        let answer = match ask_named(&call, &request.group_id, GroupEvent::Sync(sync)).await {
            Ok(GroupAnswer::Synced(synced)) => answer
                .with_protocol_type(wire_or_none(synced.protocol_type.as_ref()))
                .with_protocol_name(wire_or_none(synced.protocol.as_ref()))
                .with_assignment(synced.assignment),
            Ok(_) => answer.with_error_code(GroupError::CoordinatorNotAvailable.code()),
            Err(why) => answer.with_error_code(why.code()),
        };
        call.respond(&answer)
    })
}
