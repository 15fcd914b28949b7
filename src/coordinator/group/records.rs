//! Records of `__consumer_offsets` in Apache Kafka's own schemas, so that its tools and Burrow read them.
//!
//! Written: OffsetCommitKey 1, OffsetCommitValue 3 (1 when the client set the expiry), GroupMetadataKey 2,
//! GroupMetadataValue 3. Read: every version up to OffsetCommitValue 4 and GroupMetadataValue 4. Keys of other kinds
//! (consumer, share and streams groups) are passed over.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use thalweg_record::Wall;

use super::{
    offsets::CommittedOffset,
    wire::{Reader, put_bytes, put_nullable_string, put_string},
};

/// One record of a group, without its group id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupRecord {
    /// The group itself; `None` deletes it.
    Metadata(Option<GroupMetadata>),
    /// The offset of one partition; `None` deletes it.
    Offset {
        /// Topic name.
        topic: Arc<str>,
        /// Partition.
        partition: i32,
        /// What was committed.
        value: Option<CommittedOffset>,
    },
}

/// A classic group as it is stored.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GroupMetadata {
    /// Kind of the group; empty if it never had members.
    pub protocol_type: Arc<str>,
    /// Generation.
    pub generation: i32,
    /// The protocol in use.
    pub protocol: Option<Arc<str>>,
    /// The leader's member id.
    pub leader: Option<Arc<str>>,
    /// When the state was entered.
    pub state_since: Option<Wall>,
    /// The members, by id.
    pub members: Vec<StoredMember>,
}

/// A member as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredMember {
    /// Member id.
    pub id: Arc<str>,
    /// Group instance id.
    pub instance: Option<Arc<str>>,
    /// Client id.
    pub client_id: Arc<str>,
    /// Client address.
    pub client_host: Arc<str>,
    /// Rebalance timeout in milliseconds.
    pub rebalance_timeout_ms: i32,
    /// Session timeout in milliseconds.
    pub session_timeout_ms: i32,
    /// Its metadata for the protocol in use.
    pub subscription: Bytes,
    /// Its assignment.
    pub assignment: Bytes,
}

/// A record that does not follow its schema, or cannot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// A text or blob is longer than its length field can say.
    #[error("a field is too long for its schema")]
    TooLong,
    /// It ends early, or a length or text in it is wrong.
    #[error("a record does not follow its schema")]
    Malformed,
    /// A value of a version that is not known.
    #[error("a record's value has the unknown version {0}")]
    UnknownVersion(i16),
}

/// A record's key and value, as they lie in a batch.
pub type KeyValue = (Bytes, Option<Bytes>);

/// Encodes a record of `group`.
///
/// # Errors
/// [`RecordError::TooLong`] for texts over 32,767 bytes.
pub fn encode(group: &str, record: &GroupRecord) -> Result<KeyValue, RecordError> {
    let mut key = BytesMut::new();
    match record {
        GroupRecord::Metadata(value) => {
            key.put_i16(2);
            put_string(&mut key, group)?;
            Ok((key.freeze(), value.as_ref().map(encode_metadata).transpose()?))
        }
        GroupRecord::Offset { topic, partition, value } => {
            key.put_i16(1);
            put_string(&mut key, group)?;
            put_string(&mut key, topic)?;
            key.put_i32(*partition);
            Ok((key.freeze(), value.as_ref().map(encode_offset).transpose()?))
        }
    }
}

fn encode_offset(offset: &CommittedOffset) -> Result<Bytes, RecordError> {
    let mut value = BytesMut::new();
    value.put_i16(if offset.expires_at.is_some() { 1 } else { 3 });
    value.put_i64(offset.offset);
    if offset.expires_at.is_none() {
        value.put_i32(offset.leader_epoch);
    }
    put_string(&mut value, &offset.metadata)?;
    value.put_i64(offset.committed_at.0);
    if let Some(expires_at) = offset.expires_at {
        value.put_i64(expires_at.0);
    }
    Ok(value.freeze())
}

fn encode_metadata(group: &GroupMetadata) -> Result<Bytes, RecordError> {
    let mut value = BytesMut::new();
    value.put_i16(3);
    put_string(&mut value, &group.protocol_type)?;
    value.put_i32(group.generation);
    put_nullable_string(&mut value, group.protocol.as_deref())?;
    put_nullable_string(&mut value, group.leader.as_deref())?;
    value.put_i64(group.state_since.map_or(-1, |at| at.0));
    value.put_i32(i32::try_from(group.members.len()).map_err(|_| RecordError::TooLong)?);
    for member in &group.members {
        put_string(&mut value, &member.id)?;
        put_nullable_string(&mut value, member.instance.as_deref())?;
        put_string(&mut value, &member.client_id)?;
        put_string(&mut value, &member.client_host)?;
        value.put_i32(member.rebalance_timeout_ms);
        value.put_i32(member.session_timeout_ms);
        put_bytes(&mut value, &member.subscription)?;
        put_bytes(&mut value, &member.assignment)?;
    }
    Ok(value.freeze())
}

/// Decodes a record: its group and what it says, or `None` for a kind that is not known.
///
/// # Errors
/// [`RecordError`] when a known kind does not follow its schema.
pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<(Arc<str>, GroupRecord)>, RecordError> {
    let mut key = Reader::new(key, false);
    match key.int16()? {
        0 | 1 => {
            let (group, topic, partition) = (key.string()?, key.string()?, key.int32()?);
            let value = value.map(decode_offset).transpose()?;
            Ok(Some((group, GroupRecord::Offset { topic, partition, value })))
        }
        2 => {
            let group = key.string()?;
            Ok(Some((group, GroupRecord::Metadata(value.map(decode_metadata).transpose()?))))
        }
        _ => Ok(None),
    }
}

fn decode_offset(value: &[u8]) -> Result<CommittedOffset, RecordError> {
    let (version, mut value) = Reader::versioned(value, 4, 4)?;
    let offset = value.int64()?;
    let leader_epoch = if version >= 3 { value.int32()? } else { -1 };
    let metadata = value.string()?;
    let committed_at = Wall(value.int64()?);
    let expires_at = if version == 1 { Some(Wall(value.int64()?)).filter(|at| at.0 != -1) } else { None };
    Ok(CommittedOffset { offset, leader_epoch, metadata, committed_at, expires_at })
}

fn decode_metadata(value: &[u8]) -> Result<GroupMetadata, RecordError> {
    let (version, mut value) = Reader::versioned(value, 4, 4)?;
    let protocol_type = value.string()?;
    let generation = value.int32()?;
    let protocol = value.nullable_string()?;
    let leader = value.nullable_string()?;
    let state_since = if version >= 2 { Some(Wall(value.int64()?)).filter(|at| at.0 != -1) } else { None };
    let mut members = Vec::new();
    for _ in 0..value.array_length()? {
        members.push(decode_member(&mut value, version)?);
    }
    Ok(GroupMetadata { protocol_type, generation, protocol, leader, state_since, members })
}

fn decode_member(value: &mut Reader<'_>, version: i16) -> Result<StoredMember, RecordError> {
    let id = value.string()?;
    let instance = if version >= 3 { value.nullable_string()? } else { None };
    let (client_id, client_host) = (value.string()?, value.string()?);
    let rebalance_timeout_ms = if version >= 1 { Some(value.int32()?) } else { None };
    let session_timeout_ms = value.int32()?;
    let (subscription, assignment) = (value.bytes()?, value.bytes()?);
    value.skip_tagged_fields()?;
    Ok(StoredMember {
        id,
        instance,
        client_id,
        client_host,
        rebalance_timeout_ms: rebalance_timeout_ms.unwrap_or(session_timeout_ms),
        session_timeout_ms,
        subscription,
        assignment,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(expires_at: Option<Wall>) -> CommittedOffset {
        let metadata = "m\u{e9}".into();
        let leader_epoch = if expires_at.is_some() { -1 } else { 5 };
        CommittedOffset {
            offset: 0x0102_0304_0506,
            leader_epoch,
            metadata,
            committed_at: Wall(0x18_0000_0001),
            expires_at,
        }
    }

    fn group() -> GroupMetadata {
        let member = StoredMember {
            id: "c-1".into(),
            instance: Some("i".into()),
            client_id: "c".into(),
            client_host: "/::1".into(),
            rebalance_timeout_ms: 300_000,
            session_timeout_ms: 45_000,
            subscription: Bytes::from_static(&[1, 2]),
            assignment: Bytes::from_static(&[3]),
        };
        GroupMetadata {
            protocol_type: "consumer".into(),
            generation: 7,
            protocol: Some("range".into()),
            leader: Some("c-1".into()),
            state_since: Some(Wall(9)),
            members: vec![member.clone(), StoredMember { instance: None, id: "c-2".into(), ..member }],
        }
    }

    #[test]
    fn an_offset_is_written_in_kafkas_bytes() {
        let record = GroupRecord::Offset { topic: "tp".into(), partition: 258, value: Some(offset(None)) };
        let (key, value) = encode("grp", &record).unwrap();
        assert_eq!(&key[..], b"\x00\x01\x00\x03grp\x00\x02tp\x00\x00\x01\x02");
        let golden = b"\x00\x03\x00\x00\x01\x02\x03\x04\x05\x06\x00\x00\x00\x05\x00\x03m\xc3\xa9\x00\x00\x00\x18\x00\x00\x00\x01";
        assert_eq!(&value.unwrap()[..], golden);
    }

    #[test]
    fn an_offset_with_its_own_expiry_is_version_1() {
        let record = GroupRecord::Offset { topic: "t".into(), partition: 0, value: Some(offset(Some(Wall(2)))) };
        let (_, value) = encode("g", &record).unwrap();
        let golden = b"\x00\x01\x00\x00\x01\x02\x03\x04\x05\x06\x00\x03m\xc3\xa9\x00\x00\x00\x18\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02";
        assert_eq!(&value.unwrap()[..], golden);
    }

    #[test]
    fn a_group_is_written_in_kafkas_bytes() {
        let (key, value) = encode("grp", &GroupRecord::Metadata(Some(group()))).unwrap();
        assert_eq!(&key[..], b"\x00\x02\x00\x03grp");
        let mut golden: Vec<u8> = Vec::new();
        golden.extend(b"\x00\x03\x00\x08consumer\x00\x00\x00\x07\x00\x05range\x00\x03c-1");
        golden.extend(b"\x00\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x02");
        golden.extend(b"\x00\x03c-1\x00\x01i\x00\x01c\x00\x04/::1\x00\x04\x93\xe0\x00\x00\xaf\xc8");
        golden.extend(b"\x00\x00\x00\x02\x01\x02\x00\x00\x00\x01\x03");
        golden.extend(b"\x00\x03c-2\xff\xff\x00\x01c\x00\x04/::1\x00\x04\x93\xe0\x00\x00\xaf\xc8");
        golden.extend(b"\x00\x00\x00\x02\x01\x02\x00\x00\x00\x01\x03");
        assert_eq!(&value.unwrap()[..], &golden[..]);
    }

    #[test]
    fn an_empty_group_has_null_protocol_and_leader() {
        let empty = GroupMetadata { generation: 3, ..GroupMetadata::default() };
        let (_, value) = encode("g", &GroupRecord::Metadata(Some(empty))).unwrap();
        let golden =
            b"\x00\x03\x00\x00\x00\x00\x00\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00";
        assert_eq!(&value.unwrap()[..], golden);
    }

    #[test]
    fn records_come_back_as_they_were() {
        let records = [
            GroupRecord::Metadata(Some(group())),
            GroupRecord::Metadata(None),
            GroupRecord::Offset { topic: "t".into(), partition: 3, value: Some(offset(None)) },
            GroupRecord::Offset { topic: "t".into(), partition: 3, value: Some(offset(Some(Wall(77)))) },
            GroupRecord::Offset { topic: "t".into(), partition: 3, value: None },
        ];
        for record in records {
            let (key, value) = encode("g", &record).unwrap();
            assert_eq!(decode(&key, value.as_deref()).unwrap(), Some(("g".into(), record)));
        }
    }

    #[test]
    fn values_of_other_versions_are_read() {
        let key = b"\x00\x01\x00\x01g\x00\x01t\x00\x00\x00\x00";
        // Version 4: compact metadata "ab", then one tagged field (tag 0, a topic id of 16 bytes).
        let mut v4 =
            b"\x00\x04\x00\x00\x00\x00\x00\x00\x00\x2a\x00\x00\x00\x01\x03ab\x00\x00\x00\x00\x00\x00\x00\x63".to_vec();
        v4.extend(b"\x01\x00\x10");
        v4.extend([7; 16]);
        // Version 0: offset, metadata, timestamp.
        let v0 = b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x2a\x00\x02ab\x00\x00\x00\x00\x00\x00\x00\x63";
        for (value, leader_epoch) in [(&v4[..], 1), (&v0[..], -1)] {
            let Some((_, GroupRecord::Offset { value: Some(found), .. })) = decode(key, Some(value)).unwrap() else {
                panic!("not an offset");
            };
            assert_eq!((found.offset, found.leader_epoch, &*found.metadata), (42, leader_epoch, "ab"));
            assert_eq!((found.committed_at, found.expires_at), (Wall(99), None));
        }
        // A group of version 4 with one member.
        let mut group =
            b"\x00\x04\x09consumer\x00\x00\x00\x07\x06range\x00\x00\x00\x00\x00\x00\x00\x00\x09\x02".to_vec();
        group.extend(b"\x02m\x00\x02c\x02h\x00\x00\x00\x01\x00\x00\x00\x02\x02\x01\x01\x00\x00");
        let Some((_, GroupRecord::Metadata(Some(found)))) = decode(b"\x00\x02\x00\x01g", Some(&group)).unwrap() else {
            panic!("not a group");
        };
        assert_eq!((found.generation, found.leader, found.members.len()), (7, None, 1));
        assert_eq!((&found.members[0].subscription[..], found.members[0].assignment.len()), (&[1][..], 0));
    }

    #[test]
    fn other_kinds_are_passed_over_and_damage_is_told() {
        assert_eq!(decode(b"\x00\x03\x00\x01g", Some(b"anything")), Ok(None));
        let (key, value) = encode("g", &GroupRecord::Metadata(Some(group()))).unwrap();
        let value = value.unwrap();
        for len in 0..value.len() {
            assert_eq!(decode(&key, Some(&value[..len])), Err(RecordError::Malformed), "{len} bytes");
        }
        assert_eq!(decode(&key, Some(b"\x00\x05")), Err(RecordError::UnknownVersion(5)));
        let long = "x".repeat(40_000);
        assert_eq!(encode(&long, &GroupRecord::Metadata(None)), Err(RecordError::TooLong));
    }
}
