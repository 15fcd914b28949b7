//! The way to a bucket: where it is, what requests are signed with, and the sending of signed requests.
//!
//! Engines build requests and sign them; nothing but this module opens connections to S3.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::{
    Request, Response,
    header::{HeaderValue, USER_AGENT},
};
use thalweg_objectstore::StoreError;
use tokio::sync::OnceCell;

use crate::{
    Limits, S3Url,
    attempt::undone,
    credentials::{Cache, Chain, Imds, Keys, Trouble, near},
    http::{AnswerBody, Body, Https, client, in_words},
    place::{Place, region_at_hand},
    status::turned_away,
    surroundings::Surroundings,
};

/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(5);

/// The largest answer that says what is wrong.
const LARGEST_REFUSAL: usize = 256 * 1024;

/// The way to one bucket. Region and credentials are found when the first request needs them.
pub struct Connection {
    http: Https,
    credentials: Arc<Cache>,
    url: S3Url,
    around: Surroundings,
    imds: Arc<Imds>,
    place: OnceCell<Place>,
    /// How requests call themselves: a server's log tells which library wrote an object.
    agent: HeaderValue,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({:?})", self.url)
    }
}

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> StoreError {
        if trouble.passing { StoreError::Retry(trouble.why) } else { StoreError::Refused(trouble.why) }
    }
}

impl Connection {
    /// With keys of the caller's choice.
    pub(crate) fn given(url: S3Url, keys: Keys, seed: u64) -> Connection {
        let around = Surroundings::of_process();
        let imds = Arc::new(Imds::new(around.clone(), near(seed)));
        let cache = Cache::new(around.clone(), move || std::future::ready(Ok(keys.clone())).boxed());
        Connection::new(url, around, imds, cache)
    }

    /// With the credentials that `around` offers.
    pub(crate) fn ambient(url: S3Url, around: Surroundings, seed: u64) -> Connection {
        let near = near(seed);
        let imds = Arc::new(Imds::new(around.clone(), near.clone()));
        let region = region_at_hand(&url, &around);
        let chain = Chain::new(around.clone(), near, imds.clone(), region, seed);
        Connection::new(url, around, imds, chain.cached())
    }

    fn new(url: S3Url, around: Surroundings, imds: Arc<Imds>, credentials: Arc<Cache>) -> Connection {
        let agent = HeaderValue::from_static("thalweg");
        Connection {
            http: client(CONNECT, Limits::default().stall),
            credentials,
            url,
            around,
            imds,
            place: OnceCell::new(),
            agent,
        }
    }

    /// For requests that `library` makes; nothing may stand still for longer than `stall`.
    pub(crate) fn of(self, library: &str, stall: Duration) -> Connection {
        let agent = format!("thalweg/{} ({library})", env!("CARGO_PKG_VERSION"));
        let agent = HeaderValue::from_str(&agent).unwrap_or(self.agent);
        Connection { agent, http: client(CONNECT, stall), ..self }
    }

    /// What the store's URL says.
    pub fn url(&self) -> &S3Url {
        &self.url
    }

    /// Seconds since 1970.
    pub(crate) fn now_s(&self) -> i64 {
        self.around.now_s()
    }

    /// Where requests go.
    ///
    /// # Errors
    /// When nothing tells the region.
    pub async fn place(&self) -> Result<&Place, StoreError> {
        Ok(self.place.get_or_try_init(|| Place::find(&self.url, &self.around, &self.imds)).await?)
    }

    /// What requests are signed with now.
    ///
    /// # Errors
    /// When there are no credentials.
    pub async fn keys(&self) -> Result<Keys, StoreError> {
        Ok(self.credentials.keys().await?)
    }

    /// Sends a request that was signed with `keys`. The body of an answer that is none of success is whole.
    ///
    /// # Errors
    /// [`StoreError::Retry`] when there is no answer, or S3 says that the keys have expired.
    pub async fn send(&self, mut request: Request<Body>, keys: &Keys) -> Result<Response<AnswerBody>, StoreError> {
        request.headers_mut().insert(USER_AGENT, self.agent.clone());
        undone(false);
        let answer = self.http.request(request).await.map_err(|e| {
            // Nothing goes out before there is a connection.
            undone(e.is_connect());
            StoreError::Retry(in_words(&e))
        })?;
        if answer.status().is_success() {
            return Ok(answer.map(Either::Left));
        }
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, LARGEST_REFUSAL).collect().await;
        let body: Bytes =
            body.map_err(|e| StoreError::Retry(format!("HTTP {}: {e}", head.status.as_u16())))?.to_bytes();
        undone(turned_away(head.status.as_u16(), &body));
        // Credentials without an end are not renewed by asking again.
        let doubtful = [400, 403].contains(&head.status.as_u16()) && keys.ends_at_s.is_some();
        if doubtful && String::from_utf8_lossy(&body).contains("<Code>ExpiredToken</Code>") {
            self.credentials.doubt(keys);
            return Err(StoreError::Retry("ExpiredToken: credentials are being renewed".to_owned()));
        }
        Ok(Response::from_parts(head, Either::Right(Full::new(body))))
    }
}
