//! What a process has cost so far, from /proc.

use std::{fs, time::Duration};

use crate::machine::{field, kibibytes};

/// Counters of a process.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Usage {
    /// CPU seconds of all its threads, user and system.
    pub cpu_s: f64,
    /// Bytes it wrote to block devices or dirtied in the page cache.
    pub written_bytes: u64,
    /// Bytes it had fetched from block devices.
    pub read_bytes: u64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// The largest resident memory.
    pub peak_resident_bytes: u64,
}

/// The counters of process `pid` now.
///
/// # Errors
/// When the process is gone.
pub fn usage(pid: u32) -> Result<Usage, String> {
    let read = |name: &str| {
        fs::read_to_string(format!("/proc/{pid}/{name}")).map_err(|e| format!("process {pid} cannot be looked at: {e}"))
    };
    let status = read("status")?;
    let kilobytes = |name| field(&status, name).map_or(0, |value| kibibytes(&value));
    let io = read("io").unwrap_or_default();
    let counter = |name| field(&io, name).and_then(|n| n.parse().ok()).unwrap_or(0);
    Ok(Usage {
        cpu_s: cpu_ticks(&read("stat")?)? as f64 / ticks_per_second(),
        written_bytes: counter("write_bytes"),
        read_bytes: counter("read_bytes"),
        resident_bytes: kilobytes("VmRSS"),
        peak_resident_bytes: kilobytes("VmHWM"),
    })
}

/// How coarse CPU seconds are counted.
pub fn tick() -> Duration {
    Duration::from_secs_f64(1.0 / ticks_per_second())
}

fn ticks_per_second() -> f64 {
    // SAFETY: asks for a constant of the system.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if ticks > 0 { ticks as f64 } else { 100.0 }
}

/// utime + stime, the 14th and 15th field. The second, the name in parentheses, may hold anything.
fn cpu_ticks(stat: &str) -> Result<u64, String> {
    let after_name = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    let fields: Vec<&str> = after_name.split(' ').collect();
    let number = |n: usize| fields.get(n).and_then(|field| field.parse::<u64>().ok());
    match (number(11), number(12)) {
        (Some(user), Some(system)) => Ok(user + system),
        _ => Err("/proc/PID/stat does not look as expected".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_may_hold_anything() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 100 0 0 0 123 45 0 0 20 0 5 0 100 1000 200";
        assert_eq!(cpu_ticks(stat), Ok(168));
        assert!(cpu_ticks("42 (short) S 1").is_err());
    }

    #[test]
    fn this_process_has_memory() {
        let usage = usage(std::process::id()).expect("alive");
        assert!(usage.resident_bytes > 0 && usage.peak_resident_bytes >= usage.resident_bytes, "{usage:?}");
    }
}
