//! Stopping in stages, each with a deadline: no new connections, no new appends, everything durable and uploaded, metadata
//! synced, slices marked, executors gone.

use std::time::Duration;

use flume::Receiver;
use futures_lite::future;
use thalweg_shards::{mailbox::ShardLane, msg::Control};

use super::Host;

/// A shard that does not answer a stop this long after the deadline is given up.
const GRACE: Duration = Duration::from_secs(5);

/// Lets all shards upload what they hold until `timeout`; the bytes that stay in each shard's WAL, `None` for a shard that
/// did not answer.
pub(super) async fn drain_shards(lanes: &[ShardLane], timeout: Duration, host: &dyn Host) -> Vec<Option<u64>> {
    let deadline = host.mono().plus(timeout);
    let answers: Vec<Receiver<u64>> = lanes
        .iter()
        .map(|lane| {
            let (done, answer) = flume::bounded(1);
            lane.control(Control::Stop { deadline, done });
            answer
        })
        .collect();
    let mut left = Vec::with_capacity(answers.len());
    for answer in answers {
        let patience = host.sleep(deadline.since(host.mono()) + GRACE);
        let late = async {
            patience.await;
            None
        };
        left.push(future::or(async { answer.recv_async().await.ok() }, late).await);
    }
    left
}
