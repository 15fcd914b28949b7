//! Produce (k0): wire to [`AppendRequest`](thalweg_shards::msg::AppendRequest) and back.
//!
//! What the wire alone can tell is checked here ([`check`]); offsets, sequences, CRC and topic settings are the shard's, but
//! what needs the records of a compressed batch, or another codec, is done before ([`open`]). The
//! records stay slices of the frame, and a request is one message per shard. The first half hands them over in order; the
//! connection may read its next Produce then, while the second half waits for the answers.
//!
//! Transactions are not served yet: a transactional id, or a transactional batch, gets
//! TRANSACTIONAL_ID_AUTHORIZATION_FAILED (53), which Java and librdkafka treat as fatal at once. A code that may pass, such
//! as COORDINATOR_NOT_AVAILABLE, would make them retry until their timeouts.

mod answer;
mod check;
mod open;
mod refused;
mod resend;
mod send;

pub use open::Opening;
pub use resend::Unanswered;

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;

use super::{Api, Call, Handled, Handler, Pending};

/// How k0 is served. Versions 0-2 are offered but not served: librdkafka turns compression off without them
/// (KAFKA-18659).
pub const API: Api = Api { key: ApiKey::Produce, min: 0, max: 13, served_from: 3, handler: Handler::Ordered(handle) };

fn handle(call: Call, body: Bytes) -> Pending {
    Box::pin(async move {
        let request = call.decode(body)?;
        let sent = send::send(&call, request).await;
        let answered: Handled = Box::pin(answer::answer(call, sent));
        Ok(answered)
    })
}

#[cfg(test)]
mod tests;
