//! What lies below the library: its requests are completed, signed and sent here, and what the server said is noted for
//! the call that they belong to.
#![expect(clippy::disallowed_types, reason = "lives in the tokio world; held for a moment, never while a request runs")]

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use http_body_util::{BodyExt, Either, Limited};
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderName};
use object_store::{
    ClientOptions,
    aws::{AwsAuthorizer, AwsCredential},
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
        HttpResponseBody, HttpService,
    },
};
use thalweg_objectstore::{ObjectKey, StoreError};
use thalweg_objectstore_s3::{Connection, Extras, Keys, refusal, secret_header};
use url::Url;

tokio::task_local! {
    /// The call that the requests of this task belong to: the library has no place for it.
    static CALL: Arc<Call>;
}

/// Far more than a page of a listing has, or what is said of an upload.
const LARGEST_ANSWER: usize = 16 << 20;

/// One call of the library's.
pub(crate) struct Call {
    key: ObjectKey,
    extras: Extras,
    /// The answer is a part of an object: its reader takes it piece by piece.
    streamed: bool,
    seen: Mutex<Seen>,
}

/// What was seen of a call's answer.
#[derive(Default)]
pub(crate) struct Seen {
    /// Why it failed, where that is known better than the library tells.
    pub(crate) refused: Option<StoreError>,
    /// Of an answer of success: whether it is a part of the object, and its length in bytes.
    pub(crate) answered: Option<(bool, Option<u64>)>,
}

impl Call {
    pub(crate) fn new(key: &ObjectKey, extras: Extras) -> Arc<Call> {
        Arc::new(Call { key: key.clone(), extras, streamed: false, seen: Mutex::default() })
    }

    /// One that reads an object.
    pub(crate) fn reading(key: &ObjectKey) -> Arc<Call> {
        Arc::new(Call { key: key.clone(), extras: Extras::default(), streamed: true, seen: Mutex::default() })
    }

    /// Runs a call of the library's, in whose requests the extras are.
    pub(crate) async fn scope<T>(self: &Arc<Self>, call: impl Future<Output = T>) -> T {
        CALL.scope(self.clone(), call).await
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no panic while held")
    }

    /// What the library's error means.
    pub(crate) fn means(&self, error: &object_store::Error) -> StoreError {
        self.seen().refused.take().unwrap_or_else(|| StoreError::Retry(format!("an answer that is not S3's: {error}")))
    }
}

/// Signs and sends for one bucket.
#[derive(Clone)]
pub(crate) struct Service {
    connection: Arc<Connection>,
    region: String,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service({:?})", self.connection)
    }
}

impl Service {
    pub(crate) fn new(connection: Arc<Connection>, region: String) -> Service {
        Service { connection, region }
    }

    /// Completes, signs and sends a request of `call`.
    pub(crate) async fn send(&self, call: &Call, mut request: HttpRequest) -> Result<HttpResponse, StoreError> {
        let broken = |e: &dyn fmt::Display| StoreError::Refused(format!("a request that is none: {e}"));
        let Extras { headers, body } = &call.extras;
        for (name, value) in headers {
            let value = value.parse().map_err(|e| broken(&e))?;
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
        if let Some(body) = body {
            request.headers_mut().insert(CONTENT_LENGTH, body.len().into());
            *request.body_mut() = HttpRequestBody::from(body.clone());
        }
        let keys = self.connection.keys().await?;
        let Keys { id, secret, token, .. } = keys.clone();
        // The library takes for granted that these can be headers, and the address a URL.
        for text in [Some(&id), token.as_ref()].into_iter().flatten() {
            secret_header(text.as_bytes()).map_err(|e| broken(&e))?;
        }
        Url::parse(&request.uri().to_string()).map_err(|e| broken(&e))?;
        let credential = AwsCredential { key_id: id, secret_key: secret, token };
        // The signature leaves the body out: a checksum, TLS on the way, and a CRC for each block of an object guard it.
        let signer = AwsAuthorizer::new(&credential, "s3", &self.region).with_sign_payload(false);
        signer.try_authorize(&mut request, None).map_err(|e| broken(&e))?;
        for secret in ["authorization", "x-amz-security-token"] {
            if let Some(value) = request.headers_mut().get_mut(secret) {
                *value = secret_header(value.as_bytes()).map_err(|e| broken(&e))?;
            }
        }
        let answer = self.connection.send(request.map(|body| body.map_err(Into::into).boxed_unsync()), &keys).await?;
        let (head, body) = answer.into_parts();
        match body {
            Either::Left(body) => {
                let length = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
                call.seen().answered = Some((head.headers.contains_key(CONTENT_RANGE), length));
                if call.streamed {
                    let cut = |e| HttpError::new(HttpErrorKind::Interrupted, e);
                    return Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body.map_err(cut))));
                }
                // Else the library would reserve what the server says.
                let body = Limited::new(body, LARGEST_ANSWER).collect().await;
                let body = body.map_err(|e| StoreError::Retry(format!("an answer that cannot be read: {e}")))?;
                Ok(HttpResponse::from_parts(head, HttpResponseBody::from(body.to_bytes())))
            }
            Either::Right(body) => {
                let body = body.collect().await.unwrap_or_else(|never| match never {}).to_bytes();
                call.seen().refused = Some(refusal(&call.key, head.status.as_u16(), &body));
                Ok(HttpResponse::from_parts(head, HttpResponseBody::from(body)))
            }
        }
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let call = CALL.try_with(Arc::clone).map_err(|e| HttpError::new(HttpErrorKind::Unknown, e))?;
        self.send(&call, request).await.map_err(|error| {
            call.seen().refused = Some(error.clone());
            HttpError::new(HttpErrorKind::Unknown, error)
        })
    }
}

impl HttpConnector for Service {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}
