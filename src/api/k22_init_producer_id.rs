//! InitProducerId (k22, KIP-98, KIP-360): ids for idempotent producers. Transactions are refused.

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{ApiKey, InitProducerIdRequest, InitProducerIdResponse, ProducerId},
};

use super::{Api, Call, Handled, access};

/// How k22 is served.
pub const API: Api = Api::new(ApiKey::InitProducerId, 0, 5, handle);

/// What a transactional id is answered, here and by FindCoordinator: the one error that every client takes for final.
/// Anything retriable would have it try for ever.
pub const TRANSACTIONS_REFUSED: ResponseError = ResponseError::TransactionalIdAuthorizationFailed;

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: InitProducerIdRequest = call.decode(body)?;
        let answer = InitProducerIdResponse::default();
        let answer = match refusal(&call, &request) {
            Some(error) => {
                answer.with_error_code(error.code()).with_producer_id(ProducerId(-1)).with_producer_epoch(-1)
            }
            // A producer that asks to raise its epoch (KIP-360) gets a fresh id as well: that, too, is new.
            None => answer.with_producer_id(ProducerId(call.edge.next_producer_id().await?)).with_producer_epoch(0),
        };
        call.respond(&answer)
    })
}

fn refusal(call: &Call, request: &InitProducerIdRequest) -> Option<ResponseError> {
    let access = call.access();
    match &request.transactional_id {
        Some(id) if id.is_empty() => Some(ResponseError::InvalidRequest),
        Some(_) => Some(TRANSACTIONS_REFUSED),
        None if !access.allows_cluster(access::WRITE_IDEMPOTENTLY) && !access.allows_some(access::PRODUCE) => {
            Some(access::WRITE_IDEMPOTENTLY.refusal())
        }
        // Either both or none.
        None if (request.producer_id.0 == -1) != (request.producer_epoch == -1) => Some(ResponseError::InvalidRequest),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{messages::TransactionalId, protocol::StrBytes};

    use super::*;
    use crate::{api::fake::FakeBroker, cluster::ControlRequest};

    fn request() -> InitProducerIdRequest {
        InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    }

    fn got(broker: &FakeBroker, version: i16, request: &InitProducerIdRequest) -> (i16, i64, i16) {
        let answer: InitProducerIdResponse = broker.finish(broker.ask(&API, version, request));
        (answer.error_code, answer.producer_id.0, answer.producer_epoch)
    }

    #[test]
    fn ids_come_from_reserved_blocks_and_never_twice() {
        let broker = FakeBroker::new(1, &[]);
        let first = broker.ask(&API, 4, &request());
        let ControlRequest::ReserveProducerIds { count, reply } = broker.control_request() else { panic!("no block") };
        reply.try_send(5000).expect("awaited");
        let answer: InitProducerIdResponse = broker.finish(first);
        assert_eq!((answer.producer_id.0, answer.producer_epoch), (5000, 0));
        for next in 1..i64::from(count) {
            let bump = request().with_producer_id(ProducerId(5000)).with_producer_epoch(3);
            assert_eq!(got(&broker, 4, &bump), (0, 5000 + next, 0));
        }
        let _next_block = broker.ask(&API, 4, &request());
        assert!(matches!(broker.control_request(), ControlRequest::ReserveProducerIds { .. }));
    }

    #[test]
    fn transactional_ids_are_refused_for_good() {
        let broker = FakeBroker::new(1, &[]);
        let named = |name| request().with_transactional_id(Some(TransactionalId(StrBytes::from_static_str(name))));
        assert_eq!(got(&broker, 2, &named("pay")), (53, -1, -1));
        assert_eq!(got(&broker, 5, &named("")), (42, -1, -1));
        assert_eq!(got(&broker, 5, &request().with_producer_epoch(1)), (42, -1, -1), "an epoch without an id");
        assert!(broker.control.is_empty());
    }
}
