//! What was measured, as plain data, and what follows from it. Pure.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Bytes in a GiB.
pub const GIB: f64 = (1_u64 << 30) as f64;

/// Who is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rival {
    /// Thalweg.
    Thalweg,
    /// An earlier build of Thalweg.
    ThalwegBefore,
    /// Apache Kafka as it comes.
    Kafka,
    /// Apache Kafka with `flush.messages=1`.
    KafkaFlush,
}

impl Rival {
    /// All, in the order of tables.
    pub const ALL: [Rival; 4] = [Rival::Thalweg, Rival::ThalwegBefore, Rival::Kafka, Rival::KafkaFlush];
    /// Those that are compared when nothing else is asked for.
    pub const USUAL: [Rival; 3] = [Rival::Thalweg, Rival::Kafka, Rival::KafkaFlush];

    /// Whether it is a build of Thalweg.
    pub fn is_thalweg(self) -> bool {
        matches!(self, Rival::Thalweg | Rival::ThalwegBefore)
    }

    /// Its name in tables, files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Rival::Thalweg => "thalweg",
            Rival::ThalwegBefore => "thalweg-before",
            Rival::Kafka => "kafka",
            Rival::KafkaFlush => "kafka-flush",
        }
    }

    /// Its name in pictures, with what an acknowledgement means.
    pub fn legend(self) -> &'static str {
        match self {
            Rival::Thalweg => "Thalweg (durable: O_DSYNC)",
            Rival::ThalwegBefore => "Thalweg before (durable: O_DSYNC)",
            Rival::Kafka => "Kafka (not durable: no fsync)",
            Rival::KafkaFlush => "Kafka, flush.messages=1 (durable: fsync)",
        }
    }

    /// What an acknowledgement means.
    pub fn durability(self) -> &'static str {
        match self {
            Rival::Thalweg | Rival::ThalwegBefore => {
                "on the device before the acknowledgement (wal.sync=dsync: O_DIRECT, O_DSYNC)"
            }
            Rival::Kafka => "in the page cache; no fsync before the acknowledgement",
            Rival::KafkaFlush => "fsync before the acknowledgement (log.flush.interval.messages=1)",
        }
    }
}

/// Times, most of them in microseconds, exact within one percent.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// Their mean.
    pub mean_us: f64,
    /// Some quantiles, by name.
    pub percentiles_us: BTreeMap<String, u64>,
    /// All of them: a time, and how often it was seen, ascending.
    pub counts: Vec<(u64, u64)>,
}

/// The quantiles that are named in JSON.
const NAMED: [(&str, f64); 7] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0), ("min", 0.0)];

impl Latency {
    /// What a histogram holds.
    pub fn of(histogram: &Histogram<u64>) -> Latency {
        let counts = histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect();
        Latency::from_counts(counts)
    }

    /// From times and how often each was seen, ascending.
    pub fn from_counts(counts: Vec<(u64, u64)>) -> Latency {
        let count: u64 = counts.iter().map(|(_, n)| n).sum();
        let total: f64 = counts.iter().map(|(us, n)| *us as f64 * *n as f64).sum();
        let mut latency = Latency { count, mean_us: total / count.max(1) as f64, counts, ..Latency::default() };
        latency.percentiles_us = NAMED.iter().map(|(name, q)| ((*name).to_owned(), latency.quantile_us(*q))).collect();
        latency
    }

    /// Several as one.
    pub fn merged<'a>(all: impl Iterator<Item = &'a Latency>) -> Latency {
        let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
        for (us, n) in all.flat_map(|one| &one.counts) {
            *counts.entry(*us).or_default() += n;
        }
        Latency::from_counts(counts.into_iter().collect())
    }

    /// The time below or at which the share `q` (0 to 1) lies; 0 when nothing was measured.
    pub fn quantile_us(&self, q: f64) -> u64 {
        let rank = ((q * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        let reached = self.counts.iter().find(|(_, n)| {
            seen += n;
            seen >= rank
        });
        reached.or(self.counts.last()).map_or(0, |(us, _)| *us)
    }
}

/// What a load cost.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Cost {
    /// CPU seconds (user and system) of the broker's process while the load ran.
    pub broker_cpu_s: f64,
    /// The same until the broker came to rest again, uploads included.
    pub broker_cpu_settled_s: f64,
    /// CPU seconds of the load client while the load ran.
    pub client_cpu_s: f64,
    /// Bytes that the broker's process handed to block devices or the page cache, until it came to rest.
    pub written_bytes: u64,
    /// The broker's resident memory at the end of the load.
    pub resident_bytes: u64,
    /// Its largest resident memory since it started.
    pub peak_resident_bytes: u64,
}

/// What a load moved, and how fast.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Length of the load.
    pub seconds: f64,
    /// Bytes of values that were acknowledged.
    pub produced_bytes: u64,
    /// Records that were acknowledged.
    pub produced_records: u64,
    /// From the first record sent to the last one acknowledged, where that is not the whole load.
    pub produce_seconds: Option<f64>,
    /// Bytes of values that were read, by all readers.
    pub consumed_bytes: u64,
    /// Records that were read.
    pub consumed_records: u64,
    /// The load on offer, in bytes of values per second; none when it was as much as was taken.
    pub offered_bytes_per_s: Option<f64>,
    /// Records that were on offer.
    pub offered_records: Option<u64>,
    /// Requests (closed load) or records (open load) that the broker refused for the moment.
    pub refused: u64,
    /// Records that could not even be sent in twice the time.
    pub unsent: u64,
    /// From a record's due moment (open load) or its request's first byte (closed load) to its acknowledgement.
    pub latency: Option<Latency>,
    /// From a record's due moment to its arrival at a reader.
    pub end_to_end: Option<Latency>,
    /// How late the client itself was with its requests.
    pub client_lateness: Option<Latency>,
    /// The part of the broker's CPU seconds that went into producing, where it can be told.
    pub cpu_produce_s: Option<f64>,
    /// The part of the broker's CPU seconds that went into consuming, where it can be told.
    pub cpu_consume_s: Option<f64>,
    /// What it cost.
    pub cost: Cost,
}

impl Figures {
    /// Whether an open load was more than the broker takes.
    pub fn saturated(&self) -> bool {
        self.offered_records.is_some_and(|offered| {
            let short = (self.produced_records as f64) < 0.99 * offered as f64;
            let late = self.offered_bytes_per_s.is_some_and(|offered| self.produced_bytes_per_s() < 0.9 * offered);
            short || late
        })
    }

    /// Bytes of values acknowledged per second.
    pub fn produced_bytes_per_s(&self) -> f64 {
        self.produced_bytes as f64 / self.produce_seconds.unwrap_or(self.seconds)
    }

    /// Bytes of values read per second, by all readers.
    pub fn consumed_bytes_per_s(&self) -> f64 {
        self.consumed_bytes as f64 / self.seconds
    }
}

/// One run of one cell on one broker.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The scenario.
    pub scenario: String,
    /// Which part of it.
    pub cell: String,
    /// Who was measured.
    pub rival: Rival,
    /// Which round, from 1.
    pub round: u32,
    /// What was measured; none when it failed.
    pub figures: Option<Figures>,
    /// Why it failed.
    pub failure: Option<String>,
}

/// One start of a broker on an empty directory.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Start {
    /// Who started.
    pub rival: Rival,
    /// In which round, from 1.
    pub round: u32,
    /// From the start of the process to its first answer, in milliseconds.
    pub ready_ms: f64,
    /// Resident memory when it had come to rest.
    pub idle_resident_bytes: u64,
}

/// The middle value; the mean of the two middle ones when their number is even. `None` of nothing.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_values() {
        let latency = Latency::from_counts((1..=1000).map(|us| (us, 1)).collect());
        assert_eq!((latency.quantile_us(0.0), latency.quantile_us(0.5), latency.quantile_us(1.0)), (1, 500, 1000));
        assert_eq!(latency.percentiles_us["p99"], 990);
        assert_eq!(latency.percentiles_us["p99.9"], 999);
        assert_eq!(latency.mean_us, 500.5);
        assert_eq!(Latency::default().quantile_us(0.5), 0, "of nothing");
    }

    #[test]
    fn a_histogram_comes_over_within_a_percent() {
        let mut histogram = crate::client::histogram();
        for us in [100, 100, 5_000, 1_000_000] {
            histogram.record(us).expect("in range");
        }
        let latency = Latency::of(&histogram);
        assert_eq!(latency.count, 4);
        assert_eq!(latency.quantile_us(0.5), 100);
        let max = latency.quantile_us(1.0) as f64;
        assert!((max - 1_000_000.0).abs() <= 10_000.0, "{max}");
    }

    #[test]
    fn merging_adds_up() {
        let one = Latency::from_counts(vec![(10, 1), (20, 2)]);
        let two = Latency::from_counts(vec![(20, 3), (30, 4)]);
        assert_eq!(Latency::merged([&one, &two].into_iter()).counts, [(10, 1), (20, 5), (30, 4)]);
    }

    #[test]
    fn an_open_load_that_is_not_met_is_saturated() {
        let met = Figures {
            seconds: 10.0,
            produced_bytes: 1000,
            produced_records: 100,
            offered_bytes_per_s: Some(100.0),
            offered_records: Some(100),
            ..Figures::default()
        };
        assert!(!met.saturated());
        assert!(Figures { produced_records: 90, ..met.clone() }.saturated(), "records are missing");
        assert!(Figures { seconds: 20.0, ..met.clone() }.saturated(), "it took twice the time");
        assert!(!Figures { offered_records: None, seconds: 20.0, ..met }.saturated(), "a closed load never is");
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }
}
