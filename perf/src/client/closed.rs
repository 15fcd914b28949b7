//! Produce as fast as the broker acknowledges: a window of requests in flight on each of some connections.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::{
    batch::{batch, records_in},
    connection::{Connection, Frame},
    histogram,
    topic::Topic,
    wire,
};

/// How long a client waits before it sends a refused batch again, as retry.backoff.ms of Kafka's clients.
const BACKOFF: Duration = Duration::from_millis(100);

/// What is sent, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct Closed {
    /// Connections, each with a thread of its own.
    pub connections: u16,
    /// Requests in flight on each connection.
    pub in_flight: usize,
    /// Bytes of a record's value.
    pub record_bytes: u32,
    /// Bytes of values in one batch, about; at least one record.
    pub batch_bytes: u32,
    /// Batches in one request, each for another partition.
    pub batches_per_request: u32,
    /// Send to every n-th partition only; 1: to all.
    pub every: usize,
    /// Bytes of values to send in all.
    pub bytes: u64,
    /// When to stop sending though there is more.
    pub at_most: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Sent {
    /// From the first request to the last acknowledgement.
    pub seconds: f64,
    /// Records acknowledged.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Requests of which a batch was refused for the moment and sent again.
    pub refused: u64,
    /// Of each request, from its first byte sent to its answer read, in microseconds.
    pub latency_us: Histogram<u64>,
}

/// Work that the connections share.
struct Shared<'a> {
    load: Closed,
    topic: &'a Topic,
    requests: u64,
    records_per_batch: u32,
    next: AtomicU64,
    until: Instant,
}

/// Sends the load and waits for the last acknowledgement.
///
/// # Errors
/// When a connection breaks, or the broker refuses for good.
pub fn produce(topic: &Topic, load: Closed) -> Result<Sent, String> {
    let records_per_batch = records_in(load.batch_bytes, load.record_bytes);
    let batch = batch(records_per_batch, load.record_bytes)?;
    let frames = frames(topic, &load, &batch)?;
    let began = Instant::now();
    let bytes_per_request =
        u64::from(records_per_batch) * u64::from(load.record_bytes.max(1)) * u64::from(per_request(topic, &load));
    let shared = Shared {
        load,
        topic,
        requests: load.bytes.div_ceil(bytes_per_request).max(1),
        records_per_batch,
        next: AtomicU64::new(0),
        until: began + load.at_most,
    };
    let outcomes: Result<Vec<Sent>, String> = thread::scope(|threads| {
        let started: Vec<_> =
            (0..load.connections).map(|_| threads.spawn(|| connection(&shared, frames.clone()))).collect();
        started.into_iter().map(|thread| thread.join().expect("the load does not panic")).collect()
    });
    Ok(Sent { seconds: began.elapsed().as_secs_f64(), ..sum(outcomes?) })
}

fn per_request(topic: &Topic, load: &Closed) -> u32 {
    load.batches_per_request.clamp(1, topic.partitions.unsigned_abs())
}

/// One frame for each group of partitions that share a request.
fn frames(topic: &Topic, load: &Closed, batch: &bytes::Bytes) -> Result<Vec<Frame>, String> {
    let partitions: Vec<i32> = (0..topic.partitions).step_by(load.every.max(1)).collect();
    partitions
        .chunks(load.batches_per_request.max(1) as usize)
        .map(|group| {
            let encoded = wire::produce(&topic.name, group.iter().map(|p| (*p, batch.clone())))?;
            Ok(Frame::of(&encoded, batch))
        })
        .collect()
}

fn sum(outcomes: Vec<Sent>) -> Sent {
    let mut all = Sent { seconds: 0.0, records: 0, bytes: 0, refused: 0, latency_us: histogram() };
    for one in outcomes {
        all.records += one.records;
        all.bytes += one.bytes;
        all.refused += one.refused;
        all.latency_us += one.latency_us;
    }
    all
}

fn connection(shared: &Shared<'_>, mut frames: Vec<Frame>) -> Result<Sent, String> {
    let mut connection = Connection::open(&shared.topic.bootstrap)?;
    let mut waiting: VecDeque<(i32, usize, Instant)> = VecDeque::new();
    let mut again: Vec<usize> = Vec::new();
    let mut sent = sum(Vec::new());
    let mut correlation = 0;
    let mut more = true;
    loop {
        let mut next = None;
        if waiting.len() < shared.load.in_flight {
            next = again.pop().or_else(|| shared.next_frame(frames.len()).filter(|_| more));
            more &= next.is_some();
        }
        if let Some(at) = next {
            correlation = (correlation + 1) & i32::MAX;
            waiting.push_back((correlation, at, Instant::now()));
            connection.requests.send_frame(&mut frames[at], correlation)?;
        } else if let Some((correlation, at, began)) = waiting.pop_front() {
            let acked = wire::acked(connection.answers.next(correlation)?)?;
            if shared.account(&acked, &mut sent)? {
                sent.latency_us.saturating_record(began.elapsed().as_micros() as u64);
            } else {
                again.push(at);
                thread::sleep(BACKOFF);
            }
        } else {
            return Ok(sent);
        }
    }
}

impl Shared<'_> {
    /// Which frame is to be sent next; `None` when all has been sent or the time is over.
    fn next_frame(&self, frames: usize) -> Option<usize> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let more = number < self.requests && Instant::now() < self.until;
        more.then(|| (number % frames as u64) as usize)
    }

    /// Counts what was acknowledged; false when the request must be sent again.
    fn account(&self, acked: &[wire::Acked], sent: &mut Sent) -> Result<bool, String> {
        let taken = acked.iter().filter(|batch| batch.error == 0).count() as u64;
        let records = taken * u64::from(self.records_per_batch);
        sent.records += records;
        sent.bytes += records * u64::from(self.load.record_bytes);
        match acked.iter().map(|batch| batch.error).find(|code| *code != 0) {
            None => Ok(true),
            Some(code) if wire::SEND_AGAIN.contains(&code) => {
                sent.refused += 1;
                Ok(false)
            }
            Some(code) => Err(format!("the broker refused a batch with error {code}")),
        }
    }
}
