//! The head of a record batch of magic 2 (KIP-98), and a batch as head and body.
//!
//! Offsets and leader epoch lie before the CRC'd part (bytes 0..8 and 12..16), so the broker stamps them into the
//! 61-byte head without touching the body. All numbers are big-endian. The CRC-32C covers byte 21 to the end.

use bytes::Bytes;

use crate::{LeaderEpoch, Offset};

/// Length of a batch's head in bytes: everything before the first record.
pub const HEAD_LEN: usize = 61;

/// The producer id of a batch that is not idempotent.
pub const NO_PRODUCER: i64 = -1;

/// Bytes before the batch length's own reach: base offset (8) and the length itself (4).
pub const LENGTH_PREFIX: usize = 12;
const CRC_FROM: usize = 21;
/// From here on moving a CRC over a body takes less time than computing it.
const LONG_BODY: usize = 256 << 10;

/// Why bytes are not a record batch. The edge maps it to Kafka's error code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchError {
    /// Fewer bytes than a head, or than the batch's own length says, or a length that cannot be.
    Truncated,
    /// A magic other than 2.
    Magic(i8),
    /// The CRC-32C does not match.
    Crc,
}

impl std::fmt::Display for BatchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BatchError::Truncated => f.write_str("record batch is shorter than its length says"),
            BatchError::Magic(magic) => write!(f, "record batch has magic {magic}, not 2"),
            BatchError::Crc => f.write_str("record batch fails its CRC-32C"),
        }
    }
}

impl std::error::Error for BatchError {}

/// Where a batch's timestamps come from (attribute bit 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's, at append: all records bear `max_timestamp`.
    LogAppendTime,
}

/// The 61 bytes before the first record, with accessors by Kafka's field names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BatchHead(pub [u8; HEAD_LEN]);

impl std::fmt::Debug for BatchHead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchHead")
            .field("base_offset", &self.base_offset())
            .field("last_offset", &self.last_offset())
            .field("size_bytes", &self.size_bytes())
            .field("leader_epoch", &self.leader_epoch())
            .field("producer_id", &self.producer_id())
            .finish()
    }
}

macro_rules! field {
    ($(#[$doc:meta])* $get:ident, $ty:ty, $at:expr) => {
        $(#[$doc])*
        pub fn $get(&self) -> $ty {
            const N: usize = std::mem::size_of::<$ty>();
            let mut raw = [0u8; N];
            raw.copy_from_slice(&self.0[$at..$at + N]);
            <$ty>::from_be_bytes(raw)
        }
    };
    ($(#[$doc:meta])* $get:ident, $set:ident, $ty:ty, $at:expr) => {
        field!($(#[$doc])* $get, $ty, $at);
        #[doc = concat!("Sets [`BatchHead::", stringify!($get), "`].")]
        pub fn $set(&mut self, value: $ty) {
            const N: usize = std::mem::size_of::<$ty>();
            self.0[$at..$at + N].copy_from_slice(&value.to_be_bytes());
        }
    };
}

impl BatchHead {
    /// The head at the start of `bytes`, its magic and length checked but not its CRC.
    ///
    /// # Errors
    /// [`BatchError::Truncated`] when `bytes` ends before the head does or the length is below a head's;
    /// [`BatchError::Magic`] for anything but magic 2.
    pub fn parse(bytes: &[u8]) -> Result<BatchHead, BatchError> {
        let raw: [u8; HEAD_LEN] = match bytes.get(..HEAD_LEN) {
            Some(head) => head.try_into().map_err(|_| BatchError::Truncated)?,
            // An old message set may be shorter than a head; its magic says what it is.
            None => {
                return Err(bytes.get(16).map_or(BatchError::Truncated, |m| match *m as i8 {
                    2 => BatchError::Truncated,
                    magic => BatchError::Magic(magic),
                }));
            }
        };
        let head = BatchHead(raw);
        if head.magic() != 2 {
            return Err(BatchError::Magic(head.magic()));
        }
        if (head.batch_length() as i64) < (HEAD_LEN - LENGTH_PREFIX) as i64 {
            return Err(BatchError::Truncated);
        }
        Ok(head)
    }

    field!(/// First offset of the batch.
        base_offset_raw, i64, 0);
    field!(/// Bytes after this field: the whole batch without base offset and length.
        batch_length, set_batch_length, i32, 8);
    field!(/// Leader epoch the batch was appended under; -1 in a produce request.
        leader_epoch_raw, i32, 12);
    field!(/// Format of the batch, 2.
        magic, i8, 16);
    field!(/// CRC-32C of byte 21 to the end.
        crc, set_crc, u32, 17);
    field!(/// Codec (bits 0-2), timestamp type (3), transactional (4), control (5), delete horizon (6).
        attributes, set_attributes, i16, 21);
    field!(/// Offset of the last record, relative to the first.
        last_offset_delta, set_last_offset_delta, i32, 23);
    field!(/// Timestamp of the first record, in milliseconds since the Unix epoch.
        base_timestamp, set_base_timestamp, i64, 27);
    field!(/// Greatest timestamp in the batch, in milliseconds since the Unix epoch.
        max_timestamp, set_max_timestamp, i64, 35);
    field!(/// Producer id, or [`NO_PRODUCER`].
        producer_id, set_producer_id, i64, 43);
    field!(/// Producer epoch, or -1.
        producer_epoch, set_producer_epoch, i16, 51);
    field!(/// Sequence number of the first record, or -1.
        base_sequence, set_base_sequence, i32, 53);
    field!(/// Number of records.
        record_count, set_record_count, i32, 57);

    /// First offset of the batch.
    pub fn base_offset(&self) -> Offset {
        Offset(self.base_offset_raw())
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> Offset {
        Offset(self.base_offset_raw().saturating_add(i64::from(self.last_offset_delta())))
    }

    /// The leader epoch stamped at append.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(self.leader_epoch_raw())
    }

    /// Size of the whole batch in bytes, its 12-byte prefix included. [`BatchHead::parse`] made sure it is >= 61.
    pub fn size_bytes(&self) -> usize {
        self.batch_length() as usize + LENGTH_PREFIX
    }

    /// Stamps what the leader assigns. Both fields lie before the CRC'd part, so the CRC stays right.
    pub fn stamp(&mut self, base: Offset, epoch: LeaderEpoch) {
        self.0[..8].copy_from_slice(&base.0.to_be_bytes());
        self.0[12..16].copy_from_slice(&epoch.0.to_be_bytes());
    }

    /// Sequence number of the last record, with Kafka's wrap from 2^31-1 to 0.
    pub fn last_sequence(&self) -> i32 {
        let sum = i64::from(self.base_sequence()) + i64::from(self.last_offset_delta());
        (sum % (i64::from(i32::MAX) + 1)) as i32
    }

    /// Where the timestamps come from.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes() & 0x08 == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime }
    }

    /// Codec id: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd; other values are invalid.
    pub fn codec(&self) -> u8 {
        (self.attributes() & 0x07) as u8
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes() & 0x10 != 0
    }

    /// Whether the batch holds control records (transaction markers).
    pub fn is_control(&self) -> bool {
        self.attributes() & 0x20 != 0
    }

    /// From when on tombstones of the batch may go, in milliseconds since 1970 (KIP-534): with bit 6 of the attributes the base
    /// timestamp says so.
    pub fn delete_horizon(&self) -> Option<i64> {
        (self.attributes() & 0x40 != 0).then(|| self.base_timestamp())
    }

    /// Sets the base timestamp, and whether it is a delete horizon.
    pub fn set_base(&mut self, timestamp: i64, is_delete_horizon: bool) {
        let plain = self.attributes() & !0x40;
        self.set_attributes(if is_delete_horizon { plain | 0x40 } else { plain });
        self.set_base_timestamp(timestamp);
    }

    /// Sets where the timestamps come from.
    pub fn set_timestamp_type(&mut self, from: TimestampType) {
        let plain = self.attributes() & !0x08;
        self.set_attributes(if from == TimestampType::LogAppendTime { plain | 0x08 } else { plain });
    }

    /// Sets the codec id, 0 to 4.
    pub fn set_codec(&mut self, codec: u8) {
        self.set_attributes((self.attributes() & !0x07) | i16::from(codec & 0x07));
    }

    /// Changes fields behind the CRC, and mends the CRC, which was right so far. That of a long body is not computed again:
    /// the CRC is linear, so the heads' difference moved over the body is the difference of the whole.
    pub fn amend(&mut self, body: &[u8], change: impl FnOnce(&mut BatchHead)) {
        if body.len() < LONG_BODY {
            change(self);
            return self.set_crc(self.compute_crc(body));
        }
        let before = crc32c::crc32c(&self.0[CRC_FROM..]);
        change(self);
        let after = crc32c::crc32c(&self.0[CRC_FROM..]);
        self.set_crc(self.crc() ^ crc32c::crc32c_combine(before ^ after, 0, body.len()));
    }

    /// The CRC-32C that this head (bytes 21..61) and `body` should have.
    pub fn compute_crc(&self, body: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.0[CRC_FROM..]), body)
    }
}

/// A record batch: its head apart, so that offsets are stamped without a copy of the records.
///
/// `body` is a slice of whatever buffer it came in (a receive chunk, a WAL group, an object's block) and keeps that
/// buffer alive.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The first 61 bytes.
    pub head: BatchHead,
    /// The records, compressed or not.
    pub body: Bytes,
}

impl Batch {
    /// Takes the first batch off `bytes` without checking its CRC, and leaves the rest.
    ///
    /// # Errors
    /// As [`BatchHead::parse`]; [`BatchError::Truncated`] also when `bytes` ends before the batch does. On an error
    /// `bytes` is left as it was.
    pub fn split_from(bytes: &mut Bytes) -> Result<Batch, BatchError> {
        let head = BatchHead::parse(bytes)?;
        let size = head.size_bytes();
        if bytes.len() < size {
            return Err(BatchError::Truncated);
        }
        let mut whole = bytes.split_to(size);
        Ok(Batch { head, body: whole.split_off(HEAD_LEN) })
    }

    /// Size in bytes, head included.
    pub fn size_bytes(&self) -> usize {
        HEAD_LEN + self.body.len()
    }

    /// Checks the CRC-32C over head and body.
    ///
    /// # Errors
    /// [`BatchError::Crc`] when it does not match.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        if self.head.compute_crc(&self.body) == self.head.crc() { Ok(()) } else { Err(BatchError::Crc) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(body: &[u8]) -> Vec<u8> {
        let mut head = BatchHead([0; HEAD_LEN]);
        head.0[16] = 2;
        head.set_batch_length((HEAD_LEN - 12 + body.len()) as i32);
        head.set_last_offset_delta(2);
        head.set_base_sequence(i32::MAX - 1);
        head.set_producer_id(7);
        head.set_record_count(3);
        head.set_crc(head.compute_crc(body));
        [&head.0[..], body].concat()
    }

    #[test]
    fn stamping_leaves_the_crc_right() {
        let mut bytes = Bytes::from(sample(b"records"));
        let mut batch = Batch::split_from(&mut bytes).expect("a batch");
        assert!(bytes.is_empty());
        batch.head.stamp(Offset(41), LeaderEpoch(3));
        assert_eq!(batch.verify_crc(), Ok(()));
        assert_eq!(batch.head.last_offset(), Offset(43));
        assert_eq!(batch.head.leader_epoch(), LeaderEpoch(3));
    }

    #[test]
    fn an_amended_head_has_the_right_crc_whatever_the_body() {
        for len in [0, 1, 7, 4096, 1_000_003] {
            let body: Vec<u8> = (0..len).map(|i: usize| (i * 31) as u8).collect();
            let mut batch = Batch::split_from(&mut Bytes::from(sample(&body))).expect("a batch");
            batch.head.amend(&body, |head| {
                head.set_timestamp_type(TimestampType::LogAppendTime);
                head.set_max_timestamp(1_234_567_890_123);
            });
            assert_eq!(batch.verify_crc(), Ok(()), "{len} bytes");
            assert_eq!(batch.head.timestamp_type(), TimestampType::LogAppendTime);
            batch.head.amend(&body, |head| head.set_timestamp_type(TimestampType::CreateTime));
            assert_eq!((batch.verify_crc(), batch.head.attributes()), (Ok(()), 0));
        }
    }

    #[test]
    fn every_flipped_byte_after_the_prefix_is_found() {
        let good = sample(b"some records");
        for at in 17..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            let batch = Batch::split_from(&mut Bytes::from(bad)).expect("length and magic are whole");
            assert_eq!(batch.verify_crc(), Err(BatchError::Crc), "byte {at}");
        }
    }

    #[test]
    fn a_cut_batch_is_truncated_and_left_alone() {
        let good = sample(b"some records");
        for len in 0..good.len() {
            let mut bytes = Bytes::from(good[..len].to_vec());
            assert_eq!(Batch::split_from(&mut bytes).unwrap_err(), BatchError::Truncated, "{len} bytes");
            assert_eq!(bytes.len(), len);
        }
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        for length in [i32::MIN, -1, 0, 48] {
            let mut bad = sample(b"x");
            bad[8..12].copy_from_slice(&length.to_be_bytes());
            assert_eq!(BatchHead::parse(&bad), Err(BatchError::Truncated), "{length}");
        }
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let head = BatchHead::parse(&sample(b"")).expect("a head");
        assert_eq!(head.last_sequence(), 0, "2^31-2 plus 2 wraps past 2^31-1");
    }

    #[test]
    fn an_old_message_set_is_known_by_its_magic() {
        let mut old = vec![0u8; 26];
        old[16] = 1;
        assert_eq!(BatchHead::parse(&old), Err(BatchError::Magic(1)));
    }
}
