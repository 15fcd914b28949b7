//! Heartbeat (k12, KIP-345): a member is alive, and learns of a rebalance.

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, HeartbeatRequest, HeartbeatResponse};

use super::{
    Api, Call, Handled,
    errors::NONE,
    group_lane::{ask_named, code, text, text_or_none},
};
use crate::coordinator::group::{GroupError, GroupEvent, MemberRef};

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
        let error_code = match ask_named(&call, &request.group_id, GroupEvent::Heartbeat(member)).await {
            // Sessions begin when the load ends, so nothing is lost by not hearing this one, as in Kafka.
            Err(GroupError::LoadInProgress) => NONE,
            result => code(&result),
        };
        call.respond(&HeartbeatResponse::default().with_error_code(error_code))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{fake::FakeBroker, group_lane::wire},
        coordinator::group::{GroupAnswer, OFFSETS_TOPIC},
    };

    #[test]
    fn a_heartbeat_while_groups_load_is_taken_kindly() {
        let cases = [
            (Ok(GroupAnswer::Done), 0),
            (Err(GroupError::LoadInProgress), 0),
            (Err(GroupError::RebalanceInProgress), 27),
            (Err(GroupError::NotCoordinator), 16),
        ];
        let broker = FakeBroker::new(1, &[(OFFSETS_TOPIC, 50)]);
        let request = HeartbeatRequest::default().with_group_id(wire("g").into()).with_member_id(wire("m"));
        for (result, code) in cases {
            let asked = broker.ask(&API, 4, &request);
            broker.group_call(0).reply.try_send(result).expect("it waits");
            assert_eq!(broker.finish::<HeartbeatResponse>(asked).error_code, code);
        }
    }
}
