//! A topic that is ready for a load: created, and every partition has taken a record.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use kafka_protocol::messages::TopicName;

use super::{batch::batch, connection::Connection, wire};

/// How long a broker may take to open the partitions of a new topic.
const OPENS_WITHIN: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(20);
/// Partitions opened with one request.
const AT_ONCE: usize = 100;

/// A topic and where its partitions began when the load did.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Where the broker listens.
    pub bootstrap: String,
    /// Its name.
    pub name: TopicName,
    /// How many partitions it has.
    pub partitions: i32,
    /// The offset after the record that opened each partition.
    pub starts: Vec<i64>,
}

impl Topic {
    /// Creates the topic unless it is there, and sends one record to every partition, again until it is taken: some
    /// brokers open a new topic's partitions late.
    ///
    /// # Errors
    /// When the broker refuses, or does not open all partitions within two minutes.
    pub fn ready(bootstrap: &str, name: &str, partitions: i32) -> Result<Topic, String> {
        let name = wire::topic_name(name);
        let mut connection = Connection::open(bootstrap)?;
        wire::check_created(connection.ask(wire::create_topic(&name, partitions)?, 0)?)?;
        let mut starts: BTreeMap<i32, i64> = BTreeMap::new();
        let one = batch(1, 1)?;
        let deadline = Instant::now() + OPENS_WITHIN;
        while starts.len() < partitions as usize {
            let missing = (0..partitions).filter(|p| !starts.contains_key(p)).take(AT_ONCE);
            let request = wire::produce(&name, missing.map(|p| (p, one.clone())))?;
            let mut refused = false;
            for acked in wire::acked(connection.ask(request, 0)?)? {
                match acked.error {
                    0 => drop(starts.insert(acked.partition, acked.base_offset + 1)),
                    code if wire::SEND_AGAIN.contains(&code) && Instant::now() < deadline => refused = true,
                    code => return Err(format!("the broker refused a record with error {code}")),
                }
            }
            if refused {
                thread::sleep(PAUSE);
            }
        }
        let starts = starts.into_values().collect();
        Ok(Topic { bootstrap: bootstrap.to_owned(), name, partitions, starts })
    }

    /// A topic that is there, to be read from offset 0 on.
    pub fn existing(bootstrap: &str, name: &str, partitions: i32) -> Topic {
        let starts = vec![0; partitions.unsigned_abs() as usize];
        Topic { bootstrap: bootstrap.to_owned(), name: wire::topic_name(name), partitions, starts }
    }

    /// [`Topic::from_start`] among so many readers, as evenly as it goes; nobody's share is empty.
    pub fn shares(&self, readers: u16) -> Vec<Vec<(i32, i64)>> {
        let of = |n: u16| {
            let mine = |(partition, _): &(i32, i64)| partition % i32::from(readers) == i32::from(n);
            self.from_start().into_iter().filter(mine).collect::<Vec<_>>()
        };
        (0..readers).map(of).filter(|share| !share.is_empty()).collect()
    }

    /// Where each partition begins for a reader of what the load sends: (partition, offset).
    pub fn from_start(&self) -> Vec<(i32, i64)> {
        (0..self.partitions).zip(self.starts.iter().copied()).collect()
    }
}
