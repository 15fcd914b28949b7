//! The threads that open batches and compress them anew, for edges and for log cleaning; plain threads, so that no shard waits for a codec.
//!
//! They end when the last edge or shard is gone. Until a topic asks for them they sleep.
#![expect(clippy::disallowed_methods, reason = "starts plain threads for work that must not run on a shard")]

use std::{io, thread};

use flume::Sender;
use thalweg_shards::cleaning::Errand;

use crate::{api::Opening, net::guarded};

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

/// Starts the thread that unpacks and packs records for log cleaning, for all shards, and gives the lane to it.
pub(super) fn start_cleaner() -> io::Result<Sender<Errand>> {
    let (lane, errands) = flume::unbounded::<Errand>();
    let serve = move || {
        while let Ok(errand) = errands.recv() {
            // A codec that panics over a batch costs that partition its cleaning: who asked gets no answer.
            let _panicked = guarded(|| {
                errand.run();
                Ok::<_, std::convert::Infallible>(())
            });
        }
    };
    thread::Builder::new().name("cleaner".to_owned()).spawn(serve)?;
    Ok(lane)
}
