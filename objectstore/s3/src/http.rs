//! The HTTP client below everything, and small questions to AWS's services beside S3 (credentials, region).
//!
//! What is asked with and answered may be secret: nothing of a request or an answer is logged or goes into an error.

use std::time::Duration;

use hyper::{
    Body, Client, Method, Request,
    body::HttpBody,
    client::HttpConnector,
    header::{HeaderName, HeaderValue},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use thalweg_objectstore::Backoff;
use tokio::time::{sleep, timeout};

use crate::chance::Chance;

/// HTTP/1.1 with and without TLS.
pub(crate) type Https = Client<HttpsConnector<HttpConnector>>;

/// Connections idle for longer are closed: servers close theirs after some 20 s, and a request on a closing connection
/// fails.
const IDLE: Duration = Duration::from_secs(10);

/// How often a small question is asked.
const TRIES: u32 = 3;

/// Answers to small questions are smaller.
const LARGEST_ANSWER: usize = 256 * 1024;

/// A client whose connections open within `connect`.
pub(crate) fn client(connect: Duration) -> Https {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(connect));
    let connector = HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().wrap_connector(tcp);
    Client::builder().pool_idle_timeout(IDLE).build(connector)
}

/// What a service answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
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
        request.body(Body::from(self.body.clone())).map_err(|e| wrong(&e))
    }
}

/// A header's value that no debug output shows.
///
/// # Errors
/// When it has characters that a header cannot carry.
pub(crate) fn secret_header(value: &[u8]) -> Result<HeaderValue, String> {
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
        Asker { http: client(connect), attempt, backoff, chance: Chance::new(seed) }
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
        let told = |e: hyper::Error| {
            let why = format!("{}: {e}", question.uri);
            if e.is_connect() { NoAnswer::Unreachable(why) } else { NoAnswer::Failed(why) }
        };
        let answer = self.http.request(request).await.map_err(told)?;
        let (status, mut stream, mut body) = (answer.status().as_u16(), answer.into_body(), Vec::new());
        while let Some(piece) = stream.data().await {
            let piece = piece.map_err(told)?;
            if body.len() + piece.len() > LARGEST_ANSWER {
                return Err(NoAnswer::Failed(format!("{}: more than an answer has", question.uri)));
            }
            body.extend_from_slice(&piece);
        }
        Ok(Answer { status, body })
    }
}
