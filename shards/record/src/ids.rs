//! Identities that must not be mixed up.

use std::fmt;

/// A topic's identity for ever: a UUID, of which a deleted and recreated topic gets a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// The id that Kafka uses for "none" (KIP-516).
    pub const ZERO: TopicId = TopicId([0; 16]);
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A partition's identity: topic id and index, never the topic's name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PartitionId {
    /// The topic.
    pub topic: TopicId,
    /// Index within the topic, from 0.
    pub index: i32,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.index)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A record's place in its partition: dense, from 0, never reused.
    Offset(i64)
}
number! {
    /// The epoch of a partition's leadership. It comes from the metadata store and never falls.
    LeaderEpoch(i32)
}
number! {
    /// One shard of this broker, from 0: one pinned executor, one WAL slice.
    ShardId(u16)
}
number! {
    /// Kafka's `node.id`.
    NodeId(i32)
}

impl Offset {
    /// The next offset after this one.
    pub fn next(self) -> Offset {
        Offset(self.0 + 1)
    }
}
