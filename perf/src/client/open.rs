//! Produce on a schedule, whatever the broker does: latency without coordinated omission.
//!
//! Every record is due at a moment that only the offered load decides, and its latency runs from then to its
//! acknowledgement; a broker that stalls is charged for every record that fell due meanwhile. Otherwise each producer does
//! what Kafka's clients do: it waits `linger` for company, has at most five requests in flight, and when those are not
//! answered in time its batches grow. A producer is one connection and two threads: one sends, one reads the answers.

use std::{
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

use hdrhistogram::Histogram;

use super::{
    batch::{Batches, records_in},
    clock::{Clock, wake_exactly},
    connection::{Answers, Connection, Requests},
    histogram,
    schedule::{Cutting, Part, Schedule, Spread},
    topic::Topic,
    wire,
};

/// max.in.flight.requests.per.connection of Kafka's clients.
const IN_FLIGHT: usize = 5;
/// max.request.size of Kafka's clients.
const REQUEST_BYTES: u32 = 1 << 20;
/// For connecting before the first record is due.
const LEAD: Duration = Duration::from_millis(100);

/// What is offered.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// Records that fall due in a second, of all producers.
    pub records_per_s: f64,
    /// Bytes of a record's value.
    pub record_bytes: u32,
    /// Bytes of values in one batch, at most.
    pub batch_bytes: u32,
    /// How long a record waits for company.
    pub linger: Duration,
    /// How partitions are chosen.
    pub spread: Spread,
    /// Producers, each with a connection.
    pub producers: u16,
    /// How long records fall due.
    pub seconds: f64,
    /// Whether to say where each batch went.
    pub places: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Paced {
    /// When the first record was due.
    pub clock: Clock,
    /// From the first due moment to the last acknowledgement.
    pub seconds: f64,
    /// Records that fell due.
    pub due: u64,
    /// Records acknowledged.
    pub records: u64,
    /// Records refused; they are not sent again.
    pub refused: u64,
    /// Records not sent, for the broker was too far behind; their latency counts up to the moment of giving up.
    pub unsent: u64,
    /// Of each record, from its due moment to its acknowledgement, in microseconds.
    pub latency_us: Histogram<u64>,
    /// Of each request, how late the client itself was, in microseconds.
    pub lateness_us: Histogram<u64>,
    /// Where the batches are, when that was asked for.
    pub places: Vec<Place>,
}

/// Where a batch went, and when its records were due.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The partition; -1 when the records were never sent.
    pub partition: i32,
    /// Offset of its first record; -1 when the records were never sent.
    pub base_offset: i64,
    /// Number of its records.
    pub records: u32,
    /// Of which producer, in [`Paced`]'s order.
    pub schedule: Schedule,
    /// Which record of the schedule is its first.
    pub first: u64,
    /// When its request was sent, in nanoseconds since the load began.
    pub sent_ns: u64,
    /// When it was acknowledged, or given up.
    pub acked_ns: u64,
}

/// A request on its way.
struct InFlight {
    correlation: i32,
    sent_ns: u64,
    first: u64,
    parts: Vec<Part>,
}

/// What one producer needs to know.
struct Producer<'a> {
    topic: &'a Topic,
    batches: &'a Batches,
    cutting: Cutting,
    linger_ns: u64,
    schedule: Schedule,
    /// The partition that its first batch goes to.
    first_partition: i32,
    clock: Clock,
    /// When to give up.
    limit_ns: u64,
    places: bool,
}

/// Offers the load and waits for the last acknowledgement. `clock` is when it begins; [`start_clock`] makes one.
///
/// # Errors
/// When a connection breaks or the broker cannot be reached.
pub fn produce(topic: &Topic, load: Open, clock: Clock) -> Result<Paced, String> {
    let cutting = Cutting {
        spread: load.spread,
        partitions: topic.partitions,
        batch_records: records_in(load.batch_bytes, load.record_bytes),
        request_records: u64::from(records_in(REQUEST_BYTES, load.record_bytes)),
    };
    let batches = Batches::up_to(cutting.batch_records, load.record_bytes)?;
    let producers: Vec<Producer<'_>> = (0..load.producers)
        .map(|n| Producer {
            topic,
            batches: &batches,
            cutting,
            linger_ns: load.linger.as_nanos() as u64,
            schedule: Schedule::of_producer(n, load.producers, load.records_per_s, load.seconds),
            first_partition: i32::from(n) * topic.partitions / i32::from(load.producers),
            clock,
            places: load.places,
            limit_ns: ((2.0 * load.seconds + 2.0) * 1e9) as u64,
        })
        .collect();
    let outcomes: Result<Vec<Paced>, String> = thread::scope(|threads| {
        let started: Vec<_> = producers.iter().map(|producer| threads.spawn(|| producer.run())).collect();
        started.into_iter().map(|thread| thread.join().expect("a producer does not panic")).collect()
    });
    let mut all = empty(clock);
    for one in outcomes? {
        all.seconds = all.seconds.max(one.seconds);
        all.due += one.due;
        all.records += one.records;
        all.refused += one.refused;
        all.unsent += one.unsent;
        all.latency_us += one.latency_us;
        all.lateness_us += one.lateness_us;
        all.places.extend(one.places);
    }
    Ok(all)
}

/// A clock that begins in a moment, for [`produce`] and for whoever reads along.
pub fn start_clock() -> Clock {
    Clock::begins_in(LEAD)
}

fn empty(clock: Clock) -> Paced {
    Paced {
        clock,
        seconds: 0.0,
        due: 0,
        records: 0,
        refused: 0,
        unsent: 0,
        latency_us: histogram(),
        lateness_us: histogram(),
        places: Vec::new(),
    }
}

impl Producer<'_> {
    fn run(&self) -> Result<Paced, String> {
        let Connection { requests, answers } = Connection::open(&self.topic.bootstrap)?;
        let (free, permits) = channel();
        for _ in 0..IN_FLIGHT {
            free.send(()).map_err(|e| e.to_string())?;
        }
        let (under_way, to_read) = channel();
        thread::scope(|threads| {
            let reading = threads.spawn(move || self.read(answers, &to_read, &free));
            let sent = self.send(requests, &permits, under_way);
            let mut paced = reading.join().expect("a producer does not panic")?;
            let (sent, lateness_us) = sent?;
            paced.lateness_us = lateness_us;
            paced.due = self.schedule.records;
            paced.unsent = self.schedule.records - sent;
            let now = self.clock.now_ns();
            for n in sent..self.schedule.records {
                paced.latency_us.saturating_record(self.since_due_us(n, now));
            }
            if self.places && paced.unsent > 0 {
                paced.places.push(self.never_sent(sent, now));
            }
            Ok(paced)
        })
    }

    /// What stands for the records from `first` on, which were given up.
    fn never_sent(&self, first: u64, now_ns: u64) -> Place {
        let records = u32::try_from(self.schedule.records - first).unwrap_or(u32::MAX);
        let (partition, base_offset, schedule) = (-1, -1, self.schedule);
        Place { partition, base_offset, records, schedule, first, sent_ns: now_ns, acked_ns: now_ns }
    }

    /// Sends until all is sent or the limit is reached; says how many records that were, and how late it was itself.
    fn send(
        &self,
        mut requests: Requests,
        permits: &Receiver<()>,
        under_way: Sender<InFlight>,
    ) -> Result<(u64, Histogram<u64>), String> {
        wake_exactly();
        let mut lateness = histogram();
        let (mut next, mut correlation) = (0, 0_i32);
        let mut cursor = self.first_partition;
        while next < self.schedule.records {
            let due_ns = self.leaves_ns(next);
            self.clock.sleep_until(due_ns);
            lateness.saturating_record(self.clock.now_ns().saturating_sub(due_ns) / 1000);
            // The reader ends first only when the connection broke; it says why.
            if permits.recv().is_err() {
                break;
            }
            let now = self.clock.now_ns();
            if now > self.limit_ns {
                break;
            }
            let parts = self.cutting.cut(self.schedule.due_by(now).saturating_sub(next).max(1), &mut cursor);
            let batches = parts.iter().map(|(partition, records)| (*partition, self.batches.of(*records).clone()));
            let mut request = wire::produce(&self.topic.name, batches)?;
            correlation = (correlation + 1) & i32::MAX;
            requests.send(&mut request, correlation)?;
            let first = next;
            next += parts.iter().map(|(_, records)| u64::from(*records)).sum::<u64>();
            if under_way.send(InFlight { correlation, sent_ns: now, first, parts }).is_err() {
                break;
            }
        }
        Ok((next, lateness))
    }

    /// When a request that begins with record `next` leaves: its linger is over, or it is full.
    fn leaves_ns(&self, next: u64) -> u64 {
        let full = (next + self.cutting.full_records() - 1).min(self.schedule.records - 1);
        (self.schedule.due_ns(next) + self.linger_ns).min(self.schedule.due_ns(full).max(self.schedule.due_ns(next)))
    }

    fn read(&self, mut answers: Answers, to_read: &Receiver<InFlight>, free: &Sender<()>) -> Result<Paced, String> {
        let mut paced = empty(self.clock);
        while let Ok(InFlight { correlation, sent_ns, mut first, parts }) = to_read.recv() {
            let acked = wire::acked(answers.next(correlation)?)?;
            let now = self.clock.now_ns();
            // A sender that has ended needs no permit.
            let _ended = free.send(());
            paced.seconds = now as f64 / 1e9;
            for (partition, records) in parts {
                match acked.iter().find(|acked| acked.partition == partition) {
                    Some(acked) if acked.error == 0 => {
                        paced.records += u64::from(records);
                        if self.places {
                            let (base_offset, schedule, acked_ns) = (acked.base_offset, self.schedule, now);
                            let place = Place { partition, base_offset, records, schedule, first, sent_ns, acked_ns };
                            paced.places.push(place);
                        }
                        for n in first..first + u64::from(records) {
                            paced.latency_us.saturating_record(self.since_due_us(n, now));
                        }
                    }
                    Some(acked) if wire::SEND_AGAIN.contains(&acked.error) => paced.refused += u64::from(records),
                    Some(acked) => return Err(format!("the broker refused a batch with error {}", acked.error)),
                    None => return Err(format!("the broker did not answer for partition {partition}")),
                }
                first += u64::from(records);
            }
        }
        Ok(paced)
    }

    fn since_due_us(&self, record: u64, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.schedule.due_ns(record)) / 1000
    }
}
