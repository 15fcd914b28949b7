//! The healthy client beside the bad ones: on one connection it produces a record and fetches it back, over and over.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        CreateTopicsRequest, FetchRequest, ProduceRequest, TopicName,
        create_topics_request::CreatableTopic,
        fetch_request::{FetchPartition, FetchTopic},
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::StrBytes,
};

use crate::{Client, batch};

/// Pause between two rounds: the pulse is no load.
const PAUSE: Duration = Duration::from_millis(5);
/// A round that takes longer ends the pulse.
const PATIENCE: Duration = Duration::from_secs(60);
/// Partitions of its topic, so that every shard is asked.
const PARTITIONS: i32 = 4;

/// A healthy client at work on a thread of its own.
#[derive(Debug)]
pub struct Pulse {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    thread: JoinHandle<io::Result<Report>>,
}

/// How the healthy client fared.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Records produced and fetched back.
    pub rounds: usize,
    /// The longest round.
    pub worst: Duration,
}

impl Pulse {
    /// Creates `topic`, and begins.
    pub fn start(broker: SocketAddr, topic: &str) -> Pulse {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut client = Client::connect(broker).expect("a healthy client is let in");
        client.patience(PATIENCE);
        let name = TopicName(StrBytes::from_string(topic.to_owned()));
        let create = CreatableTopic::default().with_name(name.clone());
        let create = create.with_num_partitions(PARTITIONS).with_replication_factor(-1);
        let answer = client.ask(5, &CreateTopicsRequest::default().with_topics(vec![create]).with_timeout_ms(30_000));
        assert_eq!(answer.expect("an answer").topics[0].error_code, 0, "the healthy client's topic is created");
        let (told, counted) = (stop.clone(), rounds.clone());
        let thread = thread::spawn(move || beat(&mut client, &name, &told, &counted));
        Pulse { stop, rounds, thread }
    }

    /// Rounds done so far.
    pub fn rounds(&self) -> usize {
        self.rounds.load(Ordering::Relaxed)
    }

    /// Stops, and tells how it was; panics when the healthy client was hurt.
    pub fn finish(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let report = self.thread.join().expect("the healthy client's records came back");
        let report = report.unwrap_or_else(|error| panic!("the healthy client was hurt: {error}"));
        assert!(report.rounds > 0, "the healthy client had no round");
        report
    }
}

fn beat(client: &mut Client, topic: &TopicName, stop: &AtomicBool, rounds: &AtomicUsize) -> io::Result<Report> {
    let mut report = Report { rounds: 0, worst: Duration::ZERO };
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let partition = (report.rounds % PARTITIONS as usize) as i32;
        let value = format!("round {} of the healthy client", report.rounds);
        let offset = produce(client, topic, partition, batch::plain(&[value.as_bytes()]))?;
        let records = fetch(client, topic, partition, offset)?;
        let found = records.windows(value.len()).any(|window| window == value.as_bytes());
        assert!(found, "{value}: offset {offset} of partition {partition} holds {} other bytes", records.len());
        report.worst = report.worst.max(began.elapsed());
        report.rounds += 1;
        rounds.store(report.rounds, Ordering::Relaxed);
        thread::sleep(PAUSE);
    }
    Ok(report)
}

/// Produces until it is taken: 19 (the log is full for a moment) may be tried again.
fn produce(client: &mut Client, topic: &TopicName, partition: i32, records: Bytes) -> io::Result<i64> {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    let data = TopicProduceData::default().with_name(topic.clone()).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![data]);
    loop {
        let answer = client.ask(9, &request)?;
        let partition = &answer.responses[0].partition_responses[0];
        match partition.error_code {
            0 => return Ok(partition.base_offset),
            19 => thread::sleep(PAUSE),
            code => panic!("the healthy client's record was refused with {code}"),
        }
    }
}

/// Fetches until the record is there: with little room an answer may be empty.
fn fetch(client: &mut Client, topic: &TopicName, partition: i32, offset: i64) -> io::Result<Bytes> {
    let from = FetchPartition::default().with_partition(partition).with_fetch_offset(offset);
    let from = from.with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(topic.clone()).with_partitions(vec![from]);
    let request = FetchRequest::default().with_replica_id((-1).into()).with_max_wait_ms(500).with_min_bytes(1);
    let request = request.with_max_bytes(1 << 20).with_topics(vec![topic]);
    loop {
        let answer = client.ask(12, &request)?;
        let part = &answer.responses[0].partitions[0];
        assert_eq!(part.error_code, 0, "the healthy client fetches what it produced");
        match part.records.clone() {
            Some(records) if !records.is_empty() => return Ok(records),
            _ => {}
        }
    }
}
