//! The load client: plain threads, batches encoded once, answers decoded only as far as needed.
//!
//! It is the same for every broker, and it is light, so that on a small machine the broker and not the load is measured.
//! [`closed`] sends as fast as it is acknowledged, [`open`] sends on a schedule, [`reader`] fetches, [`follow`] fetches as it comes.

pub mod batch;
pub mod clock;
pub mod closed;
pub mod connection;
pub mod fetched;
pub mod follow;
pub mod open;
pub mod reader;
pub mod schedule;
pub mod topic;
pub mod wire;

use hdrhistogram::Histogram;

/// The longest time that is recorded as it is, in microseconds: ten minutes.
const LONGEST_US: u64 = 600_000_000;

/// An empty histogram of microseconds, exact within one percent.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, 2).expect("the bounds are in order")
}
