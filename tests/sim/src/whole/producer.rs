//! An idempotent producer: gets an id from the broker, sends some batches at once, and sends again what was not acknowledged,
//! in order, over whatever connection.

use std::{collections::VecDeque, rc::Rc, time::Duration};

use bytes::Bytes;
use kafka_protocol::messages::{
    InitProducerIdRequest, ProduceRequest, ProduceResponse,
    produce_request::{PartitionProduceData, TopicProduceData},
};
use thalweg_record::{Batch, Offset, PartitionId};
use thalweg_shards::{codec::Compression, runtime::seeded::Stream};
use uuid::Uuid;

use super::{
    client::Client,
    scene::{Life, Scene},
};
use crate::batches;

/// Batches in flight at most: Kafka remembers five.
const MOST_IN_FLIGHT: u64 = 4;
/// Of Produce: topics by id.
const PRODUCE: i16 = 13;
/// Of InitProducerId.
const INIT: i16 = 4;

/// Codes that pass: not the leader, out of time, the log is full, storage, request timed out on the way.
const PASSING: [i16; 4] = [6, 7, 19, 56];
const NOT_LEADER: i16 = 6;
const TOO_LARGE: i16 = 10;
const OUT_OF_ORDER: i16 = 45;
const UNKNOWN_TOPIC: [i16; 2] = [3, 100];

/// One producer's task.
pub(crate) struct Producer {
    client: Client,
    partition: PartitionId,
    /// How many batches it has to send.
    batches: u32,
    longest_value: u64,
    pause_ms: u64,
    id: i64,
    /// The topic is gone.
    gone: bool,
    /// Its records have keys.
    keyed: bool,
    /// Records with keys that it made.
    made: u64,
}

impl Producer {
    /// Starts a producer of so many batches.
    pub(crate) fn start(scene: &Rc<Scene>, partition: PartitionId, batches: u32, hasty: bool, random: Stream) {
        let (longest_value, pause_ms) = if hasty { (60, 20) } else { (2_500, 120) };
        let client = Client::new(scene, "producer", random);
        let keyed = scene.model.borrow().is_keyed(partition);
        let producer =
            Producer { client, partition, batches, longest_value, pause_ms, id: -1, gone: false, keyed, made: 0 };
        scene.begin(|scene| &scene.producing, "producer", Box::pin(producer.run()));
    }

    async fn run(mut self) {
        while self.id < 0 {
            self.begin().await;
        }
        let (mut sequence, mut left, mut known) = (0, self.batches, false);
        let mut window: VecDeque<Batch> = VecDeque::new();
        // The base sequence of each batch made.
        let mut made: Vec<i32> = Vec::new();
        while (left > 0 || !window.is_empty()) && !self.gone {
            // A producer that nobody knows may begin anywhere (KIP-360): the first batch goes alone.
            let width = if known { 1 + self.client.random.below(MOST_IN_FLIGHT) as usize } else { 1 };
            // Not too far behind a batch that is refused for a while: the broker remembers the last five, and that may be one of them.
            let oldest =
                window.front().map_or(made.len(), |oldest| made.partition_point(|s| *s < oldest.head.base_sequence()));
            while window.len() < width && left > 0 && made.len() - oldest <= MOST_IN_FLIGHT as usize {
                let batch = self.next(sequence);
                made.push(sequence);
                sequence += batch.head.record_count();
                left -= 1;
                window.push_back(batch);
            }
            let all = self.send(&mut window).await;
            known |= all;
            self.client.pause_ms(if all { self.pause_ms } else { 2 * self.pause_ms }).await;
        }
    }

    async fn begin(&mut self) {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(60_000)
            .with_producer_id((-1).into());
        let request = request.with_producer_epoch(-1);
        let answer = self.client.ask(INIT, &request, Duration::from_secs(2)).await;
        match answer {
            Some(answer) if answer.error_code == 0 => {
                self.id = answer.producer_id.0;
                self.client.scene.model.borrow_mut().producer_began(self.id);
            }
            Some(answer) if !PASSING.contains(&answer.error_code) => {
                let why = format!("a producer id was refused: {}", answer.error_code);
                self.client.scene.model.borrow_mut().broken(why);
            }
            _ => self.client.pause_ms(100).await,
        }
    }

    fn next(&mut self, sequence: i32) -> Batch {
        let batch = if self.keyed { self.next_keyed(sequence) } else { self.next_plain(sequence) };
        let scene = &self.client.scene;
        scene.model.borrow_mut().sent(self.partition, &batch, scene.moment());
        batch
    }

    /// Records of few keys, which grow old one after the other and are hardly written any more; every third is a tombstone.
    fn next_keyed(&mut self, sequence: i32) -> Batch {
        let random = &mut self.client.random;
        let mut records = Vec::new();
        for _ in 0..1 + random.below(4) {
            let key = Bytes::from(format!("key-{}", self.made / 12 + random.below(6)).into_bytes());
            self.made += 1;
            let longest = if random.one_in(12) { self.longest_value } else { self.longest_value / 10 };
            let len = random.below(longest) as usize;
            let value = batches::value(random, len);
            records.push((key, Some(value).filter(|_| !random.one_in(3))));
        }
        let codecs = [Compression::Uncompressed, Compression::Uncompressed, Compression::Lz4(9), Compression::Snappy];
        let codec = codecs[random.below(4) as usize];
        batches::keyed(self.id, sequence, &records, codec, self.client.scene.runtime.wall())
    }

    fn next_plain(&mut self, sequence: i32) -> Batch {
        let random = &mut self.client.random;
        let records = 1 + random.below(4);
        let longest = if random.one_in(12) { self.longest_value } else { self.longest_value / 10 };
        let values: Vec<_> = (0..records)
            .map(|_| {
                let len = random.below(longest) as usize;
                batches::value(random, len)
            })
            .collect();
        batches::batch(self.id, sequence, &values, self.client.scene.runtime.wall())
    }

    fn request(&mut self, batch: &Batch) -> ProduceRequest {
        let records = [&batch.head.0[..], &batch.body[..]].concat().into();
        let data = PartitionProduceData::default().with_index(self.partition.index).with_records(Some(records));
        let topic = TopicProduceData::default().with_topic_id(Uuid::from_bytes(self.partition.topic.0));
        let hurried = self.client.random.one_in(8) && !self.client.scene.calm.get();
        let timeout = if hurried { 1 } else { 2_000 };
        ProduceRequest::default()
            .with_transactional_id(None)
            .with_acks(-1)
            .with_timeout_ms(timeout)
            .with_topic_data(vec![topic.with_partition_data(vec![data])])
    }

    /// Sends the window and takes out what was acknowledged. Says whether all was.
    async fn send(&mut self, window: &mut VecDeque<Batch>) -> bool {
        let (mut sent, life) = (0, self.client.scene.life(self.partition.topic));
        let (limited, calm) = (self.client.scene.limits.get(), self.client.scene.calm.get());
        for batch in window.iter() {
            let request = self.request(batch);
            if !self.client.send(PRODUCE, &request).await {
                break;
            }
            sent += 1;
        }
        // A client with little patience sends again what the broker still has in hand.
        let patience = if self.client.random.one_in(20) { 20 } else { 8_000 };
        let mut acknowledged = vec![false; window.len()];
        for slot in 0..sent {
            let answer = self.client.receive::<ProduceRequest>(PRODUCE, Duration::from_millis(patience)).await;
            let Some(answer) = answer else { break };
            acknowledged[slot] =
                self.judge(&window[slot], (acknowledged[..slot].iter().all(|a| *a), life, limited, calm), &answer);
        }
        let mut kept = acknowledged.iter();
        window.retain(|_| kept.next() == Some(&false));
        window.is_empty()
    }

    fn judge(
        &mut self,
        batch: &Batch,
        (oldest, life, limited, calm): (bool, Life, u64, bool),
        answer: &ProduceResponse,
    ) -> bool {
        let (name, partition) = ((self.id, batch.head.base_sequence()), self.partition);
        let scene = &self.client.scene;
        let mut model = scene.model.borrow_mut();
        let parts: Vec<_> = answer.responses.iter().flat_map(|topic| &topic.partition_responses).collect();
        let [part] = parts[..] else {
            model.broken(format!("a produce of one batch was answered by {answer:?}"));
            return false;
        };
        if part.error_code != 0 {
            let bytes = batch.size_bytes();
            scene.trace(|| format!("{partition}: batch {name:?} of {bytes} bytes gets {}", part.error_code));
        }
        match part.error_code {
            0 => {
                if life == Life::Gone {
                    model.broken(format!("{partition}: batch {name:?} was acknowledged after the topic was deleted"));
                }
                model.acknowledged(partition, name, Offset(part.base_offset));
                return true;
            }
            // Whatever moves: nothing stands in the way for as long as the producer waits.
            NOT_LEADER if calm => {
                model.broken(format!("{partition}: batch {name:?} was not taken, though nothing fails"))
            }
            code if PASSING.contains(&code) => {}
            // It was in force at some moment since the batch was sent.
            TOO_LARGE if limited % 2 == 1 || limited != scene.limits.get() => {}
            // Behind one that was refused.
            OUT_OF_ORDER if !oldest => {}
            code if UNKNOWN_TOPIC.contains(&code) && scene.life(partition.topic) != Life::Live => self.gone = true,
            code => model.broken(format!("{partition}: batch {name:?} was refused: {code}")),
        }
        false
    }
}
