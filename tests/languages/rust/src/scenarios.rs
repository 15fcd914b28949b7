//! The scenarios with rskafka, which has neither groups nor idempotence, and one header for each name.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::{json, Map, Value};

use crate::library::client::error::{Error, ProtocolError};
use crate::library::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use crate::library::client::{Client, ClientBuilder};
use crate::library::record::Record;
use crate::sample;

/// What the command line says: SCENARIO BOOTSTRAP PREFIX EPOCH_MS CODECS.
struct Call {
    client: Client,
    prefix: String,
    epoch_ms: i64,
    codecs: Vec<String>,
}

pub fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let saw = runtime.block_on(async {
        let client = ClientBuilder::new(vec![arguments[2].clone()]).build().await.expect("a connection");
        let call = Call {
            client,
            prefix: arguments[3].clone(),
            epoch_ms: arguments[4].parse().expect("a time"),
            codecs: arguments[5].split(',').map(str::to_owned).collect(),
        };
        match arguments[1].as_str() {
            "admin" => call.admin().await,
            "codecs" => call.codecs().await,
            "seek-by-time" => call.seek_by_time().await,
            "large-messages" => call.large_messages().await,
            "headers" => call.headers().await,
            "tombstones" => call.tombstones().await,
            other => panic!("no scenario {other}"),
        }
    });
    println!("{saw}");
}

fn compression(codec: &str) -> Compression {
    match codec {
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        _ => Compression::NoCompression,
    }
}

/// The protocol's number of an error; 0 for none.
fn code<T>(answer: Result<T, Error>) -> i16 {
    match answer {
        Ok(_) => 0,
        Err(Error::ServerError { protocol_error, .. }) => {
            (1..200).find(|&code| ProtocolError::new(code) == Some(protocol_error)).expect("a code")
        }
        Err(other) => panic!("{other}"),
    }
}

fn time(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).expect("a time")
}

fn plain(key: Option<&str>, value: Option<Vec<u8>>, timestamp_ms: i64) -> Record {
    let key = key.map(|key| key.as_bytes().to_vec());
    Record { key, value, headers: Default::default(), timestamp: time(timestamp_ms) }
}

impl Call {
    async fn partition(&self, topic: &str, partition: i32) -> PartitionClient {
        self.client.partition_client(topic, partition, UnknownTopicHandling::Retry).await.expect("a partition")
    }

    fn sample(&self, number: u32) -> Record {
        Record {
            key: sample::key(number),
            value: sample::value(number),
            headers: sample::headers(number),
            timestamp: time(self.epoch_ms + 10 * i64::from(number)),
        }
    }

    async fn read_all(&self, topic: &str, partitions: i32, max_bytes: i32) -> Vec<Value> {
        let mut seen = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(60);
        for index in 0..partitions {
            let partition = self.partition(topic, index).await;
            let end = partition.get_offset(OffsetAt::Latest).await.expect("the end");
            let mut offset = 0;
            while offset < end {
                assert!(Instant::now() < deadline, "{offset} of {end} came");
                let (records, _) = partition.fetch_records(offset, 1..max_bytes, 500).await.expect("records");
                for read in records {
                    let at = (index, read.offset, read.record.timestamp.timestamp_millis());
                    seen.push(sample::seen(
                        at,
                        read.record.key.as_ref(),
                        read.record.value.as_ref(),
                        &read.record.headers,
                    ));
                    offset = read.offset + 1;
                }
            }
        }
        seen
    }

    async fn partitions(&self, topic: &str) -> Option<usize> {
        let topics = self.client.list_topics().await.expect("topics");
        topics.iter().find(|found| found.name == topic).map(|found| found.partitions.len())
    }

    /// The number of partitions as soon as it is `wanted`, or after 10 s.
    async fn partitions_until(&self, topic: &str, wanted: Option<usize>) -> Option<usize> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let found = self.partitions(topic).await;
            if found == wanted || Instant::now() > deadline {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn admin(&self) -> Value {
        let topic = format!("{}-admin", self.prefix);
        let controller = self.client.controller_client().expect("a controller");
        let created = code(controller.create_topic(&topic, 3, 1, 10_000).await);
        let again = code(controller.create_topic(&topic, 3, 1, 10_000).await);
        let bad_name = code(controller.create_topic("no spaces", 3, 1, 10_000).await);
        let partitions = self.partitions_until(&topic, Some(3)).await;
        let listed = self.partitions(&topic).await.is_some();
        controller.delete_topic(&topic, 10_000).await.expect("deleted");
        let after = self.partitions_until(&topic, None).await.is_some();
        json!({
            "created": created, "again": again, "bad name": bad_name, "partitions": partitions, "listed": listed,
            "listed after deletion": after,
        })
    }

    async fn codecs(&self) -> Value {
        let mut read = Map::new();
        for codec in &self.codecs {
            let topic = format!("{}-codecs-{codec}", self.prefix);
            for index in 0..3 {
                let records = (0..300).filter(|n| n % 3 == index).map(|n| self.sample(n)).collect();
                let partition = self.partition(&topic, index as i32).await;
                partition.produce(records, compression(codec)).await.expect("produced");
            }
            read.insert(codec.clone(), json!(self.read_all(&topic, 3, 1 << 20).await));
        }
        json!({ "read": read })
    }

    async fn seek_by_time(&self) -> Value {
        let partition = self.partition(&format!("{}-seek-by-time", self.prefix), 0).await;
        let records =
            (0..600).map(|n| plain(None, Some(format!("t{n}").into_bytes()), self.epoch_ms + 10 * (n / 3))).collect();
        partition.produce(records, Compression::NoCompression).await.expect("produced");
        let mut offsets = Vec::new();
        for after in [-self.epoch_ms, 1, 11, 510, 995, 1990, 1991] {
            let at = crate::at_time(time(self.epoch_ms + after));
            let at = partition.get_offset(at).await.expect("an offset");
            offsets.push((at >= 0).then_some(at));
        }
        let (records, _) = partition.fetch_records(offsets[4].expect("found"), 1..1_000, 500).await.expect("records");
        let first = String::from_utf8(records[0].record.value.clone().expect("a value")).expect("text");
        let low = partition.get_offset(OffsetAt::Earliest).await.expect("the beginning");
        let high = partition.get_offset(OffsetAt::Latest).await.expect("the end");
        json!({ "offsets": offsets, "first": first, "ends": [low, high] })
    }

    async fn large_messages(&self) -> Value {
        let topic = format!("{}-large-messages", self.prefix);
        let partition = self.partition(&topic, 0).await;
        for codec in ["none", "gzip"] {
            for n in 0..2 {
                let record = plain(Some("large"), Some(sample::noise(n, 3_000_000)), self.epoch_ms + i64::from(n));
                partition.produce(vec![record], compression(codec)).await.expect("produced");
            }
        }
        let small = self.partition(&format!("{topic}-small"), 0).await;
        let record = plain(None, Some(sample::noise(2, 200_000)), self.epoch_ms);
        let refused = code(small.produce(vec![record], Compression::NoCompression).await);
        json!({ "records": self.read_all(&topic, 1, 100_000).await, "refused": refused })
    }

    async fn headers(&self) -> Value {
        let topic = format!("{}-headers", self.prefix);
        let records = (0..100).map(|n| self.sample(n)).collect();
        self.partition(&topic, 0).await.produce(records, Compression::NoCompression).await.expect("produced");
        json!({ "own": self.read_all(&topic, 1, 1 << 20).await })
    }

    async fn tombstones(&self) -> Value {
        let topic = format!("{}-tombstones", self.prefix);
        let partition = self.partition(&topic, 0).await;
        let values = [None, Some(Vec::new()), Some(b"x".to_vec())];
        let records =
            (0..30).map(|n| plain(Some(&format!("k{n}")), values[n % 3].clone(), self.epoch_ms + n as i64)).collect();
        partition.produce(records, Compression::NoCompression).await.expect("produced");
        let record = plain(None, Some(b"x".to_vec()), self.epoch_ms);
        let refused = code(partition.produce(vec![record], Compression::NoCompression).await);
        json!({ "records": self.read_all(&topic, 1, 1 << 20).await, "refused": refused })
    }
}
