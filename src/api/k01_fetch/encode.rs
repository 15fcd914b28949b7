//! The answer's bytes: the skeleton is written here, records are spliced in as the slices they came in.
//!
//! The protocol crate copies records into its buffer; a fetch answer is nearly all records. So the few fields around
//! them are written by hand, and the tests hold them against the crate's bytes in every version.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{BrokerId, TopicName, fetch_response::NodeEndpoint},
    protocol::{Encodable, StrBytes},
};
use thalweg_record::TopicId;

use super::session::Told;
use crate::api::{ErrorTally, Response, errors::NONE};

/// Records shorter than this are copied into the skeleton: a copy is cheaper than a write of its own.
const SPLICE_FROM_BYTES: usize = 16 << 10;

/// First version with compact lengths and tagged fields.
const FLEXIBLE: i16 = 12;

/// One partition's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PartAnswer {
    pub index: i32,
    pub error: i16,
    pub high_watermark: i64,
    pub last_stable: i64,
    pub log_start: i64,
    /// Aborted transactions (producer id, first offset); `None` is null, for read_uncommitted.
    pub aborted: Option<Vec<(i64, i64)>>,
    /// Whole batches in offset order.
    pub records: Vec<Bytes>,
    /// Leader id and epoch, where the error says that the client's are wrong (KIP-951).
    pub leader: Option<(i32, i32)>,
}

impl PartAnswer {
    /// A partition in error: no watermarks, and empty records that are not null.
    pub fn refused(index: i32, error: i16) -> PartAnswer {
        PartAnswer {
            index,
            error,
            high_watermark: -1,
            last_stable: -1,
            log_start: -1,
            aborted: None,
            records: Vec::new(),
            leader: None,
        }
    }

    /// What a session remembers of it.
    pub fn told(&self) -> Told {
        Told {
            high_watermark: self.high_watermark,
            log_start: self.log_start,
            in_error: self.error != NONE,
            has_records: self.records.iter().any(|piece| !piece.is_empty()),
        }
    }

    /// Length of its records in bytes.
    pub fn records_bytes(&self) -> usize {
        self.records.iter().map(Bytes::len).sum()
    }
}

/// One topic's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct TopicAnswer {
    pub name: TopicName,
    pub id: TopicId,
    pub parts: Vec<PartAnswer>,
}

/// A broker that [`PartAnswer::leader`] names.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub node: i32,
    pub host: Arc<str>,
    pub port: u16,
}

/// The body in pieces, its error codes counted. `endpoint` is sent from v16 on when some partition names a leader.
pub(super) fn encode(
    version: i16,
    error: i16,
    session: i32,
    topics: Vec<TopicAnswer>,
    endpoint: Option<&Endpoint>,
) -> Response {
    let endpoint =
        endpoint.filter(|_| version >= 16 && topics.iter().flat_map(|t| &t.parts).any(|p| p.leader.is_some()));
    let mut body = Writer { version, pieces: Vec::new(), open: BytesMut::new(), errors: ErrorTally::default() };
    body.errors.add(error);
    body.open.put_i32(0); // throttle_time_ms
    if version >= 7 {
        body.open.put_i16(error);
        body.open.put_i32(session);
    }
    body.array_len(topics.len());
    for topic in topics {
        body.topic(topic);
    }
    if version >= FLEXIBLE {
        match endpoint {
            None => body.open.put_u8(0),
            Some(endpoint) => body.endpoint_tag(endpoint),
        }
    }
    body.finish()
}

struct Writer {
    version: i16,
    pieces: Vec<Bytes>,
    open: BytesMut,
    errors: ErrorTally,
}

impl Writer {
    fn topic(&mut self, topic: TopicAnswer) {
        if self.version >= 13 {
            self.open.put_slice(&topic.id.0);
        } else {
            self.string(&topic.name);
        }
        self.array_len(topic.parts.len());
        for part in topic.parts {
            self.part(part);
        }
        self.no_tags();
    }

    fn part(&mut self, part: PartAnswer) {
        self.errors.add(part.error);
        self.open.put_i32(part.index);
        self.open.put_i16(part.error);
        self.open.put_i64(part.high_watermark);
        self.open.put_i64(part.last_stable);
        if self.version >= 5 {
            self.open.put_i64(part.log_start);
        }
        match &part.aborted {
            None if self.version >= FLEXIBLE => self.varint(0),
            None => self.open.put_i32(-1),
            Some(aborted) => {
                self.array_len(aborted.len());
                for (producer_id, first_offset) in aborted {
                    self.open.put_i64(*producer_id);
                    self.open.put_i64(*first_offset);
                    self.no_tags();
                }
            }
        }
        if self.version >= 11 {
            self.open.put_i32(-1); // preferred_read_replica: none
        }
        self.array_len(part.records_bytes());
        part.records.into_iter().for_each(|piece| self.splice(piece));
        match part.leader {
            Some((id, epoch)) if self.version >= FLEXIBLE => {
                self.open.put_slice(&[1, 1, 9]); // one tag: current_leader, of 9 bytes
                self.open.put_i32(id);
                self.open.put_i32(epoch);
                self.no_tags();
            }
            _ => self.no_tags(),
        }
    }

    fn endpoint_tag(&mut self, endpoint: &Endpoint) {
        let node = NodeEndpoint::default()
            .with_node_id(BrokerId(endpoint.node))
            .with_host(StrBytes::from_string(endpoint.host.to_string()))
            .with_port(i32::from(endpoint.port));
        let mut encoded = BytesMut::new();
        node.encode(&mut encoded, self.version).expect("our own answer fits the schema");
        self.open.put_slice(&[1, 0]); // one tag: node_endpoints
        self.varint(encoded.len() as u32 + 1);
        self.open.put_u8(2); // an array of one
        self.open.put_slice(&encoded);
    }

    fn string(&mut self, text: &str) {
        match self.version >= FLEXIBLE {
            true => self.varint(text.len() as u32 + 1),
            false => self.open.put_i16(i16::try_from(text.len()).expect("a topic name has at most 249 bytes")),
        }
        self.open.put_slice(text.as_bytes());
    }

    /// The length before an array, or before records.
    fn array_len(&mut self, len: usize) {
        let len = i32::try_from(len).expect("an answer is bounded far below 2 GiB");
        match self.version >= FLEXIBLE {
            true => self.varint(len as u32 + 1),
            false => self.open.put_i32(len),
        }
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.open.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.open.put_u8(value as u8);
    }

    fn no_tags(&mut self) {
        if self.version >= FLEXIBLE {
            self.open.put_u8(0);
        }
    }

    fn splice(&mut self, piece: Bytes) {
        if piece.len() < SPLICE_FROM_BYTES {
            self.open.put_slice(&piece);
        } else {
            self.pieces.push(self.open.split().freeze());
            self.pieces.push(piece);
        }
    }

    fn finish(mut self) -> Response {
        if !self.open.is_empty() {
            self.pieces.push(self.open.freeze());
        }
        Response::from_pieces(self.pieces, self.errors)
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{
        FetchResponse, ProducerId,
        fetch_response::{AbortedTransaction, FetchableTopicResponse, LeaderIdAndEpoch, PartitionData},
    };
    use uuid::Uuid;

    use super::*;

    fn by_the_crate(version: i16, error: i16, topics: &[TopicAnswer], endpoint: &Endpoint) -> Vec<u8> {
        let part = |p: &PartAnswer| {
            let aborted = |(id, first): &(i64, i64)| {
                AbortedTransaction::default().with_producer_id(ProducerId(*id)).with_first_offset(*first)
            };
            let mut data = PartitionData::default()
                .with_partition_index(p.index)
                .with_error_code(p.error)
                .with_high_watermark(p.high_watermark)
                .with_last_stable_offset(p.last_stable)
                .with_log_start_offset(p.log_start)
                .with_aborted_transactions(p.aborted.as_ref().map(|list| list.iter().map(aborted).collect()))
                .with_records(Some(Bytes::from(p.records.concat())));
            if let Some((id, epoch)) = p.leader.filter(|_| version >= 12) {
                data.current_leader = LeaderIdAndEpoch::default().with_leader_id(BrokerId(id)).with_leader_epoch(epoch);
            }
            data
        };
        let topic = |t: &TopicAnswer| {
            let answer = FetchableTopicResponse::default().with_partitions(t.parts.iter().map(part).collect());
            match version >= 13 {
                true => answer.with_topic_id(Uuid::from_bytes(t.id.0)),
                false => answer.with_topic(t.name.clone()),
            }
        };
        let mut answer =
            FetchResponse::default().with_error_code(error).with_responses(topics.iter().map(topic).collect());
        if version >= 7 {
            answer.session_id = 1 << 30;
        }
        if version >= 16 {
            answer.node_endpoints = vec![
                NodeEndpoint::default()
                    .with_node_id(BrokerId(endpoint.node))
                    .with_host(StrBytes::from_string(endpoint.host.to_string()))
                    .with_port(i32::from(endpoint.port)),
            ];
        }
        let mut bytes = BytesMut::new();
        answer.encode(&mut bytes, version).expect("encodable");
        bytes.to_vec()
    }

    fn sample() -> Vec<TopicAnswer> {
        let big = Bytes::from(vec![7u8; SPLICE_FROM_BYTES]);
        let full = PartAnswer {
            index: 3,
            error: 0,
            high_watermark: 1 << 40,
            last_stable: 77,
            log_start: 5,
            aborted: Some(vec![(9, 70), (11, 71)]),
            records: vec![Bytes::from_static(b"small batch"), big, Bytes::from_static(b"another")],
            leader: None,
        };
        let fenced = PartAnswer { leader: Some((1, 4)), ..PartAnswer::refused(0, 74) };
        let empty = PartAnswer { error: 0, aborted: Some(Vec::new()), ..PartAnswer::refused(1, 0) };
        let name = |n: &'static str| TopicName(StrBytes::from_static_str(n));
        vec![
            TopicAnswer { name: name("first"), id: TopicId([3; 16]), parts: vec![full, fenced] },
            TopicAnswer { name: name("second"), id: TopicId([4; 16]), parts: vec![empty] },
            TopicAnswer { name: name("third"), id: TopicId([5; 16]), parts: vec![] },
        ]
    }

    #[test]
    fn the_pieces_are_the_crates_bytes_in_every_version() {
        let endpoint = Endpoint { node: 1, host: "broker.example".into(), port: 9092 };
        for version in 4..=18 {
            let error = if version >= 7 { 70 } else { 0 };
            let answer = encode(version, error, 1 << 30, sample(), Some(&endpoint));
            assert_eq!(answer.pieces.concat(), by_the_crate(version, error, &sample(), &endpoint), "version {version}");
            let told: Vec<(i16, u64)> = answer.errors.iter().collect();
            assert_eq!(told, if error == 0 { vec![(74, 1)] } else { vec![(70, 1), (74, 1)] });
        }
    }

    #[test]
    fn large_records_are_not_copied() {
        let topics = sample();
        let big = topics[0].parts[0].records[1].clone();
        let pieces = encode(12, 0, 0, topics, None).pieces;
        assert_eq!(pieces.len(), 3, "skeleton, the large piece, the rest");
        assert_eq!(pieces[1].as_ptr(), big.as_ptr(), "the very same memory");
    }

    #[test]
    fn no_partition_with_a_leader_means_no_endpoints() {
        let endpoint = Endpoint { node: 1, host: "broker.example".into(), port: 9092 };
        let mut topics = sample();
        topics[0].parts.pop();
        assert_eq!(encode(16, 0, 0, topics.clone(), Some(&endpoint)).pieces, encode(16, 0, 0, topics, None).pieces);
    }
}
