//! Produce as fast as it is acknowledged while readers follow, each reading everything.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use super::bench::{Bench, PARTITIONS, RECORD_BYTES, of_sent};
use crate::{
    client::{
        closed::{self, Closed, Sent},
        reader::Reader,
        topic::Topic,
    },
    figures::Figures,
};

const CELLS: [(&str, u16); 3] = [("1 reader", 1), ("3 readers", 3), ("5 readers", 5)];

pub(super) fn run(bench: &mut Bench<'_>) {
    for (name, readers) in CELLS {
        bench.cell("fanout", name, |bench| measure(bench, readers));
    }
}

fn measure(bench: &mut Bench<'_>, readers: u16) -> Result<Figures, String> {
    let (topic, load) = (bench.topic(PARTITIONS)?, bench.closed());
    let ((sent, seconds), cost) = bench.measured(|| {
        let began = Instant::now();
        produce_and_follow(&topic, load, readers).map(|sent| (sent, began.elapsed().as_secs_f64()))
    })?;
    let consumed_records = sent.records * u64::from(readers);
    Ok(Figures {
        seconds,
        produce_seconds: Some(sent.seconds),
        consumed_records,
        consumed_bytes: consumed_records * u64::from(RECORD_BYTES),
        // Which of them the CPU went into cannot be told.
        cpu_produce_s: None,
        ..of_sent(&sent, cost)
    })
}

/// Ends when every reader has read every record.
pub(crate) fn produce_and_follow(topic: &Topic, load: Closed, readers: u16) -> Result<Sent, String> {
    let wanted = AtomicU64::new(u64::MAX);
    thread::scope(|threads| {
        let following: Vec<_> = (0..readers)
            .map(|_| {
                threads.spawn(|| {
                    let mut reader = Reader::new(topic, topic.from_start())?;
                    while reader.records() < wanted.load(Ordering::Relaxed) {
                        reader.fetch(|_, _| {})?;
                    }
                    Ok(())
                })
            })
            .collect();
        let sent = closed::produce(topic, load);
        wanted.store(sent.as_ref().map_or(0, |sent| sent.records), Ordering::Relaxed);
        let ended: Result<Vec<()>, String> =
            following.into_iter().map(|reader| reader.join().expect("a reader does not panic")).collect();
        ended.and(sent)
    })
}
