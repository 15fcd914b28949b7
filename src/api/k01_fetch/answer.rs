//! From what the shards gave to what the client is told, partition by partition.

use kafka_protocol::ResponseError;
use thalweg_record::{BatchHead, PartitionId};
use thalweg_shards::msg::{Isolation, PartitionError, Records, Taken};

use super::{TOPIC_IDS, encode::PartAnswer};
use crate::{
    api::{Call, errors, gather},
    cluster::ClusterSnapshot,
};

/// Codec id of zstd in a batch's attributes.
const ZSTD: u8 = 4;

/// First version whose clients know zstd (KIP-110).
const KNOWS_ZSTD: i16 = 10;

/// One partition's answer.
pub(super) fn part_answer(
    call: &Call,
    snapshot: &ClusterSnapshot,
    isolation: Isolation,
    partition: PartitionId,
    result: Result<Taken, PartitionError>,
) -> PartAnswer {
    let taken = match result {
        Ok(taken) => taken,
        Err(error) => return failed(call, snapshot, partition, &error),
    };
    let records = match taken.records {
        Records::Ready(pieces) => pieces,
        Records::Pending => Vec::new(),
    };
    if call.version < KNOWS_ZSTD && records.iter().any(|piece| holds_zstd(piece)) {
        return PartAnswer::refused(partition.index, ResponseError::UnsupportedCompressionType.code());
    }
    let aborted = taken.aborted.into_iter().map(|(producer_id, first)| (producer_id, first.0));
    PartAnswer {
        index: partition.index,
        error: errors::NONE,
        high_watermark: taken.high_watermark.0,
        last_stable: taken.last_stable.0,
        log_start: taken.log_start.0,
        aborted: (isolation == Isolation::Committed).then(|| aborted.collect()),
        records,
        leader: None,
    }
}

/// A partition's error, with the leader where the client's idea of it is old (KIP-951).
fn failed(call: &Call, snapshot: &ClusterSnapshot, partition: PartitionId, error: &PartitionError) -> PartAnswer {
    let view = snapshot.topics_by_id.get(&partition.topic);
    let code = match (view, gather::code(snapshot, partition, error)) {
        (None, _) if call.version >= TOPIC_IDS => ResponseError::UnknownTopicId.code(),
        // Clients that old take the storage error for a fatal one.
        (_, code) if call.version <= 5 && code == ResponseError::KafkaStorageError.code() => {
            ResponseError::NotLeaderOrFollower.code()
        }
        (_, code) => code,
    };
    let stale = [ResponseError::NotLeaderOrFollower.code(), ResponseError::FencedLeaderEpoch.code()].contains(&code);
    let leader = view.filter(|_| stale && call.version >= 12).map(|view| (snapshot.broker.node.0, view.leader_epoch.0));
    PartAnswer { leader, ..PartAnswer::refused(partition.index, code) }
}

/// Whether some batch of a piece is compressed with zstd.
fn holds_zstd(piece: &[u8]) -> bool {
    let mut rest = piece;
    while let Ok(head) = BatchHead::parse(rest) {
        if head.codec() == ZSTD {
            return true;
        }
        rest = rest.get(head.size_bytes()..).unwrap_or(&[]);
    }
    false
}
