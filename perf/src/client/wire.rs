//! The few requests that the load needs, encoded by the protocol crate.

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ApiKey, CreateTopicsRequest, CreateTopicsResponse, FetchRequest, ProduceRequest, ProduceResponse,
        RequestHeader, ResponseHeader, TopicName,
        create_topics_request::CreatableTopic,
        fetch_request::{FetchPartition, FetchTopic},
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::{Decodable, Encodable, StrBytes},
};

/// The version of Produce that is sent: topics by name, flexible.
const PRODUCE: i16 = 9;
/// The last version of Fetch whose lengths are not varints: simple to read by hand.
const FETCH: i16 = 11;
const CREATE_TOPICS: i16 = 5;
/// TOPIC_ALREADY_EXISTS.
const EXISTS: i16 = 36;
/// Where the correlation id stands in a frame: behind its length, the key and the version.
pub const CORRELATION_AT: usize = 8;
/// Error codes after which a client sends a batch again: unknown topic, not the leader, timed out, log full (19, 20).
pub const SEND_AGAIN: [i16; 5] = [3, 6, 7, 19, 20];

/// What clients ask for in a fetch unless told otherwise.
const FETCH_MAX_BYTES: i32 = 50 << 20;
const FETCH_PARTITION_MAX_BYTES: i32 = 1 << 20;
const FETCH_MAX_WAIT_MS: i32 = 500;

/// A topic's name as the protocol crate has it.
pub fn topic_name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

/// A frame: length, header, body; the correlation id is left to the sender.
fn frame(key: ApiKey, version: i16, body: &impl Encodable) -> Result<Vec<u8>, String> {
    let mut buf = BytesMut::from(&[0_u8; 4][..]);
    let header = RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_client_id(Some(StrBytes::from_static_str("thalweg-perf")));
    header.encode(&mut buf, key.request_header_version(version)).map_err(|e| e.to_string())?;
    body.encode(&mut buf, version).map_err(|e| e.to_string())?;
    let length = u32::try_from(buf.len() - 4).map_err(|_| "a request of more than 4 GiB".to_owned())?;
    buf[..4].copy_from_slice(&length.to_be_bytes());
    Ok(buf.into())
}

/// A Produce frame with one batch for each partition named, acks=all.
///
/// # Errors
/// When it cannot be encoded.
pub fn produce(topic: &TopicName, parts: impl Iterator<Item = (i32, Bytes)>) -> Result<Vec<u8>, String> {
    let data = |(partition, batch)| PartitionProduceData::default().with_index(partition).with_records(Some(batch));
    let topic = TopicProduceData::default().with_name(topic.clone()).with_partition_data(parts.map(data).collect());
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic]);
    frame(ApiKey::Produce, PRODUCE, &request)
}

/// What became of one batch of a Produce request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Acked {
    /// The partition.
    pub partition: i32,
    /// The error code, 0 for none.
    pub error: i16,
    /// Offset of the batch's first record.
    pub base_offset: i64,
}

/// The answer to [`produce`], in request order.
///
/// # Errors
/// When it does not decode.
pub fn acked(answer: &[u8]) -> Result<Vec<Acked>, String> {
    let mut answer = Bytes::copy_from_slice(answer);
    header(&mut answer, ApiKey::Produce, PRODUCE)?;
    let body = ProduceResponse::decode(&mut answer, PRODUCE).map_err(broken)?;
    let partitions = body.responses.iter().flat_map(|topic| &topic.partition_responses);
    Ok(partitions.map(|p| Acked { partition: p.index, error: p.error_code, base_offset: p.base_offset }).collect())
}

/// A Fetch frame that asks for each partition from its offset on, with the limits that clients have by default.
///
/// # Errors
/// When it cannot be encoded.
pub fn fetch(topic: &TopicName, positions: &[(i32, i64)]) -> Result<Vec<u8>, String> {
    let from = |&(partition, offset): &(i32, i64)| {
        FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(FETCH_PARTITION_MAX_BYTES)
    };
    let topic = FetchTopic::default().with_topic(topic.clone()).with_partitions(positions.iter().map(from).collect());
    let request = FetchRequest::default()
        .with_max_wait_ms(FETCH_MAX_WAIT_MS)
        .with_min_bytes(1)
        .with_max_bytes(FETCH_MAX_BYTES)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    frame(ApiKey::Fetch, FETCH, &request)
}

/// The frame that creates a topic.
///
/// # Errors
/// When it cannot be encoded.
pub fn create_topic(topic: &TopicName, partitions: i32) -> Result<Vec<u8>, String> {
    let topic =
        CreatableTopic::default().with_name(topic.clone()).with_num_partitions(partitions).with_replication_factor(-1);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(60_000);
    frame(ApiKey::CreateTopics, CREATE_TOPICS, &request)
}

/// Checks the answer to [`create_topic`]; a topic that is there already is fine.
///
/// # Errors
/// When the broker refused, or its answer does not decode.
pub fn check_created(answer: &[u8]) -> Result<(), String> {
    let mut answer = Bytes::copy_from_slice(answer);
    header(&mut answer, ApiKey::CreateTopics, CREATE_TOPICS)?;
    let body = CreateTopicsResponse::decode(&mut answer, CREATE_TOPICS).map_err(broken)?;
    match body.topics.iter().map(|topic| topic.error_code).find(|code| *code != 0 && *code != EXISTS) {
        Some(code) => Err(format!("the topic cannot be created: error {code}")),
        None => Ok(()),
    }
}

/// ApiVersions v0, which every broker answers: length, key 18, version 0, correlation id 0, no client id.
pub const API_VERSIONS: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

fn header(answer: &mut Bytes, key: ApiKey, version: i16) -> Result<(), String> {
    ResponseHeader::decode(answer, key.response_header_version(version)).map(|_| ()).map_err(broken)
}

fn broken(why: impl std::fmt::Display) -> String {
    format!("an answer that does not decode: {why}")
}
