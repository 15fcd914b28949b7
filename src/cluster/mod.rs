//! Cluster metadata: the store's port and engines, the control actor, and the snapshots it publishes.

mod catalog;
mod control_msg;
mod error;
mod keys;
mod ledger;
mod load;
mod partition;
mod schema;
mod snapshot;
pub mod store;
pub mod topic_config;
mod topic_name;
mod topics;

pub use control_msg::{ConfigOp, ControlError, ControlRequest, CreateTopic, CreatedTopic};
pub use error::ClusterError;
pub use snapshot::{BrokerView, ClusterSnapshot, SnapshotUpdate, TopicSettings, TopicView, owner_shard};
