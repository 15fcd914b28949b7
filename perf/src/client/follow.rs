//! Readers that follow a topic while it grows, and how long a record takes from its due moment to them.

use std::{
    collections::BTreeMap,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{clock::Clock, open::Place, reader::Reader, topic::Topic};

/// How long what was acknowledged may take to arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(30);

/// A batch that reached a reader.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The partition.
    pub partition: i32,
    /// Offset of its first record.
    pub base_offset: i64,
    /// When, in nanoseconds since the load began.
    pub at_ns: u64,
}

/// How much followers are to read: told when the load is over.
#[derive(Debug, Default)]
pub struct Goal {
    told: OnceLock<(u64, Instant)>,
}

impl Goal {
    /// All followers together end after so many records.
    pub fn tell(&self, records: u64) {
        // Told twice, the first word counts.
        let _told = self.told.set((records, Instant::now() + ARRIVES_WITHIN));
    }

    /// Whether `read` records are all.
    fn reached(&self, read: u64) -> Result<bool, String> {
        match self.told.get() {
            Some((records, _)) if read >= *records => Ok(true),
            Some((records, deadline)) if Instant::now() > *deadline => {
                Err(format!("{read} of {records} acknowledged records reached the readers in {ARRIVES_WITHIN:?}"))
            }
            _ => Ok(false),
        }
    }
}

/// Follows the topic with some readers that share its partitions, until the goal is reached.
///
/// # Errors
/// As [`Reader::fetch`], and when what was acknowledged does not arrive.
pub fn follow(topic: &Topic, readers: u16, clock: Clock, goal: &Goal) -> Result<Vec<Arrival>, String> {
    let read = AtomicU64::new(0);
    thread::scope(|threads| {
        let started: Vec<_> = topic
            .shares(readers)
            .into_iter()
            .map(|share| threads.spawn(|| follow_share(topic, share, clock, goal, &read)))
            .collect();
        let mut arrivals = Vec::new();
        for thread in started {
            arrivals.extend(thread.join().expect("a reader does not panic")?);
        }
        Ok(arrivals)
    })
}

fn follow_share(
    topic: &Topic,
    share: Vec<(i32, i64)>,
    clock: Clock,
    goal: &Goal,
    read: &AtomicU64,
) -> Result<Vec<Arrival>, String> {
    let mut reader = Reader::new(topic, share)?;
    let mut arrivals = Vec::new();
    while !goal.reached(read.load(Ordering::Relaxed))? {
        let (mut at_ns, before) = (None, reader.records());
        reader.fetch(|partition, head| {
            let at_ns = *at_ns.get_or_insert_with(|| clock.now_ns());
            arrivals.push(Arrival { partition, base_offset: head.base_offset().0, at_ns });
        })?;
        read.fetch_add(reader.records() - before, Ordering::Relaxed);
    }
    Ok(arrivals)
}

/// Shows each record that arrived: when it was due, and when it was there, in nanoseconds since the load began.
pub fn each_record(places: &[Place], arrivals: &[Arrival], mut seen: impl FnMut(u64, u64)) {
    let by_offset: BTreeMap<(i32, i64), &Place> =
        places.iter().map(|place| ((place.partition, place.base_offset), place)).collect();
    for arrival in arrivals {
        let Some(place) = by_offset.get(&(arrival.partition, arrival.base_offset)) else { continue };
        for n in place.first..place.first + u64::from(place.records) {
            seen(place.schedule.due_ns(n), arrival.at_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::schedule::Schedule;

    #[test]
    fn every_record_of_a_batch_has_its_own_due_moment() {
        let schedule = Schedule { first_ns: 0.0, interval_ns: 1e6, records: 100 };
        let (sent_ns, acked_ns) = (12_000_000, 13_000_000);
        let places = [Place { partition: 1, base_offset: 50, records: 3, schedule, first: 10, sent_ns, acked_ns }];
        let arrivals = [
            Arrival { partition: 1, base_offset: 50, at_ns: 15_000_000 },
            Arrival { partition: 2, base_offset: 50, at_ns: 99_000_000 },
        ];
        let mut seen = Vec::new();
        each_record(&places, &arrivals, |due_ns, at_ns| seen.push((at_ns - due_ns) / 1_000_000));
        assert_eq!(seen, [5, 4, 3], "due at 10, 11 and 12 ms, there at 15 ms; the other batch was not sent by us");
    }

    #[test]
    fn a_goal_is_reached_only_when_it_was_told() {
        let goal = Goal::default();
        assert_eq!(goal.reached(u64::MAX), Ok(false));
        goal.tell(10);
        assert_eq!((goal.reached(9), goal.reached(10)), (Ok(false), Ok(true)));
        let late = Goal { told: OnceLock::from((10, Instant::now() - Duration::from_secs(1))) };
        assert!(late.reached(9).is_err(), "or a lost record would hold the run up for ever");
    }
}
