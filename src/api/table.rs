//! The keys that are served, sorted. Dispatch and the ApiVersions answer are derived from this table alone.

use super::{
    Api, k00_produce, k01_fetch, k02_list_offsets, k03_metadata, k08_offset_commit, k09_offset_fetch,
    k10_find_coordinator, k11_join_group, k12_heartbeat, k13_leave_group, k14_sync_group, k15_describe_groups,
    k16_list_groups, k18_api_versions, k19_create_topics, k20_delete_topics, k21_delete_records, k22_init_producer_id,
    k23_offset_for_leader_epoch, k29_describe_acls, k30_create_acls, k31_delete_acls, k32_describe_configs,
    k33_alter_configs, k34_alter_replica_log_dirs, k35_describe_log_dirs, k37_create_partitions,
    k38_create_delegation_token, k39_renew_delegation_token, k40_expire_delegation_token,
    k41_describe_delegation_token, k42_delete_groups, k43_elect_leaders, k44_incremental_alter_configs,
    k45_alter_partition_reassignments, k46_list_partition_reassignments, k47_offset_delete, k48_describe_client_quotas,
    k50_describe_user_scram_credentials, k51_alter_user_scram_credentials, k55_describe_quorum, k60_describe_cluster,
    k61_describe_producers, k64_unregister_broker, k65_describe_transactions, k66_list_transactions,
    k74_list_config_resources, k75_describe_topic_partitions,
};

/// Every key that is served, in ascending order.
pub static TABLE: &[Api] = &[
    k00_produce::API,
    k01_fetch::API,
    k02_list_offsets::API,
    k03_metadata::API,
    k08_offset_commit::API,
    k09_offset_fetch::API,
    k10_find_coordinator::API,
    k11_join_group::API,
    k12_heartbeat::API,
    k13_leave_group::API,
    k14_sync_group::API,
    k15_describe_groups::API,
    k16_list_groups::API,
    k18_api_versions::API,
    k19_create_topics::API,
    k20_delete_topics::API,
    k21_delete_records::API,
    k22_init_producer_id::API,
    k23_offset_for_leader_epoch::API,
    k29_describe_acls::API,
    k30_create_acls::API,
    k31_delete_acls::API,
    k32_describe_configs::API,
    k33_alter_configs::API,
    k34_alter_replica_log_dirs::API,
    k35_describe_log_dirs::API,
    k37_create_partitions::API,
    k38_create_delegation_token::API,
    k39_renew_delegation_token::API,
    k40_expire_delegation_token::API,
    k41_describe_delegation_token::API,
    k42_delete_groups::API,
    k43_elect_leaders::API,
    k44_incremental_alter_configs::API,
    k45_alter_partition_reassignments::API,
    k46_list_partition_reassignments::API,
    k47_offset_delete::API,
    k48_describe_client_quotas::API,
    k50_describe_user_scram_credentials::API,
    k51_alter_user_scram_credentials::API,
    k55_describe_quorum::API,
    k60_describe_cluster::API,
    k61_describe_producers::API,
    k64_unregister_broker::API,
    k65_describe_transactions::API,
    k66_list_transactions::API,
    k74_list_config_resources::API,
    k75_describe_topic_partitions::API,
];

/// How a key is served, if it is.
pub fn find(key: i16) -> Option<&'static Api> {
    TABLE.binary_search_by_key(&key, |api| api.key as i16).ok().map(|at| &TABLE[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_within_the_protocol() {
        assert!(TABLE.is_sorted_by(|a, b| (a.key as i16) < (b.key as i16)), "ascending, without duplicates");
        for api in TABLE {
            let known = api.key.valid_versions();
            assert!(known.min <= api.served_from && api.max <= known.max, "{:?}", api.key);
            assert!(api.min <= api.served_from && api.served_from <= api.max, "{:?}", api.key);
            assert_eq!(find(api.key as i16).map(|found| found.key), Some(api.key));
        }
        assert!(find(-1).is_none());
    }
}
