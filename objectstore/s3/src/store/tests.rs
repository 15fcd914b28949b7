//! The engine against a stub that answers what a test says: stumbling, hanging, lying.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
    time::Duration,
};

use rusoto_credential::StaticProvider;
use thalweg_objectstore::Backoff;

use super::*;

/// One answer of the stub: status, further head lines, body; `None` hangs.
type Answer = Option<(u16, &'static str, &'static str)>;
type Script = Box<dyn Fn(&str, usize) -> Answer + Send>;

/// Serves `script`: from the request line and how many came before, to the answer. Keeps the request lines and heads.
fn stub(script: Script) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (log, script) = (seen.clone(), Arc::new(Mutex::new(script)));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (log, script) = (log.clone(), script.clone());
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream.expect("a connection"));
                let (mut head, mut length) = (String::new(), 0);
                while stream.read_line(&mut head).is_ok_and(|n| n > 2) {
                    let line = head.lines().last().unwrap_or_default().to_ascii_lowercase();
                    if let Some(value) = line.strip_prefix("content-length:") {
                        length = value.trim().parse().expect("a length");
                    }
                }
                stream.read_exact(&mut vec![0; length]).expect("the body");
                let number = {
                    let mut log = log.lock().expect("a lock");
                    log.push(head.clone());
                    log.len() - 1
                };
                let answer = (script.lock().expect("a lock"))(head.lines().next().unwrap_or_default(), number);
                match answer {
                    None => std::thread::park(),
                    Some((status, lines, body)) => {
                        let text = format!(
                            "HTTP/1.1 {status} X\r\nconnection: close\r\n{lines}content-length: {}\r\n\r\n{body}",
                            body.len()
                        );
                        stream.get_mut().write_all(text.as_bytes()).expect("the answer");
                    }
                }
            });
        }
    });
    (format!("http://{address}"), seen)
}

struct Bench {
    store: S3Store,
    runtime: tokio::runtime::Runtime,
    seen: Arc<Mutex<Vec<String>>>,
}

fn bench(script: impl Fn(&str, usize) -> Answer + Send + 'static) -> Bench {
    let (endpoint, seen) = stub(Box::new(script));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let limits = Limits {
        attempt: Duration::from_millis(300),
        total: Duration::from_millis(1500),
        backoff: Backoff { base: Duration::from_millis(1), cap: Duration::from_millis(10) },
        part_bytes: 1000,
        ..Limits::default()
    };
    let url = S3Url::parse(&format!("s3://bucket/prefix?endpoint={endpoint}")).expect("a URL");
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
        seen.iter().map(|head| head.lines().next().unwrap_or_default().replace(" HTTP/1.1", "")).collect()
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
    assert!(seen[0].to_ascii_lowercase().contains("if-none-match: *"), "{}", seen[0]);
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
        assert!(bench.seen.lock().expect("a lock")[0].contains("range: bytes=2-5"));
    }
}

#[test]
fn a_server_that_is_not_there_is_a_passing_fault() {
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let url = S3Url::parse(&format!("s3://bucket?endpoint=http://{gone}")).expect("a URL");
    let credentials = StaticProvider::new_minimal("key".to_owned(), "secret".to_owned());
    let limits = Limits { total: Duration::from_millis(200), ..Limits::default() };
    let store = S3Store::new(url, credentials, runtime.handle(), limits);
    assert!(matches!(runtime.block_on(store.head(&key())), Err(StoreError::Retry(_))));
}
