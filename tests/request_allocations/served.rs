//! The broker in this process, as `thalweg serve` runs it, and one client that asks one thing after the other.

use std::{net::SocketAddr, thread::JoinHandle};

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        CreateTopicsRequest, FetchRequest, ProduceRequest,
        create_topics_request::CreatableTopic,
        fetch_request::{FetchPartition, FetchTopic},
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::{Request, StrBytes},
};
use tempfile::TempDir;
use thalweg::{
    broker::{self, Ports, StartError},
    config::Config,
};
use thalweg_rig::{Client, encoded};
use uuid::Uuid;

/// Partitions of the one topic.
pub const PARTITIONS: i32 = 16;
/// Both name topics by id.
const PRODUCE_VERSION: i16 = 13;
const FETCH_VERSION: i16 = 13;
const NEVER_MS: &str = "3600000000";

/// A broker, and a connection to it.
pub struct Served {
    stop: flume::Sender<()>,
    running: JoinHandle<Result<(), StartError>>,
    client: Client,
    topic: Uuid,
    _place: TempDir,
}

impl Served {
    /// Starts the one broker that a process can have. What it does by the clock, it does long after the test.
    pub fn start() -> Served {
        let place = thalweg_rig::place(env!("CARGO_TARGET_TMPDIR"));
        let data = place.path().join("data").display().to_string();
        let config = Config::with(&[
            ("data.dir", &data),
            ("listeners", "127.0.0.1:0"),
            ("http.listen", ""),
            ("shards", "2"),
            ("wal.capacity.bytes", "2147483648"),
            // Groups leave it soon, so that their buffers are those that glommio has registered for I/O, again and again; beyond them it takes the heap.
            ("cache.tail.bytes", "1048576"),
            ("object.upload.bytes", "1073741824"),
            ("object.upload.interval.ms", NEVER_MS),
            ("metadata.snapshot.interval.ms", NEVER_MS),
            ("log.retention.check.interval.ms", NEVER_MS),
            ("object.compaction.enable", "false"),
            ("log.cleaner.enable", "false"),
        ]);
        let config = config.unwrap_or_else(|problems| panic!("{problems}"));
        let (stop, told) = flume::bounded(1);
        let (ready, serves) = flume::bounded(1);
        let running = std::thread::spawn(move || {
            broker::serve(config, &Ports::default(), false, &told, |it| {
                ready.send(it.kafka[0]).expect("the test waits")
            })
        });
        let Ok(address) = serves.recv() else {
            panic!("the broker did not start: {:?}", running.join().expect("no panic"));
        };
        let (client, topic) = connect(address);
        Served { stop, running, client, topic, _place: place }
    }

    /// Ends the broker in order.
    pub fn stop(self) {
        self.stop.send(()).expect("it serves");
        self.running.join().expect("no panic").expect("an orderly end");
    }

    /// A Produce of one batch to each of the first so many partitions.
    pub fn produce(&self, batch: &Bytes, partitions: i32) -> Asking {
        let part = |index| PartitionProduceData::default().with_index(index).with_records(Some(batch.clone()));
        let topic = TopicProduceData::default().with_topic_id(self.topic);
        let topic = topic.with_partition_data((0..partitions).map(part).collect());
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic]);
        Asking { body: encoded(&request, PRODUCE_VERSION), partitions: partitions as usize }
    }

    /// Sends it, and waits until it is durable; the first offset in the first partition.
    pub fn produced(&mut self, asking: &Asking) -> i64 {
        let answer = self.answer::<ProduceRequest>(PRODUCE_VERSION, &asking.body);
        let parts = &answer.responses[0].partition_responses;
        assert_eq!(parts.len(), asking.partitions);
        parts.iter().for_each(|part| assert_eq!(part.error_code, 0, "partition {}", part.index));
        parts[0].base_offset
    }

    /// A Fetch of the first partition from `offset` on.
    pub fn fetch(&self, offset: i64) -> Bytes {
        let from =
            FetchPartition::default().with_partition(0).with_fetch_offset(offset).with_partition_max_bytes(1 << 20);
        let topic = FetchTopic::default().with_topic_id(self.topic).with_partitions(vec![from]);
        let request = FetchRequest::default().with_max_wait_ms(0).with_min_bytes(1).with_max_bytes(1 << 20);
        encoded(&request.with_topics(vec![topic]), FETCH_VERSION)
    }

    /// Sends it; the bytes of records that come.
    pub fn fetched(&mut self, body: &Bytes) -> usize {
        let answer = self.answer::<FetchRequest>(FETCH_VERSION, body);
        let part = &answer.responses[0].partitions[0];
        assert_eq!((answer.error_code, part.error_code), (0, 0));
        part.records.as_ref().map_or(0, Bytes::len)
    }

    fn answer<R: Request>(&mut self, version: i16, body: &[u8]) -> R::Response {
        let sent = self.client.send_body(R::KEY, version, body).expect("sent");
        let (correlation, answer) = self.client.receive::<R>(version).expect("answered");
        assert_eq!(correlation, sent);
        answer
    }
}

/// A Produce as it is sent again and again.
pub struct Asking {
    body: Bytes,
    partitions: usize,
}

/// A connection, and the topic.
fn connect(to: SocketAddr) -> (Client, Uuid) {
    let mut client = Client::connect(to).expect("connected");
    let name = StrBytes::from_static_str("counted");
    let topic = CreatableTopic::default().with_name(name.into()).with_num_partitions(PARTITIONS);
    let request = CreateTopicsRequest::default().with_topics(vec![topic.with_replication_factor(-1)]);
    let answer = client.ask(7, &request.with_timeout_ms(10_000)).expect("answered");
    assert_eq!(answer.topics[0].error_code, 0, "{:?}", answer.topics[0].error_message);
    (client, answer.topics[0].topic_id)
}
