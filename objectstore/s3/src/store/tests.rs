//! The engine against a stub that answers what a test says: stumbling, hanging, lying.

use std::{
    net::TcpListener,
    sync::{Arc, Mutex},
    time::Duration,
};

use rusoto_credential::StaticProvider;
use thalweg_objectstore::Backoff;

use super::*;
use crate::stub::{Asked, Instance, Reply, serve};

/// One answer of the stub: status, further head lines, body; `None` hangs.
type Answer = Option<(u16, &'static str, &'static str)>;

struct Bench {
    store: S3Store,
    runtime: tokio::runtime::Runtime,
    seen: Arc<Mutex<Vec<Asked>>>,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

fn limits() -> Limits {
    Limits {
        attempt: Duration::from_millis(300),
        total: Duration::from_millis(1500),
        backoff: Backoff { base: Duration::from_millis(1), cap: Duration::from_millis(10) },
        part_bytes: 1000,
        hedge: Duration::from_millis(50),
        ..Limits::default()
    }
}

/// A store before a stub that runs `script`: from the request line and how many came before, to the answer.
fn bench(script: impl Fn(&str, usize) -> Answer + Send + 'static) -> Bench {
    bench_with(limits(), "", script)
}

/// With further parameters of the URL.
fn bench_with(limits: Limits, parameters: &str, script: impl Fn(&str, usize) -> Answer + Send + 'static) -> Bench {
    let (endpoint, seen) = serve(move |asked, number| {
        let (status, lines, body) = script(&asked.line, number)?;
        Some(Reply { status, lines: lines.to_owned(), body: body.to_owned() })
    });
    let runtime = runtime();
    let url = S3Url::parse(&format!("s3://bucket/prefix?endpoint={endpoint}{parameters}")).expect("a URL");
    let credentials = StaticProvider::new_minimal("key".to_owned(), "secret".to_owned());
    Bench { store: S3Store::new(url, credentials, runtime.handle(), limits), runtime, seen }
}

fn key() -> ObjectKey {
    ObjectKey::new("a/b").expect("a key")
}

impl Bench {
    fn put(&self, bytes: usize, condition: PutCondition) -> Result<(), StoreError> {
        self.runtime.block_on(self.store.put(&key(), vec![Bytes::from(vec![1; bytes])], condition))
    }

    fn lines(&self) -> Vec<String> {
        let seen = self.seen.lock().expect("a lock");
        seen.iter().map(|asked| asked.line.clone()).collect()
    }
}

#[test]
fn a_stumbling_server_is_asked_again() {
    let bench = bench(|_, n| Some((if n < 3 { 503 } else { 200 }, "", "")));
    assert_eq!(bench.put(10, PutCondition::Always), Ok(()));
    assert_eq!(bench.lines(), ["PUT /bucket/prefix/a/b"; 4]);
}

#[test]
fn a_conditional_put_is_not_repeated_blindly() {
    let bench = bench(|_, _| Some((500, "", "")));
    assert!(matches!(bench.put(10, PutCondition::IfAbsent), Err(StoreError::Retry(_))));
    let seen = bench.seen.lock().expect("a lock").clone();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("if-none-match").as_deref(), Some("*"));
}

#[test]
fn refusals_are_final_and_quote_the_server() {
    let bench = bench(|_, _| Some((403, "", "<Error><Code>AccessDenied</Code></Error>")));
    let refused = bench.put(10, PutCondition::Always);
    assert!(matches!(&refused, Err(StoreError::Refused(why)) if why.contains("AccessDenied")), "{refused:?}");
    assert_eq!(bench.lines().len(), 1);
}

#[test]
fn a_hanging_server_costs_an_attempt_and_then_the_call() {
    let first_hangs = bench(|_, n| (n > 0).then_some((200, "", "")));
    assert_eq!(first_hangs.put(10, PutCondition::Always), Ok(()));
    let hangs = bench(|_, _| None);
    assert_eq!(hangs.put(10, PutCondition::Always), Err(StoreError::Retry("no answer in time".to_owned())));
    assert!(hangs.lines().len() > 2, "{} attempts", hangs.lines().len());
}

#[test]
fn a_failed_multipart_upload_is_aborted() {
    let bench = bench(|line, _| match line {
        l if l.starts_with("POST") && l.contains("uploads") => {
            Some((200, "", "<InitiateMultipartUploadResult><UploadId>u7</UploadId></InitiateMultipartUploadResult>"))
        }
        l if l.contains("partNumber=2") => Some((403, "", "")),
        l if l.starts_with("PUT") => Some((200, "etag: \"e\"\r\n", "")),
        _ => Some((204, "", "")),
    });
    assert!(matches!(bench.put(2500, PutCondition::Always), Err(StoreError::Refused(_))));
    let lines = bench.lines();
    assert!(lines.last().is_some_and(|l| l.starts_with("DELETE") && l.contains("uploadId=u7")), "{lines:?}");
}

#[test]
fn an_error_behind_a_200_completes_nothing() {
    let bench = bench(|line, n| match line {
        l if l.contains("uploads") => {
            Some((200, "", "<InitiateMultipartUploadResult><UploadId>u7</UploadId></InitiateMultipartUploadResult>"))
        }
        l if l.starts_with("PUT") => Some((200, "etag: \"e\"\r\n", "")),
        l if l.starts_with("POST") && n == 4 => Some((200, "", "<Error><Code>InternalError</Code></Error>")),
        l if l.starts_with("POST") => {
            Some((200, "", "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"))
        }
        _ => Some((500, "", "")),
    });
    assert_eq!(bench.put(2500, PutCondition::Always), Ok(()));
    assert_eq!(bench.lines().len(), 6, "create, three parts, two completions: {:?}", bench.lines());
}

#[test]
fn ranges_are_held_to_their_length() {
    for (answer, fits) in [
        ((206, "content-range: bytes 2-5/10\r\n", "2345"), true),
        ((206, "content-range: bytes 2-3/4\r\n", "23"), false),
        ((206, "content-range: bytes 2-8/10\r\n", "2345678"), false),
        ((200, "", "0123456789"), false),
        ((416, "", ""), false),
    ] {
        let bench = bench(move |_, _| Some(answer));
        let read = bench.runtime.block_on(bench.store.get_range(&key(), 2..6));
        assert_eq!(read.is_ok(), fits, "{answer:?} gave {read:?}");
        assert_eq!(bench.seen.lock().expect("a lock")[0].header("range").as_deref(), Some("bytes=2-5"));
    }
}

#[test]
fn a_server_that_is_not_there_is_a_passing_fault() {
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let runtime = runtime();
    let url = S3Url::parse(&format!("s3://bucket?endpoint=http://{gone}")).expect("a URL");
    let credentials = StaticProvider::new_minimal("key".to_owned(), "secret".to_owned());
    let limits = Limits { total: Duration::from_millis(200), ..Limits::default() };
    let store = S3Store::new(url, credentials, runtime.handle(), limits);
    assert!(matches!(runtime.block_on(store.head(&key())), Err(StoreError::Retry(_))));
}

/// A store that knows nothing but an instance's metadata service.
fn on_an_instance(
    s3: impl Fn(&Asked, usize) -> Option<Reply> + Send + 'static,
) -> (S3Store, tokio::runtime::Runtime, Arc<Mutex<Vec<Asked>>>, Instance) {
    let instance = Instance::start();
    let (endpoint, seen) = serve(s3);
    let around = instance.surroundings(vec![("AWS_ENDPOINT_URL_S3", endpoint)]);
    let runtime = runtime();
    let store = S3Store::ambient(S3Url::parse("s3://bucket").expect("a URL"), around, runtime.handle(), limits());
    (store, runtime, seen, instance)
}

#[test]
fn an_instance_role_signs_and_is_renewed_when_the_store_calls_it_expired() {
    let expired = "<Error><Code>ExpiredToken</Code></Error>";
    let (store, runtime, seen, _instance) =
        on_an_instance(move |_, n| Some(if n == 0 { Reply::of(400, expired) } else { Reply::of(200, "") }));
    let key = key();
    let put = || runtime.block_on(store.put(&key, vec![Bytes::from_static(b"x")], PutCondition::Always));
    assert_eq!(put(), Ok(()));
    // The renewal goes on beside; its keys are taken when they are there.
    let signed_anew = |asked: &Asked| {
        asked.header("authorization").is_some_and(|a| a.contains("Credential=AKID2/"))
            && asked.header("x-amz-security-token").as_deref() == Some("SECRET-session-2")
    };
    for _ in 0..1000 {
        assert_eq!(put(), Ok(()));
        if seen.lock().expect("a lock").last().is_some_and(signed_anew) {
            return;
        }
    }
    panic!("never signed with the new keys: {:?}", seen.lock().expect("a lock").last());
}

#[test]
fn without_credentials_the_error_names_every_place_in_order() {
    let around = Surroundings::made_up(
        |name| match name {
            "AWS_EC2_METADATA_DISABLED" => Some("true".to_owned()),
            "HOME" => Some("/nowhere".to_owned()),
            "AWS_REGION" => Some("eu-west-1".to_owned()),
            _ => None,
        },
        std::time::SystemTime::now,
    );
    let runtime = runtime();
    let store = S3Store::ambient(S3Url::parse("s3://bucket").expect("a URL"), around, runtime.handle(), limits());
    let refused = runtime.block_on(store.head(&key())).expect_err("no credentials").to_string();
    let names = [
        "AWS_ACCESS_KEY_ID is not set",
        "AWS_WEB_IDENTITY_TOKEN_FILE is not set",
        "/nowhere/.aws/credentials",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI is set",
        "AWS_EC2_METADATA_DISABLED is set",
    ];
    let at: Vec<usize> = names.iter().map(|name| refused.find(name).unwrap_or_else(|| panic!("{refused}"))).collect();
    assert!(at.is_sorted(), "{refused}");
}

fn uploads(line: &str, _: usize) -> Answer {
    Some(match line {
        l if l.starts_with("POST") && l.contains("uploads") => {
            (200, "", "<InitiateMultipartUploadResult><UploadId>u7</UploadId></InitiateMultipartUploadResult>")
        }
        l if l.starts_with("POST") => {
            (200, "", "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>")
        }
        _ => (200, "etag: \"e\"\r\n", ""),
    })
}

#[test]
fn what_is_put_has_a_checksum_and_is_encrypted_as_the_url_says() {
    let bench = bench_with(limits(), "&sse=aws:kms&sse.kms.key.id=alias/a", uploads);
    assert_eq!(bench.put(10, PutCondition::Always), Ok(()));
    assert_eq!(bench.put(1500, PutCondition::Always), Ok(()));
    let seen = bench.seen.lock().expect("a lock").clone();
    let [put, create, first, second, complete] = &seen[..] else { panic!("{seen:?}") };
    for encrypted in [put, create] {
        assert_eq!(encrypted.header("x-amz-server-side-encryption").as_deref(), Some("aws:kms"));
        assert_eq!(encrypted.header("x-amz-server-side-encryption-aws-kms-key-id").as_deref(), Some("alias/a"));
    }
    assert_eq!(first.header("x-amz-server-side-encryption"), None, "S3 refuses it on parts");
    assert_eq!(create.header("x-amz-checksum-algorithm").as_deref(), Some("CRC32C"));
    for checked in [put, first, second] {
        let checksum = checked.header("x-amz-checksum-crc32c").expect("a checksum");
        let crc = crc32c::crc32c(checked.body.as_bytes());
        assert_eq!(
            base64::Engine::decode(&base64::prelude::BASE64_STANDARD, &checksum),
            Ok(crc.to_be_bytes().to_vec())
        );
        let signed = checked.header("authorization").expect("signed");
        assert!(signed.contains("x-amz-checksum-crc32c"), "{signed}");
        if checked.line.contains("partNumber") {
            assert!(complete.body.contains(&format!("<ChecksumCRC32C>{checksum}</ChecksumCRC32C>")), "{complete:?}");
        }
    }
    let bare = bench_with(limits(), "&checksum=none", uploads);
    assert_eq!(bare.put(1500, PutCondition::Always), Ok(()));
    let seen = bare.seen.lock().expect("a lock").clone();
    let checksums = ["x-amz-checksum-crc32c", "x-amz-checksum-algorithm", "x-amz-server-side-encryption"];
    assert!(seen.iter().all(|asked| checksums.iter().all(|name| asked.header(name).is_none())), "{seen:?}");
    assert!(!seen.last().is_some_and(|asked| asked.body.contains("Checksum")), "{seen:?}");
}

#[test]
fn a_read_that_hangs_is_asked_twice_once_there_is_credit() {
    let patient = Limits { attempt: Duration::from_secs(20), total: Duration::from_secs(60), ..limits() };
    let bench = bench_with(patient, "", |_, n| (n != 20).then_some((206, "content-range: bytes 2-5/10\r\n", "2345")));
    let read = || bench.runtime.block_on(bench.store.get_range(&key(), 2..6));
    let began = std::time::Instant::now();
    for _ in 0..21 {
        assert_eq!(read().as_deref(), Ok(&b"2345"[..]));
    }
    assert_eq!(bench.lines().len(), 22, "one hung, and another was sent beside it");
    assert!(began.elapsed() < Duration::from_secs(20), "the attempt was waited for");
}

#[test]
fn stale_uploads_of_the_prefix_are_aborted_and_no_others() {
    const FIRST: &str = "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker>\
        <NextUploadIdMarker>m</NextUploadIdMarker>\
        <Upload><Key>prefix/data/9e/0000000000000001-n7-e3</Key><UploadId>old</UploadId>\
        <Initiated>2020-01-01T00:00:00.000Z</Initiated></Upload>\
        <Upload><Key>prefix/data/film.mp4</Key><UploadId>foreign</UploadId>\
        <Initiated>2020-01-01T00:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>";
    const LAST: &str = "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>\
        <Upload><Key>prefix/data/9e/0000000000000001-n7-e3</Key><UploadId>young</UploadId>\
        <Initiated>2029-12-31T12:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>";
    let bench = bench(|line, _| {
        Some(match line {
            l if l.starts_with("DELETE") => (204, "", ""),
            l if l.contains("key-marker=k") => (200, "", LAST),
            l if l.contains("prefix=prefix%2Fdata%2F") => (200, "", FIRST),
            _ => (200, "", "<ListMultipartUploadsResult></ListMultipartUploadsResult>"),
        })
    });
    let Inner { bucket, attempts } = &*bench.store.inner;
    assert_eq!(bench.runtime.block_on(stale::clear(bucket, attempts, crate::stub::NOW_S)), Ok(1));
    let aborted: Vec<String> = bench.lines().into_iter().filter(|line| line.starts_with("DELETE")).collect();
    assert_eq!(aborted, ["DELETE /bucket/prefix/data/9e/0000000000000001-n7-e3?uploadId=old"]);
    let listed: Vec<String> = bench.lines().into_iter().filter(|line| line.starts_with("GET")).collect();
    assert!(
        listed
            .iter()
            .all(|line| line.contains("prefix=prefix%2Fdata%2F") || line.contains("prefix=prefix%2Fmetadata%2F"))
    );
}
