//! One file per Kafka API key, named by it: wire to message and back, nothing else.
//!
//! A handler runs on its connection's executor. It decodes ([`Call::decode`]), asks the shards or control over a fresh
//! flume channel (one message per shard, permits first), and answers with encoded pieces.

mod access;
mod call;
mod control;
mod described;
pub mod edge;
mod error_codes;
pub mod errors;
#[cfg(test)]
pub(crate) mod fake;
mod gather;
mod group_lane;
mod k00_produce;
mod k01_fetch;
mod k02_list_offsets;
mod k03_metadata;
mod k08_offset_commit;
mod k09_offset_fetch;
mod k10_find_coordinator;
mod k11_join_group;
mod k12_heartbeat;
mod k13_leave_group;
mod k14_sync_group;
mod k15_describe_groups;
mod k16_list_groups;
mod k18_api_versions;
mod k19_create_topics;
mod k20_delete_topics;
mod k21_delete_records;
mod k22_init_producer_id;
mod k23_offset_for_leader_epoch;
mod k29_describe_acls;
mod k30_create_acls;
mod k31_delete_acls;
mod k32_describe_configs;
mod k33_alter_configs;
mod k34_alter_replica_log_dirs;
mod k35_describe_log_dirs;
mod k37_create_partitions;
mod k38_create_delegation_token;
mod k39_renew_delegation_token;
mod k40_expire_delegation_token;
mod k41_describe_delegation_token;
mod k42_delete_groups;
mod k43_elect_leaders;
mod k44_incremental_alter_configs;
mod k45_alter_partition_reassignments;
mod k46_list_partition_reassignments;
mod k47_offset_delete;
mod k48_describe_client_quotas;
mod k50_describe_user_scram_credentials;
mod k51_alter_user_scram_credentials;
mod k55_describe_quorum;
mod k60_describe_cluster;
mod k61_describe_producers;
mod k64_unregister_broker;
mod k65_describe_transactions;
mod k66_list_transactions;
mod k74_list_config_resources;
mod k75_describe_topic_partitions;
pub mod table;

pub use call::{Api, Call, Close, Handled, Handler, Pending, Response, message};
pub use edge::{Caller, Edge, EdgeParts, Stopping};
pub use error_codes::{ErrorCodes, ErrorTally};
pub use k00_produce::Opening;
pub use k18_api_versions::unsupported_version;
