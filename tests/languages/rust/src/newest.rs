//! rskafka in its newest version.

use chrono::{DateTime, Utc};
use rskafka as library;
use rskafka::client::partition::OffsetAt;

mod sample;
mod scenarios;

fn at_time(time: DateTime<Utc>) -> OffsetAt {
    OffsetAt::Timestamp(time)
}

fn main() {
    scenarios::main();
}
