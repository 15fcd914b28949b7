//! The engine: the port's calls as tasks of the tokio runtime.

use std::{fmt, ops::Range, sync::Arc};

use bytes::Bytes;
use rusoto_core::credential::ProvideAwsCredentials;
use thalweg_objectstore::{Access, ObjectKey, ObjectMeta, ObjectStore, PutCondition, StoreError, StoreFuture};
use tokio::runtime::Handle;

use crate::{
    Limits, S3Url, UrlError,
    attempt::{Attempts, Repeat},
    connect::Connection,
    hedge::Hedge,
    multipart,
    requests::Bucket,
    stale,
    surroundings::Surroundings,
};

/// An object store in an S3 bucket.
pub struct S3Store {
    inner: Arc<Inner>,
    runtime: Handle,
}

pub(crate) struct Inner {
    pub(crate) bucket: Bucket,
    pub(crate) attempts: Attempts,
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3Store({:?})", self.inner.bucket.url)
    }
}

/// Opens the store at an `s3://` URL; its requests run on `runtime`. Nothing is sent: credentials, region, bucket and
/// permission show at the first call. Who writes also has what a crash left behind cleared, as long as the store lives.
///
/// # Errors
/// [`UrlError`], whose text tells the user what to mend.
pub fn open(url: &str, access: Access, runtime: &Handle, limits: Limits) -> Result<Arc<dyn ObjectStore>, UrlError> {
    let store = S3Store::ambient(S3Url::parse(url)?, Surroundings::of_process(), runtime, limits);
    if access == Access::ReadWrite {
        runtime.spawn(stale::keep_clear(Arc::downgrade(&store.inner)));
    }
    Ok(Arc::new(store))
}

/// Tells the jitter of this process from that of others.
fn seed() -> u64 {
    u64::from(std::process::id())
}

impl S3Store {
    /// The store at `url`, with credentials of the caller's choice; see [`open`].
    pub fn new<P>(url: S3Url, credentials: P, runtime: &Handle, limits: Limits) -> S3Store
    where
        P: ProvideAwsCredentials + Send + Sync + 'static,
    {
        let connection = Connection::given(&url, credentials, seed());
        S3Store::over(connection, url, runtime, limits)
    }

    /// The store at `url`, with the credentials that the surroundings offer.
    fn ambient(url: S3Url, around: Surroundings, runtime: &Handle, limits: Limits) -> S3Store {
        let connection = Connection::ambient(&url, around, seed());
        S3Store::over(connection, url, runtime, limits)
    }

    fn over(connection: Connection, url: S3Url, runtime: &Handle, limits: Limits) -> S3Store {
        let bucket = Bucket { connection, url, hedge: Hedge::new(limits.hedge) };
        let attempts = Attempts::new(limits, seed());
        S3Store { inner: Arc::new(Inner { bucket, attempts }), runtime: runtime.clone() }
    }

    /// Runs a call on the runtime, and waits for it without touching the runtime.
    fn run<'a, T, F>(&self, call: impl FnOnce(Arc<Inner>) -> F) -> StoreFuture<'a, T>
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
}

impl ObjectStore for S3Store {
    fn put<'a>(&'a self, key: &'a ObjectKey, parts: Vec<Bytes>, condition: PutCondition) -> StoreFuture<'a, ()> {
        let key = key.clone();
        self.run(|inner| async move {
            let Inner { bucket, attempts } = &*inner;
            let size = parts.iter().map(Bytes::len).sum::<usize>();
            if size > attempts.limits.part_bytes {
                return multipart::put(bucket, attempts, &key, parts, condition).await;
            }
            // Sent again after a lost answer, a conditional put would meet its own object.
            let repeat = match condition {
                PutCondition::Always => Repeat::Harmless,
                PutCondition::IfAbsent => Repeat::Ambiguous,
            };
            attempts.moving(size as u64, repeat, || bucket.put(&key, parts.clone(), condition)).await
        })
    }

    fn get_range<'a>(&'a self, key: &'a ObjectKey, range: Range<u64>) -> StoreFuture<'a, Bytes> {
        let key = key.clone();
        self.run(|inner| async move {
            let bytes = range.end.saturating_sub(range.start);
            inner.attempts.moving(bytes, Repeat::Harmless, || inner.bucket.get_range(&key, range.clone())).await
        })
    }

    fn head<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ObjectMeta> {
        let key = key.clone();
        self.run(|inner| async move { inner.attempts.run(Repeat::Harmless, || inner.bucket.head(&key)).await })
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ()> {
        let key = key.clone();
        self.run(|inner| async move { inner.attempts.run(Repeat::Harmless, || inner.bucket.delete(&key)).await })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a ObjectKey>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<ObjectMeta>> {
        let (prefix, mut after, limit) = (prefix.to_owned(), after.cloned(), limit.min(1000));
        self.run(move |inner| async move {
            let mut found: Vec<ObjectMeta> = Vec::new();
            while found.len() < limit {
                let left = limit - found.len();
                let page =
                    inner.attempts.run(Repeat::Harmless, || inner.bucket.list_page(&prefix, after.as_ref(), left));
                let (page, more) = page.await?;
                found.extend(page);
                let last = found.last().map(|meta| meta.key.clone());
                // A server may return less than asked for; without a new last key nothing more would come.
                if !more || last == after {
                    break;
                }
                after = last;
            }
            Ok(found)
        })
    }
}

#[cfg(all(test, feature = "s3-server-tests"))]
mod contract;
#[cfg(test)]
mod tests;
