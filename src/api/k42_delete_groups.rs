//! DeleteGroups (k42, KIP-229): groups without members, and their offsets, answered when durable.

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, DeleteGroupsRequest, DeleteGroupsResponse, delete_groups_response::DeletableGroupResult,
};

use super::{
    Api, Call, Handled,
    group_lane::{ask, code},
};
use crate::coordinator::group::GroupEvent;

/// How k42 is served.
pub const API: Api = Api::new(ApiKey::DeleteGroups, 0, 2, handle);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: DeleteGroupsRequest = call.decode(body)?;
        let mut answer = DeleteGroupsResponse::default();
        for id in request.groups_names {
            let result = ask(&call, &id, GroupEvent::Delete).await;
            let told = DeletableGroupResult::default().with_group_id(id).with_error_code(code(&result));
            answer.results.push(told);
        }
        call.respond(&answer)
    })
}
