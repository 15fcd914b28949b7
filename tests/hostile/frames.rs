//! What is no frame, or none that is served: each closes its own connection, at once, and no other.

use std::time::Duration;

use kafka_protocol::messages::ApiVersionsRequest;
use thalweg_rig::{Broker, Chance, Client, frame};

use crate::attacked::{Attacked, SEED};

/// A frame that must close its connection must do so within this time, which is shorter than the broker's patience with
/// frames that are merely slow (30 s).
const AT_ONCE: Duration = Duration::from_secs(25);

/// A frame around bytes that are to be a header and a body.
fn framed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as i32).to_be_bytes(), bytes].concat()
}

fn is_served(client: &mut Client) -> bool {
    client.ask(0, &ApiVersionsRequest::default()).is_ok_and(|answer| answer.error_code == 0)
}

fn must_close(broker: &Broker, what: &str, bytes: &[u8]) {
    let mut client = broker.connect();
    client.patience(AT_ONCE);
    let _closed_early = client.write(bytes);
    client.until_closed().unwrap_or_else(|error| panic!("{what}: was not closed: {error}"));
}

#[test]
fn what_is_no_frame_closes_its_own_connection() {
    let mut attacked = Attacked::start();
    let pulse = attacked.pulse();
    let broker = &attacked.broker;
    let mut siblings: Vec<Client> = (0..10).map(|_| broker.connect()).collect();
    for length in [0, 1, 7, -1, i32::MIN, i32::MAX, (8 << 20) + 1, 1 << 30] {
        must_close(broker, &format!("length {length}"), &[&i32::to_be_bytes(length)[..], &[0; 100]].concat());
    }
    for (key, version) in
        [(-1, 0), (i16::MIN, 0), (999, 3), (4, 0), (3, -1), (3, 99), (0, 2), (1, i16::MAX), (0, i16::MIN)]
    {
        must_close(broker, &format!("key {key} version {version}"), &frame(key, version, 1, &[0; 50]));
    }
    for (what, head) in [
        ("no client id", vec![0, 3, 0, 1, 0, 0, 0, 1]),
        ("half a length", vec![0, 3, 0, 1, 0, 0, 0, 1, 0]),
        ("a client id that is cut", vec![0, 3, 0, 1, 0, 0, 0, 1, 0x7f, 0xff, b'a']),
        ("a client id that is no text", vec![0, 3, 0, 1, 0, 0, 0, 1, 0, 2, 0xff, 0xfe]),
        ("tags without end", vec![0, 3, 0, 12, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        ("a tag of 4 GiB", vec![0, 3, 0, 12, 0, 0, 0, 1, 0, 0, 1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]),
    ] {
        must_close(broker, what, &framed(&head));
    }
    assert!(siblings.iter_mut().all(is_served), "a refused frame closes its own connection alone");
    noise(broker);
    churn(broker);
    assert!(siblings.iter_mut().all(is_served), "noise closes its own connection alone");
    drop(siblings);
    attacked.broker.check_alive("bad frames");
    attacked.check(pulse, "bad frames");
}

/// Bytes without any sense, and the bytes of other protocols.
fn noise(broker: &Broker) {
    let mut chance = Chance::new(SEED);
    for _ in 0..300 {
        let length = chance.below(20_000);
        let mut client = broker.connect();
        let _closed_early = client.write(&chance.bytes(length));
    }
    must_close(broker, "HTTP", b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n");
    must_close(broker, "TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    let valid_heads = |chance: &mut Chance| {
        let (key, version, length) = (chance.below(80) as i16, chance.below(14) as i16, chance.below(300));
        frame(key, version, 1, &chance.bytes(length))
    };
    for _ in 0..3000 {
        let mut client = broker.connect();
        let _closed_early = client.write(&valid_heads(&mut chance));
    }
}

/// Connections that come and go, half of them in the middle of a frame.
fn churn(broker: &Broker) {
    let half = frame(3, 1, 1, &[0xff; 4]);
    for n in 0..2000 {
        let mut client = broker.connect();
        if n % 2 == 0 {
            let _closed_early = client.write(&half[..half.len() / 2]);
        }
    }
}
