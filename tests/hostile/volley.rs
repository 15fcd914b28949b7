//! Many bad requests at once: each on a connection of its own, with a good request behind it.
//!
//! The broker may answer both, or close that connection. What it may not: answer what has to be refused, answer the good
//! request in a wrong way, or let a request that was parked hold the others up.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use kafka_protocol::{
    messages::{ApiVersionsRequest, ApiVersionsResponse},
    protocol::Decodable,
};
use thalweg_rig::{Client, encoded, frame, frame_of};

/// Connections under way at once.
const WINDOW: usize = 64;
/// A request that is not answered after this long is parked (a long poll, a join): it is left, and its connection closed.
const PARKED_AFTER: Duration = Duration::from_millis(300);
/// Correlation ids of the bad and of the good request.
const BAD: i32 = 1;
const GOOD: i32 = 2;

/// What came of the requests of a volley.
#[derive(Clone, Copy, Default, Debug)]
pub struct Outcomes {
    pub answered: usize,
    pub closed: usize,
    pub parked: usize,
}

impl Outcomes {
    pub fn all(&self) -> usize {
        self.answered + self.closed + self.parked
    }
}

/// One shot.
pub struct Shot {
    pub key: i16,
    pub version: i16,
    pub what: String,
    pub body: Vec<u8>,
    pub must_close: bool,
    /// Its client id, when it matters.
    pub client: Option<String>,
}

/// A volley under way.
pub struct Volley {
    broker: SocketAddr,
    under_way: VecDeque<(Client, Shot, Instant)>,
    pub outcomes: Outcomes,
}

impl Volley {
    pub fn new(broker: SocketAddr) -> Volley {
        Volley { broker, under_way: VecDeque::new(), outcomes: Outcomes::default() }
    }

    /// Sends one shot; waits for the oldest when many are under way.
    pub fn fire(&mut self, shot: Shot) {
        let mut client = Client::connect(self.broker).expect("the broker takes connections");
        let client_id = shot.client.as_deref().unwrap_or("bad");
        let mut bytes = frame_of(client_id, shot.key, shot.version, BAD, &shot.body);
        bytes.extend(frame(18, 0, GOOD, &encoded(&ApiVersionsRequest::default(), 0)));
        // It may be closed while we still write.
        let _closed_early = client.write(&bytes);
        self.under_way.push_back((client, shot, Instant::now()));
        if self.under_way.len() >= WINDOW {
            self.take_oldest();
        }
    }

    /// Waits for all that is under way.
    pub fn finish(mut self) -> Outcomes {
        while !self.under_way.is_empty() {
            self.take_oldest();
        }
        self.outcomes
    }

    fn take_oldest(&mut self) {
        let Some((mut client, shot, since)) = self.under_way.pop_front() else { return };
        client.patience(PARKED_AFTER.saturating_sub(since.elapsed()).max(Duration::from_millis(1)));
        let Shot { key, version, what, must_close, .. } = &shot;
        match outcome(&mut client) {
            Ok(true) => {
                assert!(!must_close, "key {key} version {version}, {what}: was answered");
                self.outcomes.answered += 1;
            }
            Ok(false) => self.outcomes.closed += 1,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                self.outcomes.parked += 1;
            }
            Err(error) => panic!("key {key} version {version}, {what}: {error}"),
        }
    }
}

/// Whether the good request was answered; if not, the connection was closed.
fn outcome(client: &mut Client) -> io::Result<bool> {
    loop {
        let mut answer = match client.receive_frame() {
            Ok(answer) => answer,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
                ) =>
            {
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let correlation = i32::from_be_bytes(answer.split_to(4)[..].try_into().expect("four bytes"));
        match correlation {
            BAD => {}
            GOOD => {
                let versions = ApiVersionsResponse::decode(&mut answer, 0).expect("an answer");
                assert!(versions.error_code == 0 && !versions.api_keys.is_empty(), "a good request is answered well");
                return Ok(true);
            }
            other => panic!("an answer to a request that was never sent: {other}"),
        }
    }
}
