//! Latencies put in time: before the flood, in it, after it, and second by second. Pure.

use hdrhistogram::Histogram;

use super::outcome::{Marks, Phases, Second};
use crate::{client::histogram, figures::Latency};

/// One kind of latency, record by record, by when each was due.
pub(super) struct Timeline {
    marks: Marks,
    before: Histogram<u64>,
    during: Histogram<u64>,
    after: Histogram<u64>,
    seconds: Vec<Histogram<u64>>,
}

impl Timeline {
    pub(super) fn new(marks: Marks) -> Timeline {
        Timeline { marks, before: histogram(), during: histogram(), after: histogram(), seconds: Vec::new() }
    }

    /// A record that was due at `due_ns` (nanoseconds since the load began), and what it took.
    pub(super) fn add(&mut self, due_ns: u64, took_ns: u64) {
        let (due_s, took_us) = (due_ns as f64 / 1e9, took_ns / 1000);
        let Marks { counts_from_s, flood_from_s, flood_to_s } = self.marks;
        let phase = match due_s {
            // The first moments belong to connections that are being made.
            s if s < counts_from_s => None,
            s if s < flood_from_s => Some(&mut self.before),
            s if s < flood_to_s => Some(&mut self.during),
            _ => Some(&mut self.after),
        };
        if let Some(phase) = phase {
            phase.saturating_record(took_us);
        }
        let second = due_s as usize;
        while self.seconds.len() <= second {
            self.seconds.push(histogram());
        }
        self.seconds[second].saturating_record(took_us);
    }

    pub(super) fn phases(&self) -> Phases {
        let of = |histogram: &Histogram<u64>| Latency::of(histogram);
        Phases { before: of(&self.before), during: of(&self.during), after: of(&self.after) }
    }

    /// Every second in which a record was due.
    pub(super) fn seconds(&self) -> Vec<Second> {
        let second = |(at_s, taken): (usize, &Histogram<u64>)| Second {
            at_s: at_s as u32,
            records: taken.len(),
            p50_us: taken.value_at_quantile(0.5),
            p99_us: taken.value_at_quantile(0.99),
            max_us: taken.max(),
        };
        self.seconds.iter().enumerate().filter(|(_, taken)| !taken.is_empty()).map(second).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_belongs_to_the_moment_it_was_due() {
        let marks = Marks { counts_from_s: 1.0, flood_from_s: 3.0, flood_to_s: 5.5 };
        let mut timeline = Timeline::new(marks);
        // One a half second, each takes as many milliseconds as it is late in the run.
        for half in 0..14_u64 {
            timeline.add(half * 500_000_000, half * 1_000_000);
        }
        let phases = timeline.phases();
        let count = |latency: &Latency| (latency.count, latency.quantile_us(1.0) / 1000);
        assert_eq!(count(&phases.before), (4, 5), "due at 1.0 to 2.5 s");
        assert_eq!(count(&phases.during), (5, 10), "due at 3.0 to 5.0 s, though the last took until after the flood");
        assert_eq!(count(&phases.after), (3, 13));
        let seconds = timeline.seconds();
        assert_eq!(seconds.len(), 7);
        assert_eq!((seconds[2].at_s, seconds[2].records, seconds[2].max_us / 1000), (2, 2, 5));
    }

    #[test]
    fn a_second_without_records_is_left_out() {
        let mut timeline = Timeline::new(Marks { counts_from_s: 0.0, flood_from_s: 1.0, flood_to_s: 2.0 });
        timeline.add(0, 1000);
        timeline.add(2_100_000_000, 1000);
        assert_eq!(timeline.seconds().iter().map(|second| second.at_s).collect::<Vec<_>>(), [0, 2]);
    }
}
