//! ListTransactions (k66, KIP-664, KIP-994): there are no transactions to list. States that Kafka does not know are told back.

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, ListTransactionsRequest, ListTransactionsResponse};

use super::{Api, Call, Handled};

/// How k66 is served. Version 2 filters by a regular expression, which nobody would look at here.
pub const API: Api = Api::asking(ApiKey::ListTransactions, 0, 1, handle);

/// Kafka's names of what a transaction can be in.
const STATES: &[&str] = &[
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: ListTransactionsRequest = call.decode(body)?;
        let strange = request.state_filters.into_iter().filter(|state| !STATES.contains(&state.as_str()));
        call.respond(&ListTransactionsResponse::default().with_unknown_state_filters(strange.collect()))
    })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::StrBytes;

    use super::*;
    use crate::api::fake::FakeBroker;

    #[test]
    fn there_are_none_and_strange_states_are_told_back() {
        let fake = FakeBroker::new(1, &[]);
        for version in 0..=1 {
            let filters = ["Ongoing", "Sleeping"].map(StrBytes::from_static_str).to_vec();
            let request = ListTransactionsRequest::default().with_state_filters(filters);
            let answer: ListTransactionsResponse = fake.finish(fake.ask(&API, version, &request));
            assert_eq!((answer.error_code, answer.transaction_states.len()), (0, 0));
            let strange: Vec<&str> = answer.unknown_state_filters.iter().map(StrBytes::as_str).collect();
            assert_eq!(strange, ["Sleeping"], "version {version}");
        }
    }
}
