//! The limits of connections, as the edge needs them.

use std::time::Duration;

/// What bounds connections and their memory. Byte and message budgets are those of one executor.
#[derive(Clone, Debug)]
pub struct EdgeLimits {
    /// `socket.request.max.bytes`: a longer frame closes its connection before anything is allocated for it.
    pub request_max_bytes: u32,
    /// `connections.max.idle.ms`: a connection without a request for this long is closed.
    pub idle: Duration,
    /// A connection that takes no byte of a waiting answer for this long, or needs this much longer for a frame than
    /// 64 KiB/s would, is closed.
    pub stall: Duration,
    /// `max.connections` of the whole broker.
    pub max_connections: u32,
    /// `max.connections.per.ip` of the whole broker.
    pub max_connections_per_ip: u32,
    /// Bytes of requests of one connection that may wait for their answers; beyond them it is not read.
    pub connection_bytes: u32,
    /// Bytes of requests of all connections of this executor that may be in flight.
    pub request_bytes: u32,
    /// Bytes that large requests of this executor may take decoded, beyond their own bytes.
    pub decoded_bytes: u32,
    /// Bytes that batches of this executor may unfold to while they are stored with another codec.
    pub opened_bytes: u32,
    /// Bytes of answers of all connections of this executor that may be in flight.
    pub response_bytes: u32,
    /// Messages this executor may have under way to each shard.
    pub shard_messages: u32,
    /// Bytes of records this executor may have under way to each shard.
    pub shard_bytes: u32,
}

impl Default for EdgeLimits {
    /// Kafka's defaults where Kafka has them.
    fn default() -> EdgeLimits {
        EdgeLimits {
            request_max_bytes: 100 << 20,
            idle: Duration::from_secs(600),
            stall: Duration::from_secs(30),
            max_connections: u32::MAX,
            max_connections_per_ip: u32::MAX,
            connection_bytes: 32 << 20,
            request_bytes: 128 << 20,
            decoded_bytes: 64 << 20,
            opened_bytes: 64 << 20,
            response_bytes: 128 << 20,
            shard_messages: 4096,
            shard_bytes: 64 << 20,
        }
    }
}
