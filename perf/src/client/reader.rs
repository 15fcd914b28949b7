//! A consumer without a group: fetches some partitions from given offsets on, and looks at the heads of the batches.

use std::{
    thread,
    time::{Duration, Instant},
};

use kafka_protocol::messages::TopicName;
use thalweg_record::BatchHead;

use super::{connection::Connection, fetched, topic::Topic, wire};

const PAUSE: Duration = Duration::from_millis(20);

/// One consumer on one connection.
pub struct Reader {
    connection: Connection,
    topic: TopicName,
    /// Partition and next offset, by partition.
    positions: Vec<(i32, i64)>,
    /// High watermark of each, as last heard; `None` before the first answer.
    ends: Vec<Option<i64>>,
    correlation: i32,
    records: u64,
}

impl Reader {
    /// Connects; `positions` are the partitions to read and their first offsets, by partition.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    pub fn new(topic: &Topic, positions: Vec<(i32, i64)>) -> Result<Reader, String> {
        let connection = Connection::open(&topic.bootstrap)?;
        let ends = vec![None; positions.len()];
        Ok(Reader { connection, topic: topic.name.clone(), positions, ends, correlation: 0, records: 0 })
    }

    /// Records read so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Partition and next offset, by partition.
    pub fn positions(&self) -> &[(i32, i64)] {
        &self.positions
    }

    /// Whether all has been read that was there at the last answer.
    pub fn caught_up(&self) -> bool {
        self.positions.iter().zip(&self.ends).all(|((_, next), end)| end.is_some_and(|end| *next >= end))
    }

    /// Fetches once, waiting up to half a second for records, and shows the head of each batch with its partition.
    ///
    /// # Errors
    /// When the connection breaks, the broker refuses, or an offset is missing.
    pub fn fetch(&mut self, mut seen: impl FnMut(i32, &BatchHead)) -> Result<(), String> {
        self.correlation = (self.correlation + 1) & i32::MAX;
        let request = wire::fetch(&self.topic, &self.positions)?;
        let answer = self.connection.ask(request, self.correlation)?;
        let (positions, ends, records) = (&mut self.positions, &mut self.ends, &mut self.records);
        let mut again = false;
        fetched::parts(answer, |part| {
            let asked = positions.binary_search_by_key(&part.partition, |(partition, _)| *partition);
            let at = asked.map_err(|_| format!("partition {} was not asked for", part.partition))?;
            match part.error {
                0 => {}
                code if wire::SEND_AGAIN.contains(&code) => again = true,
                code => return Err(format!("partition {}: the fetch was refused with error {code}", part.partition)),
            }
            ends[at] = Some(part.high_watermark);
            for head in fetched::heads(part.records) {
                *records += advance(&mut positions[at], &head)?;
                seen(part.partition, &head);
            }
            Ok(())
        })?;
        if again {
            thread::sleep(PAUSE);
        }
        Ok(())
    }
}

/// Moves a position past a batch, and says how many of its records are new.
fn advance((partition, next): &mut (i32, i64), head: &BatchHead) -> Result<u64, String> {
    let (base, last) = (head.base_offset().0, head.last_offset().0);
    if base > *next {
        return Err(format!("partition {partition}: offsets {next} to {} are missing", base - 1));
    }
    let new = (last + 1 - *next).max(0);
    *next += new;
    Ok(new.unsigned_abs())
}

/// What some readers have read.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// From the first fetch to the last record.
    pub seconds: f64,
    /// Records read.
    pub records: u64,
}

/// Reads all that is there, from `topic.starts` on, on some connections that share the partitions.
///
/// # Errors
/// As [`Reader::fetch`].
pub fn catch_up(topic: &Topic, connections: u16) -> Result<Read, String> {
    let began = Instant::now();
    let read: Result<Vec<u64>, String> = thread::scope(|threads| {
        let started: Vec<_> = topic
            .shares(connections)
            .into_iter()
            .map(|share| {
                threads.spawn(move || {
                    let mut reader = Reader::new(topic, share)?;
                    while !reader.caught_up() {
                        reader.fetch(|_, _| {})?;
                    }
                    Ok(reader.records())
                })
            })
            .collect();
        started.into_iter().map(|thread| thread.join().expect("a reader does not panic")).collect()
    });
    Ok(Read { seconds: began.elapsed().as_secs_f64(), records: read?.into_iter().sum() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(base: i64, records: i32) -> BatchHead {
        let mut head = BatchHead([0; thalweg_record::HEAD_LEN]);
        head.0[..8].copy_from_slice(&base.to_be_bytes());
        head.set_last_offset_delta(records - 1);
        head
    }

    #[test]
    fn a_position_moves_by_what_is_new() {
        let mut position = (0, 10);
        assert_eq!(advance(&mut position, &head(10, 5)), Ok(5));
        assert_eq!(advance(&mut position, &head(12, 5)), Ok(2), "three of five were seen");
        assert_eq!(advance(&mut position, &head(0, 3)), Ok(0), "an old batch");
        assert_eq!(position, (0, 17));
    }

    #[test]
    fn a_gap_is_an_error() {
        assert!(advance(&mut (0, 10), &head(11, 5)).is_err());
    }
}
