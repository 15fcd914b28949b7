//! ListPartitionReassignments (k46, KIP-455): no partition moves between brokers, so none is told.

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};

use super::{
    Api, Call, Handled,
    access::{self, UNAUTHORIZED},
    message,
};

/// How k46 is served.
pub const API: Api = Api::asking(ApiKey::ListPartitionReassignments, 0, 0, handle);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let _topics: ListPartitionReassignmentsRequest = call.decode(body)?;
        let answer = ListPartitionReassignmentsResponse::default();
        call.respond(&match call.access().check_cluster(access::SEE_CLUSTER) {
            Ok(()) => answer.with_error_message(None),
            Err(refused) => answer.with_error_code(refused.code()).with_error_message(Some(message(UNAUTHORIZED))),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fake::FakeBroker;

    #[test]
    fn nothing_moves() {
        let fake = FakeBroker::new(1, &[("logs", 1)]);
        for topics in [None, Some(Vec::new())] {
            let request = ListPartitionReassignmentsRequest::default().with_topics(topics);
            let answer: ListPartitionReassignmentsResponse = fake.finish(fake.ask(&API, 0, &request));
            assert_eq!((answer.error_code, answer.topics.len()), (0, 0));
        }
    }
}
