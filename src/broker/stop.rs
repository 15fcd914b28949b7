//! Stopping in stages, each with a deadline: no new connections, no new appends, everything durable and uploaded, metadata
//! synced, slices marked, executors gone.
#![expect(clippy::disallowed_methods, reason = "the main thread waits for the shards")]

use std::time::Duration;

use flume::Receiver;
use thalweg_record::Mono;
use thalweg_shards::{mailbox::ShardLane, msg::Control, runtime::mono_now};

/// A shard that does not answer a stop this long after the deadline is given up.
const GRACE: Duration = Duration::from_secs(5);

/// Lets all shards upload what they hold until `timeout`; the bytes that stay in each shard's WAL, `None` for a shard that
/// did not answer.
pub(super) fn drain_shards(lanes: &[ShardLane], timeout: Duration) -> Vec<Option<u64>> {
    let deadline = mono_now().plus(timeout);
    let answers: Vec<Receiver<u64>> = lanes
        .iter()
        .map(|lane| {
            let (done, answer) = flume::bounded(1);
            lane.control(Control::Stop { deadline, done });
            answer
        })
        .collect();
    answers.into_iter().map(|answer| answer.recv_timeout(left(deadline) + GRACE).ok()).collect()
}

fn left(deadline: Mono) -> Duration {
    deadline.since(mono_now())
}
