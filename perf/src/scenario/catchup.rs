//! Read all from the start, again and again, when nothing is produced any more.

use super::bench::{Bench, PARTITIONS, RECORD_BYTES};
use crate::{
    client::{closed, reader},
    figures::Figures,
};

/// Readers that share the partitions, as the members of a group would.
const READERS: u16 = 2;
/// How often all of it is read: once takes less than a second, and tells of that second more than of the broker.
const PASSES: u64 = 5;

pub(super) fn run(bench: &mut Bench<'_>) {
    bench.cell("catchup", "1 KiB, 16 partitions, 2 readers", |bench| {
        let topic = bench.topic(PARTITIONS)?;
        let sent = closed::produce(&topic, bench.closed())?;
        let (passes, cost) =
            bench.measured(|| (0..PASSES).map(|_| reader::catch_up(&topic, READERS)).collect::<Result<Vec<_>, _>>())?;
        if let Some(short) = passes.iter().find(|pass| pass.records < sent.records) {
            return Err(format!("{} of {} records were there to read", short.records, sent.records));
        }
        let records = passes.iter().map(|pass| pass.records).sum::<u64>();
        Ok(Figures {
            seconds: passes.iter().map(|pass| pass.seconds).sum(),
            consumed_records: records,
            consumed_bytes: records * u64::from(RECORD_BYTES),
            cpu_consume_s: Some(cost.broker_cpu_s),
            cost,
            ..Figures::default()
        })
    });
}
