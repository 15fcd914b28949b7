//! A reader: fetches from random offsets on, waits at the end for more, looks offsets up, asks for topics that are gone, and has
//! the model judge all it gets.

use std::{rc::Rc, time::Duration};

use futures_lite::future::or;
use kafka_protocol::messages::{
    FetchRequest, FetchResponse, ListOffsetsRequest,
    fetch_request::{FetchPartition, FetchTopic},
    fetch_response::PartitionData,
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    list_offsets_response::ListOffsetsPartitionResponse,
};
use thalweg_record::{Offset, PartitionId};
use thalweg_shards::runtime::seeded::Stream;
use uuid::Uuid;

use super::{
    client::{Client, text},
    scene::{Life, Scene},
};
use crate::keyed::Pass;

/// Of Fetch: topics by id.
pub(crate) const FETCH: i16 = 16;
/// Of ListOffsets.
const LIST_OFFSETS: i16 = 7;
/// How long a fetch may wait at the end of a partition, ...
pub(crate) const WAIT: Duration = Duration::from_secs(4);
/// ... and how long before that what it waits for must have been there.
pub(crate) const SLACK: Duration = Duration::from_millis(1_500);

const OUT_OF_RANGE: i16 = 1;
const UNKNOWN_TOPIC: [i16; 2] = [3, 100];
const STORAGE: i16 = 56;
/// Not the leader, storage.
const PASSING: [i16; 2] = [6, STORAGE];
pub(crate) const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

/// What came of a fetch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Got {
    /// Go on there.
    Next(Offset),
    /// The broker is down, or cannot read for now.
    Again,
    /// The offset is below the log start.
    Expired(Offset),
    /// The topic is gone.
    Gone,
}

/// One connection that reads.
pub(crate) struct Reader(pub(crate) Client);

impl Reader {
    /// Starts a reader of everything.
    pub(crate) fn start(scene: &Rc<Scene>, random: Stream) {
        let reader = Reader(Client::new(scene, "reader", random));
        scene.begin(|scene| &scene.working, "reader", Box::pin(reader.run()));
    }

    /// Starts one that goes through the whole log of a topic's first partition, again and again.
    pub(crate) fn audit(scene: &Rc<Scene>, topic: &'static str, random: Stream) {
        let mut reader = Reader(Client::new(scene, "auditor", random));
        let task = async move {
            let Some(topic) = reader.0.scene.topic(topic).await else { return };
            let partition = PartitionId { topic: topic.id, index: 0 };
            while !reader.0.scene.stop.get() {
                reader.read_all(partition).await;
                reader.0.pause_ms(200).await;
            }
        };
        scene.begin(|scene| &scene.working, "auditor", Box::pin(task));
    }

    async fn run(mut self) {
        while !self.0.scene.stop.get() {
            let gone = self.0.scene.partitions(Life::Gone);
            if !gone.is_empty() && self.0.random.one_in(10) {
                let at = self.0.random.below(gone.len() as u64) as usize;
                self.fetch(gone[at], Offset(0), 10_000, Duration::ZERO).await;
                continue;
            }
            let live = self.0.scene.partitions(Life::Live);
            if live.is_empty() {
                self.0.pause_ms(200).await;
                continue;
            }
            let partition = live[self.0.random.below(live.len() as u64) as usize];
            if self.0.random.one_in(5) {
                let at = if self.0.random.one_in(2) { EARLIEST } else { LATEST };
                self.look_up(partition, at).await;
            }
            if self.0.random.one_in(4) {
                self.look_up_time(partition).await;
            }
            self.follow(partition).await;
            // What is gone is told at once.
            self.0.pause_ms(20).await;
        }
    }

    /// Some fetches, one behind the other.
    async fn follow(&mut self, partition: PartitionId) {
        let (start, end) = {
            let model = self.0.scene.model.borrow();
            (model.start(partition).0, model.floor(partition).0)
        };
        let mut offset = Offset(start + self.0.random.below((end - start) as u64 + 1) as i64);
        for _ in 0..1 + self.0.random.below(10) {
            let max_bytes = self.0.random.below(20_000) as i32;
            match self.fetch(partition, offset, max_bytes, WAIT).await {
                Got::Next(next) => offset = next,
                Got::Expired(start) => offset = start,
                Got::Again => self.0.pause_ms(40).await,
                Got::Gone => return,
            }
            self.0.pause_ms(30).await;
        }
    }

    /// One fetch; the model judges it.
    pub(crate) async fn fetch(&mut self, partition: PartitionId, offset: Offset, max: i32, wait: Duration) -> Got {
        let floor = self.0.scene.floor(partition);
        let start = self.0.scene.model.borrow().start(partition);
        let life = self.0.scene.life(partition.topic);
        let part = FetchPartition::default()
            .with_partition(partition.index)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(offset.0)
            .with_partition_max_bytes(max);
        let topic =
            FetchTopic::default().with_topic_id(Uuid::from_bytes(partition.topic.0)).with_partitions(vec![part]);
        let request = FetchRequest::default()
            .with_max_wait_ms(wait.as_millis() as i32)
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        if !self.0.send(FETCH, &request).await {
            return Got::Again;
        }
        let calm = self.0.scene.calm.get();
        let mut due = None;
        let answer = {
            let scene = self.0.scene.clone();
            let sample = async {
                scene.pause(wait.saturating_sub(SLACK)).await;
                due = Some(scene.floor(partition));
                std::future::pending().await
            };
            or(self.0.receive::<FetchRequest>(FETCH, wait + Duration::from_secs(10)), sample).await
        };
        let Some(answer) = answer else { return Got::Again };
        let due = due.filter(|due| calm && *due > offset);
        match self.judge(partition, offset, (start, floor, life, due, calm), answer) {
            // The answer does not say where the log starts.
            Got::Expired(_) if self.look_up(partition, EARLIEST).await => self.expired(partition, offset, floor),
            Got::Expired(_) => Got::Again,
            other => other,
        }
    }

    fn expired(&self, partition: PartitionId, offset: Offset, floor: Offset) -> Got {
        let mut model = self.0.scene.model.borrow_mut();
        let start = model.start(partition);
        if offset >= start && offset <= floor {
            model.broken(format!("{partition}: {offset} is out of range, although the log is there from {start} on"));
        }
        Got::Expired(start)
    }

    fn judge(
        &mut self,
        partition: PartitionId,
        offset: Offset,
        (start, floor, life, due, calm): (Offset, Offset, Life, Option<Offset>, bool),
        mut answer: FetchResponse,
    ) -> Got {
        let part = match (answer.error_code, answer.responses.pop().and_then(|mut topic| topic.partitions.pop())) {
            (0, Some(part)) => part,
            (code, _) => {
                let why = format!("{partition}: a fetch at {offset} was answered by error {code} or nothing");
                self.0.scene.model.borrow_mut().broken(why);
                return Got::Again;
            }
        };
        self.judge_part(partition, offset, (start, floor, life, due, calm), part)
    }

    /// Judges what a fetch says of one partition, asked for at `offset` when the log start, the end and the topic's life were
    /// as given; `due` is an end that must have been seen.
    pub(crate) fn judge_part(
        &self,
        partition: PartitionId,
        offset: Offset,
        (start, floor, life, due, calm): (Offset, Offset, Life, Option<Offset>, bool),
        part: PartitionData,
    ) -> Got {
        let scene = &self.0.scene;
        let mut model = scene.model.borrow_mut();
        if UNKNOWN_TOPIC.contains(&part.error_code) {
            if life == Life::Live && scene.life(partition.topic) == Life::Live {
                model.broken(format!("{partition}: a fetch at {offset} finds no such topic"));
            }
            return Got::Gone;
        }
        if PASSING.contains(&part.error_code) {
            if calm {
                let code = part.error_code;
                model.broken(format!(
                    "{partition}: what lies at {offset} cannot be read ({code}), though nothing fails any more"
                ));
            }
            return Got::Again;
        }
        if life == Life::Gone {
            model.broken(format!("{partition}: a fetch at {offset} is answered after the topic was deleted"));
            return Got::Gone;
        }
        let (high_watermark, log_start) = (Offset(part.high_watermark), Offset(part.log_start_offset));
        match part.error_code {
            0 => {
                model.high_watermark(partition, high_watermark, floor);
                model.log_start(partition, log_start, start);
                let records = part.records.unwrap_or_default();
                if let Some(due) = due.filter(|_| records.is_empty()) {
                    model.broken(format!(
                        "{partition}: nobody woke the reader at {offset}, though the log goes to {due}"
                    ));
                }
                Got::Next(model.read(partition, offset, high_watermark, vec![records]))
            }
            OUT_OF_RANGE => Got::Expired(offset),
            code => {
                model.broken(format!("{partition}: a fetch at {offset} was refused: {code}"));
                Got::Again
            }
        }
    }

    /// Asks where the log starts and ends.
    pub(crate) async fn look_up(&mut self, partition: PartitionId, at: i64) -> bool {
        let (floor, start) = (self.0.scene.floor(partition), self.0.scene.model.borrow().start(partition));
        let Some(found) = self.list_offsets(partition, at).await else { return false };
        let mut model = self.0.scene.model.borrow_mut();
        match at {
            EARLIEST => model.log_start(partition, Offset(found.offset), start),
            _ => model.high_watermark(partition, Offset(found.offset), floor),
        }
        true
    }

    /// Asks for the first offset from a time on.
    async fn look_up_time(&mut self, partition: PartitionId) {
        let wanted = self.0.scene.model.borrow().some_time(partition, &mut self.0.random);
        let Some(at) = wanted else { return };
        let floor = self.0.scene.floor(partition);
        let Some(found) = self.list_offsets(partition, at).await else { return };
        self.0.scene.look_ups.set(self.0.scene.look_ups.get() + 1);
        self.0.scene.model.borrow_mut().by_time(partition, at, floor, (found.offset, found.timestamp));
    }

    async fn list_offsets(&mut self, partition: PartitionId, at: i64) -> Option<ListOffsetsPartitionResponse> {
        let part = ListOffsetsPartition::default()
            .with_partition_index(partition.index)
            .with_current_leader_epoch(-1)
            .with_timestamp(at);
        let name = self.0.scene.name(partition.topic);
        let topic = ListOffsetsTopic::default().with_name(text(&name).into()).with_partitions(vec![part]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
        let mut answer = self.0.ask(LIST_OFFSETS, &request, Duration::from_secs(10)).await?;
        let found = answer.topics.pop().and_then(|mut topic| topic.partitions.pop());
        // A name may be another topic's by now.
        let live = self.0.scene.life(partition.topic) == Life::Live;
        found.filter(|found| live && found.error_code == 0)
    }

    /// Reads a partition from its start to its end; where it began. A log that is cleaned is judged by its keys then.
    pub(crate) async fn read_all(&mut self, partition: PartitionId) -> Offset {
        let mut start = self.0.scene.model.borrow().start(partition);
        let (mut offset, end) = (start, self.0.scene.floor(partition));
        let keyed = self.0.scene.model.borrow().is_keyed(partition);
        let mut pass = Pass::new(self.0.scene.moment(), end.0);
        while offset < end {
            match self.fetch(partition, offset, 8_000, WAIT).await {
                Got::Next(next) => {
                    // Of the read that was just judged: nobody else comes between.
                    pass.see(self.0.scene.model.borrow_mut().take_found());
                    // A broker that has lost what lies there answers nothing at once, again and again: time must pass for it to be found out.
                    if next == offset {
                        self.0.pause_ms(20).await;
                    }
                    offset = next;
                }
                Got::Expired(to) => (start, offset) = (to, to),
                Got::Again => self.0.pause_ms(20).await,
                Got::Gone => return start,
            }
        }
        if keyed {
            self.0.scene.model.borrow_mut().passed(partition, &pass, self.0.scene.moment());
        }
        start
    }
}
