//! A partition's part of a produce that was refused, and what the client is told of it.

use kafka_protocol::{
    ResponseError,
    messages::produce_response::{BatchIndexAndErrorMessage, PartitionProduceResponse},
    protocol::StrBytes,
};
use thalweg_shards::{
    batch::{BadRecords, Fault},
    msg::PartitionError,
};

use super::super::errors::ToKafka;

/// Kafka names this many records in the message of the whole partition.
const IN_MESSAGE: usize = 3;

/// Why a partition's part of the request was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refused {
    /// Kafka's error.
    pub error: ResponseError,
    /// For the client's `error_message`.
    pub why: Option<StrBytes>,
    /// The records at fault, where it is known: place in the batch and what is wrong (KIP-467).
    pub records: Vec<(i32, StrBytes)>,
}

impl From<ResponseError> for Refused {
    fn from(error: ResponseError) -> Refused {
        Refused { error, why: None, records: Vec::new() }
    }
}

impl Refused {
    /// With a reason for people.
    pub(super) fn because(error: ResponseError, why: &'static str) -> Refused {
        Refused { error, why: Some(StrBytes::from_static_str(why)), records: Vec::new() }
    }

    /// What a shard, or whoever looked into the batch, said of this partition.
    pub(super) fn of(error: &PartitionError, topic: &str, partition: i32) -> Refused {
        let code = error.to_kafka();
        match error {
            PartitionError::InvalidRecord(why) => Refused::because(code, why),
            PartitionError::InvalidTimestamp => {
                Refused::because(code, "a timestamp is outside message.timestamp.before.max.ms or after.max.ms")
            }
            PartitionError::BadRecords(bad) => bad_records(code, bad, topic, partition),
            _ => code.into(),
        }
    }

    /// The partition's answer, without its index.
    pub(super) fn answer(&self) -> PartitionProduceResponse {
        let record = |(place, why): &(i32, StrBytes)| {
            BatchIndexAndErrorMessage::default()
                .with_batch_index(*place)
                .with_batch_index_error_message(Some(why.clone()))
        };
        PartitionProduceResponse::default()
            .with_error_code(self.error.code())
            .with_base_offset(-1)
            .with_log_append_time_ms(-1)
            .with_log_start_offset(-1)
            .with_record_errors(self.records.iter().map(record).collect())
            .with_error_message(self.why.clone())
    }
}

/// In Kafka's words, for people read them in their client's log.
fn bad_records(error: ResponseError, bad: &BadRecords, topic: &str, partition: i32) -> Refused {
    let null_key = StrBytes::from_string(format!(
        "Compacted topic cannot accept message without key in topic partition {topic}-{partition}"
    ));
    let (earliest, latest) = bad.accepted;
    let say = |&(place, fault): &(i32, Fault)| match fault {
        Fault::NullKey => (place, null_key.clone()),
        Fault::Timestamp(timestamp) => (
            place,
            StrBytes::from_string(format!(
                "Timestamp {timestamp} of message with offset {place} is out of range. The timestamp should be within \
                 [{earliest}, {latest}]"
            )),
        ),
    };
    let records: Vec<(i32, StrBytes)> = bad.listed.iter().map(say).collect();
    let why = if bad.untimely {
        "One or more records have been rejected due to invalid timestamp".to_owned()
    } else {
        let first = records.iter().take(IN_MESSAGE);
        let first: Vec<String> =
            first.map(|(place, why)| format!("RecordError(batchIndex={place}, message='{why}')")).collect();
        format!(
            "One or more records have been rejected due to {} record errors in total, and only showing the first three \
             errors at most: [{}]",
            bad.count,
            first.join(", ")
        )
    };
    Refused { error, why: Some(StrBytes::from_string(why)), records }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(listed: &[(i32, Fault)], untimely: bool) -> PartitionError {
        PartitionError::BadRecords(Box::new(BadRecords {
            listed: listed.to_vec(),
            count: listed.len(),
            untimely,
            accepted: (5, 9),
        }))
    }

    #[test]
    fn bad_records_are_told_as_kafka_tells_them() {
        let refused = Refused::of(&bad(&[(0, Fault::NullKey), (2, Fault::NullKey)], false), "c", 4);
        let text = "Compacted topic cannot accept message without key in topic partition c-4";
        assert_eq!(refused.error, ResponseError::InvalidRecord);
        assert_eq!(refused.records, [(0, text.into()), (2, text.into())]);
        let whole = format!(
            "One or more records have been rejected due to 2 record errors in total, and only showing the first three errors \
             at most: [RecordError(batchIndex=0, message='{text}'), RecordError(batchIndex=2, message='{text}')]"
        );
        assert_eq!(refused.why.as_deref(), Some(&*whole));
        let answer = refused.answer();
        let places: Vec<i32> = answer.record_errors.iter().map(|record| record.batch_index).collect();
        assert_eq!((answer.error_code, answer.base_offset, places), (87, -1, vec![0, 2]));
    }

    #[test]
    fn one_timestamp_makes_it_an_error_of_timestamps() {
        let refused = Refused::of(&bad(&[(0, Fault::NullKey), (1, Fault::Timestamp(10))], true), "c", 0);
        assert_eq!(refused.error, ResponseError::InvalidTimestamp);
        let text = "Timestamp 10 of message with offset 1 is out of range. The timestamp should be within [5, 9]";
        assert_eq!(refused.records[1], (1, text.into()));
        assert_eq!(refused.why.as_deref(), Some("One or more records have been rejected due to invalid timestamp"));
    }
}
