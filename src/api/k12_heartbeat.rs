//! Heartbeat (k12, KIP-345): a member is alive, and learns of a rebalance.

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, HeartbeatRequest, HeartbeatResponse};

use super::{
    Api, Call, Handled,
    group_lane::{ask_named, code, text, text_or_none},
};
use crate::coordinator::group::{GroupEvent, MemberRef};

/// How k12 is served.
pub const API: Api = Api::new(ApiKey::Heartbeat, 0, 4, handle);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: HeartbeatRequest = call.decode(body)?;
        let member = MemberRef {
            id: text(&request.member_id),
            instance: text_or_none(request.group_instance_id.as_ref()),
            generation: request.generation_id,
        };
        let result = ask_named(&call, &request.group_id, GroupEvent::Heartbeat(member)).await;
        Ok(call.respond(&HeartbeatResponse::default().with_error_code(code(&result))))
    })
}
