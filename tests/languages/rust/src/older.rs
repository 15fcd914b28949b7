//! rskafka in an older version.

use chrono::{DateTime, Utc};
use rskafka_older as library;
use rskafka_older::client::partition::OffsetAt;

mod sample;
mod scenarios;

/// Before 0.6 there was no way to ask.
fn at_time(_time: DateTime<Utc>) -> OffsetAt {
    unimplemented!("offsets by time")
}

fn main() {
    scenarios::main();
}
