//! Values of the metadata store: JSON with a version, `{"v":1,"d":...}`; what there is much of (ranges, producers) is
//! written as arrays, without names.
//!
//! A committed object is *one* value that lists all its ranges, so that a commit costs the same two writes whatever the
//! number of partitions; what a partition has is derived from its head and the ranges after it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thalweg_objectstore::ObjectKey;
use thalweg_record::{LeaderEpoch, Offset, PartitionId, TopicId, Wall};
use thalweg_shards::{
    meta::{CommitRange, CommittedObject, ManifestRef, ObjectCommit, ObjectId},
    msg::{ProducerBatch, ProducerEntry},
};

use super::{catalog::Object, partition::Manifest, prefix::Owner};
use crate::auth::{AclBinding, scram::ScramCredential};

/// What is stored with a version before it, so that a broker refuses what it would take for something else.
pub(super) trait Stored: Serialize + DeserializeOwned {
    /// The newest version that this broker reads; it reads the older ones too.
    const NEWEST: u32 = 1;

    /// The oldest version that means what this value does.
    fn version(&self) -> u32 {
        1
    }
}

impl Stored for ClusterRecord {}
impl Stored for NodeRecord {}
impl Stored for TopicRecord {}
impl Stored for ConfigRecord {}
impl Stored for BlockRecord {}
impl Stored for GarbageRecord {}
impl Stored for FoldedRecord {}
impl Stored for ManifestRecord {}
impl Stored for SliceRow {}
impl Stored for OwnerRow {}
impl Stored for Owner {}
impl Stored for AclBinding {}
impl Stored for ScramCredential {}

/// Who knows no levels would take ranges that overlap for damage, or count them twice: compacted objects have version 2.
impl Stored for ObjectRecord {
    const NEWEST: u32 = 2;

    fn version(&self) -> u32 {
        if is_upload(&self.level) { 1 } else { 2 }
    }
}

/// Who knows no manifests would miss what they list: the head of a partition that has some has version 2.
impl Stored for HeadRecord {
    const NEWEST: u32 = 2;

    fn version(&self) -> u32 {
        if is_zero(&self.folded) { 1 } else { 2 }
    }
}

#[derive(Serialize, Deserialize)]
struct Stamped<T> {
    v: u32,
    d: T,
}

/// A number that stands alone, big-endian.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(value.try_into().ok()?))
}

/// A value's bytes.
pub(super) fn encode<T: Stored>(value: &T) -> Vec<u8> {
    serde_json::to_vec(&Stamped { v: value.version(), d: value }).expect("records have text keys and no failing parts")
}

/// The value in `bytes`; the error says what is wrong.
pub(super) fn decode<T: Stored>(bytes: &[u8]) -> Result<T, String> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let known = 1..=T::NEWEST;
    match serde_json::from_slice::<Stamped<T>>(bytes) {
        Ok(stamped) if known.contains(&stamped.v) => Ok(stamped.d),
        parsed => match serde_json::from_slice::<Version>(bytes) {
            Ok(Version { v }) if !known.contains(&v) => {
                Err(format!("it has version {v}, this broker reads {} at most", T::NEWEST))
            }
            _ => Err(parsed.err().map_or_else(String::new, |e| e.to_string())),
        },
    }
}

/// The cluster.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct ClusterRecord {
    /// 22 characters of URL-safe base64.
    pub(super) cluster_id: String,
    /// The broker whose data directory this is.
    pub(super) node: i32,
    /// The object-store URL whose cluster-id object was last found to be ours.
    pub(super) checked_url: Option<String>,
}

/// A broker.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct NodeRecord {
    /// Raised at each start. It is the leader epoch of all partitions opened in that run, and fences commits of earlier
    /// runs.
    pub(super) epoch: i32,
}

/// A topic; its id is in the key.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct TopicRecord {
    pub(super) name: String,
    pub(super) partitions: i32,
    pub(super) internal: bool,
    /// Settings by Kafka's name, as text.
    pub(super) overrides: BTreeMap<String, String>,
    /// The store's revision before it was created.
    pub(super) created: u64,
}

/// Altered settings of what is in the key.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct ConfigRecord {
    /// By Kafka's name, as text.
    pub(super) values: BTreeMap<String, String>,
}

/// A block of reserved object ids; its first id is in the key.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct BlockRecord {
    pub(super) node: i32,
    pub(super) epoch: i32,
    pub(super) shard: u16,
    pub(super) count: u32,
}

/// Why an object is to be deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum GarbageKind {
    /// Reserved, never committed, its reservation is gone: may be deleted at once.
    Orphan,
    /// Was committed, nothing in it is live: stays until a durable metadata snapshot in the bucket does not name it.
    Dead,
}

/// An object to be deleted; its id is in the key.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct GarbageRecord {
    pub(super) kind: GarbageKind,
    /// Node epoch that reserved the id: part of the object's key.
    pub(super) epoch: i32,
    /// The shard that reserved it.
    pub(super) shard: u16,
    /// The key, where it is known.
    pub(super) key: Option<String>,
}

impl GarbageRecord {
    /// Of an object of which nothing is live any more.
    pub(super) fn dead(object: &Object) -> GarbageRecord {
        let (epoch, shard, key) = (object.epoch, object.shard, Some(object.key.as_str().to_owned()));
        GarbageRecord { kind: GarbageKind::Dead, epoch, shard, key }
    }

    /// Of a manifest that nothing needs any more.
    pub(super) fn dead_manifest(manifest: &Manifest) -> GarbageRecord {
        let (epoch, shard, key) = (manifest.epoch, manifest.shard, Some(manifest.of.key.as_str().to_owned()));
        GarbageRecord { kind: GarbageKind::Dead, epoch, shard, key }
    }
}

/// Leader epoch and its first offset.
pub(super) type EpochRow = (i32, i64);
/// Producer id, epoch, last timestamp, and its batches: first and last sequence, base and last offset.
pub(super) type ProducerRow = (i64, i16, i64, Vec<(i32, i32, i64, i64)>);
/// Topic id in hex, partition, base, last, bytes, greatest timestamp, epochs that begin in it, producers at its end.
type RangeRow = (String, i32, i64, i64, u64, i64, Vec<EpochRow>, Vec<ProducerRow>);

/// A committed object; its id is in the key.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct ObjectRecord {
    pub(super) key: String,
    pub(super) bytes: u64,
    pub(super) shard: u16,
    /// Node epoch of the commit.
    pub(super) epoch: i32,
    /// How often its records were copied; its ranges count in place of those of lower levels that they cover.
    #[serde(default, skip_serializing_if = "is_upload")]
    pub(super) level: u32,
    ranges: Vec<RangeRow>,
}

fn is_upload(level: &u32) -> bool {
    *level == 0
}

/// A partition as of `committed_end`; ranges from there on come on top. Written before the ranges that it sums up are
/// dropped, so that an emptied partition does not begin again at 0.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(super) struct HeadRecord {
    pub(super) log_start: i64,
    pub(super) committed_end: i64,
    pub(super) epochs: Vec<EpochRow>,
    pub(super) producers: Vec<ProducerRow>,
    /// First offset that no log cleaning has seen.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) cleaned: i64,
    /// First offset that no manifest lists; 0 without manifests.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) folded: i64,
    /// Where loss was accepted, and the epoch that the log goes on with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cut: Option<EpochRow>,
}

/// What manifests list of an object, whose id is in the key.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct FoldedRecord {
    pub(super) key: String,
    pub(super) bytes: u64,
    pub(super) shard: u16,
    /// Node epoch of the commit.
    pub(super) epoch: i32,
    pub(super) level: u32,
    /// Bytes of all its ranges, listed or not.
    pub(super) range_bytes: u64,
    /// Ranges that are listed.
    pub(super) ranges: usize,
    /// Their bytes.
    pub(super) listed_bytes: u64,
}

/// A manifest.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct ManifestRecord {
    id: u64,
    /// In hex.
    topic: String,
    partition: i32,
    key: String,
    bytes: u64,
    shard: u16,
    /// Node epoch that wrote it.
    epoch: i32,
    base: i64,
    last: i64,
    entries: u32,
    size_bytes: u64,
    max_timestamp: i64,
}

fn is_zero(offset: &i64) -> bool {
    *offset == 0
}

/// A WAL slice of this broker; its id is in the key.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct SliceRow {
    pub(super) shard: u16,
    pub(super) path: String,
    pub(super) closed_empty: bool,
}

/// To which shard of this broker a partition was moved, when it had so many; the partition is in the key. What the log holds decides
/// before this does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct OwnerRow {
    pub(super) shard: u16,
    pub(super) shards: u16,
}

impl ObjectRecord {
    /// What is stored for a commit.
    pub(super) fn new(commit: &ObjectCommit, shard: u16, epoch: i32) -> ObjectRecord {
        let row = |r: &CommitRange| {
            let topic = r.partition.topic.to_string();
            let epochs = r.epochs.iter().map(|(e, o)| (e.0, o.0)).collect();
            let producers = r.producers.iter().map(producer_row).collect();
            let (base, last) = (r.base.0, r.last.0);
            (topic, r.partition.index, base, last, r.size_bytes, r.max_timestamp.0, epochs, producers)
        };
        let ranges = commit.ranges.iter().map(row).collect();
        ObjectRecord { key: commit.key.as_str().into(), bytes: commit.object_bytes, shard, epoch, level: 0, ranges }
    }

    /// Of an object, without its ranges.
    pub(super) fn without_ranges(object: &Object) -> ObjectRecord {
        let (key, bytes, shard, epoch, level) =
            (object.key.as_str().into(), object.bytes, object.shard, object.epoch, object.level);
        ObjectRecord { key, bytes, shard, epoch, level, ranges: Vec::new() }
    }

    /// Whether it names this part of a partition.
    pub(super) fn names(&self, id: PartitionId, part: &CommittedObject) -> bool {
        let topic = id.topic.to_string();
        let same = |row: &RangeRow| row.0 == topic && (row.1, row.2, row.3) == (id.index, part.base.0, part.last.0);
        self.ranges.iter().any(same)
    }

    /// The same, naming one part more, of which a head has summed up epochs and producers.
    pub(super) fn naming(mut self, id: PartitionId, part: &CommittedObject) -> ObjectRecord {
        let (base, last, max_timestamp) = (part.base.0, part.last.0, part.max_timestamp.0);
        let row = (id.topic.to_string(), id.index, base, last, part.size_bytes, max_timestamp, vec![], vec![]);
        self.ranges.push(row);
        self
    }

    /// The same at a level.
    pub(super) fn at_level(self, level: u32) -> ObjectRecord {
        ObjectRecord { level, ..self }
    }

    /// The commit that was stored; the error says what is wrong.
    pub(super) fn commit(&self, object: ObjectId) -> Result<ObjectCommit, String> {
        let range = |row: &RangeRow| {
            let (topic, index, base, last, size_bytes, max_timestamp, epochs, producers) = row;
            let topic = parse_topic(topic).ok_or_else(|| format!("bad topic id {topic}"))?;
            Ok::<_, String>(CommitRange {
                partition: PartitionId { topic, index: *index },
                base: Offset(*base),
                last: Offset(*last),
                size_bytes: *size_bytes,
                max_timestamp: Wall(*max_timestamp),
                epochs: epochs.iter().map(epoch).collect(),
                producers: producers.iter().map(producer).collect(),
            })
        };
        let key = ObjectKey::new(self.key.clone()).map_err(|key| format!("bad object key {key}"))?;
        let ranges = self.ranges.iter().map(range).collect::<Result<_, _>>()?;
        Ok(ObjectCommit { object, key, object_bytes: self.bytes, ranges })
    }
}

impl ManifestRecord {
    /// What is stored of a manifest.
    pub(super) fn new(partition: PartitionId, manifest: &Manifest) -> ManifestRecord {
        let of = &manifest.of;
        ManifestRecord {
            id: of.id.0,
            topic: partition.topic.to_string(),
            partition: partition.index,
            key: of.key.as_str().into(),
            bytes: of.bytes,
            shard: manifest.shard,
            epoch: manifest.epoch,
            base: of.base.0,
            last: of.last.0,
            entries: of.entries,
            size_bytes: of.size_bytes,
            max_timestamp: of.max_timestamp.0,
        }
    }

    /// The manifest that was stored; the error says what is wrong.
    pub(super) fn manifest(self) -> Result<(PartitionId, Manifest), String> {
        let topic = parse_topic(&self.topic).ok_or_else(|| format!("bad topic id {}", self.topic))?;
        if self.base > self.last {
            return Err("it ends before it begins".to_owned());
        }
        let of = ManifestRef {
            id: ObjectId(self.id),
            key: ObjectKey::new(self.key).map_err(|key| format!("bad object key {key}"))?,
            bytes: self.bytes,
            base: Offset(self.base),
            last: Offset(self.last),
            entries: self.entries,
            size_bytes: self.size_bytes,
            max_timestamp: Wall(self.max_timestamp),
        };
        let manifest = Manifest { of, shard: self.shard, epoch: self.epoch };
        Ok((PartitionId { topic, index: self.partition }, manifest))
    }
}

/// An epoch's row, read.
pub(super) fn epoch(row: &EpochRow) -> (LeaderEpoch, Offset) {
    (LeaderEpoch(row.0), Offset(row.1))
}

/// A producer's row.
pub(super) fn producer_row(p: &ProducerEntry) -> ProducerRow {
    let batches = p.window.iter().map(|b| (b.first_sequence, b.last_sequence, b.base_offset.0, b.last_offset.0));
    (p.producer_id, p.epoch, p.last_timestamp.0, batches.collect())
}

/// A producer's row, read.
pub(super) fn producer(row: &ProducerRow) -> ProducerEntry {
    let batch = |b: &(i32, i32, i64, i64)| ProducerBatch {
        first_sequence: b.0,
        last_sequence: b.1,
        base_offset: Offset(b.2),
        last_offset: Offset(b.3),
    };
    let window = row.3.iter().map(batch).collect();
    ProducerEntry { producer_id: row.0, epoch: row.1, window, last_timestamp: Wall(row.2) }
}

fn parse_topic(hex: &str) -> Option<TopicId> {
    let bytes = (hex.len() == 32).then(|| u128::from_str_radix(hex, 16).ok())??;
    Some(TopicId(bytes.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{
        AclBinding, Operation, PatternType, Permission, ResourceType,
        scram::{Mechanism, ScramCredential},
    };

    fn commit() -> ObjectCommit {
        let batch =
            ProducerBatch { first_sequence: 3, last_sequence: 4, base_offset: Offset(10), last_offset: Offset(11) };
        let producer =
            ProducerEntry { producer_id: 9, epoch: 2, window: vec![batch], last_timestamp: Wall(1_700_000_000_000) };
        let range = CommitRange {
            partition: PartitionId { topic: TopicId([0xab; 16]), index: 5 },
            base: Offset(10),
            last: Offset(11),
            size_bytes: 120,
            max_timestamp: Wall(-1),
            epochs: vec![(LeaderEpoch(1), Offset(10))],
            producers: vec![producer],
        };
        let key = ObjectKey::new("a/b").expect("a key");
        ObjectCommit { object: ObjectId(8), key, object_bytes: 4096, ranges: vec![range] }
    }

    #[test]
    fn commits_come_back() {
        let bytes = encode(&ObjectRecord::new(&commit(), 1, 3));
        let record: ObjectRecord = decode(&bytes).expect("own value");
        assert_eq!((record.shard, record.epoch), (1, 3));
        assert_eq!(record.commit(ObjectId(8)), Ok(commit()));
    }

    #[test]
    fn the_stored_form_does_not_change() {
        let bytes = encode(&ObjectRecord::new(&commit(), 1, 3));
        let expected = concat!(
            r#"{"v":1,"d":{"key":"a/b","bytes":4096,"shard":1,"epoch":3,"ranges":[["abababababababababababababababab","#,
            r#"5,10,11,120,-1,[[1,10]],[[9,2,1700000000000,[[3,4,10,11]]]]]]}}"#
        );
        assert_eq!(String::from_utf8(bytes).expect("text"), expected);
        let bytes = encode(&ObjectRecord { ranges: vec![], ..ObjectRecord::new(&commit(), 1, 3) }.at_level(2));
        assert_eq!(bytes, br#"{"v":2,"d":{"key":"a/b","bytes":4096,"shard":1,"epoch":3,"level":2,"ranges":[]}}"#);
        assert_eq!(decode::<ObjectRecord>(&bytes).map(|record| record.level), Ok(2));
        let config = ConfigRecord { values: [("log.retention.ms".to_owned(), "5".to_owned())].into() };
        assert_eq!(encode(&config), br#"{"v":1,"d":{"values":{"log.retention.ms":"5"}}}"#);
        let rule = AclBinding {
            kind: ResourceType::TransactionalId,
            pattern: PatternType::Prefixed,
            name: "pay".to_owned(),
            principal: "User:alice".to_owned(),
            host: "*".to_owned(),
            operation: Operation::IdempotentWrite,
            permission: Permission::Deny,
        };
        let expected = concat!(
            r#"{"v":1,"d":{"kind":"transactional_id","pattern":"prefixed","name":"pay","principal":"User:alice","#,
            r#""host":"*","operation":"idempotent_write","permission":"deny"}}"#
        );
        assert_eq!(String::from_utf8(encode(&rule)).expect("text"), expected);
        assert_eq!(decode::<AclBinding>(expected.as_bytes()), Ok(rule));
        let credential = ScramCredential::new(Mechanism::Sha256, b"salt", b"salted password", 4096);
        let expected = concat!(
            r#"{"v":1,"d":{"salt":"c2FsdA==","stored_key":"WbMIQ1BrcAOag9NZOAK0BGvmtygidb73jjtsst0QC2Y=","#,
            r#""server_key":"PctpJPmpKc9K7y8SD+fype0zyMF8C8n8NKuL1OTx0U0=","iterations":4096}}"#
        );
        assert_eq!(String::from_utf8(encode(&credential)).expect("text"), expected);
        assert_eq!(decode::<ScramCredential>(expected.as_bytes()), Ok(credential));
        let head = HeadRecord { log_start: 3, committed_end: 9, ..HeadRecord::default() };
        let older = r#"{"v":1,"d":{"log_start":3,"committed_end":9,"epochs":[],"producers":[]}}"#;
        assert_eq!(String::from_utf8(encode(&head)).expect("text"), older);
        let bytes = encode(&HeadRecord { folded: 7, ..head });
        let expected = r#"{"v":2,"d":{"log_start":3,"committed_end":9,"epochs":[],"producers":[],"folded":7}}"#;
        assert_eq!(String::from_utf8(bytes).expect("text"), expected);
        let both = HeadRecord { folded: 7, cut: Some((3, 5)), ..HeadRecord::default() };
        let bytes = encode(&both);
        let expected =
            r#"{"v":2,"d":{"log_start":0,"committed_end":0,"epochs":[],"producers":[],"folded":7,"cut":[3,5]}}"#;
        assert_eq!(std::str::from_utf8(&bytes), Ok(expected));
        assert_eq!(decode::<HeadRecord>(&bytes), Ok(both));
        let key = ObjectKey::new("manifests/9e/1-n7-e3").expect("a key");
        let (base, last) = (Offset(3), Offset(6));
        let of = ManifestRef {
            id: ObjectId(1),
            key,
            bytes: 90,
            base,
            last,
            entries: 2,
            size_bytes: 70,
            max_timestamp: Wall(-1),
        };
        let manifest = Manifest { of, shard: 1, epoch: 3 };
        let partition = PartitionId { topic: TopicId([0xab; 16]), index: 5 };
        let bytes = encode(&ManifestRecord::new(partition, &manifest));
        let expected = concat!(
            r#"{"v":1,"d":{"id":1,"topic":"abababababababababababababababab","partition":5,"key":"manifests/9e/1-n7-e3","#,
            r#""bytes":90,"shard":1,"epoch":3,"base":3,"last":6,"entries":2,"size_bytes":70,"max_timestamp":-1}}"#
        );
        assert_eq!(std::str::from_utf8(&bytes), Ok(expected));
        assert_eq!(decode::<ManifestRecord>(&bytes).and_then(ManifestRecord::manifest), Ok((partition, manifest)));
        let folded = FoldedRecord {
            key: "a/b".into(),
            bytes: 9,
            shard: 0,
            epoch: 2,
            level: 1,
            range_bytes: 8,
            ranges: 1,
            listed_bytes: 5,
        };
        let expected = concat!(
            r#"{"v":1,"d":{"key":"a/b","bytes":9,"shard":0,"epoch":2,"level":1,"range_bytes":8,"ranges":1,"#,
            r#""listed_bytes":5}}"#
        );
        assert_eq!(String::from_utf8(encode(&folded)).expect("text"), expected);
        assert_eq!(encode(&OwnerRow { shard: 1, shards: 2 }), br#"{"v":1,"d":{"shard":1,"shards":2}}"#);
        let garbage = GarbageRecord { kind: GarbageKind::Orphan, epoch: 2, shard: 0, key: None };
        let bytes = encode(&garbage);
        assert_eq!(bytes, br#"{"v":1,"d":{"kind":"orphan","epoch":2,"shard":0,"key":null}}"#);
    }

    #[test]
    fn other_versions_and_damage_are_told_apart() {
        let newer = decode::<NodeRecord>(br#"{"v":2,"d":{"era":1}}"#).expect_err("newer");
        assert!(newer.contains("version 2"), "{newer}");
        assert!(decode::<ObjectRecord>(br#"{"v":3,"d":{}}"#).expect_err("newer").contains("version 3"));
        assert!(decode::<NodeRecord>(br#"{"v":1,"d":{"era":1}}"#).expect_err("damaged").contains("epoch"));
        assert!(decode::<NodeRecord>(b"").is_err());
    }
}
