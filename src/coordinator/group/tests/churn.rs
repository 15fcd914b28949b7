//! Fifty members that come, go, rejoin and fall silent at random: within a generation no partition has two owners, and
//! nobody who is heard of is called unknown.

use std::collections::BTreeSet;

use thalweg_shards::runtime::seeded::Stream;

use super::bench::*;

const MEMBERS: usize = 50;
const PARTITIONS: u8 = 64;
const STEPS: usize = 4_000;

#[derive(Default)]
struct Client {
    id: Arc<str>,
    generation: i32,
    parked: Option<Ticket>,
    owns: BTreeSet<u8>,
    /// Whether it is in the group, or on its way in.
    active: bool,
    /// It has stopped beating, and may be called unknown.
    silent: bool,
    version: u8,
}

struct Churn {
    bench: Bench,
    clients: Vec<Client>,
    random: Stream,
    owners: BTreeMap<(i32, u8), Arc<str>>,
    full_generations: usize,
}

impl Churn {
    fn request(&self, at: usize) -> JoinRequest {
        let client = &self.clients[at];
        let mut request = join(&client.id, &format!("m{at}-{}", self.bench.asked));
        request.protocols[0].1 = subscription(&["t"; 2][..1 + usize::from(client.version % 2)]);
        request
    }

    fn join(&mut self, at: usize) {
        let request = self.request(at);
        let ticket = self.bench.send(GroupEvent::Join(request));
        self.clients[at].parked = Some(ticket);
        self.clients[at].active = true;
    }

    /// Takes the answer of whatever the client waits for, and does what a consumer does.
    fn settle(&mut self, at: usize) {
        while let Some(result) = self.clients[at].parked.and_then(|t| self.bench.answers.remove(&t)) {
            self.clients[at].parked = None;
            match result {
                Ok(GroupAnswer::Joined(joined)) => self.joined(at, *joined),
                Ok(GroupAnswer::Synced(synced)) => self.synced(at, &synced.assignment),
                Ok(_) => {}
                Err(why) => self.refused(at, why),
            }
        }
    }

    fn joined(&mut self, at: usize, joined: Joined) {
        let client = &mut self.clients[at];
        client.id = joined.member_id.clone();
        client.generation = joined.generation;
        client.silent = false;
        let count = joined.members.len().max(1);
        let part = |place: usize| (0..PARTITIONS).filter(|p| usize::from(*p) % count == place).collect::<Vec<u8>>();
        let assignments =
            joined.members.iter().enumerate().map(|(place, m)| (m.id.clone(), part(place).into())).collect();
        let request = SyncRequest {
            member: member(&client.id, client.generation),
            protocol_type: None,
            protocol: None,
            assignments,
        };
        client.parked = Some(self.bench.send(GroupEvent::Sync(request)));
    }

    fn synced(&mut self, at: usize, assignment: &[u8]) {
        let client = &mut self.clients[at];
        client.owns = assignment.iter().copied().collect();
        for partition in assignment {
            let owner = self.owners.entry((client.generation, *partition)).or_insert_with(|| client.id.clone());
            assert_eq!(*owner, client.id, "partition {partition} in generation {}", client.generation);
        }
        let owned = self.owners.range((client.generation, 0)..=(client.generation, PARTITIONS)).count();
        self.full_generations += usize::from(owned == usize::from(PARTITIONS));
    }

    fn refused(&mut self, at: usize, why: GroupError) {
        let client = &mut self.clients[at];
        match why {
            GroupError::MemberIdRequired(id) => client.id = id,
            GroupError::RebalanceInProgress | GroupError::IllegalGeneration => {}
            GroupError::UnknownMember => {
                assert!(client.silent, "{} was heard of all the time", client.id);
                client.id = "".into();
                client.silent = false;
            }
            other => panic!("{other:?}"),
        }
        self.join(at);
    }

    fn beat_all(&mut self) {
        for at in 0..MEMBERS {
            self.settle(at);
            let client = &self.clients[at];
            if !client.active || client.silent || client.parked.is_some() {
                continue;
            }
            let (id, generation) = (client.id.clone(), client.generation);
            if let Err(why) = self.bench.heartbeat(&id, generation) {
                self.refused(at, why);
                self.settle(at);
            }
        }
    }

    fn step(&mut self) {
        let at = self.random.below(MEMBERS as u64) as usize;
        self.settle(at);
        let client = &mut self.clients[at];
        match self.random.below(10) {
            _ if client.parked.is_some() => {}
            _ if !client.active => self.join(at),
            0 => {
                client.active = false;
                let id = std::mem::take(&mut client.id);
                let answer = self.bench.ask(leave(&id));
                let known = answer == Ok(GroupAnswer::Left(vec![Ok(())]));
                assert!(known || std::mem::take(&mut self.clients[at].silent), "{answer:?}");
                self.clients[at].silent = false;
            }
            1 => {
                client.version += 1;
                self.join(at);
            }
            2 if self.random.one_in(3) => client.silent = true,
            3 if client.silent => self.join(at),
            _ => {}
        }
        self.settle(at);
        let pause = self.random.below(SESSION_MS as u64 / 3);
        self.bench.pass(pause);
        self.beat_all();
    }
}

fn churn(seed: u64) -> Churn {
    let clients = (0..MEMBERS).map(|_| Client::default()).collect();
    let (random, owners) = (Stream::new(seed, 0), BTreeMap::new());
    let mut churn = Churn { bench: Bench::new(), clients, random, owners, full_generations: 0 };
    for step in 0..STEPS {
        churn.step();
        // Once in a while the process dies; every request under way is lost with it.
        if step % 1_000 == 999 {
            let bench = std::mem::replace(&mut churn.bench, Bench::new());
            let asked = bench.asked;
            churn.bench = bench.crash();
            churn.bench.asked = asked;
            // What was promised before the crash but not stored is gone: pending ids, unfinished generations.
            churn.owners.clear();
            for client in &mut churn.clients {
                client.silent |= client.parked.take().is_some() || client.active;
            }
        }
    }
    churn
}

#[test]
fn nobody_owns_what_another_owns_and_nobody_alive_is_unknown() {
    for seed in 0..3 {
        let churn = churn(seed);
        assert!(churn.full_generations > 100, "seed {seed}: {} generations", churn.full_generations);
    }
}
