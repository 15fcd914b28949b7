//! Single requests: one call of the library each.

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::{
    GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    multipart::{MultipartStore, PartId},
    path::Path,
};
use thalweg_objectstore::{ObjectKey, PutCondition, StoreError};
use thalweg_objectstore_s3::{Connection, Extras, Markers, Page, Part, Reading, Requests, S3Url, Uploads, checksum};
use tokio::sync::OnceCell;
use url::Url;

use crate::{
    listings,
    service::{Call, Service},
};

/// The engine.
pub struct Arrow {
    connection: Arc<Connection>,
    /// Made when region and endpoint are known.
    ready: OnceCell<Ready>,
}

struct Ready {
    library: AmazonS3,
    service: Service,
    bucket_url: String,
}

impl fmt::Debug for Arrow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arrow({:?})", self.connection)
    }
}

fn refused(error: &dyn fmt::Display) -> StoreError {
    StoreError::Refused(error.to_string())
}

impl Arrow {
    /// The engine of one bucket.
    pub fn new(connection: Arc<Connection>) -> Arrow {
        Arrow { connection, ready: OnceCell::new() }
    }

    fn url(&self) -> &S3Url {
        self.connection.url()
    }

    fn path(&self, key: &ObjectKey) -> Result<Path, StoreError> {
        Path::parse(self.url().full_key(key)).map_err(|e| refused(&e))
    }

    async fn ready(&self) -> Result<&Ready, StoreError> {
        let make = || async {
            let place = self.connection.place().await?;
            // Normal form, for the library signs that host; and what is no address is refused here.
            let bucket_url: String = Url::parse(&place.bucket_url(&self.url().bucket)).map_err(|e| refused(&e))?.into();
            let bucket_url = bucket_url.trim_end_matches('/').to_owned();
            let service = Service::new(self.connection.clone(), place.region.clone());
            let builder = AmazonS3Builder::new()
                .with_bucket_name(&self.url().bucket)
                .with_region(&place.region)
                // To the library this style means that the endpoint is the bucket's, however that is named.
                .with_virtual_hosted_style_request(true)
                .with_endpoint(&bucket_url)
                .with_allow_http(true)
                .with_skip_signature(true)
                .with_disable_bulk_delete(true)
                .with_retry(RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, ..RetryConfig::default() })
                .with_http_connector(service.clone());
            let library = builder.build().map_err(|e| refused(&e))?;
            Ok(Ready { library, service, bucket_url })
        };
        self.ready.get_or_try_init(make).await
    }
}

impl Requests for Arrow {
    const LIBRARY: &'static str = "object_store";

    async fn put(&self, key: &ObjectKey, parts: Vec<Bytes>, condition: PutCondition) -> Result<(), StoreError> {
        let (ready, path) = (self.ready().await?, self.path(key)?);
        let mode = match condition {
            PutCondition::Always => PutMode::Overwrite,
            PutCondition::IfAbsent => PutMode::Create,
        };
        let checksum = checksum(self.url().checksum, &parts);
        let extras = Extras::default().checked(checksum.as_deref()).encrypted(&self.url().encryption);
        let call = Call::new(key, extras);
        let (payload, options) = (PutPayload::from_iter(parts), PutOptions::from(mode));
        let outcome = call.scope(ready.library.put_opts(&path, payload, options)).await;
        match outcome {
            // The library wants a tag, which nobody here needs: the server has said that it has the object.
            Err(_) if call.seen().answered.is_some() => Ok(()),
            other => other.map(drop).map_err(|e| call.means(&e)),
        }
    }

    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<Reading, StoreError> {
        let (ready, path) = (self.ready().await?, self.path(key)?);
        let call = Call::reading(key);
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let outcome = call.scope(ready.library.get_opts(&path, options)).await;
        let seen = call.seen().answered.take();
        let named = key.clone();
        let told = move |e| StoreError::Retry(format!("{named}: {e}"));
        match (outcome, seen) {
            (Ok(answer), Some((partial, length_bytes))) => {
                let body = Some(answer.into_stream().map_err(told).boxed());
                Ok(Reading { partial, length_bytes, body })
            }
            // The library takes nothing but the range that was asked for.
            (Err(_), Some((partial, length_bytes))) => Ok(Reading { partial, length_bytes, body: None }),
            (Err(error), None) => Err(call.means(&error)),
            (Ok(_), None) => Err(StoreError::Retry(format!("{key}: an answer without a request"))),
        }
    }

    async fn size(&self, key: &ObjectKey) -> Result<u64, StoreError> {
        let (ready, path) = (self.ready().await?, self.path(key)?);
        let call = Call::new(key, Extras::default());
        let outcome = call.scope(ready.library.head(&path)).await;
        outcome.map(|meta| meta.size).map_err(|e| call.means(&e))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let (ready, path) = (self.ready().await?, self.path(key)?);
        let call = Call::new(key, Extras::default());
        let outcome = call.scope(ready.library.delete(&path)).await;
        outcome.map_err(|e| call.means(&e))
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Page, StoreError> {
        let ready = self.ready().await?;
        let (prefix, after) = (format!("{}{prefix}", self.url().prefix), after.map(|key| self.url().full_key(key)));
        listings::objects(&ready.service, &ready.bucket_url, &prefix, after.as_deref(), limit).await
    }

    async fn begin_upload(&self, key: &ObjectKey) -> Result<String, StoreError> {
        let (ready, path) = (self.ready().await?, self.path(key)?);
        let extras = Extras::default().of_checked_parts(self.url().checksum).encrypted(&self.url().encryption);
        let call = Call::new(key, extras);
        call.scope(ready.library.create_multipart(&path)).await.map_err(|e| call.means(&e))
    }

    async fn upload_part(
        &self,
        key: &ObjectKey,
        upload: &str,
        number: u32,
        pieces: Vec<Bytes>,
    ) -> Result<Part, StoreError> {
        let (ready, path) = (self.ready().await?, self.path(key)?);
        let checksum = checksum(self.url().checksum, &pieces);
        let call = Call::new(key, Extras::default().checked(checksum.as_deref()));
        let (upload, index) = (upload.to_owned(), number as usize - 1);
        let send = ready.library.put_part(&path, &upload, index, PutPayload::from_iter(pieces));
        let tag = call.scope(send).await.map_err(|e| call.means(&e))?.content_id;
        Ok(Part { number, tag, checksum })
    }

    async fn complete_upload(
        &self,
        key: &ObjectKey,
        upload: &str,
        parts: &[Part],
        condition: PutCondition,
    ) -> Result<(), StoreError> {
        let (ready, path) = (self.ready().await?, self.path(key)?);
        let call = Call::new(key, Extras::default().conditional(condition).completing(parts));
        let ids = parts.iter().map(|part| PartId { content_id: part.tag.clone() }).collect();
        let upload = upload.to_owned();
        let outcome = call.scope(ready.library.complete_multipart(&path, &upload, ids)).await;
        outcome.map(drop).map_err(|e| call.means(&e))
    }

    async fn abort_upload(&self, key: &ObjectKey, upload: &str) -> Result<(), StoreError> {
        let (ready, path) = (self.ready().await?, self.path(key)?);
        let call = Call::new(key, Extras::default());
        let upload = upload.to_owned();
        call.scope(ready.library.abort_multipart(&path, &upload)).await.map_err(|e| call.means(&e))
    }

    async fn list_uploads(&self, folder: &str, after: Option<&Markers>) -> Result<Uploads, StoreError> {
        let ready = self.ready().await?;
        let prefix = format!("{}{folder}/", self.url().prefix);
        listings::uploads(&ready.service, &ready.bucket_url, &prefix, after).await
    }
}
