//! Free memory, before a load: a virtual machine hands what is free back to its host, and whoever needs it first then waits for
//! the host to give it again. Where that happens (`page_reporting`), the page cache takes a third of the bytes a second that it
//! takes of memory used a moment ago, so that the order of loads, and not the brokers, would decide.

use std::{
    fs,
    hint::black_box,
    path::{Path, PathBuf},
};

use crate::machine::{field, kibibytes};

/// Left alone, so that nothing is pushed out of the page cache.
const SPARE_BYTES: u64 = 1 << 30;

/// Used at once, before looking again what is free.
const CHUNK_BYTES: u64 = 256 << 20;

/// Uses `wanted_bytes` of free memory for a moment, as far as there is so much.
pub(crate) fn touch(wanted_bytes: u64) {
    let mut held = Vec::new();
    let mut left = wanted_bytes;
    loop {
        let bytes = to_touch(left, free_bytes());
        if bytes == 0 {
            break;
        }
        // Ones, for zeros would be memory that nobody has touched.
        held.push(black_box(vec![1_u8; bytes as usize]));
        left -= bytes;
    }
}

/// Of the machine, and of the group that this process is bound to.
fn free_bytes() -> u64 {
    let free = fs::read_to_string("/proc/meminfo").ok().and_then(|text| field(&text, "MemFree"));
    let free = free.map_or(0, |value| kibibytes(&value));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    bounds(&groups).into_iter().map(|folder| left_of_group(&folder)).fold(free, u64::min)
}

/// The folders of this process's control group (version 2) and of those above it, whose bounds hold too.
fn bounds(groups: &str) -> Vec<PathBuf> {
    let Some(own) = groups.lines().find_map(|line| line.strip_prefix("0::/")) else { return Vec::new() };
    let root = Path::new("/sys/fs/cgroup");
    root.join(own).ancestors().take_while(|folder| folder.starts_with(root)).map(Path::to_owned).collect()
}

/// What a group may still use; without a bound, anything.
fn left_of_group(folder: &Path) -> u64 {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    // `max` is no number.
    read("memory.max").map_or(u64::MAX, |most| most.saturating_sub(read("memory.current").unwrap_or(0)))
}

fn to_touch(wanted_bytes: u64, free_bytes: u64) -> u64 {
    wanted_bytes.min(CHUNK_BYTES).min(free_bytes.saturating_sub(SPARE_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_by_others_is_left_to_them() {
        assert_eq!(to_touch(3 << 30, 20 << 30), CHUNK_BYTES, "and then it looks again");
        assert_eq!(to_touch(1 << 20, 20 << 30), 1 << 20);
        assert_eq!(to_touch(3 << 30, (1 << 30) + 5), 5);
        assert_eq!(to_touch(3 << 30, 1 << 20), 0);
        touch(1 << 20);
    }

    #[test]
    fn a_control_groups_bound_holds() {
        let folder = tempfile::tempdir().expect("a folder");
        let say = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
        assert_eq!(left_of_group(folder.path()), u64::MAX, "the root has no bound");
        say("memory.max", "max\n");
        say("memory.current", "700\n");
        assert_eq!(left_of_group(folder.path()), u64::MAX);
        say("memory.max", "1000\n");
        assert_eq!(left_of_group(folder.path()), 300);
        say("memory.current", "1200\n");
        assert_eq!(left_of_group(folder.path()), 0);
        let folders = bounds("1:name=systemd:/x\n0::/a/b\n");
        let names: Vec<_> = folders.iter().map(|folder| folder.to_string_lossy()).collect();
        assert_eq!(names, ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"]);
        assert_eq!(bounds("4:memory:/x\n"), Vec::<PathBuf>::new());
    }
}
