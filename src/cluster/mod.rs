//! Cluster metadata: the store's port and engines, the control actor, and the snapshots it publishes.

mod access;
mod actors;
mod altered;
mod balancer;
pub mod broker_config;
mod bucket;
mod catalog;
mod compaction;
mod control_actor;
mod control_msg;
mod control_turn;
mod cuts;
mod error;
pub mod group_config;
mod ids;
mod keys;
mod ledger;
mod load;
mod manifests;
mod meta_actor;
mod open;
mod owners;
mod partition;
mod prefix;
mod schema;
mod slices;
mod snapshot;
pub mod store;
#[cfg(test)]
mod tests;
pub mod topic_config;
mod topic_name;
mod topics;
mod views;

pub use access::{ScramChange, ScramCredentials};
pub use actors::{ClusterActors, ClusterLanes, ClusterThread, Fatal, StopActors};
pub use altered::{Altered, ConfigTarget, Values};
pub use balancer::{BALANCER_METRICS, Balancer, BalancerMeters, BalancerPorts, BalancerSettings, Decision, balance};
pub use bucket::{
    BUCKET_METRICS, BucketMeters, BucketPorts, LogNotes, Progress, RebuildError, RebuildSettings, Rebuilt, Verified,
    rebuild_store, restore, verify_bucket, verify_local, verify_store,
};
pub use control_msg::{ConfigOp, ControlError, ControlRequest, CreateTopic, CreatedTopic};
pub use cuts::Cuts;
pub use error::ClusterError;
pub use ids::{Random, cluster_id_text};
pub use open::{Cluster, ClusterSettings, OpenStore, WallClock, owner_of_prefix};
pub use slices::SliceRecord;
pub use snapshot::{BrokerView, ClusterSnapshot, SnapshotUpdate, TopicSettings, TopicView, owner_shard};
