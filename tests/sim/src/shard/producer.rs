//! An idempotent producer: sends some batches at once, and sends again what was not acknowledged, in order.

use std::{collections::VecDeque, rc::Rc, time::Duration};

use thalweg_record::{Batch, PartitionId};
use thalweg_shards::{
    mailbox::ReplyTo,
    msg::{AppendRequest, Origin, PartitionError, Reply, Request},
    runtime::seeded::Stream,
};

use super::scene::Scene;
use crate::{batches, keyed::Moment};

/// Batches in flight at most: Kafka remembers five.
const MOST_IN_FLIGHT: u64 = 4;

/// One producer's task.
pub(crate) struct Producer {
    pub(crate) id: i64,
    pub(crate) partition: PartitionId,
    /// How many batches it has to send.
    pub(crate) batches: u32,
    /// The longest value, in bytes; most are a tenth of it.
    pub(crate) longest_value: u64,
    /// The longest pause after a success, in milliseconds; after a failure it is some times more.
    pub(crate) pause_ms: u64,
    pub(crate) random: Stream,
}

impl Producer {
    /// Runs until all is acknowledged.
    pub(crate) async fn run(mut self, scene: Rc<Scene>) {
        let (mut sequence, mut left, mut known) = (0, self.batches, false);
        let mut window: VecDeque<Batch> = VecDeque::new();
        while left > 0 || !window.is_empty() {
            // A producer that nobody knows may begin anywhere (KIP-360): the first batch goes alone.
            let width = if sequence == 0 { 1 } else { 1 + self.random.below(MOST_IN_FLIGHT) as usize };
            let width = if known { width } else { 1 };
            while window.len() < width && left > 0 {
                let batch = self.next(sequence, &scene);
                sequence += batch.head.record_count();
                left -= 1;
                window.push_back(batch);
            }
            let all = self.send(&scene, &mut window).await;
            known |= all;
            let pause = self.random.below(if all { self.pause_ms } else { 3 * self.pause_ms });
            scene.pause(Duration::from_millis(pause)).await;
        }
        scene.ended.set(scene.ended.get() + 1);
    }

    fn next(&mut self, sequence: i32, scene: &Scene) -> Batch {
        let records = 1 + self.random.below(4);
        let longest = if self.random.one_in(12) { self.longest_value } else { self.longest_value / 10 };
        let values: Vec<_> = (0..records)
            .map(|_| {
                let len = self.random.below(longest) as usize;
                batches::value(&mut self.random, len)
            })
            .collect();
        let batch = batches::batch(self.id, sequence, &values, scene.runtime.wall());
        let moment = Moment { mono: scene.runtime.mono(), wall: scene.runtime.wall() };
        scene.model.borrow_mut().sent(self.partition, &batch, moment);
        batch
    }

    /// Sends the window and takes out what was acknowledged. Says whether all was.
    async fn send(&mut self, scene: &Scene, window: &mut VecDeque<Batch>) -> bool {
        let (lane, answers) = flume::unbounded();
        let patience = if self.random.one_in(8) { 1 } else { 2_000 };
        for (slot, batch) in window.iter().enumerate() {
            scene.send(Request::Append(Box::new(AppendRequest {
                origin: Origin::Client,
                deadline: scene.runtime.mono().plus(Duration::from_millis(patience)),
                generation: Default::default(),
                batches: vec![(self.partition, batch.clone())],
                reply: ReplyTo::new(lane.clone(), slot as u64),
            })));
        }
        drop(lane);
        let mut acknowledged = vec![false; window.len()];
        while let Ok(answer) = answers.recv_async().await {
            let slot = answer.slot as usize;
            acknowledged[slot] = self.judge(scene, &window[slot], slot == 0, answer.reply);
        }
        let mut kept = acknowledged.iter();
        window.retain(|_| kept.next() == Some(&false));
        window.is_empty()
    }

    fn judge(&self, scene: &Scene, batch: &Batch, oldest: bool, reply: Reply) -> bool {
        let name = (self.id, batch.head.base_sequence());
        let outcome = match reply {
            Reply::Append { mut results, .. } if results.len() == 1 => results.remove(0),
            Reply::Dropped => return false,
            other => {
                scene.model.borrow_mut().broken(format!("an append was answered by {other:?}"));
                return false;
            }
        };
        let mut model = scene.model.borrow_mut();
        match outcome {
            Ok(appended) => {
                scene.world.note(appended.base_offset.0 as u64);
                model.acknowledged(self.partition, name, appended.base_offset);
                return true;
            }
            Err(PartitionError::TimedOut | PartitionError::RingFull | PartitionError::Unavailable) => {}
            // Behind one that was refused.
            Err(PartitionError::OutOfOrderSequence) if !oldest => {}
            Err(other) => model.broken(format!("{}: batch {name:?} was refused: {other:?}", self.partition)),
        }
        false
    }
}
