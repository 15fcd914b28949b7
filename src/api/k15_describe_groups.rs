//! DescribeGroups (k15, KIP-345, KIP-430, KIP-1043): state and members of classic groups.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
        describe_groups_response::{DescribedGroup as DescribedGroupWire, DescribedGroupMember},
    },
};

use super::{
    Api, Call, Handled,
    errors::ToKafka,
    group_lane::{ask, wire, wire_or_none},
};
use crate::coordinator::group::{DescribedGroup, DescribedMember, GroupAnswer, GroupError, GroupEvent, GroupState};

/// How k15 is served.
pub const API: Api = Api::asking(ApiKey::DescribeGroups, 0, 6, handle);

/// First version that says that a group does not exist; before, it is a dead one.
const GROUP_ID_NOT_FOUND: i16 = 6;
/// "Not asked for".
const NO_OPERATIONS: i32 = i32::MIN;

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: DescribeGroupsRequest = call.decode(body)?;
        let access = call.access();
        let mut answer = DescribeGroupsResponse::default();
        let mut seen = BTreeSet::new();
        for id in request.groups {
            // Described again and again, a group of many members would make a giant answer to a small request.
            if !seen.insert(id.clone()) {
                answer.groups.push(refused(id, &ResponseError::InvalidRequest));
                continue;
            }
            let operations = match request.include_authorized_operations {
                true => access.group_operations(&id),
                false => NO_OPERATIONS,
            };
            let described = match ask(&call, &id, GroupEvent::Describe).await {
                Ok(GroupAnswer::Described(group)) => found(id, *group).with_authorized_operations(operations),
                Ok(_) => refused(id, &GroupError::CoordinatorNotAvailable),
                Err(GroupError::GroupIdNotFound) => missing(id, call.version).with_authorized_operations(operations),
                Err(why) => refused(id, &why),
            };
            answer.groups.push(described);
        }
        call.respond(&answer)
    })
}

fn found(id: GroupId, group: DescribedGroup) -> DescribedGroupWire {
    DescribedGroupWire::default()
        .with_group_id(id)
        .with_error_message(None)
        .with_group_state(wire(group.state.name()))
        .with_protocol_type(wire(&group.protocol_type))
        .with_protocol_data(wire(&group.protocol))
        .with_members(group.members.into_iter().map(member).collect())
}

fn member(member: DescribedMember) -> DescribedGroupMember {
    DescribedGroupMember::default()
        .with_member_id(wire(&member.id))
        .with_group_instance_id(wire_or_none(member.instance.as_ref()))
        .with_client_id(wire(&member.client_id))
        .with_client_host(wire(&member.client_host))
        .with_member_metadata(member.metadata)
        .with_member_assignment(member.assignment)
}

fn missing(id: GroupId, version: i16) -> DescribedGroupWire {
    let group = DescribedGroupWire::default().with_error_message(None).with_group_state(wire(GroupState::Dead.name()));
    let group = match version {
        GROUP_ID_NOT_FOUND.. => group
            .with_error_code(GroupError::GroupIdNotFound.code())
            .with_error_message(Some(wire(&format!("Group {} not found.", id.as_str())))),
        _ => group,
    };
    group.with_group_id(id)
}

fn refused(id: GroupId, why: &impl ToKafka) -> DescribedGroupWire {
    DescribedGroupWire::default().with_group_id(id).with_error_message(None).with_error_code(why.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_group_is_dead_and_says_so_where_it_can() {
        let old = missing(wire("g").into(), 5);
        assert_eq!((old.error_code, &*old.group_state, old.error_message), (0, "Dead", None));
        let new = missing(wire("g").into(), 6);
        assert_eq!((new.error_code, &*new.group_state), (69, "Dead"));
        assert_eq!(new.error_message.as_deref(), Some("Group g not found."));
    }
}
