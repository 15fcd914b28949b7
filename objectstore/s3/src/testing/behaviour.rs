//! Engines before a stub that answers what a test says: stumbling, hanging, lying.

use std::{
    net::TcpListener,
    num::NonZeroU64,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use thalweg_objectstore::{Backoff, NodeId, ObjectKey, ObjectStore, PutCondition, StoreError};

use super::stub::{Asked, Instance, NOW_S, Reply, serve, stalls_once};
use crate::{Connection, Keys, Limits, Requests, S3Store, S3Url, stale, surroundings::Surroundings};

/// Makes the engine under test.
pub type Make<R> = fn(Arc<Connection>) -> R;

/// One answer of the stub: status, further head lines, body; `None` hangs.
type Answer = Option<(u16, &'static str, &'static str)>;

struct Bench<R> {
    store: S3Store<R>,
    runtime: tokio::runtime::Runtime,
    seen: Arc<Mutex<Vec<Asked>>>,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

pub(super) fn limits() -> Limits {
    Limits {
        attempt: Duration::from_millis(300),
        total: Duration::from_millis(1500),
        backoff: Backoff { base: Duration::from_millis(1), cap: Duration::from_millis(10) },
        single_bytes: 1000,
        part_bytes: 1000,
        hedge: Duration::from_millis(50),
        ..Limits::default()
    }
}

/// A store before a stub that runs `script`: from the request line and how many came before, to the answer.
fn bench<R: Requests>(make: Make<R>, script: impl Fn(&str, usize) -> Answer + Send + 'static) -> Bench<R> {
    bench_with(make, limits(), "", script)
}

/// With further parameters of the URL.
fn bench_with<R: Requests>(
    make: Make<R>,
    limits: Limits,
    parameters: &str,
    script: impl Fn(&str, usize) -> Answer + Send + 'static,
) -> Bench<R> {
    let (endpoint, seen) = serve(move |asked, number| {
        let (status, lines, body) = script(&asked.line, number)?;
        Some(Reply { status, lines: lines.to_owned(), body: body.to_owned() })
    });
    let runtime = runtime();
    let url = S3Url::parse(&format!("s3://bucket/prefix?endpoint={endpoint}{parameters}")).expect("a URL");
    Bench { store: S3Store::new(url, keys(), runtime.handle(), limits, make), runtime, seen }
}

fn keys() -> Keys {
    Keys::lasting("key", "secret", None)
}

fn key() -> ObjectKey {
    ObjectKey::new("a/b").expect("a key")
}

impl<R: Requests> Bench<R> {
    fn put(&self, bytes: usize, condition: PutCondition) -> Result<(), StoreError> {
        self.runtime.block_on(self.store.put(&key(), vec![Bytes::from(vec![1; bytes])], condition))
    }

    fn lines(&self) -> Vec<String> {
        let seen = self.seen.lock().expect("a lock");
        seen.iter().map(|asked| asked.line.clone()).collect()
    }
}

pub fn a_stumbling_server_is_asked_again<R: Requests>(make: Make<R>) {
    let bench = bench(make, |_, n| Some((if n < 3 { 503 } else { 200 }, "", "")));
    assert_eq!(bench.put(10, PutCondition::Always), Ok(()));
    assert_eq!(bench.lines(), ["PUT /bucket/prefix/a/b"; 4]);
    let agent = bench.seen.lock().expect("a lock")[0].header("user-agent").expect("a name");
    assert!(agent.starts_with("thalweg/") && agent.contains(R::LIBRARY), "{agent}");
}

pub fn a_conditional_put_is_not_repeated_blindly<R: Requests>(make: Make<R>) {
    let bench = bench(make, |_, _| Some((500, "", "")));
    assert!(matches!(bench.put(10, PutCondition::IfAbsent), Err(StoreError::Retry(_))));
    let seen = bench.seen.lock().expect("a lock").clone();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("if-none-match").as_deref(), Some("*"));
}

pub fn a_conditional_put_is_repeated_where_nothing_was_done<R: Requests>(make: Make<R>) {
    let slower = "<Error><Code>SlowDown</Code></Error>";
    let busy = bench(make, move |_, n| Some([(503, "", slower), (429, "", ""), (200, "", "")][n]));
    assert_eq!(busy.put(10, PutCondition::IfAbsent), Ok(()));
    assert_eq!(busy.lines(), ["PUT /bucket/prefix/a/b"; 3]);
    let stumbles = bench(make, move |_, n| Some([(503, "", slower), (503, "", ""), (200, "", "")][n]));
    assert!(matches!(stumbles.put(10, PutCondition::IfAbsent), Err(StoreError::Retry(_))));
    assert_eq!(stumbles.lines().len(), 2, "the second answer may come from a gateway that has passed it on");
    let outage = bench(make, move |_, _| Some((503, "", slower)));
    assert!(matches!(outage.put(10, PutCondition::IfAbsent), Err(StoreError::Retry(_))));
    assert_eq!(outage.lines().len(), 5, "whoever asked tells the operator, and must hear of it");
    let hangs = bench(make, move |_, n| (n == 0).then_some((503, "", slower)));
    assert!(matches!(hangs.put(10, PutCondition::IfAbsent), Err(StoreError::Retry(_))));
    assert_eq!(hangs.lines().len(), 2);
}

pub fn a_conditional_put_without_a_connection_is_soon_given_up<R: Requests>(make: Make<R>) {
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let runtime = runtime();
    let url = S3Url::parse(&format!("s3://bucket?endpoint=http://{gone}")).expect("a URL");
    let limits = Limits { total: Duration::from_secs(60), ..limits() };
    let store = S3Store::new(url, keys(), runtime.handle(), limits, make);
    let began = Instant::now();
    let put = runtime.block_on(store.put(&key(), vec![Bytes::from_static(b"x")], PutCondition::IfAbsent));
    assert!(matches!(put, Err(StoreError::Retry(_))), "{put:?}");
    // Refused at once each time, it would go on for the whole minute.
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

pub fn refusals_are_final_and_quote_the_server<R: Requests>(make: Make<R>) {
    let bench = bench(make, |_, _| Some((403, "", "<Error><Code>AccessDenied</Code></Error>")));
    let refused = bench.put(10, PutCondition::Always);
    assert!(matches!(&refused, Err(StoreError::Refused(why)) if why.contains("AccessDenied")), "{refused:?}");
    assert_eq!(bench.lines().len(), 1);
}

pub fn a_hanging_server_costs_an_attempt_and_then_the_call<R: Requests>(make: Make<R>) {
    let first_hangs = bench(make, |_, n| (n > 0).then_some((200, "", "")));
    assert_eq!(first_hangs.put(10, PutCondition::Always), Ok(()));
    let hangs = bench(make, |_, _| None);
    assert_eq!(hangs.put(10, PutCondition::Always), Err(StoreError::Retry("no answer in time".to_owned())));
    assert!(hangs.lines().len() > 2, "{} attempts", hangs.lines().len());
}

/// How long an attempt may take, besides what its bytes may need.
const LONG: Duration = Duration::from_secs(20);

/// Attempts that may take long, and nothing may stand still for long.
fn watchful<R: Requests>(make: Make<R>, endpoint: &str) -> (S3Store<R>, tokio::runtime::Runtime) {
    let url = S3Url::parse(&format!("s3://bucket?endpoint={endpoint}")).expect("a URL");
    let stall = Duration::from_millis(300);
    let limits = Limits { attempt: LONG, total: 10 * LONG, stall, single_bytes: 64 << 20, ..limits() };
    let runtime = runtime();
    (S3Store::new(url, keys(), runtime.handle(), limits, make), runtime)
}

pub fn a_server_that_stops_reading_is_given_up<R: Requests>(make: Make<R>) {
    let endpoint = stalls_once("", "HTTP/1.1 200 X\r\ncontent-length: 0\r\netag: \"e\"\r\n\r\n");
    let (store, runtime) = watchful(make, &endpoint);
    // More than the system takes for a peer that does not read.
    let (parts, began) = (vec![Bytes::from(vec![1; 1 << 20]); 32], Instant::now());
    assert_eq!(runtime.block_on(store.put(&key(), parts, PutCondition::Always)), Ok(()));
    assert!(began.elapsed() < LONG, "the attempt was waited for");
}

pub fn a_server_that_stops_sending_is_given_up<R: Requests>(make: Make<R>) {
    let whole = "HTTP/1.1 206 X\r\ncontent-length: 4\r\ncontent-range: bytes 2-5/10\r\n\r\n2345";
    let endpoint = stalls_once(&whole[..whole.len() - 2], whole);
    let ((store, runtime), began) = (watchful(make, &endpoint), Instant::now());
    assert_eq!(runtime.block_on(store.get_range(&key(), 2..6)).as_deref(), Ok(&b"2345"[..]));
    assert!(began.elapsed() < LONG, "the attempt was waited for");
}

pub fn a_failed_multipart_upload_is_aborted<R: Requests>(make: Make<R>) {
    let bench = bench(make, |line, _| match line {
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

pub fn an_error_behind_a_200_completes_nothing<R: Requests>(make: Make<R>) {
    let bench = bench(make, |line, n| match line {
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

pub fn ranges_are_held_to_their_length<R: Requests>(make: Make<R>) {
    for (answer, fits) in [
        ((206, "content-range: bytes 2-5/10\r\n", "2345"), true),
        ((206, "content-range: bytes 2-3/4\r\n", "23"), false),
        ((206, "content-range: bytes 2-8/10\r\n", "2345678"), false),
        ((200, "", "0123456789"), false),
        ((416, "", ""), false),
    ] {
        let bench = bench(make, move |_, _| Some(answer));
        let read = bench.runtime.block_on(bench.store.get_range(&key(), 2..6));
        assert_eq!(read.is_ok(), fits, "{answer:?} gave {read:?}");
        assert_eq!(bench.seen.lock().expect("a lock")[0].header("range").as_deref(), Some("bytes=2-5"));
    }
}

pub fn a_server_that_is_not_there_is_a_passing_fault<R: Requests>(make: Make<R>) {
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let runtime = runtime();
    let url = S3Url::parse(&format!("s3://bucket?endpoint=http://{gone}")).expect("a URL");
    let limits = Limits { total: Duration::from_millis(200), ..Limits::default() };
    let store = S3Store::new(url, keys(), runtime.handle(), limits, make);
    assert!(matches!(runtime.block_on(store.head(&key())), Err(StoreError::Retry(_))));
}

/// A store that knows nothing but an instance's metadata service.
fn on_an_instance<R: Requests>(
    make: Make<R>,
    s3: impl Fn(&Asked, usize) -> Option<Reply> + Send + 'static,
) -> (S3Store<R>, tokio::runtime::Runtime, Arc<Mutex<Vec<Asked>>>, Instance) {
    let instance = Instance::start();
    let (endpoint, seen) = serve(s3);
    let around = instance.surroundings(vec![("AWS_ENDPOINT_URL_S3", endpoint)]);
    let runtime = runtime();
    let store = S3Store::ambient(S3Url::parse("s3://bucket").expect("a URL"), around, runtime.handle(), limits(), make);
    (store, runtime, seen, instance)
}

pub fn an_instance_role_signs_and_is_renewed_when_the_store_calls_it_expired<R: Requests>(make: Make<R>) {
    let expired = "<Error><Code>ExpiredToken</Code></Error>";
    let (store, runtime, seen, _instance) =
        on_an_instance(make, move |_, n| Some(if n == 0 { Reply::of(400, expired) } else { Reply::of(200, "") }));
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

pub fn without_credentials_the_error_names_every_place_in_order<R: Requests>(make: Make<R>) {
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
    let store = S3Store::ambient(S3Url::parse("s3://bucket").expect("a URL"), around, runtime.handle(), limits(), make);
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

pub fn what_has_time_takes_it_after_a_stall_too<R: Requests>(make: Make<R>) {
    const STALL: Duration = Duration::from_millis(400);
    let patient = Limits { attempt: Duration::from_secs(20), total: Duration::from_secs(60), ..limits() };
    let bench = bench_with(make, patient, "", |line, n| {
        if line.contains("partNumber=2") {
            std::thread::sleep(STALL);
        }
        uploads(line, n)
    });
    let put = |bytes: usize| {
        let pace = NonZeroU64::new(10_000).expect("not 0");
        let began = Instant::now();
        let parts = vec![Bytes::from(vec![1; bytes])];
        let done = bench.runtime.block_on(bench.store.put_slowly(&key(), parts, PutCondition::Always, pace));
        assert_eq!(done, Ok(()));
        began.elapsed()
    };
    assert!(put(1000) >= Duration::from_millis(100), "1000 bytes at 10,000 a second");
    assert_eq!(bench.lines().len(), 1);
    // The first of four parts takes its time, the second stalls for longer than all would take.
    assert!(put(4000) >= Duration::from_millis(100 + 2 * 100) + STALL, "what the stall took is not saved up");
    assert_eq!(bench.lines().iter().filter(|line| line.contains("partNumber")).count(), 4);
}

pub fn what_is_put_has_a_checksum_and_is_encrypted_as_the_url_says<R: Requests>(make: Make<R>) {
    let bench = bench_with(make, limits(), "&sse=aws:kms&sse.kms.key.id=alias/a", uploads);
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
        assert_eq!(BASE64_STANDARD.decode(&checksum), Ok(crc.to_be_bytes().to_vec()));
        let signed = checked.header("authorization").expect("signed");
        assert!(signed.contains("x-amz-checksum-crc32c"), "{signed}");
        if checked.line.contains("partNumber") {
            assert!(complete.body.contains(&format!("<ChecksumCRC32C>{checksum}</ChecksumCRC32C>")), "{complete:?}");
        }
    }
    let aes = bench_with(make, limits(), "&sse=AES256", uploads);
    assert_eq!(aes.put(10, PutCondition::Always), Ok(()));
    assert_eq!(aes.put(1500, PutCondition::Always), Ok(()));
    let seen = aes.seen.lock().expect("a lock").clone();
    let told: Vec<_> = seen.iter().map(|asked| asked.header("x-amz-server-side-encryption")).collect();
    let s3s = Some("AES256".to_owned());
    assert_eq!(told, [s3s.clone(), s3s, None, None, None], "with the object, and with the upload of parts: {seen:?}");
    assert!(seen.iter().all(|asked| asked.header("x-amz-server-side-encryption-aws-kms-key-id").is_none()), "{seen:?}");
    let signed = seen[0].header("authorization").expect("signed");
    assert!(signed.contains("x-amz-server-side-encryption"), "{signed}");
    let bare = bench_with(make, limits(), "&checksum=none", uploads);
    assert_eq!(bare.put(1500, PutCondition::Always), Ok(()));
    let seen = bare.seen.lock().expect("a lock").clone();
    let checksums = ["x-amz-checksum-crc32c", "x-amz-checksum-algorithm", "x-amz-server-side-encryption"];
    assert!(seen.iter().all(|asked| checksums.iter().all(|name| asked.header(name).is_none())), "{seen:?}");
    assert!(!seen.last().is_some_and(|asked| asked.body.contains("Checksum")), "{seen:?}");
}

pub fn the_host_names_the_bucket_where_the_url_says_so<R: Requests>(make: Make<R>) {
    let (endpoint, seen) = serve(|_, _| Some(Reply::of(200, "")));
    let port = endpoint.rsplit_once(':').expect("a port").1;
    // No name of a bucket before the server's would be found: this bucket's is the first part of the server's address.
    let url = S3Url::parse(&format!("s3://127/prefix?style=virtual&endpoint=http://0.0.1:{port}")).expect("a URL");
    let runtime = runtime();
    let store = S3Store::new(url, keys(), runtime.handle(), limits(), make);
    assert_eq!(runtime.block_on(store.put(&key(), vec![Bytes::from_static(b"x")], PutCondition::Always)), Ok(()));
    assert_eq!(runtime.block_on(store.delete(&key())), Ok(()));
    let seen = seen.lock().expect("a lock").clone();
    let lines: Vec<_> = seen.iter().map(|asked| asked.line.as_str()).collect();
    assert_eq!(lines, ["PUT /prefix/a/b", "DELETE /prefix/a/b"], "the path does not");
    for asked in seen {
        assert_eq!(asked.header("host"), Some(format!("127.0.0.1:{port}")));
        let signed = asked.header("authorization").expect("signed");
        assert!(signed.contains("SignedHeaders=") && signed.contains("host"), "{signed}");
    }
}

pub fn a_read_that_hangs_is_asked_twice_once_there_is_credit<R: Requests>(make: Make<R>) {
    let patient = Limits { attempt: Duration::from_secs(20), total: Duration::from_secs(60), ..limits() };
    let bench =
        bench_with(make, patient, "", |_, n| (n != 20).then_some((206, "content-range: bytes 2-5/10\r\n", "2345")));
    let read = || bench.runtime.block_on(bench.store.get_range(&key(), 2..6));
    let began = std::time::Instant::now();
    for _ in 0..21 {
        assert_eq!(read().as_deref(), Ok(&b"2345"[..]));
    }
    assert_eq!(bench.lines().len(), 22, "one hung, and another was sent beside it");
    assert!(began.elapsed() < Duration::from_secs(20), "the attempt was waited for");
}

pub fn stale_uploads_of_the_prefix_are_aborted_and_no_others<R: Requests>(make: Make<R>) {
    const FIRST: &str = "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker>\
        <NextUploadIdMarker>m</NextUploadIdMarker>\
        <Upload><Key>prefix/data/9e/0000000000000001-n7-e3</Key><UploadId>old</UploadId>\
        <Initiated>2020-01-01T00:00:00.000Z</Initiated></Upload>\
        <Upload><Key>prefix/data/film.mp4</Key><UploadId>foreign</UploadId>\
        <Initiated>2020-01-01T00:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>";
    const LAST: &str = "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>\
        <Upload><Key>prefix/data/9e/0000000000000001-n7-e3</Key><UploadId>young</UploadId>\
        <Initiated>2029-12-31T12:00:00.000Z</Initiated></Upload>\
        <Upload><Key>prefix/data/9e/0000000000000001-n6-e9</Key><UploadId>before</UploadId>\
        <Initiated>2029-12-31T12:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>";
    let bench = bench(make, |line, _| {
        Some(match line {
            l if l.starts_with("DELETE") => (204, "", ""),
            l if l.contains("key-marker=k") => (200, "", LAST),
            l if l.contains("prefix=prefix%2Fdata%2F") => (200, "", FIRST),
            _ => (200, "", "<ListMultipartUploadsResult></ListMultipartUploadsResult>"),
        })
    });
    assert_eq!(bench.runtime.block_on(stale::clear(bench.store.inner(), NOW_S)), Ok(1));
    let aborted: Vec<String> = bench.lines().into_iter().filter(|line| line.starts_with("DELETE")).collect();
    assert_eq!(aborted, ["DELETE /bucket/prefix/data/9e/0000000000000001-n7-e3?uploadId=old"]);
    bench.store.writes_as(NodeId(6), 10);
    assert_eq!(bench.runtime.block_on(stale::clear(bench.store.inner(), NOW_S)), Ok(2));
    let before = "DELETE /bucket/prefix/data/9e/0000000000000001-n6-e9?uploadId=before";
    assert!(bench.lines().iter().any(|line| line == before), "begun before this broker's start");
    let listed: Vec<String> = bench.lines().into_iter().filter(|line| line.starts_with("GET")).collect();
    assert!(
        listed
            .iter()
            .all(|line| line.contains("prefix=prefix%2Fdata%2F") || line.contains("prefix=prefix%2Fmetadata%2F"))
    );
}

pub fn foreign_keys_in_a_listing_are_left_out<R: Requests>(make: Make<R>) {
    const PAGE: &str = "<ListBucketResult><IsTruncated>false</IsTruncated>\
        <Contents><Key>prefix/a</Key><Size>7</Size></Contents><Contents><Key>prefix/a//b</Key><Size>1</Size></Contents>\
        <Contents><Key>prefix/x y</Key><Size>1</Size></Contents><Contents><Key>prefix/z</Key><Size>0</Size></Contents>\
        </ListBucketResult>";
    let bench = bench(make, |_, _| Some((200, "", PAGE)));
    let listed = bench.runtime.block_on(bench.store.list("", Some(&key()), 9)).expect("a listing");
    let listed: Vec<(&str, u64)> = listed.iter().map(|meta| (meta.key.as_str(), meta.size_bytes)).collect();
    assert_eq!(listed, [("a", 7), ("z", 0)]);
    let line = bench.lines().pop().expect("asked");
    for part in ["list-type=2", "prefix=prefix%2F", "start-after=prefix%2Fa%2Fb", "max-keys=9"] {
        assert!(line.contains(part), "{line}");
    }
}

pub fn a_conditional_upload_is_completed_on_its_condition<R: Requests>(make: Make<R>) {
    let bench = bench(make, |line, n| if n == 0 { Some((404, "", "")) } else { uploads(line, n) });
    assert_eq!(bench.put(1500, PutCondition::IfAbsent), Ok(()));
    let seen = bench.seen.lock().expect("a lock").clone();
    let [head, create, first, second, complete] = &seen[..] else { panic!("{seen:?}") };
    assert!(head.line.starts_with("HEAD"), "{head:?}");
    assert_eq!(complete.header("if-none-match").as_deref(), Some("*"));
    assert!([create, first, second].iter().all(|asked| asked.header("if-none-match").is_none()), "{seen:?}");
    // Parts go at once, in any order.
    let (first, second) = if first.line.contains("partNumber=1") { (first, second) } else { (second, first) };
    for (asked, number) in [(first, 1), (second, 2)] {
        assert!(
            asked.line.contains(&format!("partNumber={number}")) && asked.line.contains("uploadId=u7"),
            "{asked:?}"
        );
    }
    assert!(complete.body.contains("<PartNumber>1</PartNumber>"), "{complete:?}");
}
