//! What an object says about itself: enough to rebuild the metadata of its partitions from the bucket alone.

use thalweg_record::{LeaderEpoch, NodeId, Offset, PartitionId, ShardId, TopicId, Wall};

use super::{
    Footer, FormatError,
    wire::{Reader, put_i16, put_i32, put_i64, put_list, put_text, put_u8, put_u16, put_u64},
};

/// Batches remembered per idempotent producer, as in Kafka.
pub const WINDOW_BATCHES: usize = 5;

/// Who wrote the object, and the state of its partitions at the end of their part in it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Properties {
    /// Kafka's cluster id.
    pub cluster_id: String,
    /// The writer.
    pub node: NodeId,
    /// The writer's epoch.
    pub node_epoch: u64,
    /// The writer's shard.
    pub shard: ShardId,
    /// Counts the uploads of that shard in that epoch, in log order. `u64::MAX` is kept for objects that no shard uploads
    /// (compaction's): a rebuild believes them only when a metadata snapshot names them.
    pub upload_sequence: u64,
    /// One entry per partition in the object, by partition.
    pub partitions: Vec<PartitionProperties>,
}

/// One partition's state.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PartitionProperties {
    /// The partition.
    pub partition: PartitionId,
    /// The topic's name when the object was written.
    pub topic_name: String,
    /// Version of the topic's settings then; 0 when the writer does not know it.
    pub settings_version: u64,
    /// Leader epoch under which the writer owned it.
    pub leader_epoch: LeaderEpoch,
    /// Log start offset then.
    pub log_start: Offset,
    /// Leader epochs that begin in this object: (epoch, first offset).
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// Absolute state of each idempotent producer that appended in this object, at its end.
    pub producers: Vec<ProducerState>,
    /// Transactions whose abort marker lies in this object.
    pub aborted: Vec<AbortedTransaction>,
}

/// State of one idempotent producer (KIP-98).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProducerState {
    /// Producer id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Greatest timestamp seen from it.
    pub last_timestamp: Wall,
    /// The last up to [`WINDOW_BATCHES`] batches, oldest first.
    pub window: Vec<ProducerBatch>,
}

/// One batch of a producer's window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ProducerBatch {
    /// Sequence of its first record.
    pub first_sequence: i32,
    /// Sequence of its last record.
    pub last_sequence: i32,
    /// Its first offset.
    pub base_offset: Offset,
    /// Its last offset.
    pub last_offset: Offset,
}

/// A transaction that was aborted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AbortedTransaction {
    /// Producer id.
    pub producer_id: i64,
    /// Offset of its first record, which may lie in an earlier object.
    pub first_offset: Offset,
    /// Offset of its abort marker.
    pub last_offset: Offset,
}

impl Properties {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_text(&mut out, &self.cluster_id);
        put_i32(&mut out, self.node.0);
        put_u64(&mut out, self.node_epoch);
        put_u16(&mut out, self.shard.0);
        put_u64(&mut out, self.upload_sequence);
        put_list(&mut out, &self.partitions, |out, one| one.encode(out));
        out
    }

    /// The properties from the bytes of [`Footer::properties_range`].
    ///
    /// # Errors
    /// [`FormatError`] when they fail their CRC or are not well formed.
    pub fn parse(footer: &Footer, bytes: &[u8]) -> Result<Properties, FormatError> {
        footer.properties.check(bytes, "properties")?;
        Properties::decode(bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Properties, FormatError> {
        let mut read = Reader::new(bytes, "properties");
        let properties = Properties {
            cluster_id: read.text()?,
            node: NodeId(read.get_i32()?),
            node_epoch: read.get_u64()?,
            shard: ShardId(read.get_u16()?),
            upload_sequence: read.get_u64()?,
            partitions: read.list(PartitionProperties::MIN_BYTES, PartitionProperties::decode)?,
        };
        read.end()?;
        Ok(properties)
    }
}

impl PartitionProperties {
    /// Topic id, index, empty name, version, epoch, log start, three empty lists.
    const MIN_BYTES: usize = 16 + 4 + 2 + 8 + 4 + 8 + 3 * 4;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.partition.topic.0);
        put_i32(out, self.partition.index);
        put_text(out, &self.topic_name);
        put_u64(out, self.settings_version);
        put_i32(out, self.leader_epoch.0);
        put_i64(out, self.log_start.0);
        put_list(out, &self.epochs, |out, (epoch, first)| {
            put_i32(out, epoch.0);
            put_i64(out, first.0);
        });
        put_list(out, &self.producers, |out, one| one.encode(out));
        put_list(out, &self.aborted, |out, one| {
            put_i64(out, one.producer_id);
            put_i64(out, one.first_offset.0);
            put_i64(out, one.last_offset.0);
        });
    }

    fn decode(read: &mut Reader<'_>) -> Result<PartitionProperties, FormatError> {
        Ok(PartitionProperties {
            partition: PartitionId { topic: TopicId(read.array()?), index: read.get_i32()? },
            topic_name: read.text()?,
            settings_version: read.get_u64()?,
            leader_epoch: LeaderEpoch(read.get_i32()?),
            log_start: Offset(read.get_i64()?),
            epochs: read.list(12, |read| Ok((LeaderEpoch(read.get_i32()?), Offset(read.get_i64()?))))?,
            producers: read.list(ProducerState::MIN_BYTES, ProducerState::decode)?,
            aborted: read.list(24, |read| {
                Ok(AbortedTransaction {
                    producer_id: read.get_i64()?,
                    first_offset: Offset(read.get_i64()?),
                    last_offset: Offset(read.get_i64()?),
                })
            })?,
        })
    }
}

impl ProducerState {
    /// Id, epoch, timestamp, empty window.
    const MIN_BYTES: usize = 8 + 2 + 8 + 1;

    fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.window.len() <= WINDOW_BATCHES, "a producer's window has {} batches", self.window.len());
        put_i64(out, self.producer_id);
        put_i16(out, self.epoch);
        put_i64(out, self.last_timestamp.0);
        put_u8(out, self.window.len() as u8);
        for batch in &self.window {
            put_i32(out, batch.first_sequence);
            put_i32(out, batch.last_sequence);
            put_i64(out, batch.base_offset.0);
            put_i64(out, batch.last_offset.0);
        }
    }

    fn decode(read: &mut Reader<'_>) -> Result<ProducerState, FormatError> {
        let (producer_id, epoch, last_timestamp) = (read.get_i64()?, read.get_i16()?, Wall(read.get_i64()?));
        let batches = usize::from(read.get_u8()?);
        if batches > WINDOW_BATCHES {
            return Err(FormatError::Invalid("a producer's window with more than five batches"));
        }
        let mut window = Vec::with_capacity(batches);
        for _ in 0..batches {
            window.push(ProducerBatch {
                first_sequence: read.get_i32()?,
                last_sequence: read.get_i32()?,
                base_offset: Offset(read.get_i64()?),
                last_offset: Offset(read.get_i64()?),
            });
        }
        Ok(ProducerState { producer_id, epoch, last_timestamp, window })
    }
}
