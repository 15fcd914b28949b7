//! Administrators: create topics, delete them and create them again under their names, delete records.

use std::{rc::Rc, time::Duration};

use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, MetadataRequest,
    create_topics_request::{CreatableTopic, CreatableTopicConfig},
    delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
    delete_topics_request::DeleteTopicState,
    metadata_request::MetadataRequestTopic,
};
use thalweg_record::{Offset, PartitionId, TopicId};
use thalweg_shards::runtime::seeded::Stream;
use uuid::Uuid;

use super::{
    client::{Client, text},
    producer::Producer,
    scene::{Life, Scene, Topic},
};
use crate::keyed::DELETE_RETENTION;

const EXISTS: i16 = 36;
const UNKNOWN_TOPIC: [i16; 2] = [3, 100];
const OUT_OF_RANGE: i16 = 1;
/// Retention of topics that are cut.
const RETENTION_BYTES: &str = "20000";
const PATIENCE: Duration = Duration::from_secs(10);

/// A topic to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) name: &'static str,
    pub(crate) partitions: i32,
    /// Retention and DeleteRecords cut it.
    pub(crate) cut: bool,
    /// Its log is cleaned.
    pub(crate) keyed: bool,
}

/// One administrator.
pub(crate) struct Admin(Client);

impl Admin {
    pub(crate) fn new(scene: &Rc<Scene>, random: Stream) -> Admin {
        Admin(Client::new(scene, "admin", random))
    }

    /// Creates a topic that stays, with its producers.
    pub(crate) fn found(scene: &Rc<Scene>, wanted: Wanted, batches: u32, hasty: bool, random: Stream) {
        let mut admin = Admin::new(scene, random);
        let task = async move {
            let topic = admin.create(wanted).await;
            for index in 0..topic.partitions {
                let partition = PartitionId { topic: topic.id, index };
                for _ in 0..1 + admin.0.random.below(2) {
                    let random = Stream::new(admin.0.random.next(), 1);
                    let batches = batches + admin.0.random.below(30) as u32;
                    Producer::start(&admin.0.scene, partition, batches, hasty, random);
                }
            }
            if wanted.cut {
                let random = Stream::new(admin.0.random.next(), 2);
                let trimmer = Admin::new(&admin.0.scene, random);
                admin.0.scene.begin(|scene| &scene.working, "trimmer", Box::pin(trimmer.trim(topic)));
            }
        };
        // The producers of a run are counted from its beginning.
        scene.begin(|scene| &scene.producing, "founder", Box::pin(task));
    }

    /// Creates and deletes topics of one name, again and again, while producers write to them.
    pub(crate) fn churn(scene: &Rc<Scene>, name: &'static str, hasty: bool, random: Stream) {
        let mut admin = Admin::new(scene, random);
        let task = async move {
            while !admin.0.scene.settle.get() {
                let partitions = 1 + admin.0.random.below(2) as i32;
                let topic = admin.create(Wanted { name, partitions, cut: false, keyed: false }).await;
                for index in 0..topic.partitions {
                    let random = Stream::new(admin.0.random.next(), 1);
                    let partition = PartitionId { topic: topic.id, index };
                    let batches = 10 + admin.0.random.below(60) as u32;
                    Producer::start(&admin.0.scene, partition, batches, hasty, random);
                }
                admin.0.pause_ms(4_000).await;
                if admin.0.random.one_in(4) {
                    // It stays, under a name that is taken.
                    return;
                }
                admin.delete(topic.id).await;
                admin.0.pause_ms(500).await;
            }
        };
        scene.begin(|scene| &scene.producing, "churn", Box::pin(task));
    }

    /// Creates a topic; tries until it is there.
    async fn create(&mut self, wanted: Wanted) -> Topic {
        let config =
            |key: &str, value: &str| CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value)));
        let mut configs = if wanted.cut { vec![config("retention.bytes", RETENTION_BYTES)] } else { Vec::new() };
        if wanted.keyed {
            let retention = DELETE_RETENTION.as_millis().to_string();
            configs.push(config("cleanup.policy", "compact"));
            configs.push(config("min.cleanable.dirty.ratio", "0.1"));
            configs.push(config("segment.ms", "1"));
            configs.push(config("delete.retention.ms", &retention));
        }
        let topic = CreatableTopic::default()
            .with_name(text(wanted.name).into())
            .with_num_partitions(wanted.partitions)
            .with_replication_factor(1)
            .with_configs(configs);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(5_000);
        loop {
            let answer = self.0.ask(7, &request, PATIENCE).await;
            let result = answer.and_then(|mut answer| answer.topics.pop());
            let created = match result.map(|result| (result.error_code, result)) {
                Some((0, result)) => Some((TopicId(result.topic_id.into_bytes()), wanted.partitions)),
                // An earlier try got through.
                Some((EXISTS, _)) => self.find(wanted.name).await,
                Some((code, result)) => {
                    let mut model = self.0.scene.model.borrow_mut();
                    model.broken(format!("{}: creation was refused: {code} {:?}", wanted.name, result.error_message));
                    None
                }
                None => None,
            };
            if let Some((id, partitions)) = created {
                return self.created(wanted, id, partitions);
            }
            self.0.pause_ms(200).await;
        }
    }

    fn created(&mut self, wanted: Wanted, id: TopicId, partitions: i32) -> Topic {
        let scene = &self.0.scene;
        let topic = Topic { name: wanted.name.to_owned(), id, partitions, life: Life::Live };
        let mut model = scene.model.borrow_mut();
        if scene.topics.borrow().iter().any(|known| known.id == id) {
            model.broken(format!("{}: topic id {id} was there before", wanted.name));
            return topic;
        }
        (0..partitions).for_each(|index| model.add(PartitionId { topic: id, index }, wanted.cut, wanted.keyed));
        scene.topics.borrow_mut().push(topic.clone());
        scene.trace(|| format!("created {} as {id}, {partitions} partitions", wanted.name));
        topic
    }

    /// The id and partitions of a topic, as the broker has them.
    async fn find(&mut self, name: &str) -> Option<(TopicId, i32)> {
        let topic = MetadataRequestTopic::default().with_name(Some(text(name).into()));
        let request = MetadataRequest::default().with_topics(Some(vec![topic]));
        let found = self.0.ask(12, &request, PATIENCE).await?.topics.pop()?;
        let (id, count) = (TopicId(found.topic_id.into_bytes()), found.partitions.len() as i32);
        if found.error_code != 0 {
            return None;
        }
        if self.0.scene.topics.borrow().iter().any(|topic| topic.id == id && topic.life == Life::Gone) {
            self.0.scene.model.borrow_mut().broken(format!("{name}: topic {id} is back from deletion"));
        }
        Some((id, count))
    }

    /// Deletes a topic; tries until it is gone.
    async fn delete(&mut self, id: TopicId) {
        self.0.scene.set_life(id, Life::Going);
        let topic = DeleteTopicState::default().with_name(None).with_topic_id(Uuid::from_bytes(id.0));
        let request = DeleteTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(5_000);
        loop {
            let answer = self.0.ask(6, &request, PATIENCE).await;
            let code = answer.and_then(|mut answer| answer.responses.pop()).map(|result| result.error_code);
            match code {
                Some(0) => break,
                Some(code) if UNKNOWN_TOPIC.contains(&code) => break,
                Some(code) => self.0.scene.model.borrow_mut().broken(format!("deletion of {id} was refused: {code}")),
                None => {}
            }
            self.0.pause_ms(200).await;
        }
        self.0.scene.set_life(id, Life::Gone);
        self.0.scene.deletions.set(self.0.scene.deletions.get() + 1);
        self.0.scene.trace(|| format!("deleted {id}"));
    }

    /// Deletes records now and then.
    async fn trim(mut self, topic: Topic) {
        while !self.0.scene.stop.get() {
            self.0.pause_ms(3_000).await;
            let index = self.0.random.below(topic.partitions as u64) as i32;
            let partition = PartitionId { topic: topic.id, index };
            let (start, end) = {
                let model = self.0.scene.model.borrow();
                (model.start(partition).0, model.floor(partition).0)
            };
            let offset = start + self.0.random.below(((end - start) / 2).max(0) as u64 + 1) as i64;
            self.delete_records(partition, offset, start).await;
        }
    }

    async fn delete_records(&mut self, partition: PartitionId, offset: i64, start: i64) {
        let part = DeleteRecordsPartition::default().with_partition_index(partition.index).with_offset(offset);
        let name = self.0.scene.name(partition.topic);
        let topic = DeleteRecordsTopic::default().with_name(text(&name).into()).with_partitions(vec![part]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(5_000);
        let answer = self.0.ask(2, &request, PATIENCE).await;
        let part = answer.and_then(|mut answer| answer.topics.pop()).and_then(|mut topic| topic.partitions.pop());
        let Some(part) = part else { return };
        let mut model = self.0.scene.model.borrow_mut();
        match part.error_code {
            0 => model.log_start(partition, Offset(part.low_watermark), Offset(offset.max(start))),
            OUT_OF_RANGE => model.broken(format!("{partition}: DeleteRecords to {offset} is out of range")),
            _ => {}
        }
    }
}
