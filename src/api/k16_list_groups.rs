//! ListGroups (k16, KIP-518, KIP-848): the groups of this broker, filtered by state and type.

use bytes::Bytes;
use kafka_protocol::{
    messages::{ApiKey, ListGroupsRequest, ListGroupsResponse, list_groups_response::ListedGroup as ListedGroupWire},
    protocol::StrBytes,
};

use super::{
    Api, Call, Handled, access,
    errors::ToKafka,
    group_lane::{self, wire},
};
use crate::coordinator::group::ListedGroup;

/// How k16 is served.
pub const API: Api = Api::asking(ApiKey::ListGroups, 0, 5, handle);

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
                let access = call.access();
                let all = access.allows_cluster(access::SEE_CLUSTER);
                let wanted = |group: &ListedGroup| {
                    (all || access.allows(access::SEE_GROUP, &group.group))
                        && passes(&request.states_filter, group.state.name())
                        && passes(&request.types_filter, CLASSIC)
                };
                let listed = groups.into_values().filter(wanted).map(|group| listed(call.version, &group));
                answer.with_groups(listed.collect())
            }
            Err(why) => answer.with_error_code(why.code()),
        };
        call.respond(&answer)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::fake::FakeBroker,
        coordinator::group::{GroupError, GroupRequest, GroupState},
    };

    fn list(states: &[&str], types: &[&str], answers: [Result<Vec<ListedGroup>, GroupError>; 2]) -> ListGroupsResponse {
        let broker = FakeBroker::new(2, &[]);
        let words = |list: &[&str]| list.iter().map(|word| wire(word)).collect();
        let request = ListGroupsRequest::default().with_states_filter(words(states)).with_types_filter(words(types));
        let asked = broker.ask(&API, 5, &request);
        assert!(!broker.settled(&asked));
        for (lane, answer) in broker.groups.iter().zip(answers) {
            let Ok(GroupRequest::List(reply)) = lane.try_recv() else { panic!("every core is asked") };
            reply.try_send(answer).expect("it waits");
        }
        broker.finish(asked)
    }

    fn group(id: &str, state: GroupState) -> ListedGroup {
        ListedGroup { group: id.into(), protocol_type: "consumer".into(), state }
    }

    #[test]
    fn groups_of_all_cores_are_listed_in_order_and_filtered() {
        let answers = || [Ok(vec![group("b", GroupState::Stable)]), Ok(vec![group("a", GroupState::Empty)])];
        let names =
            |found: ListGroupsResponse| found.groups.iter().map(|g| g.group_id.as_str().to_owned()).collect::<Vec<_>>();
        let all = list(&[], &[], answers());
        assert_eq!((&*all.groups[0].group_state, &*all.groups[0].group_type), ("Empty", "classic"));
        assert_eq!(names(all), ["a", "b"]);
        assert_eq!(names(list(&["STABLE"], &["Classic"], answers())), ["b"]);
        assert!(names(list(&[], &["consumer"], answers())).is_empty());
        let loading = list(&[], &[], [Ok(Vec::new()), Err(GroupError::LoadInProgress)]);
        assert_eq!((loading.error_code, loading.groups.len()), (14, 0));
    }
}
