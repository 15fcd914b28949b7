//! A reader: fetches from random offsets on, waits at the end for more, and has the model judge all it gets.

use std::{rc::Rc, time::Duration};

use flume::Receiver;
use futures_lite::future::or;
use thalweg_record::{Offset, PartitionId};
use thalweg_shards::{
    mailbox::{Answer, ReplyTo},
    msg::{ConnId, FetchFrom, Isolation, PartitionError, ProbeRequest, Records, Reply, Request, TakeRequest, Taken},
    runtime::seeded::Stream,
};

use super::scene::Scene;

/// How long a reader waits at the end of a partition.
const PATIENCE: Duration = Duration::from_millis(500);

/// One connection that reads.
pub(crate) struct Reader {
    pub(crate) conn: ConnId,
    pub(crate) random: Stream,
    pub(crate) scene: Rc<Scene>,
}

/// What came of a fetch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Got {
    /// Go on there.
    Next(Offset),
    /// The broker is down, or cannot read for now.
    Again,
    /// The offset is below the log start.
    Expired(Offset),
}

impl Reader {
    /// Reads until the scene stops.
    pub(crate) async fn run(mut self) {
        while !self.scene.stop.get() {
            let at = self.random.below(self.scene.partitions.len() as u64) as usize;
            let partition = self.scene.partitions[at];
            let (start, end) = {
                let model = self.scene.model.borrow();
                (model.start(partition).0, model.floor(partition).0)
            };
            let mut offset = Offset(start + self.random.below((end - start) as u64 + 1) as i64);
            for _ in 0..1 + self.random.below(12) {
                offset = self.step(partition, offset).await;
            }
        }
        self.scene.ended.set(self.scene.ended.get() + 1);
    }

    async fn step(&mut self, partition: PartitionId, offset: Offset) -> Offset {
        if offset >= self.scene.model.borrow().floor(partition) {
            self.wait_for_more(partition, offset).await;
        }
        let max_bytes = self.random.below(20_000) as u32;
        match self.fetch(partition, offset, max_bytes).await {
            Got::Next(next) => {
                let pause = self.random.below(40);
                self.scene.pause(Duration::from_millis(pause)).await;
                next
            }
            Got::Again => {
                self.scene.pause(Duration::from_millis(20)).await;
                offset
            }
            Got::Expired(start) => start,
        }
    }

    fn part(partition: PartitionId, offset: Offset, max_bytes: u32) -> FetchFrom {
        FetchFrom { partition, offset, max_bytes, current_leader_epoch: None }
    }

    /// One take; the model judges it.
    pub(crate) async fn fetch(&mut self, partition: PartitionId, offset: Offset, max_bytes: u32) -> Got {
        let (floor, start) = {
            let model = self.scene.model.borrow();
            (model.floor(partition), model.start(partition))
        };
        let (lane, answers) = flume::unbounded();
        self.scene.send(Request::Take(Box::new(TakeRequest {
            conn: self.conn,
            parts: vec![Self::part(partition, offset, max_bytes)],
            isolation: Isolation::Uncommitted,
            at_least_one: true,
            reply: ReplyTo::new(lane, 0),
        })));
        let Some(result) = self.answered(answers).await else { return Got::Again };
        let mut model = self.scene.model.borrow_mut();
        match result {
            Ok(Taken { high_watermark, log_start, records: Records::Ready(pieces), .. }) => {
                self.scene.world.note(high_watermark.0 as u64);
                model.high_watermark(partition, high_watermark, floor);
                model.log_start(partition, log_start, start);
                let nothing = pieces.iter().all(|piece| piece.is_empty());
                if nothing && offset < floor {
                    model.broken(format!("{partition}: nothing at {offset}, though the log goes to {floor}"));
                }
                Got::Next(model.read(partition, offset, high_watermark, pieces))
            }
            Ok(_) => Got::Again,
            Err(PartitionError::OffsetOutOfRange { log_start, high_watermark }) => {
                model.high_watermark(partition, high_watermark, floor);
                model.log_start(partition, log_start, start);
                if offset >= log_start {
                    model.broken(format!("{partition}: {offset} is out of range of {log_start}..{high_watermark}"));
                }
                Got::Expired(log_start)
            }
            Err(PartitionError::Storage) => Got::Again,
            Err(other) => {
                model.broken(format!("{partition}: a read at {offset} was refused: {other:?}"));
                Got::Again
            }
        }
    }

    /// The answer to a take of one part, the late one when it is late.
    async fn answered(&self, answers: Receiver<Answer>) -> Option<Result<Taken, PartitionError>> {
        let mut late = false;
        loop {
            match answers.recv_async().await.ok()?.reply {
                Reply::Take(mut parts) => match parts.pop()? {
                    Ok(Taken { records: Records::Pending, .. }) => late = true,
                    now => {
                        self.scene.at_once.set(self.scene.at_once.get() + 1);
                        return Some(now);
                    }
                },
                Reply::Late(0, then) if late => {
                    self.scene.late.set(self.scene.late.get() + 1);
                    return Some(then);
                }
                Reply::Dropped => return None,
                other => {
                    self.scene.model.borrow_mut().broken(format!("a take was answered by {other:?}"));
                    return None;
                }
            }
        }
    }

    /// Probes with a watch, and waits until something changes.
    async fn wait_for_more(&mut self, partition: PartitionId, offset: Offset) {
        let floor = self.scene.model.borrow().floor(partition);
        let (lane, answers) = flume::unbounded();
        self.scene.send(Request::Probe(Box::new(ProbeRequest {
            conn: self.conn,
            parts: vec![Self::part(partition, offset, 10_000)],
            isolation: Isolation::Uncommitted,
            watch: true,
            reply: ReplyTo::new(lane, 0),
        })));
        let Ok(Answer { reply: Reply::Probe(states), .. }) = answers.recv_async().await else { return };
        let Some(Ok(state)) = states.first() else { return };
        self.scene.model.borrow_mut().high_watermark(partition, state.high_watermark, floor);
        if state.bytes > 0 {
            return;
        }
        let woken = async { Some(answers.recv_async().await) };
        let tired = async {
            self.scene.pause(PATIENCE).await;
            None
        };
        let mut answer = or(woken, tired).await;
        if answer.is_none() {
            answer = answers.try_recv().ok().map(Ok);
        }
        let grown = self.scene.model.borrow().floor(partition) > offset;
        if answer.is_none() && grown {
            self.scene.model.borrow_mut().broken(format!("{partition}: nobody woke the reader at {offset}"));
        }
    }
}
