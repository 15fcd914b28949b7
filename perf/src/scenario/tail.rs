//! A paced producer, first alone, then with a reader that follows: what following costs, and how long a record takes from
//! its due moment to the reader.

use std::thread;

use super::bench::{Bench, PARTITIONS, RECORD_BYTES, of_paced};
use crate::{
    client::{
        follow::{self, Arrival, Goal},
        histogram,
        open::{self, Open, Paced},
        topic::Topic,
    },
    figures::{Figures, Latency},
};

const OFFERED_BYTES_PER_S: f64 = 20e6;

pub(super) fn run(bench: &mut Bench<'_>) {
    let alone = bench.cell("tail", "20 MB/s, no reader", |bench| {
        let (topic, load) = (bench.topic(PARTITIONS)?, bench.open(OFFERED_BYTES_PER_S));
        let (paced, cost) = bench.measured(|| open::produce(&topic, load, open::start_clock()))?;
        Ok(of_paced(&paced, &load, cost))
    });
    let Some(alone) = alone else { return };
    bench.cell("tail", "20 MB/s, 1 reader", |bench| followed(bench, &alone));
}

fn followed(bench: &mut Bench<'_>, alone: &Figures) -> Result<Figures, String> {
    let (topic, load) = (bench.topic(PARTITIONS)?, Open { places: true, ..bench.open(OFFERED_BYTES_PER_S) });
    let ((paced, arrivals), cost) = bench.measured(|| produce_and_follow(&topic, load))?;
    let mut times = histogram();
    follow::each_record(&paced.places, &arrivals, |due_ns, at_ns| {
        times.saturating_record(at_ns.saturating_sub(due_ns) / 1000);
    });
    let records = times.len();
    // What the producer alone cost, for as many records.
    let cpu_produce_s = alone.cost.broker_cpu_settled_s * paced.records as f64 / alone.produced_records.max(1) as f64;
    Ok(Figures {
        consumed_records: records,
        consumed_bytes: records * u64::from(RECORD_BYTES),
        end_to_end: Some(Latency::of(&times)),
        cpu_produce_s: None,
        cpu_consume_s: Some((cost.broker_cpu_settled_s - cpu_produce_s).max(0.0)),
        ..of_paced(&paced, &load, cost)
    })
}

fn produce_and_follow(topic: &Topic, load: Open) -> Result<(Paced, Vec<Arrival>), String> {
    let (clock, goal) = (open::start_clock(), Goal::default());
    thread::scope(|threads| {
        let following = threads.spawn(|| follow::follow(topic, 1, clock, &goal));
        let paced = open::produce(topic, load, clock);
        // Without its producer the reader would wait for ever.
        goal.tell(paced.as_ref().map_or(0, |paced| paced.records));
        let arrivals = following.join().expect("a reader does not panic")?;
        Ok((paced?, arrivals))
    })
}
