//! The HTTP client below everything, and small questions to AWS's services beside S3 (credentials, region).
//!
//! What is asked with and answered may be secret: nothing of a request or an answer is logged or goes into an error.

use std::{error::Error, io, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use http_body_util::{BodyExt, Either, Empty, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request,
    body::{Frame, Incoming},
    header::{HeaderName, HeaderValue},
};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, Error as ClientError, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, crypto::ring};
use thalweg_objectstore::Backoff;
use tokio::time::{sleep, timeout};

use crate::{chance::Chance, stall::WatchedConnector};

/// HTTP/1.1 with and without TLS.
pub(crate) type Https = Client<HttpsConnector<WatchedConnector<HttpConnector>>, Body>;

/// What went wrong on the way, whoever says so.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The body of a request.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The body of an answer: as it comes in, or whole.
pub type AnswerBody = Either<Incoming, Full<Bytes>>;

/// Connections idle for longer are closed: servers close theirs after some 20 s, and a request on a closing connection
/// fails.
const IDLE: Duration = Duration::from_secs(10);

/// How often a small question is asked.
const TRIES: u32 = 3;

/// Answers to small questions are smaller.
const LARGEST_ANSWER: usize = 256 * 1024;

/// A client whose connections open within `connect`, and are given up when nothing moves on them for `stall`.
pub(crate) fn client(connect: Duration, stall: Duration) -> Https {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(connect));
    // Named here, for the process has no provider of cryptography of its own, and a library may bring another one.
    let tls = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_webpki_roots()
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(WatchedConnector { connector: tcp, stall });
    Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).build(connector)
}

/// A body that is there, or none when it is empty.
pub fn whole(bytes: Bytes) -> Body {
    if bytes.is_empty() {
        return Empty::new().map_err(|never| match never {}).boxed_unsync();
    }
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A body in pieces; the request's head has to tell its length.
pub fn streamed(pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    StreamBody::new(pieces.map_ok(Frame::data).map_err(BoxError::from)).boxed_unsync()
}

/// What a service answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body, when it is text.
    pub(crate) fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.body).ok()
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// Nobody is there.
    Unreachable(String),
    /// Somebody is, who does not answer.
    Failed(String),
}

impl NoAnswer {
    pub(crate) fn into_words(self) -> String {
        match self {
            NoAnswer::Unreachable(why) | NoAnswer::Failed(why) => why,
        }
    }
}

/// A small question.
#[derive(Clone)]
pub(crate) struct Question {
    pub(crate) method: Method,
    pub(crate) uri: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl Question {
    pub(crate) fn get(uri: String) -> Question {
        Question { method: Method::GET, uri, headers: Vec::new(), body: String::new() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Question {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn request(&self) -> Result<Request<Body>, String> {
        let wrong = |e: &dyn std::fmt::Display| format!("{}: {e}", self.uri);
        let mut request = Request::builder().method(&self.method).uri(&self.uri);
        for (name, value) in &self.headers {
            request = request.header(HeaderName::from_static(name), secret_header(value.as_bytes())?);
        }
        request.body(whole(Bytes::from(self.body.clone()))).map_err(|e| wrong(&e))
    }
}

/// A header's value that no debug output shows.
///
/// # Errors
/// When it has characters that a header cannot carry.
pub fn secret_header(value: &[u8]) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_bytes(value).map_err(|_| "a header's value has a line break".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Asks small questions, a few times each.
#[derive(Debug)]
pub(crate) struct Asker {
    http: Https,
    attempt: Duration,
    backoff: Backoff,
    chance: Chance,
}

impl Asker {
    /// `attempt` bounds one attempt, the connection and the whole answer included.
    pub(crate) fn new(connect: Duration, attempt: Duration, seed: u64) -> Asker {
        let backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(1) };
        Asker { http: client(connect, attempt), attempt, backoff, chance: Chance::new(seed) }
    }

    /// The answer, whatever its status; 429 and 5xx only after all tries.
    pub(crate) async fn ask(&self, question: &Question) -> Result<Answer, NoAnswer> {
        let mut tried = 0;
        loop {
            let outcome = match timeout(self.attempt, self.once(question)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(NoAnswer::Failed(format!("{}: no answer in time", question.uri))),
            };
            tried += 1;
            let again = outcome.as_ref().map_or(true, |answer| answer.status == 429 || answer.status >= 500);
            if !again || tried == TRIES {
                return outcome;
            }
            sleep(self.backoff.wait(tried - 1, self.chance.next())).await;
        }
    }

    async fn once(&self, question: &Question) -> Result<Answer, NoAnswer> {
        let request = question.request().map_err(NoAnswer::Failed)?;
        let told = |e: ClientError| {
            let why = format!("{}: {}", question.uri, in_words(&e));
            if e.is_connect() { NoAnswer::Unreachable(why) } else { NoAnswer::Failed(why) }
        };
        let answer = self.http.request(request).await.map_err(told)?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), LARGEST_ANSWER).collect().await;
        let body = body.map_err(|e| NoAnswer::Failed(format!("{}: {e}", question.uri)))?.to_bytes();
        Ok(Answer { status, body })
    }
}

/// An error with what caused it: the client's own words leave that out.
pub fn in_words(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}
