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
    Api, Call, Handled,
    errors::{NONE, ToKafka},
    group_lane::{offsets_topic, wire},
};

/// How k10 is served.
pub const API: Api = Api::new(ApiKey::FindCoordinator, 0, 6, handle);

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
            return Ok(call.respond(&FindCoordinatorResponse::default().with_coordinators(found)));
        }
        let only = found.pop().expect("one key, one answer");
        let answer = FindCoordinatorResponse::default()
            .with_error_code(only.error_code)
            .with_error_message(only.error_message)
            .with_node_id(only.node_id)
            .with_host(only.host)
            .with_port(only.port);
        Ok(call.respond(&answer))
    })
}

/// Why there is no coordinator for `key`. The internal topic is created here, before the first group needs it.
async fn refusal(call: &Call, key_type: i8, key: &str) -> Option<(ResponseError, &'static str)> {
    match key_type {
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
