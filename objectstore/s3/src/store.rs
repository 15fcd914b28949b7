//! The store: the port's calls as tasks of the tokio runtime, made of an engine's single requests.

use std::{
    fmt,
    num::NonZeroU64,
    ops::Range,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use thalweg_objectstore::{Access, NodeId, ObjectKey, ObjectMeta, ObjectStore, PutCondition, StoreError, StoreFuture};
use tokio::runtime::Handle;

use crate::{
    Connection, Keys, Limits, Requests, S3Url, UrlError,
    attempt::{Attempts, Repeat},
    hedge::Hedge,
    multipart,
    paced::Paced,
    requests::{collect, gone, ours, wanted},
    stale,
    surroundings::Surroundings,
};

/// An object store in an S3 bucket, through the library of `R`.
pub struct S3Store<R> {
    inner: Arc<Inner<R>>,
    runtime: Handle,
}

pub(crate) struct Inner<R> {
    pub(crate) connection: Arc<Connection>,
    pub(crate) engine: R,
    pub(crate) attempts: Attempts,
    hedge: Hedge,
    /// Node and node epoch that the store's user writes as, once it has told.
    pub(crate) writer: OnceLock<(i32, u64)>,
}

impl<R> fmt::Debug for S3Store<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3Store({:?})", self.inner.connection.url())
    }
}

/// Opens the store at an `s3://` URL with the engine that `engine` makes; its requests run on `runtime`. Nothing is sent:
/// credentials, region, bucket and permission show at the first call. Who writes also has what a crash left behind
/// cleared, as long as the store lives.
///
/// # Errors
/// [`UrlError`], whose text tells the user what to mend.
pub fn open<R: Requests>(
    url: &str,
    access: Access,
    runtime: &Handle,
    limits: Limits,
    engine: impl FnOnce(Arc<Connection>) -> R,
) -> Result<Arc<dyn ObjectStore>, UrlError> {
    let store = S3Store::ambient(S3Url::parse(url)?, Surroundings::of_process(), runtime, limits, engine);
    if access == Access::ReadWrite {
        runtime.spawn(stale::keep_clear(Arc::downgrade(&store.inner)));
    }
    Ok(Arc::new(store))
}

/// Tells the jitter of this process from that of others.
fn seed() -> u64 {
    u64::from(std::process::id())
}

impl<R: Requests> S3Store<R> {
    /// The store at `url`, with keys of the caller's choice; see [`open`].
    pub fn new(
        url: S3Url,
        keys: Keys,
        runtime: &Handle,
        limits: Limits,
        engine: impl FnOnce(Arc<Connection>) -> R,
    ) -> S3Store<R> {
        S3Store::over(Connection::given(url, keys, seed()), runtime, limits, engine)
    }

    /// The store at `url`, with the credentials that the surroundings offer.
    pub(crate) fn ambient(
        url: S3Url,
        around: Surroundings,
        runtime: &Handle,
        limits: Limits,
        engine: impl FnOnce(Arc<Connection>) -> R,
    ) -> S3Store<R> {
        S3Store::over(Connection::ambient(url, around, seed()), runtime, limits, engine)
    }

    fn over(
        connection: Connection,
        runtime: &Handle,
        limits: Limits,
        engine: impl FnOnce(Arc<Connection>) -> R,
    ) -> S3Store<R> {
        let connection = Arc::new(connection.of(R::LIBRARY, limits.stall));
        let engine = engine(connection.clone());
        let (attempts, hedge) = (Attempts::new(limits, seed()), Hedge::new(limits.hedge));
        let inner = Inner { connection, engine, attempts, hedge, writer: OnceLock::new() };
        S3Store { inner: Arc::new(inner), runtime: runtime.clone() }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn inner(&self) -> &Inner<R> {
        &self.inner
    }

    /// Runs a call on the runtime, and waits for it without touching the runtime.
    fn run<'a, T, F>(&self, call: impl FnOnce(Arc<Inner<R>>) -> F) -> StoreFuture<'a, T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let (reply, answer) = flume::bounded(1);
        let work = call(self.inner.clone());
        self.runtime.spawn(async move {
            let _asker_gone = reply.try_send(work.await);
        });
        Box::pin(async move {
            let stopped = |_| StoreError::Retry("the S3 engine has stopped".to_owned());
            answer.recv_async().await.map_err(stopped)?
        })
    }

    fn put_at<'a>(
        &self,
        key: &ObjectKey,
        parts: Vec<Bytes>,
        condition: PutCondition,
        pace: Option<NonZeroU64>,
    ) -> StoreFuture<'a, ()> {
        let key = key.clone();
        self.run(move |inner| async move {
            let Inner { engine, attempts, .. } = &*inner;
            let (size, paced) = (parts.iter().map(Bytes::len).sum::<usize>(), Paced::new(pace));
            if size > attempts.limits.single_bytes {
                multipart::put(&inner, &key, parts, condition, &paced).await?;
                paced.end().await;
                return Ok(());
            }
            paced.begin(size as u64).await;
            // Sent again after a lost answer, a conditional put would meet its own object; not so where it was turned away.
            let repeat = match condition {
                PutCondition::Always => Repeat::Harmless,
                PutCondition::IfAbsent => Repeat::Ambiguous,
            };
            attempts.moving(size as u64, repeat, || engine.put(&key, parts.clone(), condition)).await?;
            // It takes its time too, or many small objects one after the other would go as fast as they can.
            paced.end().await;
            Ok(())
        })
    }
}

impl<R: Requests> Inner<R> {
    async fn get_range(&self, key: &ObjectKey, range: &Range<u64>) -> Result<Bytes, StoreError> {
        wanted(key, range)?;
        let reading = self.hedge.first(|| self.engine.read(key, range.clone())).await?;
        collect(key, range, reading).await
    }

    pub(crate) async fn size(&self, key: &ObjectKey) -> Result<u64, StoreError> {
        self.attempts.run(Repeat::Harmless, || self.engine.size(key)).await
    }

    async fn list(
        &self,
        prefix: &str,
        mut after: Option<ObjectKey>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        let mut found: Vec<ObjectMeta> = Vec::new();
        while found.len() < limit {
            let left = limit - found.len();
            let page = self.attempts.run(Repeat::Harmless, || self.engine.list(prefix, after.as_ref(), left)).await?;
            let more = page.more;
            found.extend(ours(page, &self.connection.url().prefix));
            let last = found.last().map(|meta| meta.key.clone());
            // A server may return less than asked for; without a new last key nothing more would come.
            if !more || last == after {
                break;
            }
            after = last;
        }
        Ok(found)
    }
}

impl<R: Requests> ObjectStore for S3Store<R> {
    fn put<'a>(&'a self, key: &'a ObjectKey, parts: Vec<Bytes>, condition: PutCondition) -> StoreFuture<'a, ()> {
        self.put_at(key, parts, condition, None)
    }

    fn put_slowly<'a>(
        &'a self,
        key: &'a ObjectKey,
        parts: Vec<Bytes>,
        condition: PutCondition,
        bytes_per_second: NonZeroU64,
    ) -> StoreFuture<'a, ()> {
        self.put_at(key, parts, condition, Some(bytes_per_second))
    }

    fn writes_as(&self, node: NodeId, node_epoch: u64) {
        // A store has one user.
        let _told_before = self.inner.writer.set((node.0, node_epoch));
    }

    fn get_range<'a>(&'a self, key: &'a ObjectKey, range: Range<u64>) -> StoreFuture<'a, Bytes> {
        let key = key.clone();
        self.run(|inner| async move {
            let bytes = range.end.saturating_sub(range.start);
            inner.attempts.moving(bytes, Repeat::Harmless, || inner.get_range(&key, &range)).await
        })
    }

    fn head<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ObjectMeta> {
        let key = key.clone();
        self.run(|inner| async move {
            let size_bytes = inner.size(&key).await?;
            Ok(ObjectMeta { key, size_bytes })
        })
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ()> {
        let key = key.clone();
        self.run(|inner| async move { gone(inner.attempts.run(Repeat::Harmless, || inner.engine.delete(&key)).await) })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a ObjectKey>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<ObjectMeta>> {
        let (prefix, after, limit) = (prefix.to_owned(), after.cloned(), limit.min(1000));
        self.run(move |inner| async move { inner.list(&prefix, after, limit).await })
    }
}
