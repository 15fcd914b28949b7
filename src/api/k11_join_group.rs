//! JoinGroup (k11, KIP-62, KIP-345, KIP-394, KIP-559, KIP-800, KIP-814): become a member of a new generation.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, JoinGroupRequest, JoinGroupResponse, join_group_response::JoinGroupResponseMember,
};

use super::{
    Api, Call, Handled,
    errors::ToKafka,
    group_lane::{ask_named, blob, text, text_or_none, wire, wire_or_none},
};
use crate::coordinator::group::{GroupAnswer, GroupError, GroupEvent, JoinRequest, Joined};

/// How k11 is served.
pub const API: Api = Api::new(ApiKey::JoinGroup, 0, 9, handle);

/// First version with a rebalance timeout of its own.
const REBALANCE_TIMEOUT: i16 = 1;
/// First version whose new members join twice, the second time with their id.
const MEMBER_ID_REQUIRED: i16 = 4;
/// First version that tells the protocol type, and whose protocol may be null.
const PROTOCOL_TYPE: i16 = 7;
/// First version in which a leader may be told not to assign.
const SKIP_ASSIGNMENT: i16 = 9;

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: JoinGroupRequest = call.decode(body)?;
        let event = GroupEvent::Join(join(&call, &request));
        let answer = match ask_named(&call, &request.group_id, event).await {
            Ok(GroupAnswer::Joined(joined)) => joined_answer(&call, *joined),
            Ok(_) => refused(&call, wire(&request.member_id), &GroupError::CoordinatorNotAvailable),
            Err(GroupError::MemberIdRequired(id)) => {
                refused(&call, wire(&id), &GroupError::MemberIdRequired(Arc::clone(&id)))
            }
            Err(why) => refused(&call, request.member_id, &why),
        };
        Ok(call.respond(&answer))
    })
}

fn join(call: &Call, request: &JoinGroupRequest) -> JoinRequest {
    let client_id = call.client_id.as_ref().map_or_else(|| Arc::from(""), text);
    let instance = text_or_none(request.group_instance_id.as_ref());
    let random = [call.edge.runtime.random(), call.edge.runtime.random()];
    let uuid = uuid::Builder::from_random_bytes(bytes_of(random)).into_uuid();
    let prefix = instance.as_ref().unwrap_or(&client_id);
    let rebalance_timeout_ms = match call.version {
        REBALANCE_TIMEOUT.. => request.rebalance_timeout_ms,
        _ => request.session_timeout_ms,
    };
    JoinRequest {
        member_id: text(&request.member_id),
        new_member_id: format!("{prefix}-{uuid}").into(),
        instance,
        client_id,
        client_host: format!("/{}", call.caller.peer.ip()).into(),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms,
        protocol_type: text(&request.protocol_type),
        protocols: request.protocols.iter().map(|p| (text(&p.name), blob(&p.metadata))).collect(),
        must_know_id: call.version >= MEMBER_ID_REQUIRED,
        can_skip_assignment: call.version >= SKIP_ASSIGNMENT,
    }
}

fn bytes_of([high, low]: [u64; 2]) -> [u8; 16] {
    (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
}

fn joined_answer(call: &Call, joined: Joined) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(wire(&member.id))
            .with_group_instance_id(wire_or_none(member.instance.as_ref()))
            .with_metadata(member.metadata)
    });
    let protocol = wire_or_none(joined.protocol.as_ref());
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type(wire_or_none(joined.protocol_type.as_ref()))
        .with_protocol_name(if call.version < PROTOCOL_TYPE { protocol.or(Some(wire(""))) } else { protocol })
        .with_leader(wire(&joined.leader))
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(wire(&joined.member_id))
        .with_members(members.collect())
}

fn refused(call: &Call, member_id: kafka_protocol::protocol::StrBytes, why: &GroupError) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_error_code(why.code())
        .with_generation_id(-1)
        .with_member_id(member_id)
        .with_protocol_name(Some(wire("")).filter(|_| call.version < PROTOCOL_TYPE))
}
