//! The embedded metadata store of a single broker: sled 0.34 below `<data.dir>/metadata`.
//!
//! sled's `flush` hands data to the kernel but does not survive the loss of power (it calls `sync_file_range`, and leaves
//! files of large values alone), so [`SledStore::sync`] also fsyncs sled's files. sled may also come up with less than was
//! durable after damage, without a word. Therefore each entry carries a CRC, a state entry written by every transaction
//! carries count and digest of all entries, and a small file beside sled's ([`SyncMark`]) the newest synced revision; what
//! does not fit is refused at opening.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "sled is called on threads of its own, never on a shard"
)]

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    ops::Bound,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    port::{Compare, MetadataError, MetadataStore, Revision, Transacted, Versioned, Write, check_writes},
    sled_entry::{Entry, State},
    sync_mark::SyncMark,
};

/// Memory that sled may use for its page cache; metadata of 10,000 partitions is a few MiB.
const CACHE_BYTES: u64 = 64 << 20;
/// Key of the [`State`]; the port keeps callers away from keys that begin with a zero byte.
const STATE_KEY: &[u8] = b"\0state";

/// Room on the disk that sled's file has beyond its end, or half as much: sled does not live through a write for which there is none.
const AHEAD_BYTES: u64 = 8 << 20;

/// Stores that are being opened in this process.
static OPENING: AtomicUsize = AtomicUsize::new(0);

/// Whether a store is being opened: a panic is then sled's answer to damage, on whichever of its threads, and is told as such.
pub fn opening() -> bool {
    OPENING.load(Ordering::SeqCst) > 0
}

struct Opening;

impl Opening {
    fn begin() -> Opening {
        OPENING.fetch_add(1, Ordering::SeqCst);
        Opening
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        OPENING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A metadata store on the local disk, open in this process alone.
#[derive(Debug)]
pub struct SledStore {
    dir: PathBuf,
    db: sled::Db,
    /// Held over each transaction: comparisons and writes are one step.
    writer: Mutex<State>,
    /// Held over each sync.
    durable: Mutex<Durable>,
}

#[derive(Debug)]
struct Durable {
    mark: SyncMark,
    /// sled's main file, by a descriptor of our own.
    main: File,
    /// Files of large values that are synced.
    large_values: BTreeSet<PathBuf>,
    /// How long sled's file was when room beyond its end was looked at.
    reserved_at: u64,
}

impl SledStore {
    /// Opens the store in `dir`, or creates it.
    ///
    /// # Errors
    /// Another process has it, the directory holds something else, or what was durable is damaged or gone.
    pub fn open(dir: &Path) -> Result<SledStore, MetadataError> {
        refuse_foreign_files(dir)?;
        let corrupt = |why: String| MetadataError::Corrupt { path: dir.to_owned(), why };
        let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES);
        // sled answers some damage with a panic.
        let _opening = Opening::begin();
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let db = config.open().map_err(|e| engine_error(dir, e))?;
            let state = load_state(dir, &db)?;
            Ok((db, state))
        }));
        let (db, state) = opened.map_err(|_| corrupt("sled cannot read its files".into()))??;
        let mark = SyncMark::open(dir)?;
        if state.revision < mark.revision() {
            return Err(corrupt(format!("revision {} was durable, {} is there", mark.revision(), state.revision)));
        }
        let main = File::options().read(true).write(true).open(dir.join("db")).map_err(|e| io_error(dir, e))?;
        let reserved_at = reserve_ahead(&main, 0);
        let durable = Durable { mark, main, large_values: BTreeSet::new(), reserved_at };
        Ok(SledStore { dir: dir.to_owned(), db, writer: Mutex::new(state), durable: Mutex::new(durable) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.writer.lock().expect("no transaction panics")
    }

    fn entry(&self, key: &[u8]) -> Result<Option<Entry>, MetadataError> {
        let Some(bytes) = self.db.get(key).map_err(|e| engine_error(&self.dir, e))? else { return Ok(None) };
        self.decode(key, &bytes).map(Some)
    }

    fn decode(&self, key: &[u8], bytes: &[u8]) -> Result<Entry, MetadataError> {
        Entry::decode(key, bytes).map_err(|why| MetadataError::Corrupt { path: self.dir.clone(), why })
    }

    fn holds(&self, compare: &Compare) -> Result<bool, MetadataError> {
        Ok(match compare {
            Compare::Absent(key) => self.entry(key)?.is_none(),
            Compare::Revision(key, revision) => self.entry(key)?.is_some_and(|e| e.versioned.revision == *revision),
            Compare::Value(key, value) => self.entry(key)?.is_some_and(|e| e.versioned.value == *value),
        })
    }
}

/// As [`SledStore::open`], behind the port: what a broker's start is given to open its metadata with.
///
/// # Errors
/// As [`SledStore::open`].
pub fn open_sled(dir: &Path) -> Result<Arc<dyn MetadataStore>, MetadataError> {
    Ok(Arc::new(SledStore::open(dir)?))
}

impl MetadataStore for SledStore {
    fn revision(&self) -> Revision {
        self.state().revision
    }

    fn get(&self, key: &[u8]) -> Result<Option<Versioned>, MetadataError> {
        Ok(self.entry(key)?.map(|e| e.versioned))
    }

    fn range(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Versioned)>, MetadataError> {
        let from = after.filter(|a| *a >= prefix).map_or(Bound::Included(prefix), Bound::Excluded);
        let mut found = Vec::new();
        for item in self.db.range::<&[u8], _>((from, Bound::Unbounded)) {
            let (key, bytes) = item.map_err(|e| engine_error(&self.dir, e))?;
            if !key.starts_with(prefix) || found.len() == limit {
                break;
            }
            if key != STATE_KEY {
                found.push((key.to_vec(), self.decode(&key, &bytes)?.versioned));
            }
        }
        Ok(found)
    }

    fn transact(&self, compares: &[Compare], writes: &[Write]) -> Result<Transacted, MetadataError> {
        check_writes(writes);
        let mut state = self.state();
        for compare in compares {
            if !self.holds(compare)? {
                return Ok(Transacted::Refused);
            }
        }
        if writes.is_empty() {
            return Ok(Transacted::Applied(state.revision));
        }
        let mut next = State { revision: Revision(state.revision.0 + 1), ..*state };
        let mut batch = sled::Batch::default();
        for write in writes {
            if let Some(before) = self.entry(write.key())? {
                next.forget(&before);
            }
            match write {
                Write::Put(key, value) => {
                    let (bytes, crc) = Entry::encode(key, next.revision, value);
                    next.add(crc);
                    batch.insert(key.as_slice(), bytes);
                }
                Write::Delete(key) => batch.remove(key.as_slice()),
            }
        }
        batch.insert(STATE_KEY, next.encode());
        self.db.apply_batch(batch).map_err(|e| engine_error(&self.dir, e))?;
        *state = next;
        Ok(Transacted::Applied(next.revision))
    }

    fn skip_to(&self, revision: Revision) -> Result<(), MetadataError> {
        let mut state = self.state();
        let next = State { revision: state.revision.max(revision), ..*state };
        self.db.insert(STATE_KEY, next.encode()).map_err(|e| engine_error(&self.dir, e))?;
        *state = next;
        Ok(())
    }

    fn sync(&self) -> Result<(), MetadataError> {
        let wanted = self.revision();
        let mut durable = self.durable.lock().expect("no sync panics");
        if durable.mark.revision() >= wanted {
            return Ok(());
        }
        let reached = self.revision();
        self.db.flush().map_err(|e| engine_error(&self.dir, e))?;
        durable.main.sync_all().map_err(|e| io_error(&self.dir, e))?;
        sync_large_values(&self.dir.join("blobs"), &mut durable.large_values).map_err(|e| io_error(&self.dir, e))?;
        durable.reserved_at = reserve_ahead(&durable.main, durable.reserved_at);
        durable.mark.advance(reached)
    }
}

/// Takes room beyond the end of sled's file, so that it can grow on a full disk until others have made room (`broker/ballast.rs`). A disk that
/// is full already, or cannot do this, is met by sled. Answers the file's length; `before` is what it was: a file that was cut has lost
/// what lay beyond its end.
fn reserve_ahead(main: &File, before: u64) -> u64 {
    let Ok(found) = main.metadata() else { return before };
    let (len, taken) = (found.len(), found.blocks() * 512);
    if len >= before && taken >= len + AHEAD_BYTES / 2 {
        return len;
    }
    let (Ok(at), Ok(bytes)) = (i64::try_from(len), i64::try_from(AHEAD_BYTES)) else { return len };
    // SAFETY: the descriptor is open; no memory is passed.
    let _full = unsafe { libc::fallocate(main.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, at, bytes) };
    len
}

/// Refuses a directory that has content, but not sled's: sled would put its files beside.
fn refuse_foreign_files(dir: &Path) -> Result<(), MetadataError> {
    let listing = match fs::read_dir(dir) {
        Ok(listing) => listing,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io_error(dir, e)),
    };
    let mut names = BTreeSet::new();
    for item in listing {
        names.insert(item.map_err(|e| io_error(dir, e))?.file_name());
    }
    let own = |n: &str| matches!(n, "db" | "conf" | "blobs") || n.starts_with("snap.") || n == SyncMark::FILE;
    match names.iter().find(|n| !n.to_str().is_some_and(own)) {
        Some(other) => Err(MetadataError::Foreign { path: dir.to_owned(), why: format!("it holds {other:?}") }),
        None => Ok(()),
    }
}

/// Reads everything once and compares it with the state entry.
fn load_state(dir: &Path, db: &sled::Db) -> Result<State, MetadataError> {
    let foreign = |why: &str| MetadataError::Foreign { path: dir.to_owned(), why: why.into() };
    let corrupt = |why: String| MetadataError::Corrupt { path: dir.to_owned(), why };
    let default = db.iter().next().is_none();
    if db.tree_names().len() > 1 {
        return Err(foreign("it holds trees of another program"));
    }
    if default {
        return Ok(State::default());
    }
    let Some(bytes) = db.get(STATE_KEY).map_err(|e| engine_error(dir, e))? else {
        return Err(foreign("it is a sled database of another program"));
    };
    let state = State::decode(&bytes).map_err(corrupt)?;
    let mut seen = State { revision: state.revision, ..State::default() };
    for item in db.iter() {
        let (key, bytes) = item.map_err(|e| engine_error(dir, e))?;
        if key != STATE_KEY {
            seen.add(Entry::decode(&key, &bytes).map_err(corrupt)?.crc);
        }
    }
    if seen != state {
        return Err(corrupt(format!("{} entries, {} expected, or their digest differs", seen.count, state.count)));
    }
    Ok(state)
}

/// Fsyncs sled's files of large values that are not in `synced`, and their directory.
fn sync_large_values(dir: &Path, synced: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let mut present = BTreeSet::new();
    for item in fs::read_dir(dir)? {
        let path = item?.path();
        if !synced.contains(&path) {
            match File::open(&path) {
                Ok(file) => file.sync_all()?,
                // sled has dropped it meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            }
        }
        present.insert(path);
    }
    if present != *synced {
        File::open(dir)?.sync_all()?;
        *synced = present;
    }
    Ok(())
}

pub(super) fn io_error(path: &Path, source: io::Error) -> MetadataError {
    MetadataError::Io { path: path.to_owned(), source }
}

fn engine_error(dir: &Path, error: sled::Error) -> MetadataError {
    let path = dir.to_owned();
    match error {
        // sled has no error of its own for a taken lock; a test holds on to this text.
        sled::Error::Io(e) if e.to_string().contains("could not acquire lock") => MetadataError::Locked { path },
        sled::Error::Io(source) => MetadataError::Io { path, source },
        sled::Error::Unsupported(why) => MetadataError::Foreign { path, why },
        other => MetadataError::Corrupt { path, why: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::cluster::store::contract;

    fn temp() -> TempDir {
        tempfile::tempdir().expect("temporary directory")
    }

    fn open(dir: &Path) -> SledStore {
        SledStore::open(dir).expect("opens")
    }

    fn put(store: &SledStore, key: &str, value: &str) {
        store.transact(&[], &[Write::Put(key.into(), value.into())]).expect("applies");
    }

    fn value(store: &SledStore, key: &str) -> Option<String> {
        let found = store.get(key.as_bytes()).expect("readable")?;
        Some(String::from_utf8(found.value).expect("text"))
    }

    /// What a kill -9 leaves: the files as they are while the store is open.
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).expect("directory");
        for item in fs::read_dir(from).expect("listing") {
            let item = item.expect("listing");
            if item.file_type().expect("type").is_dir() {
                copy(&item.path(), &to.join(item.file_name()));
            } else {
                fs::copy(item.path(), to.join(item.file_name())).expect("copies");
            }
        }
    }

    #[test]
    fn keeps_the_contract() {
        let dirs = std::cell::RefCell::new(Vec::new());
        contract::run(|| {
            let dir = temp();
            let store = open(&dir.path().join("metadata"));
            dirs.borrow_mut().push(dir);
            Box::new(store)
        });
    }

    #[test]
    fn what_was_synced_is_there_after_a_kill() {
        let (dir, copied) = (temp(), temp());
        let store = open(dir.path());
        for n in 0..500 {
            put(&store, &format!("k{}", n % 100), &format!("v{n}"));
        }
        put(&store, "large", &"x".repeat(2_000_000));
        store.transact(&[], &[Write::Delete(b"k7".to_vec())]).expect("applies");
        store.sync().expect("syncs");
        copy(dir.path(), copied.path());
        put(&store, "k8", "later");

        let after = open(copied.path());
        assert_eq!(after.revision(), Revision(502));
        assert_eq!(value(&after, "k99").as_deref(), Some("v499"));
        assert_eq!(value(&after, "large").map(|v| v.len()), Some(2_000_000));
        assert_eq!((value(&after, "k7"), value(&after, "k8").as_deref()), (None, Some("v408")));
    }

    #[test]
    fn opens_again_and_goes_on() {
        let dir = temp();
        let store = open(dir.path());
        put(&store, "a", "1");
        store.sync().expect("syncs");
        drop(store);
        let store = open(dir.path());
        put(&store, "b", "2");
        assert_eq!(store.revision(), Revision(2));
        assert_eq!((value(&store, "a").as_deref(), value(&store, "b").as_deref()), (Some("1"), Some("2")));
    }

    #[test]
    fn a_second_opener_is_told_that_it_is_taken() {
        let dir = temp();
        let _first = open(dir.path());
        let second = SledStore::open(dir.path()).expect_err("taken");
        assert!(matches!(second, MetadataError::Locked { .. }), "{second}");
        assert!(second.to_string().contains("data.dir"), "{second}");
    }

    #[test]
    fn foreign_content_is_refused_and_left_alone() {
        let dir = temp();
        fs::write(dir.path().join("precious.txt"), "x").expect("writes");
        let error = SledStore::open(dir.path()).expect_err("foreign");
        assert!(matches!(error, MetadataError::Foreign { .. }), "{error}");
        assert_eq!(fs::read_dir(dir.path()).expect("listing").count(), 1);

        let other = temp();
        let db = sled::open(other.path()).expect("sled");
        db.insert("theirs", "x").expect("sled");
        drop(db);
        let error = SledStore::open(other.path()).expect_err("foreign");
        assert!(matches!(error, MetadataError::Foreign { .. }), "{error}");
    }

    #[test]
    fn a_store_that_lost_durable_writes_is_refused() {
        let (dir, older) = (temp(), temp());
        let store = open(dir.path());
        put(&store, "a", "1");
        store.sync().expect("syncs");
        copy(dir.path(), older.path());
        put(&store, "a", "2");
        store.sync().expect("syncs");
        drop(store);
        fs::copy(dir.path().join(SyncMark::FILE), older.path().join(SyncMark::FILE)).expect("copies");
        let error = SledStore::open(older.path()).expect_err("older than what was synced");
        assert!(matches!(error, MetadataError::Corrupt { .. }), "{error}");
    }

    #[test]
    fn damage_anywhere_is_refused_or_harmless() {
        let dir = temp();
        let store = open(dir.path());
        for n in 0..300 {
            put(&store, &format!("key-{n}"), &format!("value-{n}").repeat(20));
        }
        store.sync().expect("syncs");
        drop(store);
        let intact = fs::read(dir.path().join("db")).expect("reads");
        let mut refused = 0;
        for at in (0..intact.len()).step_by(intact.len() / 24) {
            let damaged = temp();
            copy(dir.path(), damaged.path());
            let mut bytes = intact.clone();
            bytes[at..].iter_mut().take(64).for_each(|b| *b ^= 0x5a);
            fs::write(damaged.path().join("db"), bytes).expect("writes");
            match SledStore::open(damaged.path()) {
                Err(MetadataError::Corrupt { .. }) => refused += 1,
                Err(other) => panic!("damage at {at}: {other}"),
                Ok(store) => (0..300).for_each(|n| {
                    assert_eq!(value(&store, &format!("key-{n}")), Some(format!("value-{n}").repeat(20)), "at {at}");
                }),
            }
        }
        assert!(refused > 0);
    }
}
