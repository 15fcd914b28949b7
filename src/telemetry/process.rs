//! The process as a whole: build, start, memory, readiness.
#![expect(clippy::disallowed_methods, reason = "reads /proc on the telemetry thread")]

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use metrics::Gauge;

thalweg_shards::meters! {
    /// The build.
    pub struct BuildMeters(BUILD_METRICS, labels: ["version"]) {
        /// Always 1; the label tells the version.
        info: Gauge = "thalweg_build_info", "builds";
    }
}

thalweg_shards::meters! {
    /// The process.
    pub struct ProcessMeters(PROCESS_METRICS, labels: []) {
        /// When the process started, in seconds since 1970.
        start_time: Gauge = "process_start_time_seconds", "seconds";
        /// Memory of the process that is in RAM.
        resident_bytes: Gauge = "process_resident_memory_bytes", "bytes";
        /// Descriptors that are open.
        open_fds: Gauge = "process_open_fds", "descriptors";
        /// 1 while the broker serves, 0 while it starts or stops.
        ready: Gauge = "thalweg_ready", "boolean";
    }
}

impl ProcessMeters {
    /// Registers the handles, and sets those that never change.
    pub(super) fn new() -> ProcessMeters {
        BuildMeters::register(&[("version", env!("CARGO_PKG_VERSION").to_owned())]).info.set(1.0);
        let meters = ProcessMeters::register(&[]);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        meters.start_time.set(now.as_secs_f64());
        meters
    }

    /// Looks at the process.
    pub(super) fn sample(&self, ready: bool) {
        self.ready.set(f64::from(u8::from(ready)));
        if let Ok(fds) = fs::read_dir("/proc/self/fd") {
            self.open_fds.set(fds.count() as f64);
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        if let Some(kib) = resident_kib(&status) {
            self.resident_bytes.set((kib << 10) as f64);
        }
    }
}

fn resident_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_found_in_what_the_kernel_says() {
        assert_eq!(resident_kib("VmSize:\t 9 kB\nVmRSS:\t   1234 kB\n"), Some(1234));
        assert_eq!(resident_kib(""), None);
    }
}
