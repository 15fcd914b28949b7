//! UnregisterBroker (k64, KIP-500): there is no other broker to unregister (102), and this one serves (42).

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{ApiKey, UnregisterBrokerRequest, UnregisterBrokerResponse},
};

use super::{
    Api, Call, Handled,
    access::{self, UNAUTHORIZED},
    message,
};

/// How k64 is served.
pub const API: Api = Api::asking(ApiKey::UnregisterBroker, 0, 0, handle);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: UnregisterBrokerRequest = call.decode(body)?;
        let id = request.broker_id.0;
        let (error, why) = if let Err(refused) = call.access().check_cluster(access::ALTER_CLUSTER) {
            (refused, UNAUTHORIZED.to_owned())
        } else if id == call.edge.snapshot().broker.node.0 {
            (ResponseError::InvalidRequest, format!("Broker ID {id} is this broker, which is the cluster."))
        } else {
            (ResponseError::BrokerIdNotRegistered, format!("Broker ID {id} is not currently registered"))
        };
        let answer = UnregisterBrokerResponse::default();
        call.respond(&answer.with_error_code(error.code()).with_error_message(Some(message(&why))))
    })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::BrokerId;

    use super::*;
    use crate::api::fake::FakeBroker;

    #[test]
    fn no_broker_can_be_unregistered() {
        let fake = FakeBroker::new(1, &[]);
        for (id, code) in [(9, 102), (-1, 102), (1, 42)] {
            let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(id));
            let answer: UnregisterBrokerResponse = fake.finish(fake.ask(&API, 0, &request));
            assert_eq!(answer.error_code, code, "{id}");
        }
    }
}
