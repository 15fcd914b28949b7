//! The machine that the figures come from, as the kernel describes it.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// A machine, in words.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Release of the kernel.
    pub kernel: String,
    /// The disk below the data.
    pub disk: Disk,
    /// When it was looked at, in seconds since the Unix epoch.
    pub unix_s: u64,
}

/// Where the data lies.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Disk {
    /// The file system's type and source, as it is mounted.
    pub file_system: String,
    /// The block device.
    pub device: String,
    /// Its model, when it says one.
    pub model: String,
    /// Whether it spins.
    pub rotational: bool,
    /// Its write cache: `write back` must be flushed to be durable.
    pub write_cache: String,
    /// Whether a single write can ask to be durable; without it O_DSYNC is a write and a flush.
    pub fua: bool,
}

impl Machine {
    /// This machine, with the disk below `data`.
    pub fn look(data: &Path) -> Machine {
        Machine {
            cpu: field(&text("/proc/cpuinfo"), "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
            memory_bytes: field(&text("/proc/meminfo"), "MemTotal").map_or(0, |value| kibibytes(&value)),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            disk: Disk::below(data).unwrap_or_default(),
            unix_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        }
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let Disk { file_system, device, write_cache, fua, .. } = &self.disk;
        format!(
            "{}, {} cores, {:.0} GiB, Linux {}; {file_system} on {device} (write cache {write_cache}, FUA {})",
            self.cpu,
            self.cores,
            self.memory_bytes as f64 / crate::figures::GIB,
            self.kernel,
            if *fua { "yes" } else { "no" },
        )
    }
}

impl Disk {
    fn below(data: &Path) -> Option<Disk> {
        let device = fs::metadata(data).ok()?.dev();
        let numbers = format!("{}:{}", libc::major(device), libc::minor(device));
        let entry = fs::canonicalize(format!("/sys/dev/block/{numbers}")).unwrap_or_default();
        // A partition's queue is that of its disk.
        let disk = if entry.join("queue").exists() { entry.clone() } else { entry.parent()?.to_owned() };
        let said = |name: &str| text(disk.join(name)).trim().to_owned();
        Some(Disk {
            file_system: mounted(&text("/proc/self/mountinfo"), &numbers).unwrap_or_default(),
            device: entry.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned()),
            model: said("device/model"),
            rotational: said("queue/rotational") == "1",
            write_cache: said("queue/write_cache"),
            fua: said("queue/fua") == "1",
        })
    }
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value of the first line `name : value`.
pub(crate) fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Bytes of `123 kB`.
pub(crate) fn kibibytes(value: &str) -> u64 {
    value.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// File system type and source of the mount with these device numbers.
fn mounted(mountinfo: &str, numbers: &str) -> Option<String> {
    let line = mountinfo.lines().find(|line| line.split(' ').nth(2) == Some(numbers))?;
    let mut after = line.split(" - ").nth(1)?.split(' ');
    Some(format!("{} {}", after.next()?, after.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let text = "processor\t: 0\nmodel name\t: A CPU: fast\nMemTotal:       16000 kB\n";
        assert_eq!(field(text, "model name"), Some("A CPU: fast".to_owned()));
        assert_eq!(field(text, "MemTotal").map(|value| kibibytes(&value)), Some(16000 << 10));
        assert_eq!(field(text, "none"), None);
    }

    #[test]
    fn mounts_are_found() {
        let text = "21 1 0:20 / /proc rw - proc proc rw\n30 1 254:1 / / rw shared:1 - ext4 /dev/vda1 rw,discard\n";
        assert_eq!(mounted(text, "254:1"), Some("ext4 /dev/vda1".to_owned()));
    }

    #[test]
    fn this_machine_has_cores_and_memory() {
        let machine = Machine::look(Path::new("."));
        assert!(machine.cores > 0 && machine.memory_bytes > 0 && !machine.kernel.is_empty(), "{machine:?}");
    }
}
