//! The few requests that the load needs, encoded by the protocol crate.

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ApiKey, CreateTopicsRequest, CreateTopicsResponse, ProduceRequest, ProduceResponse, RequestHeader,
        ResponseHeader, TopicName,
        create_topics_request::CreatableTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::{Decodable, Encodable, StrBytes},
    records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType},
};

/// The version of Produce that is sent: topics by name, flexible.
const PRODUCE: i16 = 9;
const CREATE_TOPICS: i16 = 5;
/// TOPIC_ALREADY_EXISTS.
const EXISTS: i16 = 36;
/// Where the correlation id stands in a frame: behind its length, the key and the version.
pub const CORRELATION_AT: usize = 8;

/// One record batch as Produce carries it. The bytes of its values do not compress.
pub fn batch(records: u32, record_bytes: u32) -> Result<Bytes, String> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let value = |state: &mut u64| -> Bytes {
        (0..record_bytes)
            .map(|_| {
                *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (*state >> 56) as u8
            })
            .collect()
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_err(|e| e.to_string())?;
    let records: Vec<Record> = (0..i64::from(records))
        .map(|offset| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: TimestampType::Creation,
            offset,
            // The encoder puts records into one batch while this grows with the offset; the batch's own is then -1, none.
            sequence: offset as i32 - 1,
            timestamp: now.as_millis() as i64,
            key: None,
            value: Some(value(&mut state)),
            headers: Default::default(),
        })
        .collect();
    let mut encoded = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut encoded, &records, &options).map_err(|e| e.to_string())?;
    Ok(encoded.freeze())
}

/// A frame: length, header, body.
fn frame(key: ApiKey, version: i16, body: &impl Encodable) -> Result<Vec<u8>, String> {
    let mut buf = BytesMut::new();
    let header = RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_client_id(Some(StrBytes::from_static_str("thalweg-perf")));
    header.encode(&mut buf, key.request_header_version(version)).map_err(|e| e.to_string())?;
    body.encode(&mut buf, version).map_err(|e| e.to_string())?;
    let length = u32::try_from(buf.len()).map_err(|_| "a request of more than 4 GiB".to_owned())?;
    Ok([&length.to_be_bytes(), &buf[..]].concat())
}

/// One Produce frame per partition, acks=all; the correlation id is left to the sender.
pub fn produce_frames(topic: &str, partitions: i32, batch: &Bytes) -> Result<Vec<Vec<u8>>, String> {
    let request = |partition| {
        let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch.clone()));
        let topic = TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data]);
        ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic])
    };
    (0..partitions).map(|partition| frame(ApiKey::Produce, PRODUCE, &request(partition))).collect()
}

/// The frame that creates the topic.
pub fn create_topic_frame(topic: &str, partitions: i32) -> Result<Vec<u8>, String> {
    let topic =
        CreatableTopic::default().with_name(name(topic)).with_num_partitions(partitions).with_replication_factor(-1);
    frame(
        ApiKey::CreateTopics,
        CREATE_TOPICS,
        &CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000),
    )
}

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

/// The error codes of a partition that is still being opened.
pub const NOT_OPEN: [i16; 2] = [3, 6];

/// The error code in an answer to [`produce_frames`], 0 for success.
pub fn produced(mut answer: Bytes) -> Result<i16, String> {
    let broken = |e| format!("an answer that does not decode: {e}");
    ResponseHeader::decode(&mut answer, ApiKey::Produce.response_header_version(PRODUCE))
        .map_err(|e| broken(e.to_string()))?;
    let body = ProduceResponse::decode(&mut answer, PRODUCE).map_err(|e| broken(e.to_string()))?;
    let partitions = body.responses.iter().flat_map(|topic| &topic.partition_responses);
    Ok(partitions.map(|partition| partition.error_code).find(|code| *code != 0).unwrap_or(0))
}

/// Checks an answer to [`create_topic_frame`]; a topic that is there already is fine.
pub fn check_created(mut answer: Bytes) -> Result<(), String> {
    let broken = |e| format!("an answer that does not decode: {e}");
    let version = ApiKey::CreateTopics.response_header_version(CREATE_TOPICS);
    ResponseHeader::decode(&mut answer, version).map_err(|e| broken(e.to_string()))?;
    let body = CreateTopicsResponse::decode(&mut answer, CREATE_TOPICS).map_err(|e| broken(e.to_string()))?;
    match body.topics.iter().map(|topic| topic.error_code).find(|code| *code != 0 && *code != EXISTS) {
        Some(code) => Err(format!("the topic cannot be created: error {code}")),
        None => Ok(()),
    }
}
