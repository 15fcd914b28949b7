//! Latency under offered loads, from each record's due moment to its acknowledgement: a lone record now and then, fixed
//! loads, and half of what this broker can take.

use std::time::Duration;

use super::bench::{Bench, PARTITIONS, RECORD_BYTES, of_paced, of_sent};
use crate::{
    client::{
        closed,
        open::{self, Open},
    },
    figures::Figures,
};

/// MB/s of values.
const LOADS: [(&str, f64); 4] = [("1 MB/s", 1e6), ("20 MB/s", 20e6), ("60 MB/s", 60e6), ("100 MB/s", 100e6)];
/// Lone records per second: far enough apart to be alone.
const LONE_PER_S: f64 = 100.0;

pub(super) fn run(bench: &mut Bench<'_>) {
    let most = bench.cell("latency", "maximum", |bench| {
        let (topic, load) = (bench.topic(PARTITIONS)?, bench.closed());
        let (sent, cost) = bench.measured(|| closed::produce(&topic, load))?;
        Ok(of_sent(&sent, cost))
    });
    let lone = Open { linger: Duration::ZERO, producers: 1, ..bench.open(LONE_PER_S * f64::from(RECORD_BYTES)) };
    bench.cell("latency", "a lone record", |bench| offer(bench, lone));
    for (name, bytes_per_s) in LOADS {
        let load = bench.open(bytes_per_s);
        bench.cell("latency", name, |bench| offer(bench, load));
    }
    if let Some(most) = most {
        let load = bench.open(most.produced_bytes_per_s() / 2.0);
        bench.cell("latency", "half of its maximum", |bench| offer(bench, load));
    }
}

fn offer(bench: &mut Bench<'_>, load: Open) -> Result<Figures, String> {
    let topic = bench.topic(PARTITIONS)?;
    let (paced, cost) = bench.measured(|| open::produce(&topic, load, open::start_clock()))?;
    Ok(of_paced(&paced, &load, cost))
}
