//! Fetch (k1, KIP-74, KIP-227, KIP-516, KIP-951): records of many partitions in one answer.
//!
//! [`request`] turns the request into parts, [`session`] knows the parts that it need not name, [`wait`] runs the fetch over the shards, [`plan`] decides who gets how much,
//! [`stash`] keeps what came too late, [`room`] bounds what is read and kept of that, [`answer`] turns results into answers, [`encode`] writes them without copying
//! records.

mod answer;
mod encode;
mod plan;
mod request;
mod room;
mod session;
mod stash;
#[cfg(test)]
mod tests;
mod wait;

use kafka_protocol::messages::ApiKey;

pub use self::{
    room::{ColdRoom, StashCell},
    session::Sessions,
};
use super::Api;

/// How k1 is served.
pub const API: Api = Api::new(ApiKey::Fetch, 4, 18, request::handle);

/// First version that names topics by id (KIP-516).
const TOPIC_IDS: i16 = 13;
