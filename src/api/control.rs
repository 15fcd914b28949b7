//! Asking the control actor.

use flume::Sender;

use super::{Edge, Stopping};
use crate::cluster::ControlRequest;

/// Asks control and waits for its answer, which comes when the change is durable and in force on every shard.
///
/// # Errors
/// [`Stopping`] when the control actor is gone.
pub async fn ask<T>(edge: &Edge, request: impl FnOnce(Sender<T>) -> ControlRequest) -> Result<T, Stopping> {
    let (reply, answer) = flume::bounded(1);
    edge.control.try_send(request(reply)).map_err(|_| Stopping)?;
    answer.recv_async().await.map_err(|_| Stopping)
}
