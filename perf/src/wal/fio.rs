//! fio with the pattern of the log: sequential, direct, io_uring, durable before a write counts.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use super::{Pattern, Written};
use crate::figures::Latency;

/// Lets fio write the file for so long.
pub(super) fn measure(file: &Path, bytes: u64, pattern: Pattern, time: Duration) -> Result<Written, String> {
    let mut command = Command::new("fio");
    command
        .args(["--name=wal", "--rw=write", "--direct=1", "--ioengine=io_uring", "--overwrite=1", "--time_based"])
        .args(["--output-format=json", "--percentile_list=1:5:10:25:50:75:90:95:99:99.5:99.9:99.99"])
        .arg(format!("--filename={}", file.display()))
        .args([format!("--size={bytes}"), format!("--bs={}", pattern.group_bytes)])
        .args([format!("--iodepth={}", pattern.in_flight), format!("--runtime={}ms", time.as_millis())])
        .arg(format!("--thinktime={}ms", pattern.pause_ms))
        .arg(if pattern.sync == "dsync" { "--sync=dsync" } else { "--fdatasync=1" })
        .stdin(Stdio::null());
    let output = command.output().map_err(|e| format!("fio cannot be started: {e}"))?;
    if !output.status.success() {
        return Err(format!("fio: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    parse(&String::from_utf8_lossy(&output.stdout), pattern.sync == "fdatasync")
}

/// Reads fio's JSON. Lines of notes may stand before it.
fn parse(text: &str, with_sync: bool) -> Result<Written, String> {
    let json = text.find('{').map(|at| &text[at..]).unwrap_or_default();
    let all: Value = serde_json::from_str(json).map_err(|e| format!("fio's JSON does not parse: {e}"))?;
    let job = &all["jobs"][0];
    let number = |value: &Value, name: &str| value.as_f64().ok_or_else(|| format!("fio says no {name}"));
    Ok(Written {
        seconds: number(&job["write"]["runtime"], "runtime")? / 1000.0,
        bytes: number(&job["write"]["io_bytes"], "io_bytes")? as u64,
        latency: percentiles(&job["write"]["clat_ns"])?,
        sync_latency: if with_sync { Some(percentiles(&job["sync"]["lat_ns"])?) } else { None },
    })
}

/// fio gives percentiles, not counts: each stands for the values since the one before.
fn percentiles(times: &Value) -> Result<Latency, String> {
    let given = times["percentile"].as_object().ok_or("fio says no percentiles")?;
    let mut points: Vec<(f64, u64)> = given
        .iter()
        .filter_map(|(percent, ns)| Some((percent.parse().ok()?, ns.as_f64()? as u64 / 1000)))
        .chain(times["max"].as_f64().map(|ns| (100.0, ns as u64 / 1000)))
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut before = 0.0;
    let counts = points.into_iter().map(|(percent, us)| {
        let count = ((percent - before) * 100.0).round() as u64;
        before = percent;
        (us, count)
    });
    Ok(Latency::from_counts(counts.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = r#"note: something
{"jobs":[{"write":{"runtime":2000,"io_bytes":8000000,"clat_ns":{"max":900000,"percentile":
{"1.000000":90000,"50.000000":100000,"99.000000":300000,"99.990000":800000}}},
"sync":{"lat_ns":{"max":50000,"percentile":{"50.000000":20000,"99.000000":40000}}}}]}"#;

    #[test]
    fn reads_what_fio_says() {
        let written = parse(SAID, false).expect("parses");
        assert_eq!((written.seconds, written.bytes), (2.0, 8_000_000));
        let us = [0.5, 0.99, 0.9999, 1.0].map(|q| written.latency.quantile_us(q));
        assert_eq!(us, [100, 300, 800, 900]);
        assert_eq!(written.sync_latency, None);
    }

    #[test]
    fn a_sync_is_timed_apart() {
        let written = parse(SAID, true).expect("parses");
        assert_eq!(written.us(0.5), 120.0);
        assert_eq!(written.us(0.99), 340.0);
    }
}
