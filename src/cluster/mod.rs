//! Cluster metadata: the store's port and engines, the control actor, and the snapshots it publishes.

mod control_msg;
mod snapshot;
pub mod store;

pub use control_msg::{ConfigOp, ControlError, ControlRequest, CreateTopic, CreatedTopic};
pub use snapshot::{BrokerView, ClusterSnapshot, SnapshotUpdate, TopicSettings, TopicView, owner_shard};
