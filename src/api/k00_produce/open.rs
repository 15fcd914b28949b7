//! Batches whose records must be looked at, or compressed anew, before their shard sees them.
//!
//! That is long CPU work, so it runs on plain threads of the process (`broker/openers.rs`), reached through a lane. A
//! connection hands its Produces over one after the other, and waits here, unread: order within the connection, and with it
//! that of every idempotent producer, stays. What batches unfold to is paid from a budget of the executor before the first is
//! opened, and belongs to the openings themselves, so one whose connection is gone still counts until it is dropped.

use std::sync::Arc;

use flume::Sender;
use kafka_protocol::ResponseError;
use thalweg_record::{Batch, Mono, Wall};
use thalweg_shards::{
    batch::{must_open, open},
    msg::{PartitionError, PartitionSettings},
};

use super::{
    refused::Refused,
    send::{Placed, Placement},
};
use crate::{
    api::Call,
    net::{Permit, guarded},
};

/// What the batches of one request may grow to; the rest of a request that unfolds to more is refused, and a client that
/// splits its batches gets through.
const REQUEST_OPENED_BYTES: usize = 32 << 20;

/// One batch to open.
#[derive(Debug)]
pub struct Opening {
    batch: Batch,
    settings: PartitionSettings,
    now: Wall,
    done: Sender<Result<Batch, PartitionError>>,
    _paid: Arc<Permit>,
}

impl Opening {
    /// Opens it and says what came of it; does nothing when nobody waits any more.
    pub fn run(self) {
        let Opening { batch, settings, now, done, _paid } = self;
        if done.is_disconnected() {
            return;
        }
        // A codec that panics over a client's bytes costs that client its batch.
        let opened = guarded(|| Ok::<_, std::convert::Infallible>(open(batch, &settings, now)));
        let opened = opened.unwrap_or(Err(PartitionError::InvalidRecord("the records cannot be decompressed")));
        let _gone = done.try_send(opened);
    }
}

/// Opens those batches of a request whose topics ask for it, one after the other. The permit lasts as long as what they grew
/// to.
pub(super) async fn open_due(call: &Call, placements: Vec<&mut Placement<'_>>, deadline: Mono) -> Option<Arc<Permit>> {
    let now = call.edge.runtime.wall();
    let due = |placement: &&mut Placement<'_>| placement.as_ref().is_ok_and(|placed| placed.is_due(now));
    let due: Vec<&mut Placement<'_>> = placements.into_iter().filter(due).collect();
    if due.is_empty() {
        return None;
    }
    let most = due.iter().flat_map(|p| p.as_ref().ok()).map(Placed::most_bytes).sum::<usize>();
    let paid = Arc::new(call.edge.admission.opened(most.min(REQUEST_OPENED_BYTES)).await);
    call.caller.opening.set(true);
    let mut opened_bytes = 0;
    for placement in due {
        let Ok(placed) = placement else { continue };
        let outcome = if call.edge.runtime.mono() >= deadline {
            // Nothing of it went anywhere; the client has given up on it.
            Err(ResponseError::RequestTimedOut.into())
        } else if opened_bytes + placed.most_bytes() > REQUEST_OPENED_BYTES && opened_bytes > 0 {
            let why = "the batches of one request unfold to more than 32 MiB";
            Err(Refused::because(ResponseError::MessageTooLarge, why))
        } else {
            one(call, placed, &paid).await
        };
        match outcome {
            Ok(batch) => {
                opened_bytes += batch.size_bytes();
                placed.batch = batch;
            }
            Err(refused) => *placement = Err(refused),
        }
    }
    call.caller.opening.set(false);
    Some(paid)
}

async fn one(call: &Call, placed: &Placed<'_>, paid: &Arc<Permit>) -> Result<Batch, Refused> {
    let settings = &placed.view.settings.effective;
    if placed.batch.size_bytes() > settings.max_message_bytes as usize {
        return Err(ResponseError::MessageTooLarge.into());
    }
    let (done, opened) = flume::bounded(1);
    let (batch, now) = (placed.batch.clone(), call.edge.runtime.wall());
    let opening = Opening { batch, settings: settings.clone(), now, done, _paid: Arc::clone(paid) };
    let _gone = call.edge.openings.try_send(opening);
    match opened.recv_async().await {
        Ok(Ok(batch)) => Ok(batch),
        Ok(Err(error)) => Err(Refused::of(&error, &placed.view.name, placed.id.index)),
        Err(_gone) => Err(ResponseError::NotLeaderOrFollower.into()),
    }
}

impl Placed<'_> {
    fn is_due(&self, now: Wall) -> bool {
        must_open(&self.batch.head, &self.view.settings.effective, now)
    }

    /// The most that is kept of it after it was opened.
    fn most_bytes(&self) -> usize {
        self.view.settings.effective.max_message_bytes as usize
    }
}
