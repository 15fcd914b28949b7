//! Why a group did not do what was asked. `src/api/errors.rs` maps each to Kafka's error code.

use std::sync::Arc;

use thalweg_shards::msg::PartitionError;

/// An error of the group coordinator, named after Kafka's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GroupError {
    /// 12.
    #[error("the metadata of the committed offset is too large")]
    OffsetMetadataTooLarge,
    /// 14.
    #[error("the coordinator is loading the group's state")]
    LoadInProgress,
    /// 15.
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable,
    /// 16.
    #[error("the group's coordinator is elsewhere")]
    NotCoordinator,
    /// 22.
    #[error("the generation is not the group's current one")]
    IllegalGeneration,
    /// 23.
    #[error("the member has no protocol in common with the group")]
    InconsistentProtocol,
    /// 24.
    #[error("the group id is not valid")]
    InvalidGroupId,
    /// 25.
    #[error("the group does not know this member")]
    UnknownMember,
    /// 26.
    #[error("the session timeout is outside the broker's limits")]
    InvalidSessionTimeout,
    /// 27.
    #[error("the group is rebalancing: rejoin")]
    RebalanceInProgress,
    /// 28.
    #[error("the commit is larger than the broker takes")]
    InvalidCommitOffsetSize,
    /// 30: an access rule is against it, or none allows it.
    #[error("not authorized to do this to the group")]
    Unauthorized,
    /// 68.
    #[error("the group is not empty")]
    NonEmptyGroup,
    /// 69.
    #[error("there is no such group")]
    GroupIdNotFound,
    /// 79: join again with the member id given here (KIP-394).
    #[error("join again with the member id given")]
    MemberIdRequired(Arc<str>),
    /// 81.
    #[error("the group has as many members as it may have")]
    GroupMaxSizeReached,
    /// 82: another member has taken the group instance id over (KIP-345).
    #[error("another member holds the group instance id")]
    FencedInstanceId,
    /// 86.
    #[error("the group is subscribed to the topic")]
    GroupSubscribedToTopic,
    /// -1: the group's metadata cannot be stored.
    #[error("the group's metadata could not be stored")]
    Unstorable,
}

impl GroupError {
    /// What a failed append of the coordinator means to the client, as Kafka maps it: ask another coordinator, try again,
    /// or give up.
    pub fn from_append(error: &PartitionError) -> GroupError {
        match error {
            PartitionError::RingFull | PartitionError::TimedOut => GroupError::CoordinatorNotAvailable,
            PartitionError::Moved(_)
            | PartitionError::Moving(_)
            | PartitionError::Unavailable
            | PartitionError::FencedLeaderEpoch
            | PartitionError::UnknownLeaderEpoch
            | PartitionError::Storage => GroupError::NotCoordinator,
            PartitionError::MessageTooLarge => GroupError::InvalidCommitOffsetSize,
            _ => GroupError::Unstorable,
        }
    }

    /// The same for the group's own metadata, where the size is nobody's commit.
    pub(super) fn for_metadata(self) -> GroupError {
        match self {
            GroupError::InvalidCommitOffsetSize => GroupError::Unstorable,
            other => other,
        }
    }
}
