//! What the API handlers ask of the control actor. Answered only when durable *and* every shard acknowledged the
//! revision *and* the new snapshot has reached every shard's edge.

use std::{collections::BTreeMap, fmt};

use flume::Sender;
use thalweg_record::{PartitionId, ShardId, TopicId};

use super::{access::ScramChange, altered::ConfigTarget};
use crate::auth::{AclBinding, AclFilter, scram::Mechanism};

/// A request to control.
#[derive(Debug)]
pub enum ControlRequest {
    /// Creates topics, each on its own fate, in order.
    CreateTopics {
        /// The topics.
        topics: Vec<CreateTopic>,
        /// Check only.
        validate_only: bool,
        /// One result per topic, in order.
        reply: Sender<Vec<Result<CreatedTopic, ControlError>>>,
    },
    /// Deletes topics by id.
    DeleteTopics {
        /// Which.
        ids: Vec<TopicId>,
        /// One result per topic, in order.
        reply: Sender<Vec<Result<(), ControlError>>>,
    },
    /// Raises a topic's partition count.
    CreatePartitions {
        /// Topic name and new total.
        topics: Vec<(String, i32)>,
        /// Check only.
        validate_only: bool,
        /// One result per topic, in order.
        reply: Sender<Vec<Result<(), ControlError>>>,
    },
    /// Changes settings of a topic, of brokers, or of a group.
    AlterConfigs {
        /// Of what.
        target: ConfigTarget,
        /// The changes, in order.
        ops: Vec<ConfigOp>,
        /// Check only.
        validate_only: bool,
        /// The result.
        reply: Sender<Result<(), ControlError>>,
    },
    /// Creates access rules, each on its own fate.
    CreateAcls {
        /// The rules, each checked for itself.
        rules: Vec<AclBinding>,
        /// One result per rule, in order. One that exists is as good as created.
        reply: Sender<Vec<Result<(), ControlError>>>,
    },
    /// Deletes the access rules that filters mean.
    DeleteAcls {
        /// The filters.
        filters: Vec<AclFilter>,
        /// Per filter, in order: the rules it means; one may be meant by several.
        reply: Sender<Vec<Result<Vec<AclBinding>, ControlError>>>,
    },
    /// Sets and deletes SCRAM credentials.
    AlterScram {
        /// All that is asked for a user, of which all or nothing is done.
        users: Vec<(String, BTreeMap<Mechanism, ScramChange>)>,
        /// One result per user, in order.
        reply: Sender<Vec<Result<(), ControlError>>>,
    },
    /// Moves partitions to other shards of this broker. Those that cannot move now stay where they are.
    MovePartitions {
        /// Which, and where to; each once.
        moves: Vec<(PartitionId, ShardId)>,
        /// Those that have moved.
        reply: Sender<Vec<PartitionId>>,
    },
    /// Reserves a block of producer ids, durably, never reused.
    ReserveProducerIds {
        /// How many.
        count: u32,
        /// First id of the block.
        reply: Sender<i64>,
    },
}

/// One change of a setting.
#[derive(Clone, PartialEq, Eq)]
pub enum ConfigOp {
    /// Sets a value.
    Set(String, String),
    /// Back to the default.
    Delete(String),
    /// Adds to a list.
    Append(String, String),
    /// Takes from a list.
    Subtract(String, String),
}

/// Names alone: a value may be a secret.
impl fmt::Debug for ConfigOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigOp::Set(name, _) => f.debug_tuple("Set").field(name).finish_non_exhaustive(),
            ConfigOp::Delete(name) => f.debug_tuple("Delete").field(name).finish(),
            ConfigOp::Append(name, _) => f.debug_tuple("Append").field(name).finish_non_exhaustive(),
            ConfigOp::Subtract(name, _) => f.debug_tuple("Subtract").field(name).finish_non_exhaustive(),
        }
    }
}

/// A topic to create.
#[derive(Clone, Debug)]
pub struct CreateTopic {
    /// Its name.
    pub name: String,
    /// Partitions; `None` takes `num.partitions`.
    pub partitions: Option<i32>,
    /// Settings by Kafka's name.
    pub configs: BTreeMap<String, String>,
    /// Whether it is one of Kafka's internal topics.
    pub internal: bool,
}

/// A topic that was (or could be) created.
#[derive(Clone, Debug)]
pub struct CreatedTopic {
    /// Its id; zero under validate_only.
    pub id: TopicId,
    /// Its partition count.
    pub partitions: i32,
}

/// Why control refused; `src/api/errors.rs` maps each to Kafka's code. The text is for the client's `error_message`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ControlError {
    /// 36.
    #[error("{0}")]
    TopicExists(String),
    /// 17.
    #[error("{0}")]
    InvalidTopicName(String),
    /// 37.
    #[error("{0}")]
    InvalidPartitions(String),
    /// 40.
    #[error("{0}")]
    InvalidConfig(String),
    /// 42.
    #[error("{0}")]
    InvalidRequest(String),
    /// 3.
    #[error("{0}")]
    UnknownTopic(String),
    /// 56, which clients may repeat.
    #[error("{0}")]
    DiskFull(String),
    /// 100.
    #[error("{0}")]
    UnknownTopicId(String),
    /// 44.
    #[error("{0}")]
    TooMany(String),
    /// 91.
    #[error("{0}")]
    UnknownCredential(String),
}
