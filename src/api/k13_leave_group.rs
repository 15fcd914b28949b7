//! LeaveGroup (k13, KIP-345, KIP-800): members go, several at once from version 3.

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, LeaveGroupRequest, LeaveGroupResponse, leave_group_request::MemberIdentity,
    leave_group_response::MemberResponse,
};

use super::{
    Api, Call, Handled,
    errors::ToKafka,
    group_lane::{ask_named, code, text, text_or_none},
};
use crate::coordinator::group::{GroupAnswer, GroupError, GroupEvent, LeavingMember};

/// How k13 is served.
pub const API: Api = Api::new(ApiKey::LeaveGroup, 0, 5, handle);

/// First version with several members.
const MANY_MEMBERS: i16 = 3;

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: LeaveGroupRequest = call.decode(body)?;
        let members = match call.version {
            MANY_MEMBERS.. => request.members,
            _ => vec![MemberIdentity::default().with_member_id(request.member_id).with_group_instance_id(None)],
        };
        let leaving = members
            .iter()
            .map(|m| LeavingMember { id: text(&m.member_id), instance: text_or_none(m.group_instance_id.as_ref()) });
        let results = match ask_named(&call, &request.group_id, GroupEvent::Leave(leaving.collect())).await {
            Ok(GroupAnswer::Left(results)) => Ok(results),
            Ok(_) => Err(GroupError::CoordinatorNotAvailable),
            Err(why) => Err(why),
        };
        call.respond(&answer(call.version, &members, results))
    })
}

fn answer(
    version: i16,
    members: &[MemberIdentity],
    results: Result<Vec<Result<(), GroupError>>, GroupError>,
) -> LeaveGroupResponse {
    let answer = LeaveGroupResponse::default();
    let results = match results {
        Ok(results) => results,
        Err(why) => return answer.with_error_code(why.code()),
    };
    if version < MANY_MEMBERS {
        return answer.with_error_code(results.first().map_or(0, code));
    }
    let told = members.iter().zip(&results).map(|(member, result)| {
        MemberResponse::default()
            .with_member_id(member.member_id.clone())
            .with_group_instance_id(member.group_instance_id.clone())
            .with_error_code(code(result))
    });
    answer.with_members(told.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_member_has_its_error_on_top_and_several_have_their_own() {
        let members = ["a", "b"].map(|id| MemberIdentity::default().with_member_id(super::super::group_lane::wire(id)));
        let results = || Ok(vec![Err(GroupError::UnknownMember), Ok(())]);
        let old = answer(2, &members[..1], results());
        assert_eq!((old.error_code, old.members.len()), (25, 0));
        let new = answer(3, &members, results());
        let codes: Vec<i16> = new.members.iter().map(|m| m.error_code).collect();
        assert_eq!((new.error_code, codes), (0, vec![25, 0]));
        assert_eq!(answer(3, &members, Err(GroupError::NotCoordinator)).error_code, 16);
    }
}
