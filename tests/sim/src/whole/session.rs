//! A reader with a fetch session (KIP-227): it names some partitions once, and then only what has changed.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use futures_lite::future::or;
use kafka_protocol::messages::{
    FetchRequest,
    fetch_request::{FetchPartition, FetchTopic, ForgottenTopic},
};
use thalweg_record::{Offset, PartitionId, TopicId};
use thalweg_shards::runtime::seeded::Stream;
use uuid::Uuid;

use super::{
    client::Client,
    reader::{EARLIEST, FETCH, Got, Reader, SLACK, WAIT},
    scene::{Life, Scene},
};

/// The session is not there any more, or somewhere else.
const NO_SESSION: [i16; 2] = [70, 71];
/// Partitions of a session at most.
const MOST: u64 = 5;

/// One connection that reads in sessions.
pub(crate) struct SessionReader(Reader);

/// One session.
struct Session {
    id: i32,
    epoch: i32,
    at: BTreeMap<PartitionId, Offset>,
    /// What the next request names, ...
    changed: Vec<PartitionId>,
    /// ... and what it takes out.
    forgotten: Vec<PartitionId>,
}

impl SessionReader {
    /// Starts one.
    pub(crate) fn start(scene: &Rc<Scene>, random: Stream) {
        let reader = SessionReader(Reader(Client::new(scene, "session", random)));
        scene.begin(|scene| &scene.working, "session", Box::pin(reader.run()));
    }

    async fn run(mut self) {
        while !self.0.0.scene.stop.get() {
            let mut at = BTreeMap::new();
            let live = self.0.0.scene.partitions(Life::Live);
            for _ in 0..1 + self.0.0.random.below(MOST) {
                let Some(partition) = live.get(self.0.0.random.below(live.len().max(1) as u64) as usize) else { break };
                at.insert(*partition, self.0.0.scene.model.borrow().start(*partition));
            }
            if at.is_empty() {
                self.0.0.pause_ms(200).await;
                continue;
            }
            let changed = at.keys().copied().collect();
            let mut session = Session { id: 0, epoch: 0, at, changed, forgotten: Vec::new() };
            for _ in 0..3 + self.0.0.random.below(20) {
                if self.0.0.scene.stop.get() || !self.fetch(&mut session).await {
                    break;
                }
                self.0.0.pause_ms(60).await;
            }
        }
    }

    /// One fetch. `false`: the session is at its end.
    async fn fetch(&mut self, session: &mut Session) -> bool {
        let Reader(client) = &mut self.0;
        let scene = client.scene.clone();
        let request = session.request(1_000 + client.random.below(20_000) as i32);
        let known: BTreeMap<PartitionId, _> = session
            .at
            .keys()
            .map(|p| (*p, (scene.model.borrow().start(*p), scene.floor(*p), scene.life(p.topic))))
            .collect();
        let calm = scene.calm.get();
        if !client.send(FETCH, &request).await {
            return false;
        }
        let mut due = None;
        let answer = {
            let at = &session.at;
            let sample = async {
                scene.pause(WAIT.saturating_sub(SLACK)).await;
                due = at.iter().find(|(p, offset)| scene.life(p.topic) == Life::Live && scene.floor(**p) > **offset);
                std::future::pending().await
            };
            or(client.receive::<FetchRequest>(FETCH, WAIT + Duration::from_secs(10)), sample).await
        };
        let due = due.map(|(partition, offset)| (*partition, *offset));
        let Some(answer) = answer else { return false };
        match answer.error_code {
            0 => {}
            code if NO_SESSION.contains(&code) && session.id != 0 => return false,
            code => {
                scene.model.borrow_mut().broken(format!("a fetch within a session was answered by {code}"));
                return false;
            }
        }
        if session.id != 0 {
            scene.sessions.set(scene.sessions.get() + 1);
        }
        (session.id, session.epoch) = (answer.session_id, session.epoch + 1);
        session.changed.clear();
        session.forgotten.clear();
        let mut some = false;
        for topic in answer.responses {
            for part in topic.partitions {
                let partition =
                    PartitionId { topic: TopicId(topic.topic_id.into_bytes()), index: part.partition_index };
                let (Some(offset), Some(known)) = (session.at.get(&partition).copied(), known.get(&partition)) else {
                    scene.model.borrow_mut().broken(format!("{partition} is not of this session"));
                    return false;
                };
                some |= part.error_code != 0 || part.records.as_ref().is_some_and(|records| !records.is_empty());
                let (start, floor, life) = *known;
                let got = self.0.judge_part(partition, offset, (start, floor, life, None, calm), part);
                self.follow(session, partition, offset, got).await;
            }
        }
        if let Some((partition, offset)) = due.filter(|_| calm && !some) {
            let why = format!("{partition}: nobody woke the session at {offset}, though there is more");
            scene.model.borrow_mut().broken(why);
        }
        session.id != 0 && !session.at.is_empty()
    }

    async fn follow(&mut self, session: &mut Session, partition: PartitionId, offset: Offset, got: Got) {
        match got {
            Got::Next(next) if next != offset => {
                session.at.insert(partition, next);
                session.changed.push(partition);
            }
            Got::Next(_) | Got::Again => {}
            Got::Expired(_) => {
                // On this connection the session's answers come in order.
                if self.0.look_up(partition, EARLIEST).await {
                    let start = self.0.0.scene.model.borrow().start(partition);
                    session.at.insert(partition, start);
                    session.changed.push(partition);
                }
            }
            Got::Gone => {
                session.at.remove(&partition);
                session.forgotten.push(partition);
            }
        }
    }
}

impl Session {
    fn request(&self, max: i32) -> FetchRequest {
        let part = |p: &PartitionId| {
            let part = FetchPartition::default()
                .with_partition(p.index)
                .with_current_leader_epoch(-1)
                .with_fetch_offset(self.at[p].0)
                .with_partition_max_bytes(max);
            FetchTopic::default().with_topic_id(Uuid::from_bytes(p.topic.0)).with_partitions(vec![part])
        };
        let gone = |p: &PartitionId| {
            ForgottenTopic::default().with_topic_id(Uuid::from_bytes(p.topic.0)).with_partitions(vec![p.index])
        };
        FetchRequest::default()
            .with_max_wait_ms(WAIT.as_millis() as i32)
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_session_id(self.id)
            .with_session_epoch(self.epoch)
            .with_topics(self.changed.iter().map(part).collect())
            .with_forgotten_topics_data(self.forgotten.iter().map(gone).collect())
    }
}
