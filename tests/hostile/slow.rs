//! Clients that stop in the middle, that send a byte now and then, and that hold what others wait for.

use std::{
    io::{ErrorKind, Read, Write},
    time::{Duration, Instant},
};

use kafka_protocol::messages::{ApiVersionsRequest, FetchRequest};
use thalweg_rig::{Client, encoded, frame, wait_for};

use crate::{
    attacked::{Attacked, REQUEST_BYTES},
    large::{fetch, fill, rounds_go_on},
};

/// Connections of each kind.
const MANY: usize = 300;
/// How long the slow ones are watched: much longer than the broker has patience with a frame (30 s).
const WATCHED: Duration = Duration::from_secs(120);

/// The first bytes of a frame that claims `length` bytes, and `sent` of them.
fn begun(length: usize, sent: usize) -> Vec<u8> {
    let mut bytes = (length as i32).to_be_bytes().to_vec();
    bytes.extend([0, 0, 0, 9, 0, 0, 0, 1, 0xff, 0xff].iter().copied().cycle().take(sent));
    bytes
}

fn has_ended(client: &mut Client) -> bool {
    let stream = client.stream();
    stream.set_nonblocking(true).expect("a socket");
    let ended = match stream.read(&mut [0; 16]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    };
    stream.set_nonblocking(false).expect("a socket");
    ended
}

/// Connections that each send the same and then nothing.
fn crowd(attacked: &Attacked, connections: usize, bytes: &[u8]) -> Vec<Client> {
    let one = |_| {
        let mut client = attacked.broker.connect();
        client.patience(Duration::from_millis(200));
        // The broker may stop reading it, or close it early.
        let _partly = client.write(bytes);
        client
    };
    (0..connections).map(one).collect()
}

#[test]
fn half_open_and_dripping_clients_are_closed_and_hold_nobody_up() {
    let mut attacked = Attacked::start();
    let pulse = attacked.pulse();
    let silent = crowd(&attacked, MANY, &[]);
    let mut broken_off = [
        ("half a length", crowd(&attacked, MANY, &[0, 0])),
        ("half a small frame", crowd(&attacked, MANY, &begun(1000, 500))),
        ("the beginning of a frame", crowd(&attacked, MANY, &begun(60_000, 10))),
        ("the beginning of a huge frame", crowd(&attacked, MANY, &begun(REQUEST_BYTES as usize, 10))),
    ];
    let whole = frame(18, 0, 1, &encoded(&ApiVersionsRequest::default(), 0));
    let behind = crowd(&attacked, MANY, &[&whole[..], &whole[..2]].concat());
    let mut dripping = crowd(&attacked, MANY, &begun(100_000, 0));
    let (drops, began, mut next) = (begun(100_000, 1000), Instant::now(), 4);
    let closed = wait_for(WATCHED, || {
        if began.elapsed().as_secs() as usize >= next - 4 {
            // A byte each second, to each.
            dripping.iter_mut().for_each(|client| _ = client.stream().write(&drops[next..=next]));
            next += 1;
        }
        let groups = broken_off.iter_mut().map(|(_, clients)| clients).chain([&mut dripping]);
        groups.flatten().all(has_ended)
    });
    for (what, clients) in &mut broken_off {
        let ended = clients.iter_mut().map(has_ended).filter(|ended| *ended).count();
        println!("{what}: {ended} of {MANY} were closed");
    }
    assert!(closed, "a frame that was begun is given up");
    attacked.broker.check_alive("slow clients");
    drop((silent, behind, broken_off, dripping));
    attacked.check(pulse, "slow clients");
}

#[test]
fn room_is_taken_from_those_who_stand_still() {
    let attacked = Attacked::start();
    attacked.create("large", 4, &[]);
    let pulse = attacked.pulse();
    let mut good = attacked.broker.connect();
    let timed = |what: &str, work: &mut dyn FnMut()| {
        let began = Instant::now();
        work();
        println!("{what}: {:?}", began.elapsed());
        let limit = attacked.on_this_machine(Duration::from_secs(20));
        assert!(began.elapsed() < limit, "{what} took {:?} of {limit:?}", began.elapsed());
    };
    timed("a large produce", &mut || fill(&mut good, 4, 1, 900_000));
    let claims = crowd(&attacked, 20, &begun(REQUEST_BYTES as usize, 70_000));
    timed("a large produce beside frames that claim all the room", &mut || fill(&mut good, 4, 1, 900_000));
    rounds_go_on(&attacked, &pulse, "claims");

    let one = frame(1, 11, 1, &encoded(&fetch(0..4, 4 << 20), 11));
    let deaf = crowd(&attacked, 40, &one.repeat(20));
    // What is read from the ring may come with a later answer.
    let mut fetched = || {
        while good.ask(11, &fetch(0..4, 4 << 20)).expect("an answer").responses[0]
            .partitions
            .iter()
            .all(|partition| partition.records.as_ref().is_none_or(|records| records.is_empty()))
        {}
    };
    timed("a large fetch beside answers nobody takes", &mut fetched);
    rounds_go_on(&attacked, &pulse, "deaf clients");

    // Long polls with long lists, and requests behind them that will not have their turn.
    let forever: FetchRequest = fetch((0..2000).map(|_| 0), 1000).with_max_wait_ms(i32::MAX).with_min_bytes(i32::MAX);
    let mut parked = frame(1, 11, 1, &encoded(&forever, 11));
    (0..20).for_each(|_| parked.extend(frame(3, 1, 1, &[0; 900])));
    let parked = crowd(&attacked, 200, &parked);
    rounds_go_on(&attacked, &pulse, "parked requests");
    drop((claims, deaf, parked, good));
    attacked.check(pulse, "clients that stand still");
}
