//! Stand-in servers on loopback for tests: one that answers what a test says, and an instance's metadata service.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use crate::surroundings::Surroundings;

/// A request that came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Method and path.
    pub line: String,
    head: String,
    pub body: String,
}

impl Asked {
    /// The value of a header, whose name is given in small letters.
    pub fn header(&self, name: &str) -> Option<String> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    /// Further lines of the head, each with its end.
    pub lines: String,
    pub body: String,
}

impl Reply {
    pub fn of(status: u16, body: impl Into<String>) -> Reply {
        Reply { status, lines: String::new(), body: body.into() }
    }
}

/// Serves `script`: from the request and how many came before, to the answer; `None` hangs. Keeps the requests.
pub fn serve(script: impl Fn(&Asked, usize) -> Option<Reply> + Send + 'static) -> (String, Arc<Mutex<Vec<Asked>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (log, script) = (seen.clone(), Arc::new(Mutex::new(script)));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (log, script) = (log.clone(), script.clone());
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream.expect("a connection"));
                let Some(asked) = read(&mut stream) else { return };
                let number = {
                    let mut log = log.lock().expect("a lock");
                    log.push(asked.clone());
                    log.len() - 1
                };
                let answer = (script.lock().expect("a lock"))(&asked, number);
                let Some(Reply { status, lines, body }) = answer else {
                    loop {
                        std::thread::park();
                    }
                };
                let length = body.len();
                let text =
                    format!("HTTP/1.1 {status} X\r\nconnection: close\r\n{lines}content-length: {length}\r\n\r\n");
                // Who asked may be gone: a hedge's loser is.
                let _gone = stream.get_mut().write_all(text.as_bytes());
                let _gone = stream.get_mut().write_all(body.as_bytes());
            });
        }
    });
    (format!("http://{address}"), seen)
}

/// A server whose first connection stalls after it has sent `before`, and whose second one is answered with `answer`.
pub fn stalls_once(before: &'static str, answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let (mut stalled, _) = listener.accept().expect("a connection");
        stalled.read_exact(&mut [0; 100]).expect("a request begins");
        stalled.write_all(before.as_bytes()).expect("somebody listens");
        let (stream, _) = listener.accept().expect("another connection");
        let mut stream = BufReader::new(stream);
        read(&mut stream).expect("a request");
        stream.get_mut().write_all(answer.as_bytes()).expect("somebody listens");
        drop(stalled);
    });
    format!("http://{address}")
}

fn read(stream: &mut impl BufRead) -> Option<Asked> {
    let (mut head, mut length) = (String::new(), 0);
    while stream.read_line(&mut head).is_ok_and(|n| n > 2) {
        let line = head.lines().last().unwrap_or_default().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    let line = head.lines().next()?.replace(" HTTP/1.1", "");
    Some(Asked { line, head, body: String::from_utf8_lossy(&body).into_owned() })
}

/// 2030-01-01, when tests take place.
pub const NOW_S: i64 = 1_893_456_000;

/// A time of that day, as services write it.
pub fn time_text(at_s: i64) -> String {
    let of_day = at_s - NOW_S;
    assert!((0..86_400).contains(&of_day), "tests take one day");
    format!("2030-01-01T{:02}:{:02}:{:02}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// A clock that tests set.
#[derive(Clone)]
pub struct Hand(Arc<AtomicI64>);

impl Hand {
    pub(crate) fn new() -> Hand {
        Hand(Arc::new(AtomicI64::new(NOW_S)))
    }

    pub fn set(&self, after_s: i64) {
        self.0.store(NOW_S + after_s, Ordering::SeqCst);
    }

    pub fn now_s(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Variables and a clock of a test.
pub(crate) fn surroundings(variables: Vec<(&'static str, String)>, hand: &Hand) -> Surroundings {
    let hand = hand.clone();
    Surroundings::made_up(
        move |asked| variables.iter().find(|(name, _)| *name == asked).map(|(_, value)| value.clone()),
        move || SystemTime::UNIX_EPOCH + Duration::from_secs(hand.now_s().unsigned_abs()),
    )
}

/// An instance's metadata service that gives a role's credentials for an hour, version 2 only, as documented: a token
/// by PUT with a lifetime, 401 for a question without one that it knows.
pub struct Instance {
    endpoint: String,
    pub seen: Arc<Mutex<Vec<Asked>>>,
    pub hand: Hand,
    /// Forgets the tokens that it gave.
    pub forgets: Arc<AtomicBool>,
    /// Answers 500.
    pub fails: Arc<AtomicBool>,
}

impl Instance {
    pub fn start() -> Instance {
        let (hand, forgets, fails) = (Hand::new(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (token, given) = (AtomicI64::new(0), AtomicI64::new(0));
        let (clock, lose, fail) = (hand.clone(), forgets.clone(), fails.clone());
        let (endpoint, seen) = serve(move |asked, _| {
            if lose.swap(false, Ordering::SeqCst) {
                token.fetch_add(1, Ordering::SeqCst);
            }
            if fail.load(Ordering::SeqCst) {
                return Some(Reply::of(500, "SECRET-in-a-failure"));
            }
            let known = format!("SECRET-token-{}", token.load(Ordering::SeqCst));
            if asked.line == "PUT /latest/api/token" {
                let lifetime = asked.header("x-aws-ec2-metadata-token-ttl-seconds").and_then(|t| t.parse::<u32>().ok());
                return Some(match lifetime {
                    Some(1..=21_600) => Reply::of(200, known),
                    _ => Reply::of(400, ""),
                });
            }
            if asked.header("x-aws-ec2-metadata-token") != Some(known) {
                return Some(Reply::of(401, ""));
            }
            Some(match asked.line.as_str() {
                "GET /latest/meta-data/placement/region" => Reply::of(200, "eu-north-1"),
                "GET /latest/meta-data/iam/security-credentials/" => Reply::of(200, "my-role\n"),
                "GET /latest/meta-data/iam/security-credentials/my-role" => {
                    let n = given.fetch_add(1, Ordering::SeqCst) + 1;
                    let end = time_text(clock.now_s() + 3600);
                    Reply::of(
                        200,
                        format!(
                            "{{\"Code\":\"Success\",\"Type\":\"AWS-HMAC\",\"AccessKeyId\":\"AKID{n}\",\
                             \"SecretAccessKey\":\"SECRET-key-{n}\",\"Token\":\"SECRET-session-{n}\",\
                             \"Expiration\":\"{end}\"}}"
                        ),
                    )
                }
                _ => Reply::of(404, ""),
            })
        });
        Instance { endpoint, seen, hand, forgets, fails }
    }

    /// Surroundings with nothing but this instance and further variables.
    pub(crate) fn surroundings(&self, mut further: Vec<(&'static str, String)>) -> Surroundings {
        further.push(("AWS_EC2_METADATA_SERVICE_ENDPOINT", self.endpoint.clone()));
        surroundings(further, &self.hand)
    }

    /// What was asked, in order.
    pub fn lines(&self) -> Vec<String> {
        self.seen.lock().expect("a lock").iter().map(|asked| asked.line.clone()).collect()
    }
}
