//! The course on one broker: warm it up, store gigabytes, find half of what it takes, make what is stored cold, and then the load
//! with the flood in its middle.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use super::{
    outcome::{Marks, Outcome, OwnPhases, Sample, StoreUse},
    phases::Timeline,
    readers::{Flood, Flooded},
    run::Terms,
};
use crate::{
    broker::{Broker, metrics::Metrics},
    client::{
        clock::Clock,
        closed::{self, Closed},
        follow::{self, Arrival, Goal},
        open::{self, Open, Paced},
        topic::Topic,
    },
    figures::Latency,
    scenario::{Bench, PARTITIONS, RECORD_BYTES, produce_and_follow},
};

/// The slowest broker's time for the largest history.
const STORES_WITHIN: Duration = Duration::from_secs(3600);
/// Thalweg uploads what is left after a minute; a slow disk takes longer for gigabytes.
const UPLOADED_WITHIN: Duration = Duration::from_secs(900);
/// The log's last few records may stay.
const NEARLY_NOTHING_BYTES: f64 = 1024.0 * 1024.0;
/// What a log holds that keeps up with its load: each shard has uploads under way, and one that waits to be large enough.
const KEEPS_UP_BYTES: f64 = 256.0 * 1024.0 * 1024.0;
const UPLOAD_POLL: Duration = Duration::from_millis(250);
/// How often the broker is looked at.
const SAMPLE_S: f64 = 0.2;
/// The share of the time before the flood that does not count.
const UNCOUNTED: f64 = 0.1;
/// Metrics are read so long before the flood, so that reading them is no part of it.
const EARLIER_S: f64 = 0.05;

pub(super) struct Course<'a> {
    pub(super) terms: &'a Terms,
    pub(super) broker: &'a mut Broker,
}

/// What is there before the flood.
struct Prepared {
    history: Topic,
    stored: closed::Sent,
    tail: Topic,
    taken: Option<Taken>,
    load: Open,
}

/// What a broker takes as fast as it goes, with a reader that follows.
#[derive(Clone, Copy)]
struct Taken {
    /// For seconds, with the log or the page cache to fill.
    burst_bytes_per_s: f64,
    /// Until what was sent has left the log for the object store, or the page cache for the disk: what it can take for long.
    lasting_bytes_per_s: f64,
}

/// What was seen while the load ran.
#[derive(Default)]
struct Watched {
    samples: Vec<Sample>,
    /// The broker's metrics when records began to count, when the flood began, and when it was over.
    start: Option<Metrics>,
    flood: Option<Metrics>,
    end: Option<Metrics>,
}

struct Measured {
    paced: Paced,
    arrivals: Vec<Arrival>,
    flooded: Flooded,
    watched: Watched,
}

impl Course<'_> {
    pub(super) fn run(mut self) -> Result<Outcome, String> {
        let prepared = self.prepare()?;
        self.make_cold()?;
        self.say(&format!("the load begins: {:.1} MB/s", offered(&prepared.load) / 1e6));
        let measured = self.measure(&prepared)?;
        Ok(outcome(self.terms, &prepared, measured))
    }

    fn say(&self, what: &str) {
        eprintln!("{:11}  {what}", self.broker.rival.name());
    }

    fn prepare(&mut self) -> Result<Prepared, String> {
        let terms = self.terms;
        let mut runs = Vec::new();
        let mut bench = Bench { plan: terms.plan, broker: &mut *self.broker, round: 1, runs: &mut runs, topics: 0 };
        bench.warm_up()?;
        let history = bench.topic(PARTITIONS)?;
        let all = Closed { bytes: terms.history_bytes, at_most: STORES_WITHIN, ..bench.closed() };
        let stored = closed::produce(&history, all)?;
        let taken = if terms.megabytes_per_s.is_none() { Some(taken(&mut bench, terms.maximum)?) } else { None };
        let given = terms.megabytes_per_s.map(|mb| mb * 1e6);
        let rate = given.or(taken.map(|taken| taken.lasting_bytes_per_s / 2.0)).unwrap_or_default();
        let seconds = terms.before_s + terms.flood_s + terms.after_s;
        let load = Open { seconds, places: true, ..bench.open(rate) };
        let tail = bench.topic(PARTITIONS)?;
        let bytes_per_s = stored.bytes as f64 / stored.seconds;
        self.say(&format!("{} MB stored at {:.0} MB/s", stored.bytes / 1_000_000, bytes_per_s / 1e6));
        Ok(Prepared { history, stored, tail, taken, load })
    }

    /// Waits until the object store has everything and the log nothing, or takes it out of the page cache.
    fn make_cold(&mut self) -> Result<(), String> {
        uploaded(self.broker, NEARLY_NOTHING_BYTES)?;
        self.broker.settle(self.terms.plan.rest)?;
        if self.terms.plan.even {
            rustix::fs::sync();
        }
        if !self.broker.rival.is_thalweg() {
            let bytes = self.broker.drop_page_cache()?;
            self.say(&format!("{} MB taken out of the page cache", bytes / 1_000_000));
        }
        Ok(())
    }

    fn measure(&mut self, prepared: &Prepared) -> Result<Measured, String> {
        let terms = self.terms;
        let (clock, goal) = (open::start_clock(), Goal::default());
        let (stop, read) = (AtomicBool::new(false), AtomicU64::new(0));
        let flood = Flood {
            topic: &prepared.history,
            readers: terms.readers,
            share: terms.share,
            cores: terms.reader_cores,
            clock,
            from_ns: (terms.before_s * 1e9) as u64,
            to_ns: ((terms.before_s + terms.flood_s) * 1e9) as u64,
            stop: &stop,
            read: &read,
        };
        thread::scope(|threads| {
            let following = threads.spawn(|| follow::follow(&prepared.tail, terms.followers, clock, &goal));
            let flooding = threads.spawn(|| flood.run());
            let producing = threads.spawn(|| {
                let paced = open::produce(&prepared.tail, prepared.load, clock);
                // Without producers nobody needs to read on.
                stop.store(paced.is_err(), Ordering::Relaxed);
                goal.tell(paced.as_ref().map_or(0, |paced| paced.records));
                paced
            });
            let watched = self.watch(clock, &read, &producing, &flooding);
            if watched.is_err() {
                stop.store(true, Ordering::Relaxed);
                goal.tell(0);
            }
            let paced = producing.join().expect("a producer does not panic");
            let flooded = flooding.join().expect("a reader does not panic");
            let arrivals = following.join().expect("a reader does not panic");
            // A broker that died says more than its clients.
            let (mut watched, paced, flooded, arrivals) = (watched?, paced?, flooded?, arrivals?);
            if watched.end.is_none() {
                watched.end = self.broker.metrics()?;
            }
            Ok(Measured { paced, arrivals, flooded, watched })
        })
    }

    /// Looks at the broker again and again until the load is over.
    fn watch(
        &mut self,
        clock: Clock,
        read: &AtomicU64,
        producing: &ScopedJoinHandle<'_, Result<Paced, String>>,
        flooding: &ScopedJoinHandle<'_, Result<Flooded, String>>,
    ) -> Result<Watched, String> {
        let marks = [self.terms.before_s * UNCOUNTED, self.terms.before_s - EARLIER_S];
        let mut watched = Watched::default();
        while !producing.is_finished() {
            let now_s = clock.now_ns() as f64 / 1e9;
            let usage = self.broker.usage()?;
            watched.samples.push(Sample {
                at_s: now_s,
                resident_bytes: usage.resident_bytes,
                cpu_s: usage.cpu_s,
                disk_read_bytes: usage.read_bytes,
                flood_bytes: read.load(Ordering::Relaxed) * u64::from(RECORD_BYTES),
            });
            if watched.start.is_none() && now_s >= marks[0] {
                watched.start = self.broker.metrics()?;
            }
            if watched.flood.is_none() && now_s >= marks[1] {
                watched.flood = self.broker.metrics()?;
            }
            if watched.end.is_none() && flooding.is_finished() {
                watched.end = self.broker.metrics()?;
            }
            let next_mark = marks.into_iter().filter(|mark| *mark > now_s).fold(f64::MAX, f64::min);
            clock.sleep_until((next_mark.min(now_s + SAMPLE_S) * 1e9) as u64);
        }
        Ok(watched)
    }
}

/// How fast the broker takes what comes as fast as it can.
fn taken(bench: &mut Bench<'_>, at_most: Duration) -> Result<Taken, String> {
    // What is left to upload of the history is no part of what the broker takes.
    uploaded(bench.broker, NEARLY_NOTHING_BYTES)?;
    rustix::fs::sync();
    let topic = bench.topic(PARTITIONS)?;
    let load = Closed { bytes: 1 << 50, at_most, ..bench.closed() };
    let began = Instant::now();
    let sent = produce_and_follow(&topic, load, 1)?;
    let left = uploaded(bench.broker, KEEPS_UP_BYTES)?;
    if !bench.broker.rival.is_thalweg() {
        rustix::fs::sync();
    }
    let bytes = sent.bytes as f64;
    Ok(Taken {
        burst_bytes_per_s: bytes / sent.seconds,
        lasting_bytes_per_s: (bytes - left).max(0.0) / began.elapsed().as_secs_f64(),
    })
}

/// Waits until the log holds next to nothing that objects do not, `at_most` bytes, and says how much; a broker without objects has nothing to wait for.
fn uploaded(broker: &mut Broker, at_most: f64) -> Result<f64, String> {
    let deadline = Instant::now() + UPLOADED_WITHIN;
    while let Some(metrics) = broker.metrics()? {
        let left = metrics.sum("thalweg_wal_trim_lag_bytes", &[]);
        if left <= at_most {
            return Ok(left);
        }
        if Instant::now() > deadline {
            return Err(format!("{left} bytes are not in the object store after {UPLOADED_WITHIN:?}"));
        }
        // A process that has died says why.
        broker.usage()?;
        thread::sleep(UPLOAD_POLL);
    }
    Ok(0.0)
}

fn offered(load: &Open) -> f64 {
    load.records_per_s * f64::from(load.record_bytes)
}

fn outcome(terms: &Terms, prepared: &Prepared, measured: Measured) -> Outcome {
    let Measured { paced, arrivals, flooded, watched } = measured;
    let marks = Marks {
        counts_from_s: terms.before_s * UNCOUNTED,
        flood_from_s: terms.before_s,
        flood_to_s: flooded.ended_ns as f64 / 1e9,
    };
    let [mut write, mut request, mut end_to_end] = [(); 3].map(|()| Timeline::new(marks));
    for place in &paced.places {
        for n in place.first..place.first + u64::from(place.records) {
            let due_ns = place.schedule.due_ns(n);
            write.add(due_ns, place.acked_ns.saturating_sub(due_ns));
            // What was never sent has no request.
            if place.partition >= 0 {
                request.add(due_ns, place.acked_ns.saturating_sub(place.sent_ns));
            }
        }
    }
    follow::each_record(&paced.places, &arrivals, |due_ns, at_ns| end_to_end.add(due_ns, at_ns.saturating_sub(due_ns)));
    let bytes = |records: u64| records * u64::from(RECORD_BYTES);
    let Watched { samples, start, flood, end } = watched;
    Outcome {
        history_bytes: prepared.stored.bytes,
        history_bytes_per_s: prepared.stored.bytes as f64 / prepared.stored.seconds,
        maximum_bytes_per_s: prepared.taken.map(|taken| taken.burst_bytes_per_s),
        lasting_bytes_per_s: prepared.taken.map(|taken| taken.lasting_bytes_per_s),
        offered_bytes_per_s: offered(&prepared.load),
        due: paced.due,
        records: paced.records,
        refused: paced.refused,
        unsent: paced.unsent,
        marks,
        own: start.as_ref().zip(flood.as_ref()).zip(end.as_ref()).map(|((start, flood), end)| own(start, flood, end)),
        store: flood.as_ref().zip(end.as_ref()).map(|(flood, end)| store_use(flood, end)),
        write: write.phases(),
        request: request.phases(),
        end_to_end: end_to_end.phases(),
        client_lateness: Latency::of(&paced.lateness_us),
        read_bytes: bytes(flooded.readers.iter().map(|reader| reader.records).sum()),
        distinct_bytes: bytes(flooded.distinct_records),
        readers: flooded.readers,
        samples,
        write_seconds: write.seconds(),
        end_to_end_seconds: end_to_end.seconds(),
    }
}

fn own(start: &Metrics, flood: &Metrics, end: &Metrics) -> OwnPhases {
    let between =
        |from: &Metrics, to: &Metrics| to.buckets_since(from, "thalweg_request_seconds", &[("api", "Produce")]);
    OwnPhases { before: between(start, flood), during: between(flood, end) }
}

fn store_use(from: &Metrics, to: &Metrics) -> StoreUse {
    let count = |name: &str, labels: &[(&str, &str)]| to.since(from, name, labels).max(0.0) as u64;
    let tier = |tier: &str| (tier.to_owned(), count("thalweg_read_bytes_total", &[("tier", tier)]));
    StoreUse {
        reads: count("thalweg_object_store_requests_total", &[("operation", "get")]),
        read_bytes: count("thalweg_object_store_bytes_total", &[("operation", "get")]),
        blocks_found: count("thalweg_cold_cache_hits_total", &[]),
        blocks_awaited: count("thalweg_cold_cache_misses_total", &[]),
        tiers: BTreeMap::from(["tail", "ring", "object"].map(tier)),
    }
}
