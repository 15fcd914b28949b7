//! The engine: hands file calls to its threads.
#![expect(clippy::disallowed_methods, reason = "this engine owns threads on which file calls may block")]

use std::{fmt, fs, num::NonZeroU64, ops::Range, path::Path, sync::Arc};

use bytes::Bytes;
use flume::{Receiver, Sender};

use super::{
    files::{Files, store_error},
    put::Put,
    slow::{self, InPieces, Slow},
    walk,
};
use crate::{Access, ObjectKey, ObjectMeta, ObjectStore, OpenError, PutCondition, StoreError, StoreFuture};

/// Threads of one store: enough to keep a disk busy with an upload, its fsync, and cold reads beside it. What has time has another one.
const THREADS: usize = 4;

type Job = Box<dyn FnOnce(&Arc<Files>) + Send>;

/// An object store in a directory.
pub struct LocalStore {
    jobs: Sender<Job>,
    /// Puts that have time.
    slow: Sender<Slow>,
    files: Arc<Files>,
    access: Access,
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalStore({:?}, {} jobs waiting)", self.access, self.jobs.len() + self.slow.len())
    }
}

impl LocalStore {
    /// Opens the store in `root` and starts its threads; they end with it. For [`Access::ReadWrite`] the directory is
    /// created when missing, checked for being writable, and cleared of unfinished puts. Data objects leave
    /// `keep_free_bytes` of the disk to others.
    ///
    /// # Errors
    /// [`OpenError::Directory`] that names the directory and what could not be done with it.
    pub fn open(root: &Path, access: Access, keep_free_bytes: u64) -> Result<LocalStore, OpenError> {
        let failed = |action| move |source| OpenError::Directory { path: root.to_owned(), action, source };
        let files = Files::new(root, keep_free_bytes);
        match access {
            Access::ReadOnly => drop(fs::read_dir(root).map_err(failed("read it"))?),
            Access::ReadWrite => {
                files.create_folder(root).map_err(failed("create it"))?;
                files.create_temporary().map_err(failed("write to it"))?;
                files.clear_temporary().map_err(failed("clear unfinished objects from its folder ~tmp"))?;
                files.probe().map_err(failed("write to it"))?;
            }
        }
        let (jobs, inbox) = flume::unbounded::<Job>();
        let files = Arc::new(files);
        for n in 0..THREADS {
            let (files, inbox) = (files.clone(), inbox.clone());
            std::thread::Builder::new()
                .name(format!("thalweg-dir-{n}"))
                .spawn(move || work(&files, &inbox))
                .map_err(failed("start a thread for it"))?;
        }
        let (slow, inbox) = flume::unbounded();
        std::thread::Builder::new()
            .name("thalweg-dir-slow".to_owned())
            .spawn(move || slow::work(&inbox))
            .map_err(failed("start a thread for it"))?;
        Ok(LocalStore { jobs, slow, files, access })
    }

    fn run<'a, T: Send + 'static>(
        &'a self,
        job: impl FnOnce(&Arc<Files>) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'a, T> {
        let (answer, answered) = flume::bounded(1);
        let sent = self.jobs.try_send(Box::new(move |files| {
            let _asker_gone = answer.send(job(files));
        }));
        wait(sent.is_ok(), answered)
    }

    fn change<'a, T: Send + 'static>(
        &'a self,
        job: impl FnOnce(&Arc<Files>) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'a, T> {
        match self.access {
            Access::ReadWrite => self.run(job),
            Access::ReadOnly => refused(),
        }
    }
}

fn refused<'a, T: Send + 'static>() -> StoreFuture<'a, T> {
    Box::pin(std::future::ready(Err(StoreError::Refused("opened for reading".to_owned()))))
}

/// The answer to what was sent, if it was.
fn wait<'a, T: Send + 'static>(sent: bool, answered: Receiver<Result<T, StoreError>>) -> StoreFuture<'a, T> {
    Box::pin(async move {
        let stopped = || StoreError::Retry("the directory engine has stopped".to_owned());
        if !sent {
            return Err(stopped());
        }
        answered.recv_async().await.map_err(|_| stopped())?
    })
}

/// A put that has time; it looks for room before each piece.
struct SlowPut {
    /// Begun with its first piece.
    put: Option<Put>,
    begin: Option<Box<dyn FnOnce() -> Result<Put, StoreError> + Send>>,
    answer: Sender<Result<(), StoreError>>,
}

impl SlowPut {
    fn next(&mut self) -> Result<Option<u64>, StoreError> {
        if let Some(begin) = self.begin.take() {
            self.put = Some(begin()?);
        }
        let Some(put) = &mut self.put else { return Ok(None) };
        put.still_fits()?;
        match put.piece()? {
            0 => self.put.take().map_or(Ok(()), Put::finish).map(|()| None),
            bytes => Ok(Some(bytes)),
        }
    }
}

impl InPieces for SlowPut {
    fn piece(&mut self) -> Option<u64> {
        let outcome = self.next();
        if let Ok(Some(bytes)) = outcome {
            return Some(bytes);
        }
        // Before the answer, so that who asked finds no leftover.
        drop(self.put.take());
        let _asker_gone = self.answer.send(outcome.map(drop));
        None
    }
}

fn work(files: &Arc<Files>, inbox: &Receiver<Job>) {
    while let Ok(job) = inbox.recv() {
        job(files);
    }
}

impl ObjectStore for LocalStore {
    fn put<'a>(&'a self, key: &'a ObjectKey, parts: Vec<Bytes>, condition: PutCondition) -> StoreFuture<'a, ()> {
        let key = key.clone();
        self.change(move |files| Put::begin(files.clone(), key, parts, condition, false)?.run())
    }

    fn put_slowly<'a>(
        &'a self,
        key: &'a ObjectKey,
        parts: Vec<Bytes>,
        condition: PutCondition,
        bytes_per_second: NonZeroU64,
    ) -> StoreFuture<'a, ()> {
        if self.access == Access::ReadOnly {
            return refused();
        }
        let (key, files) = (key.clone(), self.files.clone());
        let (answer, answered) = flume::bounded(1);
        let begin = move || Put::begin(files, key, parts, condition, true);
        let put = SlowPut { put: None, begin: Some(Box::new(begin)), answer };
        wait(self.slow.try_send((Box::new(put), bytes_per_second)).is_ok(), answered)
    }

    fn get_range<'a>(&'a self, key: &'a ObjectKey, range: Range<u64>) -> StoreFuture<'a, Bytes> {
        let key = key.clone();
        self.run(move |files| files.get_range(&key, range))
    }

    fn head<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ObjectMeta> {
        let key = key.clone();
        self.run(move |files| {
            let found = fs::metadata(files.path(&key)).map_err(|e| store_error(&key, &e))?;
            if !found.is_file() {
                return Err(StoreError::NotFound(key));
            }
            Ok(ObjectMeta { key, size_bytes: found.len() })
        })
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ()> {
        let key = key.clone();
        self.change(move |files| files.delete(&key))
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a ObjectKey>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<ObjectMeta>> {
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        self.run(move |files| {
            walk::list(files.root(), &prefix, after.as_ref(), limit.min(1000))
                .map_err(|e| StoreError::Retry(format!("listing {}: {e}", files.root().display())))
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;

    use super::{super::files::TEMPORARY, *};
    use crate::testing::{Contract, contract};

    fn key(text: &str) -> ObjectKey {
        ObjectKey::new(text).expect("a key")
    }

    #[test]
    fn keeps_the_contract() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = LocalStore::open(&folder.path().join("new/store"), Access::ReadWrite, 0).expect("opens");
        block_on(contract(&store, Contract::default()));
        let left = fs::read_dir(folder.path().join("new/store").join(TEMPORARY)).expect("the folder").count();
        assert_eq!(left, 0, "no put leaves its temporary file behind");
    }

    #[test]
    fn what_has_time_takes_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = LocalStore::open(folder.path(), Access::ReadWrite, 0).expect("opens");
        let (began, pace) = (std::time::Instant::now(), NonZeroU64::new(20 << 20).expect("not 0"));
        let parts = vec![Bytes::from(vec![1; 1 << 20]); 4];
        block_on(store.put_slowly(&key("data/a"), parts, PutCondition::IfAbsent, pace)).expect("put");
        assert!(began.elapsed().as_millis() >= 200, "4 MiB at 20 MiB a second");
    }

    #[test]
    fn what_has_time_holds_up_nobody_however_much_of_it_there_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = LocalStore::open(folder.path(), Access::ReadWrite, 0).expect("opens");
        // A second piece is not written for hours.
        let (pace, names) =
            (NonZeroU64::MIN, ["data/a", "data/b", "data/c", "data/d", "data/e", "data/f", "data/g"].map(key));
        let parts = vec![Bytes::from(vec![1; 3 << 20])];
        let slow: Vec<_> =
            names.iter().map(|name| store.put_slowly(name, parts.clone(), PutCondition::IfAbsent, pace)).collect();
        let folder_of_unfinished = folder.path().join(TEMPORARY);
        while fs::read_dir(&folder_of_unfinished).expect("the folder").count() < names.len() {
            std::thread::yield_now();
        }
        block_on(others(&store));
        drop(slow);
        drop(store);
        while fs::read_dir(&folder_of_unfinished).expect("the folder").count() > 0 {
            std::thread::yield_now();
        }
    }

    async fn others(store: &LocalStore) {
        let parts = vec![Bytes::from_static(b"an upload")];
        assert_eq!(store.put(&key("data/u"), parts, PutCondition::IfAbsent).await, Ok(()));
        assert_eq!(store.get_range(&key("data/u"), 3..9).await.as_deref(), Ok(&b"upload"[..]));
        assert_eq!(store.list("data/", None, 9).await.map(|listed| listed.len()), Ok(1));
        assert_eq!(store.delete(&key("data/u")).await, Ok(()));
        let quick = NonZeroU64::MAX;
        let parts = vec![Bytes::from(vec![2; 3 << 20])];
        assert_eq!(store.put_slowly(&key("data/q"), parts, PutCondition::IfAbsent, quick).await, Ok(()));
    }

    #[test]
    fn objects_outlive_the_store_and_leftovers_do_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = LocalStore::open(folder.path(), Access::ReadWrite, 0).expect("opens");
        block_on(store.put(&key("data/a"), vec![Bytes::from_static(b"kept")], PutCondition::IfAbsent)).expect("put");
        drop(store);
        fs::write(folder.path().join(TEMPORARY).join("77-0"), b"half").expect("a leftover");

        let reader = LocalStore::open(folder.path(), Access::ReadOnly, 0).expect("opens");
        assert!(folder.path().join(TEMPORARY).join("77-0").exists(), "a reader clears nothing");
        assert!(matches!(block_on(reader.delete(&key("data/a"))), Err(StoreError::Refused(_))));
        let store = LocalStore::open(folder.path(), Access::ReadWrite, 0).expect("opens");
        assert!(!folder.path().join(TEMPORARY).join("77-0").exists());
        assert_eq!(block_on(store.get_range(&key("data/a"), 0..4)).as_deref(), Ok(&b"kept"[..]));
        let listed = block_on(store.list("", None, 10)).expect("a listing");
        assert_eq!(listed, [ObjectMeta { key: key("data/a"), size_bytes: 4 }], "the folder ~tmp is not listed");
    }

    #[test]
    fn an_unusable_directory_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, b"").expect("a file");
        let error = LocalStore::open(&file.join("store"), Access::ReadWrite, 0).expect_err("no directory").to_string();
        assert!(error.contains("file/store: cannot create it"), "{error}");
        let error =
            LocalStore::open(&folder.path().join("none"), Access::ReadOnly, 0).expect_err("missing").to_string();
        assert!(error.contains("none: cannot read it"), "{error}");
        assert!(!folder.path().join("none").exists(), "a reader creates nothing");

        // Permission bits say nothing to root; a folder of the kernel's refuses everybody.
        let error =
            LocalStore::open(Path::new("/proc/self"), Access::ReadWrite, 0).expect_err("not writable").to_string();
        assert!(error.contains("/proc/self: cannot write to it"), "{error}");
    }
}
