//! The threads that open batches and compress them anew; plain threads, so that no shard waits for a codec.
//!
//! They end when the last edge is gone. Until a topic asks for them they sleep.
#![expect(clippy::disallowed_methods, reason = "starts plain threads for work that must not run on a shard")]

use std::{io, thread};

use flume::Sender;

use crate::api::Opening;

/// Starts one thread for every two shards, and gives the lane to them.
pub(super) fn start(shards: u16) -> io::Result<Sender<Opening>> {
    let (lane, openings) = flume::unbounded::<Opening>();
    for n in 0..shards.div_ceil(2) {
        let openings = openings.clone();
        let serve = move || {
            while let Ok(opening) = openings.recv() {
                opening.run();
            }
        };
        thread::Builder::new().name(format!("codec-{n}")).spawn(serve)?;
    }
    Ok(lane)
}
