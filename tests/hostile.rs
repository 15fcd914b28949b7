//! Hostile input against the real binary: whatever a client sends, the process lives, its memory stays within what the
//! settings say and 256 MiB, a healthy client beside it is served, and what was held for the bad ones is given back.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests touch the machine")]

use std::{sync::Mutex, thread, time::Instant};

use kafka_protocol::messages::ApiKey;
use thalweg_rig::Chance;

#[path = "hostile/attacked.rs"]
mod attacked;
#[path = "hostile/batches.rs"]
mod batches;
#[path = "hostile/frames.rs"]
mod frames;
#[path = "hostile/large.rs"]
mod large;
#[path = "hostile/mutations.rs"]
mod mutations;
#[path = "hostile/requests.rs"]
mod requests;
#[path = "hostile/slow.rs"]
mod slow;
#[path = "hostile/volley.rs"]
mod volley;

use attacked::{Attacked, SEED};
use mutations::Mutation;
use volley::{Outcomes, Shot, Volley};

/// Threads that attack at once.
const ATTACKERS: usize = 4;

#[test]
fn every_key_and_version_cut_flipped_and_with_absurd_lengths() {
    let attacked = Attacked::start();
    let id = attacked.create(requests::TOPIC, requests::PARTITIONS, &[]);
    let offered = attacked.offered();
    assert!(offered.len() >= 42, "{} keys are offered", offered.len());
    let pulse = attacked.pulse();
    let address = attacked.broker.kafka[0];
    let attack = |(key, min, max): (i16, i16, i16)| {
        let began = Instant::now();
        let mut volley = Volley::new(address);
        for version in min..=max {
            let mut chance = Chance::new(SEED ^ (key as u64) << 32 ^ version as u64);
            let flexible = ApiKey::try_from(key).is_ok_and(|key| key.request_header_version(version) >= 2);
            for body in requests::samples(key, version, id, &mut chance) {
                for mutation in mutations::of(&body, flexible, &mut chance) {
                    let Mutation { what, body, must_close } = mutation;
                    volley.fire(Shot { key, version, what, body, must_close, client: None });
                }
                let (what, client) = ("a long client id".to_owned(), Some("c".repeat(i16::MAX as usize)));
                volley.fire(Shot { key, version, what, body: body.to_vec(), must_close: false, client });
            }
            for (what, body) in [("nothing", Vec::new()), ("noise", chance.bytes(300))] {
                volley.fire(Shot { key, version, what: what.to_owned(), body, must_close: false, client: None });
            }
        }
        let outcomes = volley.finish();
        println!("key {key:2}: {outcomes:?} in {:?}", began.elapsed());
        (key, outcomes)
    };
    let queue = Mutex::new(offered.into_iter());
    let next = || queue.lock().expect("nobody panics with the queue").next();
    let work = || std::iter::from_fn(next).map(attack).collect::<Vec<_>>();
    let outcomes: Vec<(i16, Outcomes)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..ATTACKERS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("an attack that came to its end")).collect()
    });
    for (key, outcomes) in &outcomes {
        assert!(outcomes.closed > 0, "key {key}: nothing was refused");
        assert!(outcomes.answered + outcomes.parked > 0, "key {key}: nothing came through, the samples are no good");
    }
    let all: usize = outcomes.iter().map(|(_, outcomes)| outcomes.all()).sum();
    attacked.check(pulse, &format!("{all} mutated requests"));
}
