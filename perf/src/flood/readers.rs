//! The flood: readers that replay a topic from its start, as fast as they are answered, within a share of CPU.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use super::outcome::ReaderOutcome;
use crate::{
    client::{clock::Clock, reader::Reader, topic::Topic},
    store::be_polite,
};

/// What the readers of a flood share.
pub(super) struct Flood<'a> {
    pub(super) topic: &'a Topic,
    pub(super) readers: u16,
    /// Whether they share the partitions; otherwise each reads all of them.
    pub(super) share: bool,
    /// CPU seconds per second that all of them together take at most.
    pub(super) cores: f64,
    pub(super) clock: Clock,
    /// When they begin, and when they end though there is more, in nanoseconds since the load began.
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
    /// The load has failed: nobody needs the rest.
    pub(super) stop: &'a AtomicBool,
    /// Records read so far, by all.
    pub(super) read: &'a AtomicU64,
}

/// What came of it.
pub(super) struct Flooded {
    /// When the last reader ended, in nanoseconds since the load began.
    pub(super) ended_ns: u64,
    pub(super) readers: Vec<ReaderOutcome>,
    /// Records of the topic that were read at least once.
    pub(super) distinct_records: u64,
}

/// One reader when it has ended, and where it is in each partition.
type Ended = (ReaderOutcome, Vec<(i32, i64)>);

impl Flood<'_> {
    /// Connects, waits for the moment, and reads.
    pub(super) fn run(&self) -> Result<Flooded, String> {
        let all = || vec![self.topic.from_start(); usize::from(self.readers)];
        let shares = if self.share { self.topic.shares(self.readers) } else { all() };
        let cores = self.cores / shares.len().max(1) as f64;
        let outcomes: Result<Vec<Ended>, String> = thread::scope(|threads| {
            let started: Vec<_> =
                shares.into_iter().map(|share| threads.spawn(move || self.read(share, cores))).collect();
            started.into_iter().map(|thread| thread.join().expect("a reader does not panic")).collect()
        });
        let ended_ns = self.clock.now_ns();
        let (readers, positions): (Vec<ReaderOutcome>, Vec<_>) = outcomes?.into_iter().unzip();
        Ok(Flooded { ended_ns, readers, distinct_records: distinct(&self.topic.from_start(), &positions) })
    }

    fn read(&self, share: Vec<(i32, i64)>, cores: f64) -> Result<Ended, String> {
        be_polite();
        let mut reader = Reader::new(self.topic, share)?;
        self.clock.sleep_until(self.from_ns);
        let (began, cpu_before) = (Instant::now(), cpu());
        while !reader.caught_up() && self.clock.now_ns() < self.to_ns && !self.stop.load(Ordering::Relaxed) {
            let before = reader.records();
            reader.fetch(|_, _| {})?;
            self.read.fetch_add(reader.records() - before, Ordering::Relaxed);
            thread::sleep(rest(cpu() - cpu_before, began.elapsed(), cores));
        }
        let outcome = ReaderOutcome {
            records: reader.records(),
            seconds: began.elapsed().as_secs_f64(),
            cpu_s: (cpu() - cpu_before).as_secs_f64(),
            ended: reader.caught_up(),
        };
        Ok((outcome, reader.positions().to_vec()))
    }
}

/// How long one must rest who took `cpu` in the time `passed` and may take `cores`.
fn rest(cpu: Duration, passed: Duration, cores: f64) -> Duration {
    cpu.div_f64(cores.max(1e-3)).saturating_sub(passed)
}

/// CPU that the calling thread took.
fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// How many records were read by somebody: of each partition up to whoever got furthest.
fn distinct(from: &[(i32, i64)], positions: &[Vec<(i32, i64)>]) -> u64 {
    let mut furthest: BTreeMap<i32, i64> = BTreeMap::new();
    for (partition, next) in positions.iter().flatten() {
        let seen = furthest.entry(*partition).or_insert(*next);
        *seen = (*seen).max(*next);
    }
    let of = |(partition, start): &(i32, i64)| furthest.get(partition).map_or(0, |next| (next - start).unsigned_abs());
    from.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_rests_until_its_share_is_met() {
        let ms = Duration::from_millis;
        assert_eq!(rest(ms(10), ms(40), 0.1), ms(60), "10 ms are a tenth of 100");
        assert_eq!(rest(ms(10), ms(100), 0.1), ms(0));
        assert_eq!(rest(ms(10), ms(10), 1.0), ms(0), "a whole core never rests");
    }

    #[test]
    fn what_several_read_counts_once() {
        let from = [(0, 1), (1, 1)];
        assert_eq!(distinct(&from, &[vec![(0, 11), (1, 1)], vec![(0, 6), (1, 4)]]), 13);
        assert_eq!(distinct(&from, &[vec![(0, 5)], vec![(1, 5)]]), 8, "shares");
        assert_eq!(distinct(&from, &[]), 0);
    }

    #[test]
    fn a_thread_knows_its_own_cpu() {
        let before = cpu();
        let mut sum = 0_u64;
        while cpu() - before < Duration::from_millis(5) {
            sum = std::hint::black_box(sum + 1);
        }
        let other = thread::spawn(cpu).join().expect("no panic");
        assert!(other < Duration::from_millis(5), "a new thread has taken nothing: {other:?}");
    }
}
