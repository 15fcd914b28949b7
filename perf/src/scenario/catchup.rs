//! Read all from the start, when nothing is produced any more.

use super::bench::{Bench, PARTITIONS, RECORD_BYTES};
use crate::{
    client::{closed, reader},
    figures::Figures,
};

/// Readers that share the partitions, as the members of a group would.
const READERS: u16 = 2;

pub(super) fn run(bench: &mut Bench<'_>) {
    bench.cell("catchup", "1 KiB, 16 partitions, 2 readers", |bench| {
        let topic = bench.topic(PARTITIONS)?;
        let sent = closed::produce(&topic, bench.closed())?;
        let (read, cost) = bench.measured(|| reader::catch_up(&topic, READERS))?;
        if read.records < sent.records {
            return Err(format!("{} of {} records were there to read", read.records, sent.records));
        }
        Ok(Figures {
            seconds: read.seconds,
            consumed_records: read.records,
            consumed_bytes: read.records * u64::from(RECORD_BYTES),
            cpu_consume_s: Some(cost.broker_cpu_s),
            cost,
            ..Figures::default()
        })
    });
}
