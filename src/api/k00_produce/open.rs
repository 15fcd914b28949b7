//! Batches whose records must be looked at, or compressed anew, before their shard sees them.
//!
//! That is long CPU work, so it runs on plain threads of the process (`broker/openers.rs`), reached through a lane. A
//! connection hands its Produces over one after the other, and waits here: order within the connection, and with it that of
//! every idempotent producer, stays. The queue holds no more than the connections' permits for request bytes; a thread holds
//! one batch unfolded, which is capped.

use flume::Sender;
use kafka_protocol::ResponseError;
use thalweg_record::{Batch, Wall};
use thalweg_shards::{
    batch::{must_open, open},
    msg::{PartitionError, PartitionSettings},
};

use super::{answer::refused, check::Refused, send::Placed};
use crate::{api::Call, net::guarded};

/// One batch to open.
#[derive(Debug)]
pub struct Opening {
    batch: Batch,
    settings: PartitionSettings,
    now: Wall,
    done: Sender<Result<Batch, PartitionError>>,
}

impl Opening {
    /// Opens it and says what came of it.
    pub fn run(self) {
        let Opening { batch, settings, now, done } = self;
        // A codec that panics over a client's bytes costs that client its batch.
        let opened = guarded(|| Ok::<_, std::convert::Infallible>(open(batch, &settings, now)));
        let opened = opened.unwrap_or(Err(PartitionError::InvalidRecord("the records cannot be decompressed")));
        let _gone = done.try_send(opened);
    }
}

/// Opens a batch if its topic asks for it.
pub(super) async fn open_if_due(call: &Call, placed: Placed) -> Result<Placed, Refused> {
    let settings = &placed.view.settings.effective;
    if !must_open(&placed.batch.head, settings) {
        return Ok(placed);
    }
    let (done, opened) = flume::bounded(1);
    let Placed { batch, view, id } = placed;
    let opening = Opening { batch, settings: view.settings.effective.clone(), now: call.edge.runtime.wall(), done };
    let _gone = call.edge.openings.try_send(opening);
    match opened.recv_async().await {
        Ok(Ok(batch)) => Ok(Placed { batch, view, id }),
        Ok(Err(error)) => Err(refused(&error)),
        Err(_gone) => Err(ResponseError::NotLeaderOrFollower.into()),
    }
}
