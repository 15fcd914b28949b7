//! FindCoordinator (k10, KIP-699): which broker coordinates a group. One broker: always this one, as its listener
//! advertises it.
//!
//! Transactional ids have no coordinator here: they are refused with TRANSACTIONAL_ID_AUTHORIZATION_FAILED (53), as
//! InitProducerId refuses them, for that is an error on which clients give up at once instead of trying for ever.

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{ApiKey, FindCoordinatorRequest, FindCoordinatorResponse, find_coordinator_response::Coordinator},
    protocol::StrBytes,
};

use super::{
    Api, Call, Handled, access,
    errors::{NONE, ToKafka},
    group_lane::{offsets_topic, wire},
};

/// How k10 is served.
pub const API: Api = Api::asking(ApiKey::FindCoordinator, 0, 6, handle);

/// First version with several keys.
const MANY_KEYS: i16 = 4;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: FindCoordinatorRequest = call.decode(body)?;
        let keys = if call.version >= MANY_KEYS { request.coordinator_keys } else { vec![request.key] };
        let mut found = Vec::new();
        for key in keys {
            let error = refusal(&call, request.key_type, &key).await;
            found.push(coordinator(&call, key, error));
        }
        if call.version >= MANY_KEYS {
            return call.respond(&FindCoordinatorResponse::default().with_coordinators(found));
        }
        let only = found.pop().expect("one key, one answer");
        let answer = FindCoordinatorResponse::default()
            .with_error_code(only.error_code)
            .with_error_message(only.error_message)
            .with_node_id(only.node_id)
            .with_host(only.host)
            .with_port(only.port);
        call.respond(&answer)
    })
}

/// Why there is no coordinator for `key`. The internal topic is created here, before the first group needs it.
async fn refusal(call: &Call, key_type: i8, key: &str) -> Option<(ResponseError, &'static str)> {
    let access = call.access();
    match key_type {
        GROUP if !access.allows(access::SEE_GROUP, key) => {
            Some((access::SEE_GROUP.refusal(), "Not authorized to access this group."))
        }
        TRANSACTION if !access.allows(access::SEE_TRANSACTIONAL_ID, key) => {
            Some((access::SEE_TRANSACTIONAL_ID.refusal(), "Not authorized to access this transactional id."))
        }
        GROUP if key.is_empty() => Some((ResponseError::InvalidGroupId, "The group id must not be empty.")),
        GROUP => {
            let missing = offsets_topic(call).await.err()?;
            Some((missing.to_kafka(), "The coordinator is not available yet."))
        }
        TRANSACTION => Some((
            ResponseError::TransactionalIdAuthorizationFailed,
            "This broker has no transactions; idempotent producers need no transactional id.",
        )),
        _ => Some((ResponseError::InvalidRequest, "The key type is neither group nor transaction.")),
    }
}

fn coordinator(call: &Call, key: StrBytes, error: Option<(ResponseError, &'static str)>) -> Coordinator {
    let coordinator = Coordinator::default().with_key(key);
    match error {
        Some((error, why)) => coordinator
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_static_str(why)))
            .with_node_id((-1).into())
            .with_port(-1),
        None => coordinator
            .with_error_code(NONE)
            .with_error_message(None)
            .with_node_id(call.edge.snapshot().broker.node.0.into())
            .with_host(wire(&call.caller.advertised_host))
            .with_port(i32::from(call.caller.advertised_port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::fake::FakeBroker, cluster::ControlRequest, coordinator::group::OFFSETS_TOPIC};

    fn many(key_type: i8, keys: &[&str]) -> FindCoordinatorRequest {
        let keys = keys.iter().map(|key| wire(key)).collect();
        FindCoordinatorRequest::default().with_key_type(key_type).with_coordinator_keys(keys)
    }

    #[test]
    fn every_group_is_here_as_the_listener_says() {
        let broker = FakeBroker::new(2, &[(OFFSETS_TOPIC, 50)]);
        let found: FindCoordinatorResponse = broker.finish(broker.ask(&API, 4, &many(GROUP, &["g", ""])));
        let [good, empty] = &found.coordinators[..] else { panic!("{found:?}") };
        assert_eq!((good.error_code, good.node_id.0, &*good.host, good.port), (0, 1, "this.example", 9099));
        assert_eq!((empty.error_code, empty.node_id.0, empty.port), (24, -1, -1));
        let request = FindCoordinatorRequest::default().with_key(wire("g"));
        let found: FindCoordinatorResponse = broker.finish(broker.ask(&API, 0, &request));
        assert_eq!((found.error_code, &*found.host, found.port), (0, "this.example", 9099));
    }

    #[test]
    fn transactions_fail_at_once_and_unknown_kinds_are_refused() {
        let broker = FakeBroker::new(1, &[(OFFSETS_TOPIC, 50)]);
        for (key_type, code) in [(TRANSACTION, 53), (2, 42)] {
            let found: FindCoordinatorResponse = broker.finish(broker.ask(&API, 6, &many(key_type, &["k"])));
            assert_eq!(found.coordinators[0].error_code, code);
        }
    }

    #[test]
    fn the_internal_topic_is_created_with_the_first_group() {
        let broker = FakeBroker::with(&[("offsets.topic.num.partitions", "7")], 1, &[]);
        let asked = broker.ask(&API, 4, &many(GROUP, &["g"]));
        let ControlRequest::CreateTopics { topics, validate_only, reply } = broker.control_request() else {
            panic!("a topic is created");
        };
        assert_eq!((&*topics[0].name, topics[0].partitions, topics[0].internal), (OFFSETS_TOPIC, Some(7), true));
        assert_eq!(topics[0].configs["cleanup.policy"], "compact");
        assert!(!validate_only);
        broker.edge.publish(crate::api::fake::snapshot(2, 1, &[(OFFSETS_TOPIC, 7)]));
        reply.try_send(vec![Err(crate::cluster::ControlError::TopicExists(String::new()))]).expect("it waits");
        let found: FindCoordinatorResponse = broker.finish(asked);
        assert_eq!(found.coordinators[0].error_code, 0);
    }

    #[test]
    fn a_topic_that_cannot_be_created_is_no_coordinator_yet() {
        let broker = FakeBroker::new(1, &[]);
        let asked = broker.ask(&API, 4, &many(GROUP, &["g"]));
        drop(broker.control_request());
        let found: FindCoordinatorResponse = broker.finish(asked);
        assert_eq!(found.coordinators[0].error_code, 15);
    }
}
