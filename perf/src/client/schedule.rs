//! Which record is due when, and how due records become batches. Pure.

/// When each record of one producer is due: evenly, from `first_ns` on.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Schedule {
    /// When the first record is due, in nanoseconds.
    pub first_ns: f64,
    /// Nanoseconds from one record to the next.
    pub interval_ns: f64,
    /// How many records there are.
    pub records: u64,
}

impl Schedule {
    /// The schedule of producer `n` of `producers` that together send `records_per_s` for so many seconds. Their records
    /// interleave.
    pub fn of_producer(n: u16, producers: u16, records_per_s: f64, seconds: f64) -> Schedule {
        let interval_ns = 1e9 / records_per_s;
        Schedule {
            first_ns: interval_ns * f64::from(n),
            interval_ns: interval_ns * f64::from(producers),
            records: (records_per_s * seconds / f64::from(producers)).round().max(1.0) as u64,
        }
    }

    /// When record `n` is due.
    pub fn due_ns(&self, n: u64) -> u64 {
        (self.first_ns + self.interval_ns * n as f64) as u64
    }

    /// How many records are due by then.
    pub fn due_by(&self, ns: u64) -> u64 {
        let past = ns as f64 - self.first_ns;
        if past < 0.0 { 0 } else { ((past / self.interval_ns) as u64 + 1).min(self.records) }
    }
}

/// How a producer chooses partitions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spread {
    /// As for records without a key: all go to one partition until its batch is sent, then to the next.
    Sticky,
    /// As for records with keys: what is due is spread over all partitions.
    Keyed,
}

/// Part of a request: so many records for a partition.
pub type Part = (i32, u32);

/// The shape of the requests of one producer.
#[derive(Clone, Copy, Debug)]
pub struct Cutting {
    /// How partitions are chosen.
    pub spread: Spread,
    /// Partitions of the topic.
    pub partitions: i32,
    /// The most records in a batch.
    pub batch_records: u32,
    /// The most records in a request.
    pub request_records: u64,
}

impl Cutting {
    /// Cuts `due` records (at least one) into the batches of one request; what does not fit into it waits for the next.
    /// `cursor` is the partition that comes next.
    pub fn cut(&self, due: u64, cursor: &mut i32) -> Vec<Part> {
        let due = due.min(self.request_records);
        let most = u64::from(self.batch_records);
        let wanted = match self.spread {
            Spread::Sticky => due.div_ceil(most),
            Spread::Keyed => due,
        };
        let batches = wanted.clamp(1, u64::from(self.partitions.unsigned_abs()));
        let mut left = due;
        (0..batches)
            .map(|n| {
                let partition = *cursor;
                *cursor = (*cursor + 1) % self.partitions;
                let records = match self.spread {
                    Spread::Sticky => left.min(most),
                    Spread::Keyed => left.div_ceil(batches - n).min(most),
                };
                left -= records;
                (partition, records as u32)
            })
            .collect()
    }

    /// How many due records make a request worth sending before its linger is over.
    pub fn full_records(&self) -> u64 {
        let batches = match self.spread {
            Spread::Sticky => 1,
            Spread::Keyed => u64::from(self.partitions.unsigned_abs()),
        };
        (batches * u64::from(self.batch_records)).min(self.request_records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STICKY: Cutting = Cutting { spread: Spread::Sticky, partitions: 4, batch_records: 10, request_records: 35 };

    #[test]
    fn producers_take_turns() {
        let of = |n| Schedule::of_producer(n, 4, 1000.0, 2.0);
        assert_eq!(of(0).records, 500);
        assert_eq!(
            (of(0).due_ns(0), of(1).due_ns(0), of(3).due_ns(0), of(0).due_ns(1)),
            (0, 1_000_000, 3_000_000, 4_000_000)
        );
    }

    #[test]
    fn due_by_counts_what_due_ns_says() {
        let schedule = Schedule { first_ns: 700.0, interval_ns: 1000.0, records: 5 };
        assert_eq!(schedule.due_by(0), 0);
        for n in 0..5 {
            assert_eq!(schedule.due_by(schedule.due_ns(n)), n + 1);
            assert_eq!(schedule.due_by(schedule.due_ns(n) + 999), n + 1);
        }
        assert_eq!(schedule.due_by(u64::MAX / 2), 5, "no more than there are");
    }

    #[test]
    fn records_without_keys_fill_one_partition_after_the_other() {
        let mut cursor = 3;
        assert_eq!(STICKY.cut(7, &mut cursor), [(3, 7)]);
        assert_eq!(STICKY.cut(25, &mut cursor), [(0, 10), (1, 10), (2, 5)]);
        assert_eq!(STICKY.cut(1000, &mut cursor), [(3, 10), (0, 10), (1, 10), (2, 5)], "no more than a request holds");
    }

    #[test]
    fn records_with_keys_go_everywhere() {
        let keyed = Cutting { spread: Spread::Keyed, ..STICKY };
        let mut cursor = 0;
        assert_eq!(keyed.cut(2, &mut cursor), [(0, 1), (1, 1)]);
        assert_eq!(keyed.cut(6, &mut cursor), [(2, 2), (3, 2), (0, 1), (1, 1)]);
        assert_eq!(keyed.full_records(), 35);
        assert_eq!(STICKY.full_records(), 10);
    }
}
