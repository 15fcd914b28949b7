//! What the broker says of its memory in its own metrics must stay below what it was given.
#![expect(clippy::disallowed_types, reason = "a recorder of metrics must be Sync; the simulation has one thread")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use super::site::{READ_CACHE_BYTES, TAIL_CACHE_BYTES};

/// Gauges with a bound, one of each for a shard.
const BOUNDS: [(&str, u64); 2] =
    [("thalweg_tail_cache_bytes", TAIL_CACHE_BYTES), ("thalweg_cold_cache_bytes", READ_CACHE_BYTES)];

/// Takes the metrics of one history.
#[derive(Default)]
pub(crate) struct Gauges(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    broken: Option<String>,
    figures: u64,
    compacted: BTreeMap<String, u64>,
}

/// Objects that compaction made of one kind, or threw away.
struct Compacted {
    kind: String,
    seen: Arc<Mutex<Seen>>,
}

impl CounterFn for Compacted {
    fn increment(&self, by: u64) {
        *self.seen.lock().expect("nothing panics with the lock").compacted.entry(self.kind.clone()).or_default() += by;
    }

    fn absolute(&self, _to: u64) {}
}

struct Bounded {
    name: &'static str,
    bound: u64,
    seen: Arc<Mutex<Seen>>,
}

impl Gauges {
    /// The first bound that did not hold, and how many figures were compared.
    pub(crate) fn outcome(&self) -> (Option<String>, u64) {
        let seen = self.0.lock().expect("nothing panics with the lock");
        (seen.broken.clone(), seen.figures)
    }

    /// Objects that compaction made by kind (`minor`, `major`, `split`), and those that it threw away (`dropped`); rounds of cleaning
    /// (`cleaned`); and manifests written (`folded`), given up below a log start (`released`), and given back (`unfolded`).
    pub(crate) fn compacted(&self) -> BTreeMap<String, u64> {
        self.0.lock().expect("nothing panics with the lock").compacted.clone()
    }
}

impl GaugeFn for Bounded {
    fn increment(&self, _by: f64) {}

    fn decrement(&self, _by: f64) {}

    fn set(&self, value: f64) {
        let mut seen = self.seen.lock().expect("nothing panics with the lock");
        seen.figures += u64::from(value > 0.0);
        if value > self.bound as f64 {
            let why = format!("{} is {value}, the bound is {}", self.name, self.bound);
            seen.broken.get_or_insert(why);
        }
    }
}

impl Recorder for Gauges {
    fn describe_counter(&self, _key: KeyName, _unit: Option<Unit>, _text: SharedString) {}

    fn describe_gauge(&self, _key: KeyName, _unit: Option<Unit>, _text: SharedString) {}

    fn describe_histogram(&self, _key: KeyName, _unit: Option<Unit>, _text: SharedString) {}

    fn register_counter(&self, key: &Key, _metadata: &Metadata<'_>) -> Counter {
        let kind = match key.name() {
            "thalweg_compaction_objects_total" => key.labels().find(|label| label.key() == "kind").map(|l| l.value()),
            "thalweg_compaction_dropped_total" => Some("dropped"),
            "thalweg_cleaner_rounds_total" => Some("cleaned"),
            "thalweg_manifests_written_total" => Some("folded"),
            "thalweg_manifests_released_total" => Some("released"),
            "thalweg_manifests_unfolded_total" => Some("unfolded"),
            _ => None,
        };
        let counter = |kind: &str| Counter::from_arc(Arc::new(Compacted { kind: kind.into(), seen: self.0.clone() }));
        kind.map_or(Counter::noop(), counter)
    }

    fn register_gauge(&self, key: &Key, _metadata: &Metadata<'_>) -> Gauge {
        let found = BOUNDS.iter().find(|(name, _)| *name == key.name());
        found.map_or(Gauge::noop(), |(name, bound)| {
            Gauge::from_arc(Arc::new(Bounded { name, bound: *bound, seen: self.0.clone() }))
        })
    }

    fn register_histogram(&self, _key: &Key, _metadata: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
