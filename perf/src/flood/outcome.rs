//! What a flood came to, as plain data, and what follows from it. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    broker::metrics::Buckets,
    figures::{Latency, Rival},
    machine::Machine,
    report::RivalNote,
};

/// All rounds on all brokers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FloodReport {
    /// Version of this layout, 1.
    pub format: u32,
    /// True: what tells this report from others.
    pub flood: bool,
    /// Whether this was only a look at whether everything works.
    pub quick: bool,
    /// Where it ran.
    pub machine: Machine,
    /// What was measured: names and versions.
    pub versions: Vec<String>,
    /// Who was measured, and under which settings.
    pub rivals: Vec<RivalNote>,
    /// How much was measured, in words.
    pub load: Vec<String>,
    /// Every run.
    pub runs: Vec<FloodRun>,
}

/// One round on one broker.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FloodRun {
    /// Who was measured.
    pub rival: Rival,
    /// Which round, from 1.
    pub round: u32,
    /// What was measured; none when it failed.
    pub outcome: Option<Outcome>,
    /// Why it failed.
    pub failure: Option<String>,
}

/// Moments of a run, in seconds since its load began.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Marks {
    /// From when on records count as before the flood.
    pub counts_from_s: f64,
    /// When the flood began.
    pub flood_from_s: f64,
    /// When its last reader ended.
    pub flood_to_s: f64,
}

/// One kind of latency, of the records that were due in each part of the run.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Phases {
    /// Before the flood.
    pub before: Latency,
    /// In it.
    pub during: Latency,
    /// After it.
    pub after: Latency,
}

/// The latencies of the records that were due in one second.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Second {
    /// Which second since the load began.
    pub at_s: u32,
    /// How many records.
    pub records: u64,
    /// Their median.
    pub p50_us: u64,
    /// The time below which 99 of 100 were.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// What the broker's own histogram says of writes: seconds, from buckets.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct OwnPhases {
    /// Before the flood.
    pub before: Buckets,
    /// In it.
    pub during: Buckets,
}

/// One reader of the flood.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ReaderOutcome {
    /// Records it read.
    pub records: u64,
    /// How long it read.
    pub seconds: f64,
    /// CPU seconds it took.
    pub cpu_s: f64,
    /// Whether it read everything.
    pub ended: bool,
}

/// What the broker looked like at one moment.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// When, in seconds since the load began.
    pub at_s: f64,
    /// Its resident memory.
    pub resident_bytes: u64,
    /// CPU seconds since it started.
    pub cpu_s: f64,
    /// Bytes it had fetched from block devices since it started.
    pub disk_read_bytes: u64,
    /// Bytes of values that the readers of the flood had read.
    pub flood_bytes: u64,
}

/// What a flood made of the object store, by the broker's own metrics.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct StoreUse {
    /// Reads of the object store.
    pub reads: u64,
    /// Bytes that they brought.
    pub read_bytes: u64,
    /// Blocks that readers found in memory.
    pub blocks_found: u64,
    /// Blocks that readers had to wait for.
    pub blocks_awaited: u64,
    /// Bytes of record batches handed out in the flood, tail included, by where they came from.
    pub tiers: BTreeMap<String, u64>,
}

/// What one run came to. Bytes are of values unless it says otherwise.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Bytes that lay in the object store before the flood.
    pub history_bytes: u64,
    /// How fast they were produced, as fast as the broker took them.
    pub history_bytes_per_s: f64,
    /// What the broker takes when a reader follows; none when the load was given.
    pub maximum_bytes_per_s: Option<f64>,
    /// What it takes so until the object store, or of Kafka the disk, has all of it.
    #[serde(default)]
    pub lasting_bytes_per_s: Option<f64>,
    /// The load at the tail.
    pub offered_bytes_per_s: f64,
    /// Records that fell due at the tail.
    pub due: u64,
    /// Records of them that were acknowledged.
    pub records: u64,
    /// Records of them that were refused for the moment.
    pub refused: u64,
    /// Records of them that could not be sent in time.
    pub unsent: u64,
    /// When the flood was.
    pub marks: Marks,
    /// From a record's due moment to its acknowledgement.
    pub write: Phases,
    /// From its request's first byte to its acknowledgement.
    pub request: Phases,
    /// From a request's last byte read to its answer written, by the broker's own histogram; none of a broker without one.
    pub own: Option<OwnPhases>,
    /// From a record's due moment to a follower.
    pub end_to_end: Phases,
    /// How late the client itself was with its requests.
    pub client_lateness: Latency,
    /// The readers of the flood.
    pub readers: Vec<ReaderOutcome>,
    /// Bytes that they read.
    pub read_bytes: u64,
    /// Bytes of the history that were read at least once.
    pub distinct_bytes: u64,
    /// What that took of the object store; none of a broker without one.
    pub store: Option<StoreUse>,
    /// The broker, several times a second.
    pub samples: Vec<Sample>,
    /// [`Outcome::write`], second by second.
    pub write_seconds: Vec<Second>,
    /// [`Outcome::end_to_end`], second by second.
    pub end_to_end_seconds: Vec<Second>,
}

impl Outcome {
    /// Bytes that the flood's readers read per second, together.
    pub fn catch_up_bytes_per_s(&self) -> f64 {
        self.read_bytes as f64 / (self.marks.flood_to_s - self.marks.flood_from_s).max(1e-9)
    }

    /// Whether the load at the tail was more than the broker takes.
    pub fn saturated(&self) -> bool {
        self.refused > 0 || self.unsent > 0
    }

    /// The largest resident memory before the flood, and from its begin on.
    pub fn resident_bytes(&self) -> (u64, u64) {
        let flood = self.marks.flood_from_s;
        let most = |in_flood: bool| {
            let samples = self.samples.iter().filter(|sample| (sample.at_s >= flood) == in_flood);
            samples.map(|sample| sample.resident_bytes).max().unwrap_or_default()
        };
        (most(false), most(true))
    }

    /// By how much a counter of the samples grew in the flood, per second: between the last sample before it and the first after it.
    pub fn in_flood(&self, counter: impl Fn(&Sample) -> f64) -> Option<f64> {
        let Marks { flood_from_s, flood_to_s, .. } = self.marks;
        let first = self.samples.iter().rfind(|sample| sample.at_s <= flood_from_s)?;
        let last = self.samples.iter().find(|sample| sample.at_s >= flood_to_s).or(self.samples.last())?;
        let seconds = last.at_s - first.at_s;
        (seconds > 0.0).then(|| (counter(last) - counter(first)) / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_flood_alone() {
        let sample = |at_s: f64, resident_bytes, cpu_s| Sample { at_s, resident_bytes, cpu_s, ..Sample::default() };
        let outcome = Outcome {
            marks: Marks { counts_from_s: 1.0, flood_from_s: 10.0, flood_to_s: 20.0 },
            read_bytes: 5000,
            samples: vec![sample(5.0, 7, 1.0), sample(9.0, 6, 2.0), sample(15.0, 9, 5.0), sample(21.0, 12, 8.0)],
            ..Outcome::default()
        };
        assert_eq!(outcome.catch_up_bytes_per_s(), 500.0);
        assert_eq!(outcome.in_flood(|sample| sample.cpu_s), Some(0.5));
        assert_eq!(outcome.resident_bytes(), (7, 12), "what it takes after the flood counts too");
    }
}

/// A report of made-up figures, for tests.
#[cfg(test)]
pub(crate) mod example {
    use super::*;

    fn phases(alone_us: u64, flood_us: u64) -> Phases {
        let of = |us| Latency::from_counts(vec![(us, 100)]);
        Phases { before: of(alone_us), during: of(flood_us), after: of(alone_us) }
    }

    fn outcome(slow: u64) -> Outcome {
        let seconds = |us: u64| {
            let p99_us = |at_s| if (10..20).contains(&at_s) { 2 * us } else { us };
            (0..30)
                .map(|at_s| Second { at_s, records: 10, p50_us: us / 2, p99_us: p99_us(at_s), max_us: 3 * us })
                .collect()
        };
        let sample = |at_s, megabytes: u64| Sample { at_s, resident_bytes: megabytes * 1_000_000, ..Sample::default() };
        Outcome {
            history_bytes: 1 << 30,
            history_bytes_per_s: 1e8,
            offered_bytes_per_s: 1e7,
            marks: Marks { counts_from_s: 1.0, flood_from_s: 10.0, flood_to_s: 20.0 },
            write: phases(2000 * slow, if slow == 1 { 3000 } else { 6000 * slow }),
            request: phases(1000 * slow, 1000 * slow),
            end_to_end: phases(4000 * slow, 5000 * slow),
            readers: vec![ReaderOutcome { records: 1 << 20, seconds: 10.0, cpu_s: 1.0, ended: true }],
            read_bytes: 4_000_000_000 / if slow == 1 { 1 } else { 2 },
            distinct_bytes: 1 << 30,
            samples: vec![sample(5.0, 300), sample(15.0, if slow == 1 { 600 } else { 1200 })],
            write_seconds: seconds(2000 * slow),
            end_to_end_seconds: seconds(4000 * slow),
            ..Outcome::default()
        }
    }

    pub(crate) fn report() -> FloodReport {
        let own = OwnPhases {
            before: Buckets(vec![(Some(0.001), 99.0), (Some(0.002), 1.0)]),
            during: Buckets(vec![(Some(0.001), 99.0), (Some(0.002), 1.0)]),
        };
        let tiers = BTreeMap::from([("object".to_owned(), 3), ("tail".to_owned(), 1)]);
        let store = StoreUse { reads: 1024, read_bytes: 1 << 30, tiers, ..StoreUse::default() };
        let ours = Outcome { own: Some(own), store: Some(store), ..outcome(1) };
        let run = |rival, outcome| FloodRun { rival, round: 1, outcome: Some(outcome), failure: None };
        let note = |rival: Rival| RivalNote { rival, durability: rival.durability().to_owned(), settings: Vec::new() };
        FloodReport {
            format: 1,
            flood: true,
            quick: false,
            machine: Machine::default(),
            versions: vec!["thalweg 0.1.0".to_owned()],
            rivals: [Rival::Thalweg, Rival::Kafka].map(note).to_vec(),
            load: Vec::new(),
            runs: vec![run(Rival::Thalweg, ours), run(Rival::Kafka, outcome(4))],
        }
    }
}
