//! How requests of the library reach S3: addressed, given the headers that the library does not know, signed, sent.
//!
//! The library signs and sends too, but logs every header of a request at its debug level, the session's token among them;
//! so both happen here.

use std::{fmt, io, sync::Arc, time::Duration};

use futures_util::{FutureExt, TryStreamExt};
use hyper::{
    Body, Method, Request,
    header::{HeaderMap, HeaderName, HeaderValue, USER_AGENT},
};
use rusoto_core::{
    ByteStream, Client, DispatchSignedRequest,
    credential::{AwsCredentials, ProvideAwsCredentials},
    request::{BufferedHttpResponse, DispatchSignedRequestFuture, HttpDispatchError, HttpResponse},
    signature::SignedRequest,
};
use rusoto_s3::S3Client;
use thalweg_objectstore::StoreError;
use tokio::sync::OnceCell;

use crate::{
    S3Url,
    credentials::{Cache, Chain, Imds, Trouble, near},
    http::{Https, client, secret_header},
    place::{Place, region_at_hand},
    surroundings::Surroundings,
};

/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(5);

/// What a request carries that the library has no field for.
#[derive(Clone, Default, Debug)]
pub(crate) struct Extras {
    pub(crate) headers: Vec<(&'static str, String)>,
    /// Instead of the library's body.
    pub(crate) body: Option<String>,
}

impl Extras {
    /// With a header more.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Extras {
        self.headers.push((name, value.into()));
        self
    }
}

/// Whose credentials requests are signed with.
enum Signer {
    /// The caller's.
    Given(Box<dyn ProvideAwsCredentials + Send + Sync>),
    /// Those that the surroundings offer.
    Found(Arc<Cache>),
}

/// The way to one bucket. Region and credentials are found when the first request needs them.
pub(crate) struct Connection {
    http: Https,
    signer: Signer,
    url: S3Url,
    around: Surroundings,
    imds: Arc<Imds>,
    place: OnceCell<Place>,
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
    /// With credentials of the caller's choice.
    pub(crate) fn given<P>(url: &S3Url, credentials: P, seed: u64) -> Connection
    where
        P: ProvideAwsCredentials + Send + Sync + 'static,
    {
        let around = Surroundings::of_process();
        let imds = Arc::new(Imds::new(around.clone(), near(seed)));
        Connection::new(url, around, imds, Signer::Given(Box::new(credentials)))
    }

    /// With the credentials that `around` offers.
    pub(crate) fn ambient(url: &S3Url, around: Surroundings, seed: u64) -> Connection {
        let near = near(seed);
        let imds = Arc::new(Imds::new(around.clone(), near.clone()));
        let region = region_at_hand(url, &around);
        let chain = Chain::new(around.clone(), near, imds.clone(), region, seed);
        Connection::new(url, around, imds, Signer::Found(chain.cached()))
    }

    fn new(url: &S3Url, around: Surroundings, imds: Arc<Imds>, signer: Signer) -> Connection {
        let place = OnceCell::new();
        Connection { http: client(CONNECT), signer, url: url.clone(), around, imds, place }
    }

    /// Seconds since 1970.
    pub(crate) fn now_s(&self) -> i64 {
        self.around.now_s()
    }

    /// A client of the library for one request.
    ///
    /// # Errors
    /// When there are no credentials, or no region.
    pub(crate) async fn client(&self, extras: Extras) -> Result<S3Client, StoreError> {
        let find = || Place::find(&self.url, &self.around, &self.imds);
        let place = self.place.get_or_try_init(find).await?.clone();
        let keys = match &self.signer {
            Signer::Found(cache) => cache.keys().await?,
            Signer::Given(provider) => {
                let refused = |e| StoreError::Refused(format!("no credentials: {e}"));
                provider.credentials().await.map_err(refused)?
            }
        };
        let region = place.region.clone();
        // Credentials without an end are not renewed by asking again.
        let doubt = match &self.signer {
            Signer::Found(cache) if keys.expires_at().is_some() => Some(cache.clone()),
            _ => None,
        };
        let dispatch = Dispatch { http: self.http.clone(), place, keys, doubt, extras };
        Ok(S3Client::new_with_client(Client::new_not_signing(dispatch), region))
    }
}

/// Sends one request.
struct Dispatch {
    http: Https,
    place: Place,
    keys: AwsCredentials,
    doubt: Option<Arc<Cache>>,
    extras: Extras,
}

impl DispatchSignedRequest for Dispatch {
    fn dispatch(&self, mut request: SignedRequest, _timeout: Option<Duration>) -> DispatchSignedRequestFuture {
        self.place.address(&mut request);
        for (name, value) in &self.extras.headers {
            request.remove_header(name);
            request.add_header(name, value);
        }
        if let Some(body) = &self.extras.body {
            request.set_payload(Some(body.clone()));
        }
        request.sign(&self.keys);
        let (http, doubt, keys) = (self.http.clone(), self.doubt.clone(), self.keys.clone());
        async move {
            let request = as_http(request).map_err(HttpDispatchError::new)?;
            let answer = http.request(request).await.map_err(|e| HttpDispatchError::new(e.to_string()))?;
            let mut answer = as_response(answer);
            let refused = [400, 403].contains(&answer.status.as_u16());
            if let Some(cache) = doubt.filter(|_| refused) {
                let BufferedHttpResponse { status, body, headers } = answer.buffer().await?;
                if String::from_utf8_lossy(&body).contains("<Code>ExpiredToken</Code>") {
                    cache.doubt(&keys);
                    return Err(HttpDispatchError::new("ExpiredToken: credentials are being renewed".to_owned()));
                }
                answer = HttpResponse { status, body: ByteStream::from(body.to_vec()), headers };
            }
            Ok(answer)
        }
        .boxed()
    }
}

fn as_http(request: SignedRequest) -> Result<Request<Body>, String> {
    let wrong = |e: &dyn fmt::Display| format!("a request that is none: {e}");
    let mut uri = format!("{}://{}{}", request.scheme(), request.hostname(), request.canonical_path());
    if !request.canonical_query_string().is_empty() {
        uri = format!("{uri}?{}", request.canonical_query_string());
    }
    let method = Method::from_bytes(request.method.as_bytes()).map_err(|e| wrong(&e))?;
    let mut http = Request::builder().method(method).uri(uri);
    for (name, values) in request.headers() {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| wrong(&e))?;
        for value in values {
            http = http.header(&name, secret_header(value)?);
        }
    }
    http = http.header(USER_AGENT, HeaderValue::from_static(concat!("thalweg/", env!("CARGO_PKG_VERSION"))));
    let body = request.payload.map_or_else(Body::empty, |payload| payload.into_body());
    http.body(body).map_err(|e| wrong(&e))
}

fn as_response(answer: hyper::Response<Body>) -> HttpResponse {
    let status = answer.status();
    // The library wants text; a header that is none is none of S3's.
    let text = |(name, value): (&HeaderName, &HeaderValue)| Some((name.clone(), value.to_str().ok()?.to_owned()));
    let headers: HeaderMap<String> = answer.headers().iter().filter_map(text).collect();
    let body = ByteStream::new(answer.into_body().map_err(|e| io::Error::other(e.to_string())));
    HttpResponse { status, body, headers }
}
