//! One file per Kafka API key, named by it: wire to message and back, nothing else.
//!
//! A handler runs on its connection's executor. It decodes ([`Call::decode`]), asks the shards or control over a fresh
//! flume channel (one message per shard, permits first), and answers with encoded pieces.

mod call;
pub mod edge;
pub mod errors;
#[cfg(test)]
mod fake;
mod gather;
mod k01_fetch;
mod k18_api_versions;
pub mod table;

pub use call::{Api, Call, Close, Handled, Handler, Pending, Response};
pub use edge::{Caller, Edge, EdgeParts, Stopping};
pub use k18_api_versions::unsupported_version;
