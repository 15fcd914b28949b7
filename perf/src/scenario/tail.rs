//! A paced producer, first alone, then with a reader that follows: what following costs, and how long a record takes from
//! its due moment to the reader.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use hdrhistogram::Histogram;

use super::bench::{Bench, PARTITIONS, RECORD_BYTES, of_paced};
use crate::{
    client::{
        clock::Clock,
        histogram,
        open::{self, Open, Paced, Place},
        reader::Reader,
        topic::Topic,
    },
    figures::{Figures, Latency},
};

const OFFERED_BYTES_PER_S: f64 = 20e6;

/// A batch that reached the reader.
struct Arrival {
    partition: i32,
    base_offset: i64,
    at_ns: u64,
}

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
    let records = arrived_records(&paced.places, &arrivals);
    // What the producer alone cost, for as many records.
    let cpu_produce_s = alone.cost.broker_cpu_settled_s * paced.records as f64 / alone.produced_records.max(1) as f64;
    Ok(Figures {
        consumed_records: records,
        consumed_bytes: records * u64::from(RECORD_BYTES),
        end_to_end: Some(Latency::of(&end_to_end(&paced.places, &arrivals))),
        cpu_produce_s: None,
        cpu_consume_s: Some((cost.broker_cpu_settled_s - cpu_produce_s).max(0.0)),
        ..of_paced(&paced, &load, cost)
    })
}

fn produce_and_follow(topic: &Topic, load: Open) -> Result<(Paced, Vec<Arrival>), String> {
    let clock = open::start_clock();
    let wanted = AtomicU64::new(u64::MAX);
    thread::scope(|threads| {
        let following = threads.spawn(|| follow(topic, clock, &wanted));
        let paced = open::produce(topic, load, clock);
        // Without its producer the reader would wait for ever.
        wanted.store(paced.as_ref().map_or(0, |paced| paced.records), Ordering::Relaxed);
        let arrivals = following.join().expect("a reader does not panic")?;
        Ok((paced?, arrivals))
    })
}

fn follow(topic: &Topic, clock: Clock, wanted: &AtomicU64) -> Result<Vec<Arrival>, String> {
    let mut reader = Reader::new(topic, topic.from_start())?;
    let mut arrivals = Vec::new();
    while reader.records() < wanted.load(Ordering::Relaxed) {
        let mut at_ns = None;
        reader.fetch(|partition, head| {
            let at_ns = *at_ns.get_or_insert_with(|| clock.now_ns());
            arrivals.push(Arrival { partition, base_offset: head.base_offset().0, at_ns });
        })?;
    }
    Ok(arrivals)
}

/// Of each record, from its due moment to its arrival, in microseconds.
fn end_to_end(places: &[Place], arrivals: &[Arrival]) -> Histogram<u64> {
    let by_offset = by_offset(places);
    let mut times = histogram();
    for arrival in arrivals {
        let Some(place) = by_offset.get(&(arrival.partition, arrival.base_offset)) else { continue };
        for n in place.first..place.first + u64::from(place.records) {
            times.saturating_record(arrival.at_ns.saturating_sub(place.schedule.due_ns(n)) / 1000);
        }
    }
    times
}

fn arrived_records(places: &[Place], arrivals: &[Arrival]) -> u64 {
    let by_offset = by_offset(places);
    let arrived = arrivals.iter().filter_map(|arrival| by_offset.get(&(arrival.partition, arrival.base_offset)));
    arrived.map(|place| u64::from(place.records)).sum()
}

fn by_offset(places: &[Place]) -> BTreeMap<(i32, i64), &Place> {
    places.iter().map(|place| ((place.partition, place.base_offset), place)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::schedule::Schedule;

    #[test]
    fn every_record_of_a_batch_has_its_own_due_moment() {
        let schedule = Schedule { first_ns: 0.0, interval_ns: 1e6, records: 100 };
        let places = [Place { partition: 1, base_offset: 50, records: 3, schedule, first: 10 }];
        let arrivals = [
            Arrival { partition: 1, base_offset: 50, at_ns: 15_000_000 },
            Arrival { partition: 2, base_offset: 50, at_ns: 99_000_000 },
        ];
        let times = Latency::of(&end_to_end(&places, &arrivals));
        assert_eq!(arrived_records(&places, &arrivals), 3, "the other batch was not sent by us");
        let seen: Vec<u64> = times.counts.iter().map(|(us, _)| us / 1000).collect();
        assert_eq!(seen, [3, 4, 5], "due at 10, 11 and 12 ms, there at 15 ms");
    }
}
