//! What scenarios share: one broker, the sizes of loads, and how a load is measured.

use std::{
    process, thread,
    time::{Duration, Instant},
};

use crate::{
    broker::{Broker, process::usage},
    client::{
        closed::{self, Closed, Sent},
        open::{Open, Paced},
        reader,
        schedule::Spread,
        topic::Topic,
    },
    figures::{Cost, Figures, Latency, Run},
    free_memory,
};

/// How much is measured, the same for every rival.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Bytes of values that a closed load sends.
    pub bytes: u64,
    /// When a closed load stops though there is more to send.
    pub at_most: Duration,
    /// How long an open load lasts, in seconds.
    pub paced_s: f64,
    /// How long the load lasts that lets a broker warm up before anything is measured.
    pub warm_up: Duration,
    /// How long a broker may take to come to rest between loads.
    pub rest: Duration,
    /// How long every broker rests before a load, even if it is quiet sooner: disks and their hosts write on for a while.
    pub least_rest: Duration,
    /// Whether to write out the page cache between loads and to touch free memory before each, so that no load is slowed by
    /// what was before it.
    pub even: bool,
    /// Connections of a load, each with a thread.
    pub connections: u16,
    /// Requests in flight on each connection of a closed load.
    pub in_flight: usize,
}

impl Plan {
    /// The full measure, with closed loads of so many bytes.
    pub fn full(bytes: u64) -> Plan {
        Plan {
            bytes,
            at_most: Duration::from_secs(60),
            paced_s: 15.0,
            warm_up: Duration::from_secs(5),
            rest: Duration::from_secs(20),
            least_rest: Duration::from_secs(4),
            even: true,
            connections: 4,
            in_flight: 5,
        }
    }

    /// A look at whether everything works: its figures mean nothing.
    pub fn quick() -> Plan {
        Plan {
            bytes: 64 << 20,
            at_most: Duration::from_secs(1),
            paced_s: 1.0,
            warm_up: Duration::from_millis(300),
            rest: Duration::from_millis(500),
            least_rest: Duration::ZERO,
            even: false,
            ..Plan::full(0)
        }
    }
}

/// The usual topic.
pub(crate) const PARTITIONS: i32 = 16;
/// The usual record, in bytes.
pub(crate) const RECORD_BYTES: u32 = 1024;
/// The usual batch, in bytes.
pub(super) const BATCH_BYTES: u32 = 64 << 10;
/// The usual linger of open loads.
pub(super) const LINGER: Duration = Duration::from_millis(1);

/// Memory that a closed load takes in page cache and broker, in bytes for each byte sent.
const BYTES_TAKEN: u64 = 3;

/// One broker under measurement.
pub struct Bench<'a> {
    /// How much is measured.
    pub plan: Plan,
    /// The broker.
    pub broker: &'a mut Broker,
    /// Which round, from 1.
    pub round: u32,
    /// Where the outcomes go.
    pub runs: &'a mut Vec<Run>,
    /// Topics created so far.
    pub topics: u32,
}

impl Bench<'_> {
    /// A fresh topic.
    pub(crate) fn topic(&mut self, partitions: i32) -> Result<Topic, String> {
        self.topics += 1;
        Topic::ready(&self.broker.bootstrap, &format!("perf-{}", self.topics), partitions)
    }

    /// The closed load of the plan.
    pub(crate) fn closed(&self) -> Closed {
        Closed {
            connections: self.plan.connections,
            in_flight: self.plan.in_flight,
            record_bytes: RECORD_BYTES,
            batch_bytes: BATCH_BYTES,
            batches_per_request: 1,
            every: 1,
            bytes: self.plan.bytes,
            at_most: self.plan.at_most,
        }
    }

    /// An open load of so many bytes of values per second.
    pub(crate) fn open(&self, bytes_per_s: f64) -> Open {
        Open {
            records_per_s: bytes_per_s / f64::from(RECORD_BYTES),
            record_bytes: RECORD_BYTES,
            batch_bytes: BATCH_BYTES,
            linger: LINGER,
            spread: Spread::Sticky,
            producers: self.plan.connections,
            seconds: self.plan.paced_s,
            places: false,
        }
    }

    /// Lets the broker work until it is warm; nothing of it is measured.
    ///
    /// # Errors
    /// As the load.
    pub fn warm_up(&mut self) -> Result<(), String> {
        let topic = self.topic(PARTITIONS)?;
        closed::produce(&topic, Closed { at_most: self.plan.warm_up, ..self.closed() })?;
        reader::catch_up(&topic, 1).map(|_| ())
    }

    /// Measures one cell and records what came of it.
    pub(super) fn cell(
        &mut self,
        scenario: &str,
        cell: &str,
        measure: impl FnOnce(&mut Bench<'_>) -> Result<Figures, String>,
    ) -> Option<Figures> {
        let (figures, failure) = match measure(self) {
            Ok(figures) => (Some(figures), None),
            Err(why) => (None, Some(why)),
        };
        let (scenario, cell, rival, round) = (scenario.to_owned(), cell.to_owned(), self.broker.rival, self.round);
        let run = Run { scenario, cell, rival, round, figures: figures.clone(), failure };
        eprintln!("{}", crate::report::progress(&run));
        self.runs.push(run);
        figures
    }

    /// Lets the machine come to rest, runs the load, and says what it cost.
    pub(super) fn measured<T>(&mut self, load: impl FnOnce() -> Result<T, String>) -> Result<(T, Cost), String> {
        if self.plan.even {
            // SAFETY: writes out the page cache; takes and returns nothing.
            unsafe { libc::sync() };
        }
        let began = Instant::now();
        self.broker.settle(self.plan.rest)?;
        thread::sleep(self.plan.least_rest.saturating_sub(began.elapsed()));
        if self.plan.even {
            free_memory::touch(BYTES_TAKEN * self.plan.bytes);
        }
        let before = self.broker.usage()?;
        let own = usage(process::id())?;
        let outcome = load()?;
        let (after, own_after) = (self.broker.usage()?, usage(process::id())?);
        let settled = self.broker.settle(self.plan.rest)?;
        let cost = Cost {
            broker_cpu_s: after.cpu_s - before.cpu_s,
            broker_cpu_settled_s: settled.cpu_s - before.cpu_s,
            client_cpu_s: own_after.cpu_s - own.cpu_s,
            written_bytes: settled.written_bytes - before.written_bytes,
            resident_bytes: after.resident_bytes,
            peak_resident_bytes: settled.peak_resident_bytes,
        };
        Ok((outcome, cost))
    }
}

/// The figures of a closed load.
pub(super) fn of_sent(sent: &Sent, cost: Cost) -> Figures {
    Figures {
        seconds: sent.seconds,
        produced_bytes: sent.bytes,
        produced_records: sent.records,
        refused: sent.refused,
        latency: Some(Latency::of(&sent.latency_us)),
        cpu_produce_s: Some(cost.broker_cpu_settled_s),
        cost,
        ..Figures::default()
    }
}

/// The figures of an open load.
pub(super) fn of_paced(paced: &Paced, load: &Open, cost: Cost) -> Figures {
    Figures {
        seconds: paced.seconds,
        produced_bytes: paced.records * u64::from(load.record_bytes),
        produced_records: paced.records,
        offered_bytes_per_s: Some(load.records_per_s * f64::from(load.record_bytes)),
        offered_records: Some(paced.due),
        refused: paced.refused,
        unsent: paced.unsent,
        latency: Some(Latency::of(&paced.latency_us)),
        client_lateness: Some(Latency::of(&paced.lateness_us)),
        cpu_produce_s: Some(cost.broker_cpu_settled_s),
        cost,
        ..Figures::default()
    }
}
