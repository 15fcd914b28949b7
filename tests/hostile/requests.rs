//! A request of every key and version that a client might really send, its arrays filled.
//!
//! What has no sample here yet is made up from chance: a body that decodes, with as much in it as could be found. So a key
//! that is offered is attacked from its first day.

use bytes::Bytes;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use thalweg::net::{bounds, guarded};
use thalweg_rig::{Chance, batch, encoded};
use uuid::Uuid;

/// The topic that requests are about; the test creates it with [`PARTITIONS`].
pub const TOPIC: &str = "attacked";
pub const PARTITIONS: i32 = 4;

/// Topics that requests create and delete.
const DOOMED: &str = "doomed";

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn name(name: &'static str) -> TopicName {
    TopicName(text(name))
}

fn group() -> GroupId {
    GroupId(text("attacked-group"))
}

/// Bodies of `key` in `version`; `id` is the identity of [`TOPIC`].
pub fn samples(key: i16, version: i16, id: Uuid, chance: &mut Chance) -> Vec<Bytes> {
    let known = ApiKey::try_from(key).ok().filter(|key| known_versions(*key).contains(&version));
    let plausible = known.and_then(|key| plausible(key, version, id));
    plausible.into_iter().chain(found(key, version, chance)).collect()
}

fn known_versions(key: ApiKey) -> std::ops::RangeInclusive<i16> {
    let known = key.valid_versions();
    known.min..=known.max
}

/// A body made of chance that passes the walk and the decoder; the longest of many.
fn found(key: i16, version: i16, chance: &mut Chance) -> Option<Bytes> {
    let known = ApiKey::try_from(key).ok().filter(|key| known_versions(*key).contains(&version))?;
    let mut best: Option<Bytes> = None;
    for _ in 0..300 {
        let (length, mask) = (1 + chance.below(120), *chance.of(&[0x07, 0x03, 0x01]));
        let body: Bytes = chance.bytes(length).into_iter().map(|byte| byte & mask).collect();
        let mut rest = body.clone();
        let decodes = bounds::check(key, version, &body).is_ok()
            && guarded(|| RequestKind::decode(known, &mut rest, version)).is_ok();
        let used = body.len() - rest.len();
        if decodes && best.as_ref().is_none_or(|best| best.len() < used) {
            best = Some(body.slice(..used));
        }
    }
    best
}

fn plausible(key: ApiKey, version: i16, id: Uuid) -> Option<Bytes> {
    let v = version;
    Some(match key {
        ApiKey::Produce => encoded(&produce(v, id), v),
        ApiKey::Fetch => encoded(&fetch(v, id), v),
        ApiKey::ListOffsets => encoded(&list_offsets(v), v),
        ApiKey::Metadata => encoded(&metadata(v, id), v),
        ApiKey::OffsetCommit => encoded(&offset_commit(v), v),
        ApiKey::OffsetFetch => encoded(&offset_fetch(v), v),
        ApiKey::FindCoordinator => encoded(&find_coordinator(v), v),
        ApiKey::JoinGroup => encoded(&join_group(v), v),
        ApiKey::Heartbeat => encoded(&heartbeat(v), v),
        ApiKey::LeaveGroup => encoded(&leave_group(v), v),
        ApiKey::SyncGroup => encoded(&sync_group(v), v),
        ApiKey::DescribeGroups => encoded(&describe_groups(v), v),
        ApiKey::ListGroups => encoded(&list_groups(v), v),
        ApiKey::ApiVersions => encoded(&api_versions(v), v),
        ApiKey::CreateTopics => encoded(&create_topics(), v),
        ApiKey::DeleteTopics => encoded(&delete_topics(v), v),
        ApiKey::DeleteRecords => encoded(&delete_records(), v),
        ApiKey::InitProducerId => encoded(&init_producer_id(v), v),
        ApiKey::OffsetForLeaderEpoch => encoded(&offset_for_leader_epoch(v), v),
        ApiKey::DescribeConfigs => encoded(&describe_configs(v), v),
        ApiKey::AlterConfigs => encoded(&alter_configs(), v),
        ApiKey::CreatePartitions => encoded(&create_partitions(), v),
        ApiKey::DeleteGroups => encoded(&DeleteGroupsRequest::default().with_groups_names(vec![group(), group()]), v),
        ApiKey::IncrementalAlterConfigs => encoded(&incremental_alter_configs(), v),
        ApiKey::OffsetDelete => encoded(&offset_delete(), v),
        ApiKey::DescribeCluster => encoded(&describe_cluster(v), v),
        ApiKey::DescribeTopicPartitions => encoded(&describe_topic_partitions(), v),
        ApiKey::DescribeAcls => encoded(&describe_acls(), v),
        ApiKey::CreateAcls => encoded(&create_acls(), v),
        ApiKey::DeleteAcls => encoded(&delete_acls(), v),
        ApiKey::AlterReplicaLogDirs => encoded(&alter_replica_log_dirs(), v),
        ApiKey::DescribeLogDirs => encoded(&describe_log_dirs(), v),
        ApiKey::ElectLeaders => encoded(&elect_leaders(v), v),
        ApiKey::AlterPartitionReassignments => encoded(&alter_partition_reassignments(v), v),
        ApiKey::ListPartitionReassignments => encoded(&list_partition_reassignments(), v),
        ApiKey::DescribeClientQuotas => encoded(&describe_client_quotas(), v),
        ApiKey::DescribeUserScramCredentials => encoded(&describe_user_scram_credentials(), v),
        ApiKey::AlterUserScramCredentials => encoded(&alter_user_scram_credentials(), v),
        ApiKey::DescribeQuorum => encoded(&describe_quorum(), v),
        ApiKey::UnregisterBroker => encoded(&UnregisterBrokerRequest::default().with_broker_id(BrokerId(9)), v),
        ApiKey::DescribeTransactions => encoded(&describe_transactions(), v),
        ApiKey::ListTransactions => encoded(&list_transactions(v), v),
        ApiKey::ListConfigResources => encoded(&list_config_resources(v), v),
        _ => return None,
    })
}

fn produce(v: i16, id: Uuid) -> ProduceRequest {
    use produce_request::{PartitionProduceData, TopicProduceData};
    let data =
        |index| PartitionProduceData::default().with_index(index).with_records(Some(batch::plain(&[b"one", b"two"])));
    let topic = TopicProduceData::default().with_partition_data(vec![data(0), data(3)]);
    let topic = if v >= 13 { topic.with_topic_id(id) } else { topic.with_name(name(TOPIC)) };
    ProduceRequest::default().with_acks(-1).with_timeout_ms(1000).with_topic_data(vec![topic])
}

fn fetch(v: i16, id: Uuid) -> FetchRequest {
    use fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
    let part =
        |index| FetchPartition::default().with_partition(index).with_fetch_offset(0).with_partition_max_bytes(1 << 16);
    let (topic, gone) = (FetchTopic::default().with_partitions(vec![part(0), part(1)]), ForgottenTopic::default());
    let (topic, gone) = match v >= 13 {
        true => (topic.with_topic_id(id), gone.with_topic_id(id)),
        false => (topic.with_topic(name(TOPIC)), gone.with_topic(name(TOPIC))),
    };
    let request = FetchRequest::default().with_replica_id(BrokerId(-1)).with_max_wait_ms(1).with_min_bytes(1);
    let request = request.with_max_bytes(1 << 20).with_topics(vec![topic]);
    let request =
        if v >= 7 { request.with_forgotten_topics_data(vec![gone.with_partitions(vec![0, 1])]) } else { request };
    let request = if v >= 11 { request.with_rack_id(text("rack")) } else { request };
    if v >= 12 { request.with_cluster_id(Some(text("cluster"))) } else { request }
}

fn list_offsets(v: i16) -> ListOffsetsRequest {
    use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    let part = |index, time| ListOffsetsPartition::default().with_partition_index(index).with_timestamp(time);
    let parts = vec![part(0, -1), part(1, -2), part(2, 1_700_000_000_000)];
    let topic = ListOffsetsTopic::default().with_name(name(TOPIC)).with_partitions(parts);
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    if v >= 2 { request.with_isolation_level(1) } else { request }
}

fn metadata(v: i16, id: Uuid) -> MetadataRequest {
    use metadata_request::MetadataRequestTopic;
    let named = |topic| MetadataRequestTopic::default().with_name(Some(name(topic)));
    let mut topics = vec![named(TOPIC), named("never.created")];
    if v >= 12 {
        topics.push(MetadataRequestTopic::default().with_topic_id(id).with_name(None));
    }
    let request = MetadataRequest::default().with_topics(Some(topics));
    if v >= 4 { request.with_allow_auto_topic_creation(false) } else { request }
}

fn offset_commit(v: i16) -> OffsetCommitRequest {
    use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
    let part = |index| {
        let part = OffsetCommitRequestPartition::default().with_partition_index(index).with_committed_offset(7);
        part.with_committed_metadata(Some(text("kept with the offset")))
    };
    let topic = OffsetCommitRequestTopic::default().with_name(name(TOPIC)).with_partitions(vec![part(0), part(1)]);
    let request = OffsetCommitRequest::default().with_group_id(group()).with_topics(vec![topic]);
    let request = request.with_generation_id_or_member_epoch(-1);
    if v >= 7 { request.with_group_instance_id(Some(text("instance"))) } else { request }
}

fn offset_fetch(v: i16) -> OffsetFetchRequest {
    use offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics};
    if v < 8 {
        let topic = OffsetFetchRequestTopic::default().with_name(name(TOPIC)).with_partition_indexes(vec![0, 1, 2]);
        return OffsetFetchRequest::default().with_group_id(group()).with_topics(Some(vec![topic]));
    }
    let topic = OffsetFetchRequestTopics::default().with_name(name(TOPIC)).with_partition_indexes(vec![0, 1, 2]);
    let asked = OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(Some(vec![topic]));
    OffsetFetchRequest::default().with_groups(vec![asked.clone(), asked])
}

fn find_coordinator(v: i16) -> FindCoordinatorRequest {
    match v {
        0..=3 => FindCoordinatorRequest::default().with_key(text("attacked-group")),
        _ => FindCoordinatorRequest::default().with_coordinator_keys(vec![text("attacked-group"), text("another")]),
    }
}

fn join_group(v: i16) -> JoinGroupRequest {
    use join_group_request::JoinGroupRequestProtocol;
    let protocol = |name| {
        JoinGroupRequestProtocol::default().with_name(text(name)).with_metadata(Bytes::from_static(b"\0\x01\0\0\0\0"))
    };
    let request = JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(6000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol("range"), protocol("roundrobin")]);
    let request = if v >= 1 { request.with_rebalance_timeout_ms(100) } else { request };
    if v >= 8 { request.with_reason(Some(text("because"))) } else { request }
}

fn heartbeat(v: i16) -> HeartbeatRequest {
    let request =
        HeartbeatRequest::default().with_group_id(group()).with_generation_id(1).with_member_id(text("member"));
    if v >= 3 { request.with_group_instance_id(Some(text("instance"))) } else { request }
}

fn leave_group(v: i16) -> LeaveGroupRequest {
    use leave_group_request::MemberIdentity;
    let request = LeaveGroupRequest::default().with_group_id(group());
    if v < 3 {
        return request.with_member_id(text("member"));
    }
    let member = |id| MemberIdentity::default().with_member_id(text(id)).with_group_instance_id(Some(text("instance")));
    request.with_members(vec![member("member"), member("")])
}

fn sync_group(v: i16) -> SyncGroupRequest {
    use sync_group_request::SyncGroupRequestAssignment;
    let assignment = |id| {
        SyncGroupRequestAssignment::default().with_member_id(text(id)).with_assignment(Bytes::from_static(b"some"))
    };
    let request = SyncGroupRequest::default()
        .with_group_id(group())
        .with_generation_id(1)
        .with_member_id(text("member"))
        .with_assignments(vec![assignment("member"), assignment("other")]);
    let request = if v >= 3 { request.with_group_instance_id(Some(text("instance"))) } else { request };
    match v >= 5 {
        true => request.with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("range"))),
        false => request,
    }
}

fn describe_groups(v: i16) -> DescribeGroupsRequest {
    let request = DescribeGroupsRequest::default().with_groups(vec![group(), GroupId(text("none"))]);
    if v >= 3 { request.with_include_authorized_operations(true) } else { request }
}

fn list_groups(v: i16) -> ListGroupsRequest {
    let request = ListGroupsRequest::default();
    let request = if v >= 4 { request.with_states_filter(vec![text("Stable"), text("Empty")]) } else { request };
    if v >= 5 { request.with_types_filter(vec![text("classic")]) } else { request }
}

fn api_versions(v: i16) -> ApiVersionsRequest {
    let request = ApiVersionsRequest::default();
    match v >= 3 {
        true => request.with_client_software_name(text("rig")).with_client_software_version(text("1.0")),
        false => request,
    }
}

fn create_topics() -> CreateTopicsRequest {
    use create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
    let config = CreatableTopicConfig::default().with_name(text("retention.ms")).with_value(Some(text("1000")));
    let counted = CreatableTopic::default().with_name(name(DOOMED)).with_num_partitions(2).with_replication_factor(1);
    let assigned = CreatableReplicaAssignment::default().with_partition_index(0).with_broker_ids(vec![BrokerId(1)]);
    let by_hand = CreatableTopic::default().with_name(name("doomed-by-hand")).with_num_partitions(-1);
    let by_hand = by_hand.with_replication_factor(-1).with_assignments(vec![assigned]);
    CreateTopicsRequest::default()
        .with_topics(vec![counted.with_configs(vec![config]), by_hand])
        .with_timeout_ms(1000)
        .with_validate_only(true)
}

fn delete_topics(v: i16) -> DeleteTopicsRequest {
    use delete_topics_request::DeleteTopicState;
    let request = DeleteTopicsRequest::default().with_timeout_ms(1000);
    if v < 6 {
        return request.with_topic_names(vec![name(DOOMED), name("doomed-by-hand")]);
    }
    let by_id = DeleteTopicState::default().with_name(None).with_topic_id(Uuid::from_u128(7));
    request.with_topics(vec![DeleteTopicState::default().with_name(Some(name(DOOMED))), by_id])
}

fn delete_records() -> DeleteRecordsRequest {
    use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
    let part = |index, offset| DeleteRecordsPartition::default().with_partition_index(index).with_offset(offset);
    let topic = DeleteRecordsTopic::default().with_name(name(TOPIC)).with_partitions(vec![part(0, 1), part(1, -1)]);
    DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(1000)
}

fn init_producer_id(v: i16) -> InitProducerIdRequest {
    let request = InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(1000);
    if v >= 3 { request.with_producer_id(ProducerId(-1)).with_producer_epoch(-1) } else { request }
}

fn offset_for_leader_epoch(v: i16) -> OffsetForLeaderEpochRequest {
    use offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
    let part = |index| {
        let part = OffsetForLeaderPartition::default().with_partition(index).with_leader_epoch(1);
        part.with_current_leader_epoch(-1)
    };
    let topic = OffsetForLeaderTopic::default().with_topic(name(TOPIC)).with_partitions(vec![part(0), part(1)]);
    let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
    if v >= 3 { request.with_replica_id(BrokerId(-1)) } else { request }
}

fn describe_configs(v: i16) -> DescribeConfigsRequest {
    use describe_configs_request::DescribeConfigsResource;
    let topic = DescribeConfigsResource::default().with_resource_type(2).with_resource_name(text(TOPIC));
    let topic = topic.with_configuration_keys(Some(vec![text("retention.ms"), text("cleanup.policy")]));
    let broker = DescribeConfigsResource::default().with_resource_type(4).with_resource_name(text("1"));
    let request = DescribeConfigsRequest::default();
    let request = request.with_resources(vec![topic, broker.with_configuration_keys(None)]).with_include_synonyms(true);
    if v >= 3 { request.with_include_documentation(true) } else { request }
}

fn alter_configs() -> AlterConfigsRequest {
    use alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let config = AlterableConfig::default().with_name(text("retention.ms")).with_value(Some(text("3600000")));
    let topic = AlterConfigsResource::default().with_resource_type(2).with_resource_name(text(TOPIC));
    AlterConfigsRequest::default().with_resources(vec![topic.with_configs(vec![config.clone(), config])])
}

fn create_partitions() -> CreatePartitionsRequest {
    use create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
    let assigned = CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1)]);
    let topic = CreatePartitionsTopic::default().with_name(name(TOPIC)).with_count(PARTITIONS + 1);
    let topics = vec![topic.with_assignments(Some(vec![assigned]))];
    CreatePartitionsRequest::default().with_topics(topics).with_timeout_ms(1000).with_validate_only(true)
}

fn incremental_alter_configs() -> IncrementalAlterConfigsRequest {
    use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let set = AlterableConfig::default().with_name(text("retention.ms")).with_value(Some(text("3600000")));
    let append = AlterableConfig::default().with_name(text("cleanup.policy")).with_config_operation(2);
    let topic = AlterConfigsResource::default().with_resource_type(2).with_resource_name(text(TOPIC));
    let topic = topic.with_configs(vec![set, append.with_value(Some(text("delete")))]);
    IncrementalAlterConfigsRequest::default().with_resources(vec![topic])
}

fn offset_delete() -> OffsetDeleteRequest {
    use offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
    let part = |index| OffsetDeleteRequestPartition::default().with_partition_index(index);
    let topic = OffsetDeleteRequestTopic::default().with_name(name(TOPIC)).with_partitions(vec![part(0), part(1)]);
    OffsetDeleteRequest::default().with_group_id(group()).with_topics(vec![topic])
}

fn describe_cluster(v: i16) -> DescribeClusterRequest {
    let request = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
    if v >= 1 { request.with_endpoint_type(1) } else { request }
}

fn describe_topic_partitions() -> DescribeTopicPartitionsRequest {
    use describe_topic_partitions_request::{Cursor, TopicRequest};
    let topic = |topic| TopicRequest::default().with_name(name(topic));
    let cursor = Cursor::default().with_topic_name(name(TOPIC)).with_partition_index(1);
    DescribeTopicPartitionsRequest::default()
        .with_topics(vec![topic(TOPIC), topic("none")])
        .with_response_partition_limit(3)
        .with_cursor(Some(cursor))
}

fn describe_acls() -> DescribeAclsRequest {
    let request = DescribeAclsRequest::default().with_resource_type_filter(2).with_pattern_type_filter(3);
    let request = request.with_resource_name_filter(Some(text(TOPIC))).with_principal_filter(Some(text("User:anyone")));
    request.with_host_filter(Some(text("*"))).with_operation(2).with_permission_type(3)
}

fn create_acls() -> CreateAclsRequest {
    use create_acls_request::AclCreation;
    let rule =
        AclCreation::default().with_resource_type(2).with_resource_name(text(TOPIC)).with_resource_pattern_type(3);
    let rule = rule.with_principal(text("User:anyone")).with_host(text("*")).with_operation(2).with_permission_type(3);
    CreateAclsRequest::default().with_creations(vec![rule.clone(), rule])
}

fn delete_acls() -> DeleteAclsRequest {
    use delete_acls_request::DeleteAclsFilter;
    let filter = DeleteAclsFilter::default().with_resource_type_filter(2).with_pattern_type_filter(1);
    let filter = filter.with_resource_name_filter(Some(text(TOPIC))).with_host_filter(Some(text("*")));
    DeleteAclsRequest::default().with_filters(vec![filter.clone().with_principal_filter(None), filter])
}

fn alter_replica_log_dirs() -> AlterReplicaLogDirsRequest {
    use alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
    let topic = AlterReplicaLogDirTopic::default().with_name(name(TOPIC)).with_partitions(vec![0, 1]);
    let dir = AlterReplicaLogDir::default().with_path(text("/elsewhere")).with_topics(vec![topic]);
    AlterReplicaLogDirsRequest::default().with_dirs(vec![dir.clone(), dir])
}

fn describe_log_dirs() -> DescribeLogDirsRequest {
    use describe_log_dirs_request::DescribableLogDirTopic;
    let topic = |topic| DescribableLogDirTopic::default().with_topic(name(topic)).with_partitions(vec![0, 3, 9]);
    DescribeLogDirsRequest::default().with_topics(Some(vec![topic(TOPIC), topic("never.created")]))
}

fn elect_leaders(v: i16) -> ElectLeadersRequest {
    use elect_leaders_request::TopicPartitions;
    let topic = TopicPartitions::default().with_topic(name(TOPIC)).with_partitions(vec![0, 1]);
    let request = ElectLeadersRequest::default().with_topic_partitions(Some(vec![topic])).with_timeout_ms(1000);
    if v >= 1 { request.with_election_type(1) } else { request }
}

fn alter_partition_reassignments(v: i16) -> AlterPartitionReassignmentsRequest {
    use alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
    let part = |index, replicas| ReassignablePartition::default().with_partition_index(index).with_replicas(replicas);
    let parts = vec![part(0, Some(vec![BrokerId(1), BrokerId(2)])), part(1, None)];
    let topic = ReassignableTopic::default().with_name(name(TOPIC)).with_partitions(parts);
    let request = AlterPartitionReassignmentsRequest::default().with_timeout_ms(1000).with_topics(vec![topic]);
    if v >= 1 { request.with_allow_replication_factor_change(false) } else { request }
}

fn list_partition_reassignments() -> ListPartitionReassignmentsRequest {
    use list_partition_reassignments_request::ListPartitionReassignmentsTopics;
    let topic = ListPartitionReassignmentsTopics::default().with_name(name(TOPIC)).with_partition_indexes(vec![0, 1]);
    ListPartitionReassignmentsRequest::default().with_topics(Some(vec![topic])).with_timeout_ms(1000)
}

fn describe_client_quotas() -> DescribeClientQuotasRequest {
    use describe_client_quotas_request::ComponentData;
    let user = ComponentData::default().with_entity_type(text("user")).with_match(Some(text("anyone")));
    let client = ComponentData::default().with_entity_type(text("client-id")).with_match_type(2).with_match(None);
    DescribeClientQuotasRequest::default().with_components(vec![user, client]).with_strict(true)
}

fn describe_user_scram_credentials() -> DescribeUserScramCredentialsRequest {
    use describe_user_scram_credentials_request::UserName;
    let user = |name| UserName::default().with_name(text(name));
    DescribeUserScramCredentialsRequest::default().with_users(Some(vec![user("anyone"), user("anyone"), user("b")]))
}

fn alter_user_scram_credentials() -> AlterUserScramCredentialsRequest {
    use alter_user_scram_credentials_request::{ScramCredentialDeletion, ScramCredentialUpsertion};
    let deletion = ScramCredentialDeletion::default().with_name(text("anyone")).with_mechanism(1);
    let upsertion = ScramCredentialUpsertion::default().with_name(text("b")).with_mechanism(2).with_iterations(4096);
    let salted = upsertion.with_salt(Bytes::from_static(b"salt")).with_salted_password(Bytes::from_static(b"password"));
    AlterUserScramCredentialsRequest::default().with_deletions(vec![deletion]).with_upsertions(vec![salted])
}

fn describe_quorum() -> DescribeQuorumRequest {
    use describe_quorum_request::{PartitionData, TopicData};
    let topic = TopicData::default().with_topic_name(name("__cluster_metadata"));
    DescribeQuorumRequest::default().with_topics(vec![topic.with_partitions(vec![PartitionData::default()])])
}

fn describe_transactions() -> DescribeTransactionsRequest {
    let ids = ["one", "two"].map(|id| TransactionalId(text(id)));
    DescribeTransactionsRequest::default().with_transactional_ids(ids.to_vec())
}

fn list_transactions(v: i16) -> ListTransactionsRequest {
    let request = ListTransactionsRequest::default().with_state_filters(vec![text("Ongoing"), text("strange")]);
    let request = request.with_producer_id_filters(vec![ProducerId(1), ProducerId(2)]);
    if v >= 1 { request.with_duration_filter(10) } else { request }
}

fn list_config_resources(v: i16) -> ListConfigResourcesRequest {
    let request = ListConfigResourcesRequest::default();
    if v >= 1 { request.with_resource_types(vec![2, 4, 8, 16, 32]) } else { request }
}
