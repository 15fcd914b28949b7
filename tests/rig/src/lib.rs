//! What the tests of the real binary share.
//!
//! [`Setup`] starts the binary on ports of its own with its data in a directory of its own, [`Client`] speaks Kafka's wire
//! one frame at a time, well or badly, [`batch`] makes record batches, true ones and ones that lie, [`Pulse`] is the
//! healthy client beside the bad ones, and [`Process`] tells what the process uses. Everything panics with what it knows:
//! the broker's log is part of the message.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests touch the machine")]

pub mod batch;
mod broker;
mod chance;
mod client;
mod metrics;
mod process;
mod pulse;

pub use broker::{Broker, Refusal, Setup, place};
pub use chance::Chance;
pub use client::{Client, encoded, frame, frame_of};
pub use metrics::Metrics;
pub use process::Process;
pub use pulse::{Pulse, Report};

/// Waits until `done`, and says so; `false` when `limit` passes first. Looks every few milliseconds.
pub fn wait_for(limit: std::time::Duration, mut done: impl FnMut() -> bool) -> bool {
    let until = std::time::Instant::now() + limit;
    loop {
        if done() {
            return true;
        }
        if std::time::Instant::now() >= until {
            return false;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
