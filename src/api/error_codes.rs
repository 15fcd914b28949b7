//! Where each answer holds its error codes: one table, by which they are counted when an answer is encoded.

use kafka_protocol::messages::{
    AlterConfigsResponse, AlterPartitionReassignmentsResponse, AlterReplicaLogDirsResponse,
    AlterUserScramCredentialsResponse, ApiVersionsResponse, CreateAclsResponse, CreateDelegationTokenResponse,
    CreatePartitionsResponse, CreateTopicsResponse, DeleteAclsResponse, DeleteGroupsResponse, DeleteRecordsResponse,
    DeleteTopicsResponse, DescribeAclsResponse, DescribeClientQuotasResponse, DescribeClusterResponse,
    DescribeConfigsResponse, DescribeDelegationTokenResponse, DescribeGroupsResponse, DescribeLogDirsResponse,
    DescribeProducersResponse, DescribeQuorumResponse, DescribeTopicPartitionsResponse, DescribeTransactionsResponse,
    DescribeUserScramCredentialsResponse, ElectLeadersResponse, ExpireDelegationTokenResponse, FindCoordinatorResponse,
    HeartbeatResponse, IncrementalAlterConfigsResponse, InitProducerIdResponse, JoinGroupResponse, LeaveGroupResponse,
    ListConfigResourcesResponse, ListGroupsResponse, ListOffsetsResponse, ListPartitionReassignmentsResponse,
    ListTransactionsResponse, MetadataResponse, OffsetCommitResponse, OffsetDeleteResponse, OffsetFetchResponse,
    OffsetForLeaderEpochResponse, ProduceResponse, RenewDelegationTokenResponse, SyncGroupResponse,
    UnregisterBrokerResponse,
};

use super::errors::NONE;

/// An answer that tells of errors.
pub trait ErrorCodes {
    /// Adds every code in it to `tally`.
    fn count(&self, tally: &mut ErrorTally);
}

/// How often each code stands in an answer; 0, no error, is not counted. Without errors it takes no memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ErrorTally(Vec<(i16, u64)>);

impl ErrorTally {
    /// That of an answer.
    pub fn of(answer: &impl ErrorCodes) -> ErrorTally {
        let mut tally = ErrorTally::default();
        answer.count(&mut tally);
        tally
    }

    /// Counts one code.
    pub fn add(&mut self, code: i16) {
        if code == NONE {
            return;
        }
        match self.0.iter_mut().find(|(known, _)| *known == code) {
            Some((_, count)) => *count += 1,
            None => self.0.push((code, 1)),
        }
    }

    /// Codes and how often each was met.
    pub fn iter(&self) -> impl Iterator<Item = (i16, u64)> + '_ {
        self.0.iter().copied()
    }
}

/// Goes down the lists named, and counts the code of what they hold.
macro_rules! each {
    ($tally:ident, $at:expr,) => { $tally.add($at.error_code) };
    ($tally:ident, $at:expr, $list:ident $($below:ident)*) => {
        for held in &$at.$list {
            each!($tally, held, $($below)*);
        }
    };
}

/// For each answer: the ways to its codes, list by list; `[]` is the answer's own.
macro_rules! error_codes {
    ($($answer:ident: $([$($list:ident)*])+;)*) => {$(
        impl ErrorCodes for $answer {
            fn count(&self, tally: &mut ErrorTally) {
                $(each!(tally, self, $($list)*);)+
            }
        }
    )*};
}

error_codes! {
    ProduceResponse: [responses partition_responses];
    ListOffsetsResponse: [topics partitions];
    MetadataResponse: [] [topics] [topics partitions];
    OffsetCommitResponse: [topics partitions];
    OffsetFetchResponse: [] [topics partitions] [groups] [groups topics partitions];
    FindCoordinatorResponse: [] [coordinators];
    JoinGroupResponse: [];
    HeartbeatResponse: [];
    LeaveGroupResponse: [] [members];
    SyncGroupResponse: [];
    DescribeGroupsResponse: [groups];
    ListGroupsResponse: [];
    ApiVersionsResponse: [];
    CreateTopicsResponse: [topics];
    DeleteTopicsResponse: [responses];
    DeleteRecordsResponse: [topics partitions];
    InitProducerIdResponse: [];
    OffsetForLeaderEpochResponse: [topics partitions];
    DescribeAclsResponse: [];
    CreateAclsResponse: [results];
    DeleteAclsResponse: [filter_results];
    DescribeConfigsResponse: [results];
    AlterConfigsResponse: [responses];
    AlterReplicaLogDirsResponse: [results partitions];
    DescribeLogDirsResponse: [] [results];
    CreatePartitionsResponse: [results];
    CreateDelegationTokenResponse: [];
    RenewDelegationTokenResponse: [];
    ExpireDelegationTokenResponse: [];
    DescribeDelegationTokenResponse: [];
    DeleteGroupsResponse: [results];
    ElectLeadersResponse: [] [replica_election_results partition_result];
    IncrementalAlterConfigsResponse: [responses];
    AlterPartitionReassignmentsResponse: [] [responses partitions];
    ListPartitionReassignmentsResponse: [];
    OffsetDeleteResponse: [] [topics partitions];
    DescribeClientQuotasResponse: [];
    DescribeUserScramCredentialsResponse: [] [results];
    AlterUserScramCredentialsResponse: [results];
    DescribeQuorumResponse: [] [topics partitions];
    DescribeClusterResponse: [];
    DescribeProducersResponse: [topics partitions];
    UnregisterBrokerResponse: [];
    DescribeTransactionsResponse: [transaction_states];
    ListTransactionsResponse: [];
    ListConfigResourcesResponse: [];
    DescribeTopicPartitionsResponse: [topics] [topics partitions];
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{
        offset_fetch_response::{OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics},
        produce_response::{PartitionProduceResponse, TopicProduceResponse},
    };

    use super::*;

    #[test]
    fn codes_are_counted_wherever_they_stand() {
        let partition = |code| PartitionProduceResponse::default().with_error_code(code);
        let topic = |codes: &[i16]| {
            TopicProduceResponse::default().with_partition_responses(codes.iter().copied().map(partition).collect())
        };
        let answer = ProduceResponse::default().with_responses(vec![topic(&[0, 3, 19]), topic(&[]), topic(&[3])]);
        assert_eq!(ErrorTally::of(&answer).iter().collect::<Vec<_>>(), [(3, 2), (19, 1)]);

        let parts = vec![OffsetFetchResponsePartitions::default().with_error_code(88)];
        let topics = vec![OffsetFetchResponseTopics::default().with_partitions(parts)];
        let group = |code| OffsetFetchResponseGroup::default().with_error_code(code);
        let groups = vec![group(0).with_topics(topics), group(14), group(-1)];
        let answer = OffsetFetchResponse::default().with_groups(groups);
        assert_eq!(ErrorTally::of(&answer).iter().collect::<Vec<_>>(), [(14, 1), (-1, 1), (88, 1)]);
        assert_eq!(ErrorTally::of(&HeartbeatResponse::default()), ErrorTally::default());
    }
}
