//! The HTTP client, and the header that `rusoto_s3` does not know.

use std::{sync::Arc, time::Duration};

use hyper::client::HttpConnector;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use rusoto_core::{
    DispatchSignedRequest, HttpClient, HttpConfig,
    credential::ProvideAwsCredentials,
    request::{DispatchSignedRequestFuture, HttpClient as Client},
    signature::SignedRequest,
};
use rusoto_s3::S3Client;

use crate::S3Url;

/// Connections idle for longer are closed: servers close theirs after some 20 s, and a request on a closing connection
/// fails.
const IDLE: Duration = Duration::from_secs(10);

type Https = Client<HttpsConnector<HttpConnector>>;

/// Two faces of one HTTP client.
#[derive(Clone)]
pub(crate) struct Clients {
    /// For everything.
    pub(crate) plain: S3Client,
    /// Its puts and completions take effect only when the key is absent.
    pub(crate) if_absent: S3Client,
}

/// Adds `If-None-Match: *` after signing; S3 demands a signature of `host` and `x-amz-*` only.
struct IfAbsent(Arc<Https>);

impl DispatchSignedRequest for IfAbsent {
    fn dispatch(&self, mut request: SignedRequest, timeout: Option<Duration>) -> DispatchSignedRequestFuture {
        request.add_header("if-none-match", "*");
        self.0.dispatch(request, timeout)
    }
}

impl Clients {
    pub(crate) fn new<P>(url: &S3Url, credentials: P) -> Clients
    where
        P: ProvideAwsCredentials + Clone + Send + Sync + 'static,
    {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(Duration::from_secs(5)));
        let connector =
            HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().wrap_connector(tcp);
        let mut config = HttpConfig::new();
        config.pool_idle_timeout(IDLE);
        let http: Arc<Https> = Arc::new(HttpClient::from_connector_with_config(connector, config));
        Clients {
            plain: S3Client::new_with(http.clone(), credentials.clone(), url.region()),
            if_absent: S3Client::new_with(IfAbsent(http), credentials, url.region()),
        }
    }
}
