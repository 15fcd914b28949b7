//! Produce, then consume, through librdkafka: a client that most programs use, and that costs more than the broker.

use std::process::{Command, Stdio};

use super::bench::{Bench, PARTITIONS, RECORD_BYTES};
use crate::{
    broker::librdkafka_client,
    client::topic::Topic,
    figures::{Cost, Figures},
};

pub(super) fn run(bench: &mut Bench<'_>) {
    let topic = match bench.topic(PARTITIONS) {
        Ok(topic) => topic,
        Err(why) => {
            bench.cell("librdkafka", "produce", |_| Err(why));
            return;
        }
    };
    let records = bench.plan.bytes / u64::from(RECORD_BYTES);
    let bytes = records * u64::from(RECORD_BYTES);
    bench.cell("librdkafka", "produce", |bench| {
        let (seconds, cost) = call(bench, "produce", &topic, records)?;
        let cpu_produce_s = Some(cost.broker_cpu_settled_s);
        Ok(Figures {
            seconds,
            produced_bytes: bytes,
            produced_records: records,
            cpu_produce_s,
            cost,
            ..Figures::default()
        })
    });
    bench.cell("librdkafka", "consume", |bench| {
        let (seconds, cost) = call(bench, "consume", &topic, records)?;
        let cpu_consume_s = Some(cost.broker_cpu_s);
        Ok(Figures {
            seconds,
            consumed_bytes: bytes,
            consumed_records: records,
            cpu_consume_s,
            cost,
            ..Figures::default()
        })
    });
}

/// Runs perf/librdkafka, which prints the seconds that the load took.
fn call(bench: &mut Bench<'_>, what: &str, topic: &Topic, records: u64) -> Result<(f64, Cost), String> {
    let (python, program) = librdkafka_client();
    let mut command = Command::new(python);
    command.arg(program).args([what, &topic.bootstrap, &topic.name.0]);
    command.args([records.to_string(), RECORD_BYTES.to_string(), topic.partitions.to_string()]);
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    bench.measured(|| {
        let output = command.output().map_err(|e| format!("perf/librdkafka cannot be started: {e}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let seconds = said.trim().parse().ok().filter(|_| output.status.success());
        seconds.ok_or_else(|| format!("perf/librdkafka {what}: {}, it said '{}'", output.status, said.trim()))
    })
}
