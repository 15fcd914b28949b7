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

/// The most of a client's name that its member id repeats.
const MEMBER_ID_PREFIX_BYTES: usize = 1024;

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
        call.respond(&answer)
    })
}

/// What a member's id begins with. A name of any length would not fit into answers with lengths of 16 bits once the rest of
/// the id is added.
fn prefix_of(name: &str) -> &str {
    let mut end = name.len().min(MEMBER_ID_PREFIX_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

fn join(call: &Call, request: &JoinGroupRequest) -> JoinRequest {
    let client_id = call.client_id.as_ref().map_or_else(|| Arc::from(""), text);
    let instance = text_or_none(request.group_instance_id.as_ref());
    let random = [call.edge.runtime.random(), call.edge.runtime.random()];
    let uuid = uuid::Builder::from_random_bytes(bytes_of(random)).into_uuid();
    let prefix = prefix_of(instance.as_ref().unwrap_or(&client_id));
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

#[cfg(test)]
mod tests {
    use kafka_protocol::{messages::join_group_request::JoinGroupRequestProtocol, protocol::StrBytes};

    use super::*;
    use crate::{
        api::fake::FakeBroker,
        coordinator::group::{GroupResult, JoinedMember, OFFSETS_TOPIC, partition_for},
    };

    fn request(version: i16) -> JoinGroupRequest {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str("range"))
            .with_metadata(Bytes::from_static(b"meta"));
        let request = JoinGroupRequest::default()
            .with_group_id(wire("g").into())
            .with_session_timeout_ms(10_000)
            .with_protocol_type(wire("consumer"))
            .with_protocols(vec![protocol]);
        if version >= REBALANCE_TIMEOUT { request.with_rebalance_timeout_ms(60_000) } else { request }
    }

    /// Asks, and answers for the coordinator.
    fn exchange(version: i16, result: impl FnOnce(&JoinRequest) -> GroupResult) -> (JoinRequest, JoinGroupResponse) {
        let broker = FakeBroker::new(3, &[(OFFSETS_TOPIC, 50)]);
        let asked = broker.ask(&API, version, &request(version));
        assert!(!broker.settled(&asked), "it waits for the coordinator");
        let topic = broker.edge.snapshot().topics[OFFSETS_TOPIC].clone();
        let index = partition_for("g", 50);
        let partition = thalweg_record::PartitionId { topic: topic.id, index };
        let owner = broker.edge.snapshot().owner(partition);
        let call = broker.group_call(usize::from(owner.0));
        assert_eq!((call.partition, &*call.group), (partition, "g"));
        let GroupEvent::Join(join) = call.event else { panic!("not a join") };
        call.reply.try_send(result(&join)).expect("it waits");
        (join, broker.finish(asked))
    }

    #[test]
    fn the_member_id_that_is_required_comes_with_the_error() {
        let (join, answer) = exchange(9, |join| Err(GroupError::MemberIdRequired(join.new_member_id.clone())));
        assert_eq!((answer.error_code, &*answer.member_id), (79, &*join.new_member_id));
        assert_eq!((answer.protocol_name, answer.generation_id), (None, -1));
        assert!(join.new_member_id.len() == "-".len() + 36, "no client id, a dash, a UUID: {}", join.new_member_id);
        assert!(join.must_know_id && join.can_skip_assignment);
        assert_eq!((join.rebalance_timeout_ms, &*join.client_host), (60_000, "/127.0.0.1"));
    }

    #[test]
    fn every_version_gets_its_answer() {
        for version in 0..=9 {
            let (join, answer) = exchange(version, |join| {
                let member = JoinedMember {
                    id: join.new_member_id.clone(),
                    instance: Some("i".into()).filter(|_| version >= 5),
                    metadata: join.protocols[0].1.clone(),
                };
                Ok(GroupAnswer::Joined(Box::new(Joined {
                    generation: 3,
                    protocol_type: Some("consumer".into()),
                    protocol: Some("range".into()),
                    leader: join.new_member_id.clone(),
                    member_id: join.new_member_id.clone(),
                    members: vec![member],
                    skip_assignment: version >= 9,
                })))
            });
            assert_eq!((answer.error_code, answer.generation_id), (0, 3), "version {version}");
            assert_eq!((answer.protocol_name.as_deref(), &*answer.leader), (Some("range"), &*join.new_member_id));
            assert_eq!(&answer.members[0].metadata[..], b"meta");
            assert_eq!(join.rebalance_timeout_ms, if version == 0 { 10_000 } else { 60_000 });
            assert_eq!(join.must_know_id, version >= 4);

            let (_, answer) = exchange(version, |_| Err(GroupError::InconsistentProtocol));
            assert_eq!(answer.error_code, 23, "version {version}");
            assert_eq!(answer.protocol_name.is_some(), version < 7, "null only where it may be");
        }
    }

    #[test]
    fn an_empty_group_id_is_refused() {
        let broker = FakeBroker::new(1, &[(OFFSETS_TOPIC, 50)]);
        let answer: JoinGroupResponse = broker.finish(broker.ask(&API, 9, &request(9).with_group_id(wire("").into())));
        assert_eq!(answer.error_code, 24);
    }
}
