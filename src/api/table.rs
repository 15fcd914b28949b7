//! The keys that are served, sorted. Dispatch and the ApiVersions answer are derived from this table alone.

use super::{
    Api, k00_produce, k01_fetch, k02_list_offsets, k03_metadata, k08_offset_commit, k09_offset_fetch,
    k10_find_coordinator, k11_join_group, k12_heartbeat, k13_leave_group, k14_sync_group, k15_describe_groups,
    k16_list_groups, k18_api_versions, k19_create_topics, k20_delete_topics, k21_delete_records, k22_init_producer_id,
    k23_offset_for_leader_epoch, k32_describe_configs, k33_alter_configs, k37_create_partitions, k42_delete_groups,
    k44_incremental_alter_configs, k47_offset_delete, k60_describe_cluster, k75_describe_topic_partitions,
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
    k32_describe_configs::API,
    k33_alter_configs::API,
    k37_create_partitions::API,
    k42_delete_groups::API,
    k44_incremental_alter_configs::API,
    k47_offset_delete::API,
    k60_describe_cluster::API,
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
