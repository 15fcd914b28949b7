//! DescribeTransactions (k65, KIP-664): there are no transactions, so no transactional id is found (105).

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, DescribeTransactionsRequest, DescribeTransactionsResponse,
        describe_transactions_response::TransactionState,
    },
};

use super::{Api, Call, Handled, access};

/// How k65 is served.
pub const API: Api = Api::asking(ApiKey::DescribeTransactions, 0, 0, handle);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: DescribeTransactionsRequest = call.decode(body)?;
        let access = call.access();
        let states = request.transactional_ids.into_iter().map(|id| {
            let seen = access.check(access::SEE_TRANSACTIONAL_ID, &id);
            let error = seen.err().unwrap_or(ResponseError::TransactionalIdNotFound);
            TransactionState::default().with_transactional_id(id).with_error_code(error.code())
        });
        call.respond(&DescribeTransactionsResponse::default().with_transaction_states(states.collect()))
    })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{messages::TransactionalId, protocol::StrBytes};

    use super::*;
    use crate::api::fake::FakeBroker;

    #[test]
    fn no_transactional_id_is_found() {
        let fake = FakeBroker::new(1, &[]);
        let ids = ["a", "b"].map(|id| TransactionalId(StrBytes::from_static_str(id)));
        let request = DescribeTransactionsRequest::default().with_transactional_ids(ids.to_vec());
        let answer: DescribeTransactionsResponse = fake.finish(fake.ask(&API, 0, &request));
        let told: Vec<_> =
            answer.transaction_states.iter().map(|s| (s.transactional_id.as_str(), s.error_code)).collect();
        assert_eq!(told, [("a", 105), ("b", 105)]);
    }
}
