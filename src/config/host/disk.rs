//! Whether the directories can be used: permission, room, a file system that keeps what it is given.
#![expect(clippy::disallowed_methods, reason = "looked at before any shard runs")]

use std::{
    ffi::CString,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf, absolute},
};

use rustix::fs::StatFs;

use super::{Problem, of_setting};
use crate::{cluster::Cluster, config::Config};

/// `statfs` types of file systems in memory.
const TMPFS_MAGIC: i64 = 0x0102_1994;
const RAMFS_MAGIC: i64 = 0x8584_58f6;
/// What the metadata of a new broker, and superblocks and directories, take at the most before anybody uses it.
const METADATA_BYTES: u64 = 12 << 20;

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let places = [
        ("data.dir", Some(config.data_dir.clone())),
        ("wal.path", Some(config.wal_path.clone())),
        ("object.store.url", object_dir(config)),
    ];
    let found = problems.len();
    for (key, dir) in places.into_iter().filter_map(|(key, dir)| Some((key, dir?))) {
        if let Err(text) = usable(&dir) {
            // What lies below data.dir is in its way too, and is not told twice.
            if !problems.iter().any(|told| told.text == text) {
                problems.push(of_setting(config, key, text));
            }
        }
    }
    if problems.len() == found {
        problems.extend(wal(config).or_else(|| metadata(config)));
    }
}

/// The nearest directory at or above `dir` that exists.
fn existing(dir: &Path) -> io::Result<PathBuf> {
    let mut dir = absolute(dir)?;
    loop {
        match fs::metadata(&dir) {
            Ok(_) => return Ok(dir),
            Err(e) if e.kind() == io::ErrorKind::NotFound && dir.pop() => {}
            Err(e) => return Err(e),
        }
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::other("the path has a NUL in it"))
}

/// Whether this process may keep files in `dir`, or make it.
fn usable(dir: &Path) -> Result<(), String> {
    let near = existing(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    if !near.is_dir() {
        return Err(format!("{} is not a directory", near.display()));
    }
    let path = c_path(&near).map_err(|e| e.to_string())?;
    // SAFETY: `path` is a C string that outlives the call; geteuid cannot fail.
    let (allowed, user) =
        unsafe { (libc::access(path.as_ptr(), libc::R_OK | libc::W_OK | libc::X_OK), libc::geteuid()) };
    if allowed == 0 {
        return Ok(());
    }
    Err(forbidden(&near, user, &io::Error::last_os_error()))
}

fn forbidden(dir: &Path, user: u32, error: &io::Error) -> String {
    let dir = dir.display();
    format!("user {user} may not write to {dir} ({error}): run `chown {user} {dir}`, or choose another directory")
}

/// Whether two directories lie, or would lie, on one file system.
pub(crate) fn same_file_system(one: &Path, other: &Path) -> bool {
    let device = |dir: &Path| existing(dir).and_then(fs::metadata).map(|m| m.dev()).ok();
    device(one) == device(other)
}

/// The directory that objects lie in, if the object store is one.
pub(crate) fn object_dir(config: &Config) -> Option<PathBuf> {
    match config.object_store_url.scheme() {
        "file" => config.object_store_url.to_file_path().ok(),
        _ => None,
    }
}

/// How large a file system is, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Room {
    /// All of it.
    pub total_bytes: i64,
    /// What this process may still use.
    pub usable_bytes: i64,
}

/// The room of the file system under a directory that exists. The kernel has the figures at hand: no disk is waited for.
pub(crate) fn room(dir: &Path) -> Option<Room> {
    let stat = statfs(dir)?;
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let total = stat.f_blocks.saturating_mul(stat.f_bsize.unsigned_abs());
    Some(Room { total_bytes: bytes(total), usable_bytes: bytes(free_bytes(&stat)) })
}

/// The file system under a directory, or under the place where it will be.
fn file_system(dir: &Path) -> Option<(PathBuf, StatFs)> {
    let near = existing(dir).ok()?;
    let stat = statfs(&near)?;
    Some((near, stat))
}

fn statfs(dir: &Path) -> Option<StatFs> {
    rustix::fs::statfs(dir).ok()
}

fn free_bytes(stat: &StatFs) -> u64 {
    stat.f_bavail.saturating_mul(stat.f_bsize.unsigned_abs())
}

/// Whether a broker that begins has room for its metadata, beside the log when that lies on the same file system.
fn metadata(config: &Config) -> Option<Problem> {
    if Cluster::present(&config.data_dir) {
        return None;
    }
    let free = free_bytes(&file_system(&config.data_dir)?.1);
    let beside = same_file_system(&config.data_dir, &config.wal_path);
    let log = if beside { config.wal_capacity_bytes.saturating_sub(allocated(&config.wal_path)) } else { 0 };
    // With less the ballast would not be made, and nothing could be created.
    let needed = METADATA_BYTES.saturating_add(config.metadata_ballast_bytes.saturating_mul(2));
    let text = format!(
        "{} has {free} bytes free, {} are needed for the metadata of a new broker and {log} for its log: free some, choose \
         another directory, or lower wal.capacity.bytes or metadata.ballast.bytes",
        config.data_dir.display(),
        needed,
    );
    (free < log.saturating_add(needed)).then(|| of_setting(config, "data.dir", text))
}

/// Whether the file system under the log keeps what it is given, and has room.
fn wal(config: &Config) -> Option<Problem> {
    let (near, stat) = file_system(&config.wal_path)?;
    if [TMPFS_MAGIC, RAMFS_MAGIC].contains(&stat.f_type) && !config.wal_allow_tmpfs {
        let text = format!(
            "{} is in memory (tmpfs), so acknowledged records would not survive a power cut: choose a directory on a \
             disk, or set wal.allow.tmpfs for a test",
            near.display()
        );
        return Some(of_setting(config, "wal.path", text));
    }
    no_room(config, free_bytes(&stat), allocated(&config.wal_path))
}

fn no_room(config: &Config, free_bytes: u64, allocated_bytes: u64) -> Option<Problem> {
    let missing = config.wal_capacity_bytes.saturating_sub(allocated_bytes);
    let text = format!(
        "{} does not fit: {} has {free_bytes} bytes free, {missing} more are needed; free some, or lower it (all shards \
         together need at least {})",
        config.wal_capacity_bytes,
        config.wal_path.display(),
        u64::from(config.shards) * (4 * u64::from(config.wal_max_group_bytes) + 8192)
    );
    (free_bytes < missing).then(|| of_setting(config, "wal.capacity.bytes", text))
}

/// Bytes on the disk that the files in `dir` take already.
fn allocated(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    files.filter_map(|f| f.metadata().ok()).filter(|m| m.is_file()).map(|m| m.blocks() * 512).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(dir: &Path, sets: &[(&str, &str)]) -> Config {
        let dir = dir.display().to_string();
        let sets: Vec<_> = [("data.dir", dir.as_str()), ("shards", "1")].iter().chain(sets).copied().collect();
        Config::with(&sets).expect("valid")
    }

    #[test]
    fn a_directory_to_be_made_is_judged_by_the_nearest_that_exists() {
        let dir = tempfile::tempdir().expect("a directory");
        let deep = dir.path().join("a/b");
        assert_eq!(existing(&deep).expect("found"), dir.path());
        assert_eq!(usable(&deep), Ok(()));
        assert!(!deep.exists(), "nothing is created");
        fs::write(dir.path().join("a"), "").expect("written");
        assert!(usable(&deep).is_err(), "a file is in the way");
        assert!(usable(&dir.path().join("a")).expect_err("a file").ends_with("is not a directory"));
    }

    #[test]
    fn a_forbidden_directory_names_the_command() {
        let shown = forbidden(Path::new("/srv"), 7, &io::Error::from_raw_os_error(libc::EACCES));
        assert!(shown.starts_with("user 7 may not write to /srv") && shown.contains("run `chown 7 /srv`"), "{shown}");
    }

    #[test]
    fn the_key_of_a_bad_place_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        fs::write(&file, "").expect("written");
        let url = format!("file://{}/objects", file.display());
        let mut problems = Vec::new();
        check(&at(dir.path(), &[("object.store.url", &url)]), &mut problems);
        let shown = problems.first().expect("refused").to_string();
        assert!(shown.starts_with("object.store.url (--set): "), "{shown}");
        assert!(!dir.path().join("wal").exists(), "nothing is created");
    }

    #[test]
    fn memory_is_no_place_for_the_log_unless_allowed() {
        let shm = Path::new("/dev/shm");
        let small = ("wal.capacity.bytes", "16785408");
        let shown = wal(&at(shm, &[small])).expect("refused").to_string();
        assert!(shown.starts_with("wal.path: /dev/shm is in memory (tmpfs)"), "{shown}");
        assert_eq!(wal(&at(shm, &[small, ("wal.allow.tmpfs", "true")])), None);
    }

    #[test]
    fn the_log_must_fit_beside_what_is_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = at(dir.path(), &[("wal.capacity.bytes", "20000000")]);
        assert_eq!(no_room(&config, 20_000_000, 0), None);
        let shown = no_room(&config, 19_999_999, 0).expect("refused").to_string();
        assert!(shown.starts_with("wal.capacity.bytes (--set): 20000000 does not fit"), "{shown}");
        assert_eq!(no_room(&config, 0, 20_000_000), None, "what is allocated already needs no room");
        fs::write(dir.path().join("slice"), vec![1; 8192]).expect("written");
        assert!(allocated(dir.path()) >= 8192);
    }
}
