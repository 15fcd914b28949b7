//! ListGroups (k16, KIP-518, KIP-848): the groups of this broker, filtered by state and type.

use bytes::Bytes;
use kafka_protocol::{
    messages::{ApiKey, ListGroupsRequest, ListGroupsResponse, list_groups_response::ListedGroup as ListedGroupWire},
    protocol::StrBytes,
};

use super::{
    Api, Call, Handled,
    errors::ToKafka,
    group_lane::{self, wire},
};
use crate::coordinator::group::ListedGroup;

/// How k16 is served.
pub const API: Api = Api::new(ApiKey::ListGroups, 0, 5, handle);

/// First version with states.
const STATES: i16 = 4;
/// First version with types.
const TYPES: i16 = 5;
/// The only type of group there is.
const CLASSIC: &str = "classic";

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: ListGroupsRequest = call.decode(body)?;
        let answer = ListGroupsResponse::default();
        let answer = match group_lane::list(&call).await {
            Ok(groups) => {
                let wanted = |group: &ListedGroup| {
                    passes(&request.states_filter, group.state.name()) && passes(&request.types_filter, CLASSIC)
                };
                let listed = groups.into_values().filter(wanted).map(|group| listed(call.version, &group));
                answer.with_groups(listed.collect())
            }
            Err(why) => answer.with_error_code(why.code()),
        };
        Ok(call.respond(&answer))
    })
}

/// An empty filter lets everything pass; case does not matter, as in Kafka.
fn passes(filter: &[StrBytes], name: &str) -> bool {
    filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
}

fn listed(version: i16, group: &ListedGroup) -> ListedGroupWire {
    let listed = ListedGroupWire::default()
        .with_group_id(wire(&group.group).into())
        .with_protocol_type(wire(&group.protocol_type));
    let listed = if version >= STATES { listed.with_group_state(wire(group.state.name())) } else { listed };
    if version >= TYPES { listed.with_group_type(wire(CLASSIC)) } else { listed }
}
