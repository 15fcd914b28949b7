//! The one map from our errors to Kafka's codes.

use kafka_protocol::ResponseError;
use thalweg_shards::msg::PartitionError;

use crate::{cluster::ControlError, coordinator::group::GroupError};

/// The code that says "no error".
pub const NONE: i16 = 0;

/// An error of ours that clients see as one of Kafka's.
pub trait ToKafka {
    /// Kafka's error.
    fn to_kafka(&self) -> ResponseError;

    /// Kafka's error code.
    fn code(&self) -> i16 {
        self.to_kafka().code()
    }
}

impl ToKafka for PartitionError {
    fn to_kafka(&self) -> ResponseError {
        match self {
            PartitionError::Moved(_) | PartitionError::Moving(_) | PartitionError::Unavailable => {
                ResponseError::NotLeaderOrFollower
            }
            PartitionError::FencedLeaderEpoch => ResponseError::FencedLeaderEpoch,
            PartitionError::UnknownLeaderEpoch => ResponseError::UnknownLeaderEpoch,
            PartitionError::OffsetOutOfRange { .. } => ResponseError::OffsetOutOfRange,
            PartitionError::CorruptMessage => ResponseError::CorruptMessage,
            PartitionError::InvalidRecord(_) => ResponseError::InvalidRecord,
            PartitionError::InvalidTimestamp => ResponseError::InvalidTimestamp,
            PartitionError::BadRecords(bad) if bad.untimely => ResponseError::InvalidTimestamp,
            PartitionError::BadRecords(_) => ResponseError::InvalidRecord,
            PartitionError::MessageTooLarge => ResponseError::MessageTooLarge,
            PartitionError::UnsupportedCompression => ResponseError::UnsupportedCompressionType,
            PartitionError::OutOfOrderSequence => ResponseError::OutOfOrderSequenceNumber,
            PartitionError::InvalidProducerEpoch => ResponseError::InvalidProducerEpoch,
            PartitionError::RingFull => ResponseError::NotEnoughReplicas,
            PartitionError::TimedOut => ResponseError::RequestTimedOut,
            PartitionError::Storage => ResponseError::KafkaStorageError,
            PartitionError::PolicyViolation => ResponseError::PolicyViolation,
        }
    }
}

impl ToKafka for ControlError {
    fn to_kafka(&self) -> ResponseError {
        match self {
            ControlError::TopicExists(_) => ResponseError::TopicAlreadyExists,
            ControlError::InvalidTopicName(_) => ResponseError::InvalidTopicException,
            ControlError::InvalidPartitions(_) => ResponseError::InvalidPartitions,
            ControlError::InvalidConfig(_) => ResponseError::InvalidConfig,
            ControlError::InvalidRequest(_) => ResponseError::InvalidRequest,
            ControlError::UnknownTopic(_) => ResponseError::UnknownTopicOrPartition,
            ControlError::UnknownTopicId(_) => ResponseError::UnknownTopicId,
            ControlError::TooMany(_) => ResponseError::PolicyViolation,
            ControlError::UnknownCredential(_) => ResponseError::ResourceNotFound,
            ControlError::DiskFull(_) => ResponseError::KafkaStorageError,
        }
    }
}

impl ToKafka for GroupError {
    fn to_kafka(&self) -> ResponseError {
        match self {
            GroupError::OffsetMetadataTooLarge => ResponseError::OffsetMetadataTooLarge,
            GroupError::LoadInProgress => ResponseError::CoordinatorLoadInProgress,
            GroupError::CoordinatorNotAvailable => ResponseError::CoordinatorNotAvailable,
            GroupError::NotCoordinator => ResponseError::NotCoordinator,
            GroupError::IllegalGeneration => ResponseError::IllegalGeneration,
            GroupError::InconsistentProtocol => ResponseError::InconsistentGroupProtocol,
            GroupError::InvalidGroupId => ResponseError::InvalidGroupId,
            GroupError::UnknownMember => ResponseError::UnknownMemberId,
            GroupError::InvalidSessionTimeout => ResponseError::InvalidSessionTimeout,
            GroupError::RebalanceInProgress => ResponseError::RebalanceInProgress,
            GroupError::InvalidCommitOffsetSize => ResponseError::InvalidCommitOffsetSize,
            GroupError::NonEmptyGroup => ResponseError::NonEmptyGroup,
            GroupError::GroupIdNotFound => ResponseError::GroupIdNotFound,
            GroupError::MemberIdRequired(_) => ResponseError::MemberIdRequired,
            GroupError::GroupMaxSizeReached => ResponseError::GroupMaxSizeReached,
            GroupError::FencedInstanceId => ResponseError::FencedInstanceId,
            GroupError::GroupSubscribedToTopic => ResponseError::GroupSubscribedToTopic,
            GroupError::Unauthorized => ResponseError::GroupAuthorizationFailed,
            GroupError::Unstorable => ResponseError::UnknownServerError,
        }
    }
}

impl ToKafka for ResponseError {
    fn to_kafka(&self) -> ResponseError {
        *self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_the_protocol_names() {
        let refused = [
            (PartitionError::Moved(4), 6),
            (PartitionError::CorruptMessage, 2),
            (PartitionError::InvalidRecord("no records"), 87),
            (PartitionError::MessageTooLarge, 10),
            (PartitionError::UnsupportedCompression, 76),
            (PartitionError::OutOfOrderSequence, 45),
            (PartitionError::InvalidProducerEpoch, 47),
            (PartitionError::InvalidTimestamp, 32),
            (PartitionError::RingFull, 19),
            (PartitionError::TimedOut, 7),
            (PartitionError::Storage, 56),
            (PartitionError::PolicyViolation, 44),
            (PartitionError::FencedLeaderEpoch, 74),
            (PartitionError::UnknownLeaderEpoch, 75),
        ];
        for (error, code) in refused {
            assert_eq!(error.code(), code, "{error:?}");
        }
        assert_eq!(ControlError::TopicExists(String::new()).code(), 36);
        assert_eq!(ControlError::UnknownTopicId(String::new()).code(), 100);
    }
}
