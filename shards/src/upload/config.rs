//! When a shard uploads, and who it says it is.

use std::{sync::Arc, time::Duration};

use thalweg_record::NodeId;

/// When to upload, and how objects are cut.
#[derive(Clone, Debug)]
pub struct UploadConfig {
    /// `object.upload.bytes`: ring bytes that start an upload.
    pub object_bytes: u64,
    /// `object.upload.interval.ms`: age of the oldest byte that starts an upload.
    pub interval: Duration,
    /// `object.split.bytes`: a partition with more than this in one upload gets an object of its own.
    pub split_bytes: u64,
    /// `object.block.bytes`.
    pub block_bytes: u32,
    /// Uploads under way at once.
    pub jobs: usize,
    /// Batches that wait for an upload; more start one, so that their index stays small.
    pub batches: usize,
}

/// Who writes, as objects' properties and keys say.
#[derive(Clone, Debug)]
pub struct WriterIdentity {
    /// Kafka's cluster id.
    pub cluster_id: Arc<str>,
    /// This node.
    pub node: NodeId,
    /// Its epoch, from the metadata store; raised at each start.
    pub node_epoch: u64,
}
