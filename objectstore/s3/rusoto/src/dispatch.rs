//! How requests of the library reach S3: addressed, given the headers that the library does not know, signed, sent.
//!
//! The library signs and sends too, but logs every header of a request at its debug level, the session's token among them;
//! so both happen here.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, TryStreamExt};
use http_02::{HeaderMap as OldHeaders, HeaderName as OldName, StatusCode as OldStatus};
use http_body_util::BodyExt;
use hyper::{Method, Request, Response, header::HeaderName};
use rusoto_core::{
    ByteStream, Client, DispatchSignedRequest, Region,
    credential::AwsCredentials,
    request::{DispatchSignedRequestFuture, HttpDispatchError, HttpResponse},
    signature::SignedRequest,
};
use rusoto_s3::S3Client;
use rusoto_signature::signature::SignedRequestPayload;
use thalweg_objectstore::StoreError;
use thalweg_objectstore_s3::{AnswerBody, Body, Connection, Extras, Keys, Place, secret_header, streamed, whole};

/// A client of the library for one request.
///
/// # Errors
/// When there are no credentials, or no region.
pub(crate) async fn client(connection: &Arc<Connection>, extras: Extras) -> Result<S3Client, StoreError> {
    let place = connection.place().await?;
    let region = Region::Custom { name: place.region.clone(), endpoint: place.endpoint.clone() };
    let keys = connection.keys().await?;
    let dispatch = Dispatch { connection: connection.clone(), place: place.clone(), keys, extras };
    Ok(S3Client::new_with_client(Client::new_not_signing(dispatch), region))
}

/// Sends one request.
struct Dispatch {
    connection: Arc<Connection>,
    place: Place,
    keys: Keys,
    extras: Extras,
}

impl DispatchSignedRequest for Dispatch {
    fn dispatch(&self, mut request: SignedRequest, _timeout: Option<Duration>) -> DispatchSignedRequestFuture {
        address(&self.place, &mut request);
        for (name, value) in &self.extras.headers {
            request.remove_header(name);
            request.add_header(name, value);
        }
        if let Some(body) = &self.extras.body {
            request.set_payload(Some(body.clone()));
        }
        let Keys { id, secret, token, .. } = self.keys.clone();
        request.sign(&AwsCredentials::new(id, secret, token, None));
        let (connection, keys) = (self.connection.clone(), self.keys.clone());
        async move {
            let request = as_http(request).map_err(HttpDispatchError::new)?;
            let told = |e| match e {
                StoreError::Retry(why) => HttpDispatchError::new(why),
                other => HttpDispatchError::new(other.to_string()),
            };
            as_response(connection.send(request, &keys).await.map_err(told)?).map_err(HttpDispatchError::new)
        }
        .boxed()
    }
}

/// Moves the bucket from a request's path to its host, where that is the way; before it is signed.
fn address(place: &Place, request: &mut SignedRequest) {
    let Some(bucket) = &place.host_bucket else { return };
    let rest = request.path.strip_prefix('/').and_then(|path| path.strip_prefix(bucket.as_str()));
    let path = match rest {
        Some("") => "/".to_owned(),
        Some(rest) if rest.starts_with('/') => rest.to_owned(),
        _ => return,
    };
    request.set_hostname(Some(format!("{bucket}.{}", request.hostname())));
    request.path = path;
}

fn as_http(request: SignedRequest) -> Result<Request<Body>, String> {
    let wrong = |e: &dyn std::fmt::Display| format!("a request that is none: {e}");
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
    let body = match request.payload {
        None => whole(Bytes::new()),
        Some(SignedRequestPayload::Buffer(bytes)) => whole(bytes),
        Some(SignedRequestPayload::Stream(stream)) => streamed(stream),
    };
    http.body(body).map_err(|e| wrong(&e))
}

/// The library speaks the types of an older `http`.
fn as_response(answer: Response<AnswerBody>) -> Result<HttpResponse, String> {
    let status = OldStatus::from_u16(answer.status().as_u16()).map_err(|e| e.to_string())?;
    let mut headers = OldHeaders::<String>::default();
    for (name, value) in answer.headers() {
        // The library wants text; a header that is none is none of S3's.
        if let (Ok(name), Ok(value)) = (OldName::from_bytes(name.as_str().as_bytes()), value.to_str()) {
            headers.append(name, value.to_owned());
        }
    }
    let body = ByteStream::new(answer.into_body().into_data_stream().map_err(io::Error::other));
    Ok(HttpResponse { status, body, headers })
}

#[cfg(test)]
mod tests {
    use thalweg_objectstore_s3::S3Url;

    use super::*;

    fn sent_to(url: &str, region: &str, path: &str) -> (String, String) {
        let url = S3Url::parse(url).expect("a URL");
        let place = Place::new(&url, region.to_owned(), url.endpoint.clone(), url.dualstack);
        let region = Region::Custom { name: place.region.clone(), endpoint: place.endpoint.clone() };
        let mut request = SignedRequest::new("GET", "s3", &region, &format!("/{}{path}", url.bucket));
        address(&place, &mut request);
        (format!("{}://{}", request.scheme(), request.hostname()), request.path)
    }

    #[test]
    fn the_bucket_moves_into_the_host() {
        for (url, path, host, moved) in [
            ("s3://bkt", "/a/b", "https://bkt.s3.eu-west-1.amazonaws.com", "/a/b"),
            ("s3://bkt", "", "https://bkt.s3.eu-west-1.amazonaws.com", "/"),
            ("s3://my.bkt", "/a/b", "https://s3.eu-west-1.amazonaws.com", "/my.bkt/a/b"),
            ("s3://bkt?endpoint=http://127.0.0.1:9000/", "/a/b", "http://127.0.0.1:9000", "/bkt/a/b"),
        ] {
            assert_eq!(sent_to(url, "eu-west-1", path), (host.to_owned(), moved.to_owned()), "{url}");
        }
    }

    #[test]
    fn regions_have_the_hosts_that_the_library_knows() {
        let url = S3Url::parse("s3://my.bkt").expect("a URL");
        for region in ["us-east-1", "eu-central-1", "us-gov-east-1", "cn-northwest-1", "ap-southeast-2"] {
            let known: Region = region.parse().expect("known");
            let theirs = SignedRequest::new("GET", "s3", &known, "/").hostname();
            assert_eq!(Place::new(&url, region.to_owned(), None, false).endpoint, format!("https://{theirs}"));
        }
    }
}
