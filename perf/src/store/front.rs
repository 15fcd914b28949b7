//! The front of the object store: each answer begins late, and ranges of objects are sent straight from the file.
//!
//! Plain threads, two for each connection. The server behind reads files by 4 KiB with a change of threads for each, which
//! on a machine of few cores would be measured in place of the broker; so a GET of a range of an object that is there is answered here (its
//! signature is not looked at), with sendfile. Everything else goes to the server byte for byte.
//!
//! HTTP/1.1 without pipelining takes turns on a connection, so the answers need not be understood to tell where one begins.

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::be_polite;

const PIECE_BYTES: usize = 256 << 10;
/// A longer head is none.
const LONGEST_HEAD_BYTES: usize = 64 << 10;
const MOST_HEADERS: usize = 64;

/// A listening front. Dropped, it takes no more connections; those there are end with their peers.
#[derive(Debug)]
pub(super) struct Front {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

/// What every connection needs to know.
#[derive(Debug)]
struct Place {
    server: SocketAddr,
    /// Below it lie buckets, and objects by their keys.
    root: PathBuf,
    first_byte: Duration,
}

impl Front {
    pub(super) fn start(server: SocketAddr, root: PathBuf, first_byte: Duration) -> io::Result<Front> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let front = Front { address: listener.local_addr()?, stopped: Arc::default() };
        let (stopped, place) = (front.stopped.clone(), Arc::new(Place { server, root, first_byte }));
        thread::spawn(move || {
            be_polite();
            for client in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let place = place.clone();
                if let Ok(client) = client {
                    // A broken connection is the client's to notice.
                    thread::spawn(move || drop(serve(client, &place)));
                }
            }
        });
        Ok(front)
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _woken = TcpStream::connect(self.address);
    }
}

/// A request's head.
#[derive(Debug, PartialEq)]
struct Head {
    bytes: usize,
    /// The object and the range of it, when that is all that is asked.
    range: Option<(String, u64, u64)>,
    body: Body,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Body {
    Bytes(u64),
    /// Chunks: nothing behind it is looked at any more.
    Unknown,
}

/// The head that `buffer` begins with; `None` when there is more to come.
fn head(buffer: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let bytes = match request.parse(buffer).map_err(|e| io::Error::new(ErrorKind::InvalidData, e))? {
        httparse::Status::Complete(bytes) => bytes,
        httparse::Status::Partial if buffer.len() < LONGEST_HEAD_BYTES => return Ok(None),
        httparse::Status::Partial => return Err(ErrorKind::InvalidData.into()),
    };
    let header = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
    };
    let body = match (header("transfer-encoding"), header("content-length")) {
        (Some(_), _) => Body::Unknown,
        (None, length) => Body::Bytes(length.and_then(|length| length.parse().ok()).unwrap_or(0)),
    };
    let range = match (request.method, request.path, header("range").and_then(first_and_last)) {
        (Some("GET"), Some(path), Some((first, last))) if is_plain(path) => Some((path.to_owned(), first, last)),
        _ => None,
    };
    Ok(Some(Head { bytes, range, body }))
}

/// Of `bytes=FIRST-LAST`.
fn first_and_last(range: &str) -> Option<(u64, u64)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?)).filter(|(first, last)| first <= last)
}

/// Whether a path names an object and nothing else, in characters that stand for themselves.
fn is_plain(path: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
    path.chars().all(plain) && path.split('/').all(|part| part != "..")
}

/// One connection to the server behind, and the thread that brings its answers.
struct Behind {
    server: TcpStream,
    answers: JoinHandle<()>,
}

/// When the request under way was sent; none when its answer has begun.
type Asked = Arc<Mutex<Option<Instant>>>;

fn serve(mut client: TcpStream, place: &Arc<Place>) -> io::Result<()> {
    be_polite();
    client.set_nodelay(true)?;
    let (mut buffer, mut behind, asked) = (Vec::new(), None, Asked::default());
    loop {
        let head = loop {
            match head(&buffer)? {
                Some(head) => break head,
                None if more(&mut client, &mut buffer)? => {}
                None => {
                    // The client has gone, and so does the thread of its answers.
                    behind.iter().for_each(|behind: &Behind| drop(behind.server.shutdown(Shutdown::Both)));
                    return Ok(());
                }
            }
        };
        if let Some((file, first, last, size)) = head.range.as_ref().and_then(|range| place.object(range)) {
            buffer.drain(..head.bytes);
            thread::sleep(place.first_byte);
            send(&mut client, &file, first, last, size)?;
            continue;
        }
        if behind.as_ref().is_none_or(|behind| behind.answers.is_finished()) {
            behind = Some(place.connect(&client, &asked)?);
        }
        let server = &mut behind.as_mut().expect("connected a line above").server;
        forward(&mut client, server, &mut buffer, &head, &asked)?;
    }
}

impl Place {
    /// The object's file, the range of it and its size; none when it is not there, which the server says better.
    fn object(&self, (path, first, last): &(String, u64, u64)) -> Option<(File, u64, u64, u64)> {
        let file = File::open(self.root.join(path.trim_start_matches('/'))).ok()?;
        let about = file.metadata().ok().filter(|about| about.is_file() && *first < about.len())?;
        Some((file, *first, (*last).min(about.len() - 1), about.len()))
    }

    fn connect(self: &Arc<Self>, client: &TcpStream, asked: &Asked) -> io::Result<Behind> {
        let server = TcpStream::connect(self.server)?;
        server.set_nodelay(true)?;
        let (place, asked, from, to) = (self.clone(), asked.clone(), server.try_clone()?, client.try_clone()?);
        let answers = thread::spawn(move || {
            be_polite();
            // Whatever ends it ends the client's connection, which then asks anew.
            drop(place.bring(from, &to, &asked));
            drop(to.shutdown(Shutdown::Both));
        });
        Ok(Behind { server, answers })
    }

    /// Hands on answers; each begins [`Place::first_byte`] after its request's end.
    fn bring(&self, mut from: TcpStream, mut to: &TcpStream, asked: &Asked) -> io::Result<()> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let bytes = from.read(&mut piece)?;
            if bytes == 0 {
                return Ok(());
            }
            let asked = asked.lock().expect("no panic while held").take();
            if let Some(asked) = asked {
                thread::sleep((asked + self.first_byte).saturating_duration_since(Instant::now()));
            }
            to.write_all(&piece[..bytes])?;
        }
    }
}

/// Reads more into the buffer; false at the end.
fn more(client: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let mut piece = [0; 16 << 10];
    let bytes = client.read(&mut piece)?;
    buffer.extend_from_slice(&piece[..bytes]);
    Ok(bytes > 0)
}

/// The answer to a GET of a range.
fn send(client: &mut TcpStream, file: &File, first: u64, last: u64, size: u64) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n\
         Content-Range: bytes {first}-{last}/{size}\r\nAccept-Ranges: bytes\r\nETag: \"stand-in\"\r\n\
         Last-Modified: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n",
        last - first + 1,
    );
    client.write_all(head.as_bytes())?;
    let mut at = first;
    while at <= last {
        let left = usize::try_from(last + 1 - at).unwrap_or(usize::MAX);
        if rustix::fs::sendfile(&*client, file, Some(&mut at), left)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// Sends a request on: what of it is in the buffer, and the rest as it comes.
fn forward(
    client: &mut TcpStream,
    server: &mut TcpStream,
    buffer: &mut Vec<u8>,
    head: &Head,
    asked: &Asked,
) -> io::Result<()> {
    let mut left = match head.body {
        Body::Bytes(bytes) => (head.bytes as u64).saturating_add(bytes),
        Body::Unknown => u64::MAX,
    };
    let mut piece = vec![0; PIECE_BYTES];
    while left > 0 {
        let bytes = if buffer.is_empty() {
            let most = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            client.read(&mut piece[..most])?
        } else {
            let bytes = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES).min(buffer.len());
            piece[..bytes].copy_from_slice(&buffer[..bytes]);
            buffer.drain(..bytes);
            bytes
        };
        if bytes == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        // Before it is sent: the answer may be here at once.
        *asked.lock().expect("no panic while held") = Some(Instant::now());
        server.write_all(&piece[..bytes])?;
        left -= bytes as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const DELAY: Duration = Duration::from_millis(60);

    /// A server that answers every request of a connection with its own body, in capitals.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.expect("a client");
                thread::spawn(move || {
                    let mut buffer = Vec::new();
                    loop {
                        while head(&buffer).expect("a head").is_none() {
                            if !more(&mut client, &mut buffer).expect("readable") {
                                return;
                            }
                        }
                        let asked = head(&buffer).expect("a head").expect("whole");
                        let Body::Bytes(body) = asked.body else { panic!("no length") };
                        while buffer.len() < asked.bytes + body as usize {
                            assert!(more(&mut client, &mut buffer).expect("readable"));
                        }
                        let said = buffer[asked.bytes..].to_ascii_uppercase();
                        buffer.clear();
                        write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", said.len()).expect("sent");
                        client.write_all(&said).expect("sent");
                    }
                });
            }
        });
        address
    }

    /// Asks, and says what came and how long its first byte took.
    fn ask(client: &mut TcpStream, request: &[u8]) -> (Vec<u8>, Duration) {
        client.write_all(request).expect("sent");
        let began = Instant::now();
        let mut answer = vec![0; 1 << 16];
        let mut bytes = client.read(&mut answer).expect("an answer");
        let took = began.elapsed();
        let whole = |answer: &[u8]| {
            let text = String::from_utf8_lossy(answer).into_owned();
            let (head, body) = text.split_once("\r\n\r\n")?;
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "))?;
            (body.len() >= length.parse().ok()?).then_some(())
        };
        while whole(&answer[..bytes]).is_none() {
            let read = client.read(&mut answer[bytes..]).expect("more of it");
            assert!(read > 0, "cut: {}", String::from_utf8_lossy(&answer[..bytes]));
            bytes += read;
        }
        answer.truncate(bytes);
        (answer, took)
    }

    #[test]
    fn answers_begin_late_wherever_they_come_from() {
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir(root.path().join("bucket")).expect("created");
        fs::write(root.path().join("bucket/an-object"), b"0123456789").expect("written");
        let front = Front::start(echo(), root.path().to_owned(), DELAY).expect("starts");
        let mut client = TcpStream::connect(front.address).expect("connects");
        for round in 0..2 {
            let (answer, took) = ask(&mut client, b"PUT /bucket/x HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody");
            assert!(answer.ends_with(b"BODY") && took >= DELAY, "round {round}: {took:?}");
            let (answer, took) = ask(&mut client, b"GET /bucket/an-object HTTP/1.1\r\nrange: bytes=2-5\r\n\r\n");
            let text = String::from_utf8_lossy(&answer).into_owned();
            assert!(text.starts_with("HTTP/1.1 206") && text.contains("Content-Range: bytes 2-5/10\r\n"), "{text}");
            assert!(text.ends_with("\r\n\r\n2345") && took >= DELAY, "round {round}: {took:?}: {text}");
        }
        // What is not there, or asked for in another way, is the server's.
        for other in ["GET /bucket/none HTTP/1.1\r\nRange: bytes=0-1", "GET /bucket/an-object HTTP/1.1\r\nHost: x"] {
            let (answer, _) = ask(&mut client, format!("{other}\r\n\r\n").as_bytes());
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{other}");
        }
    }

    #[test]
    fn a_head_is_known_when_it_is_whole() {
        let whole = b"GET /b/k HTTP/1.1\r\nRange: bytes=0-9\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(head(&whole[..whole.len() - 5]).expect("no fault"), None);
        let found = head(whole).expect("no fault").expect("whole");
        assert_eq!(found, Head { bytes: whole.len() - 3, range: Some(("/b/k".into(), 0, 9)), body: Body::Bytes(3) });
        assert!(
            head(b"GET /b/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
                .expect("no fault")
                .is_some_and(|h| h.body == Body::Unknown)
        );
        assert!(head(&[b'x'; LONGEST_HEAD_BYTES]).is_err(), "no method is that long");
    }

    #[test]
    fn only_plain_paths_are_files() {
        assert!(is_plain("/bucket/perf/data/00-1_x.obj"));
        for other in ["/bucket/../../etc/passwd", "/bucket/a%20b", "/bucket/?list-type=2", "/b/k?x-id=GetObject"] {
            assert!(!is_plain(other), "{other}");
        }
        assert_eq!(first_and_last("bytes=5-"), None);
        assert_eq!(first_and_last("bytes=7-5"), None);
    }
}
