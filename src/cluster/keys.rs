//! Names of things in the metadata store: a word, a slash, and a fixed binary form, so that a range scan of the word comes
//! in the order of ids.

use thalweg_record::{NodeId, Offset, PartitionId, TopicId};
use thalweg_shards::meta::ObjectId;

use super::altered::ConfigTarget;
use crate::auth::scram::Mechanism;

/// The cluster's record.
pub(super) const CLUSTER: &[u8] = b"cluster";
/// First object id that no block covers.
pub(super) const NEXT_OBJECT: &[u8] = b"next/object";
/// First producer id that no block covers.
pub(super) const NEXT_PRODUCER: &[u8] = b"next/producer";
/// All counters.
pub(super) const NEXT: &[u8] = b"next/";
/// Number of the newest metadata snapshot in the bucket that this store has seen or begun to write.
pub(super) const SNAPSHOT: &[u8] = b"snapshot";
/// All brokers.
pub(super) const NODES: &[u8] = b"node/";
/// All WAL slices of all brokers.
pub(super) const SLICES: &[u8] = b"slice/";
/// All WAL slices of all brokers that were given up as lost.
pub(super) const LOST_SLICES: &[u8] = b"lost-slice/";
/// All topics.
pub(super) const TOPICS: &[u8] = b"topic/";
/// All partition heads.
pub(super) const HEADS: &[u8] = b"head/";
/// All blocks of reserved object ids.
pub(super) const BLOCKS: &[u8] = b"block/";
/// All partitions that were moved to another shard.
pub(super) const OWNERS: &[u8] = b"owner/";
/// All committed objects that have a live range which no manifest lists.
pub(super) const OBJECTS: &[u8] = b"object/";
/// All altered settings but those of topics.
pub(super) const CONFIGS: &[u8] = b"config/";
/// All objects to be deleted.
pub(super) const GARBAGE: &[u8] = b"garbage/";
/// All objects of which a manifest lists a range.
pub(super) const FOLDED: &[u8] = b"folded/";
/// All manifests, by partition and offset.
pub(super) const MANIFESTS: &[u8] = b"manifest/";
/// All manifests that lie below their partition's log start, or whose topic is gone: what they list is to be released.
pub(super) const DEAD_MANIFESTS: &[u8] = b"dead-manifest/";
/// All access rules.
pub(super) const ACLS: &[u8] = b"acl/";
/// All SCRAM credentials.
pub(super) const SCRAM: &[u8] = b"scram/";

fn key(word: &[u8], rest: &[u8]) -> Vec<u8> {
    [word, rest].concat()
}

/// A broker's record.
pub(super) fn node(node: NodeId) -> Vec<u8> {
    key(NODES, &node.0.to_be_bytes())
}

/// A topic's record.
pub(super) fn topic(topic: TopicId) -> Vec<u8> {
    key(TOPICS, &topic.0)
}

/// A topic's name, whose value is the id: two topics of one name cannot be created.
pub(super) fn name(name: &str) -> Vec<u8> {
    key(b"name/", name.as_bytes())
}

/// A partition's head.
pub(super) fn head(partition: PartitionId) -> Vec<u8> {
    key(HEADS, &[&partition.topic.0[..], &partition.index.to_be_bytes()].concat())
}

/// To which shard a partition was moved.
pub(super) fn owner(partition: PartitionId) -> Vec<u8> {
    key(OWNERS, &[&partition.topic.0[..], &partition.index.to_be_bytes()].concat())
}

/// The block of reserved object ids that begins with `first`.
pub(super) fn block(first: ObjectId) -> Vec<u8> {
    key(BLOCKS, &first.0.to_be_bytes())
}

/// A committed object.
pub(super) fn object(object: ObjectId) -> Vec<u8> {
    key(OBJECTS, &object.0.to_be_bytes())
}

/// An object to be deleted.
pub(super) fn garbage(object: ObjectId) -> Vec<u8> {
    key(GARBAGE, &object.0.to_be_bytes())
}

/// What manifests list of an object.
pub(super) fn folded(object: ObjectId) -> Vec<u8> {
    key(FOLDED, &object.0.to_be_bytes())
}

/// The manifest of a partition that begins at `base`.
pub(super) fn manifest(partition: PartitionId, base: Offset) -> Vec<u8> {
    let (topic, index, base) = (partition.topic.0, partition.index.to_be_bytes(), base.0.to_be_bytes());
    key(MANIFESTS, &[&topic[..], &index, &base].concat())
}

/// A manifest whose entries are to be released.
pub(super) fn dead_manifest(id: ObjectId) -> Vec<u8> {
    key(DEAD_MANIFESTS, &id.0.to_be_bytes())
}

/// Altered settings of this broker, of all brokers, or of a group; those of a topic are in its record.
pub(super) fn config(target: &ConfigTarget, broker: NodeId) -> Vec<u8> {
    match target {
        ConfigTarget::Topic(name) => unreachable!("settings of topic {name} are in its record"),
        ConfigTarget::Broker => key(CONFIGS, &[b"broker/", &broker.0.to_be_bytes()[..]].concat()),
        ConfigTarget::Brokers => key(CONFIGS, b"brokers"),
        ConfigTarget::Group(id) => key(CONFIGS, &[b"group/", id.as_bytes()].concat()),
    }
}

/// What the settings at a key of [`CONFIGS`] are of; `None` for another broker's.
pub(super) fn parse_config(key: &[u8], broker: NodeId) -> Option<ConfigTarget> {
    let rest = key.strip_prefix(CONFIGS)?;
    match rest {
        b"brokers" => Some(ConfigTarget::Brokers),
        _ if key == config(&ConfigTarget::Broker, broker) => Some(ConfigTarget::Broker),
        _ => Some(ConfigTarget::Group(String::from_utf8(rest.strip_prefix(b"group/")?.to_vec()).ok()?)),
    }
}

/// An access rule, by a random id: its texts are too long for a key.
pub(super) fn acl(id: [u8; 16]) -> Vec<u8> {
    key(ACLS, &id)
}

/// A user's SCRAM credential for one mechanism.
pub(super) fn scram(mechanism: Mechanism, user: &str) -> Vec<u8> {
    key(SCRAM, &[&[mechanism.code().unsigned_abs()], user.as_bytes()].concat())
}

/// All WAL slices of a broker.
pub(super) fn slices(node: NodeId) -> Vec<u8> {
    [SLICES, &node.0.to_be_bytes()[..], b"/"].concat()
}

/// All WAL slices of a broker that were given up as lost.
pub(super) fn lost_slices(node: NodeId) -> Vec<u8> {
    [LOST_SLICES, &node.0.to_be_bytes()[..], b"/"].concat()
}

/// A WAL slice that was given up as lost.
pub(super) fn lost_slice(node: NodeId, slice: [u8; 16]) -> Vec<u8> {
    key(&lost_slices(node), &slice)
}

/// A WAL slice.
pub(super) fn slice(node: NodeId, slice: [u8; 16]) -> Vec<u8> {
    key(&slices(node), &slice)
}

/// The topic id in a key of [`TOPICS`].
pub(super) fn parse_topic(key: &[u8]) -> Option<TopicId> {
    Some(TopicId(key.strip_prefix(TOPICS)?.try_into().ok()?))
}

/// The partition in a key of [`HEADS`].
pub(super) fn parse_head(key: &[u8]) -> Option<PartitionId> {
    parse_partition(HEADS, key)
}

/// The partition in a key that begins with `word`.
pub(super) fn parse_partition(word: &[u8], key: &[u8]) -> Option<PartitionId> {
    let (topic, index) = key.strip_prefix(word)?.split_last_chunk::<4>()?;
    Some(PartitionId { topic: TopicId(topic.try_into().ok()?), index: i32::from_be_bytes(*index) })
}

/// The id in a key of [`ACLS`].
pub(super) fn parse_acl(key: &[u8]) -> Option<[u8; 16]> {
    key.strip_prefix(ACLS)?.try_into().ok()
}

/// Mechanism and user in a key of [`SCRAM`].
pub(super) fn parse_scram(key: &[u8]) -> Option<(Mechanism, &str)> {
    let (mechanism, user) = key.strip_prefix(SCRAM)?.split_first()?;
    Some((Mechanism::of(i8::try_from(*mechanism).ok()?)?, std::str::from_utf8(user).ok()?))
}

/// The object id in a key that begins with `word`.
pub(super) fn parse_id(word: &[u8], key: &[u8]) -> Option<ObjectId> {
    Some(ObjectId(u64::from_be_bytes(key.strip_prefix(word)?.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_parse_back_and_keep_the_order_of_ids() {
        let partition = PartitionId { topic: TopicId([7; 16]), index: 258 };
        assert_eq!(parse_head(&head(partition)), Some(partition));
        assert_eq!(parse_topic(&topic(partition.topic)), Some(partition.topic));
        assert_eq!(parse_id(OBJECTS, &object(ObjectId(1 << 40))), Some(ObjectId(1 << 40)));
        assert_eq!(parse_id(OBJECTS, &block(ObjectId(1))), None);
        assert_eq!(parse_head(b"head/short"), None);
        assert_eq!(parse_partition(OWNERS, &owner(partition)), Some(partition));
        for target in [ConfigTarget::Broker, ConfigTarget::Brokers, ConfigTarget::Group("g/1".into())] {
            assert_eq!(parse_config(&config(&target, NodeId(7)), NodeId(7)), Some(target));
        }
        assert_eq!(parse_config(&config(&ConfigTarget::Broker, NodeId(8)), NodeId(7)), None, "another broker's");
        assert_eq!((parse_acl(&acl([7; 16])), parse_acl(b"acl/short")), (Some([7; 16]), None));
        assert_eq!(parse_scram(&scram(Mechanism::Sha512, "zoë")), Some((Mechanism::Sha512, "zoë")));
        assert_eq!((parse_scram(b"scram/"), parse_scram(b"scram/\x09a")), (None, None));
        assert!(object(ObjectId(255)) < object(ObjectId(256)));
        assert!(manifest(partition, Offset(255)) < manifest(partition, Offset(256)));
        assert!(head(partition) < head(PartitionId { index: 259, ..partition }));
    }
}
