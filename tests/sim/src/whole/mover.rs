//! Moves partitions between the shards of the broker that is up, at random, all the time.

use std::{rc::Rc, time::Duration};

use flume::Sender;
use thalweg::cluster::ControlRequest;
use thalweg_record::{PartitionId, ShardId};
use thalweg_shards::runtime::{Queue, seeded::Stream};

use super::{
    scene::{Life as TopicLife, Scene},
    site::Life,
};

/// Begins to move partitions of a broker that serves; it ends with it.
pub(crate) fn start(scene: &Rc<Scene>, life: &Life, mut random: Stream) {
    let Some(control) = life.control() else { return };
    if life.shape.shards < 2 {
        return;
    }
    let (scene, shards, host) = (scene.clone(), u64::from(life.shape.shards), life.host.main());
    let longest_ms = [30, 300, 2_000][random.below(3) as usize];
    let task = async move {
        loop {
            scene.pause(Duration::from_millis(1 + random.below(longest_ms))).await;
            let partitions = scene.partitions(TopicLife::Live);
            if partitions.is_empty() {
                continue;
            }
            let mut moves: Vec<(PartitionId, ShardId)> = Vec::new();
            for _ in 0..1 + random.below(3) {
                let partition = partitions[random.below(partitions.len() as u64) as usize];
                let to = ShardId(random.below(shards) as u16);
                if moves.iter().all(|(other, _)| *other != partition) {
                    moves.push((partition, to));
                }
            }
            let Some(moved) = relocate(&control, moves.clone()).await else { return };
            scene.trace(|| format!("moved {moved:?} of {moves:?}"));
            scene.moves.set(scene.moves.get() + moved.len() as u64);
        }
    };
    host.spawn(Queue::Hot, "mover", Box::pin(task));
}

async fn relocate(control: &Sender<ControlRequest>, moves: Vec<(PartitionId, ShardId)>) -> Option<Vec<PartitionId>> {
    let (reply, moved) = flume::bounded(1);
    control.try_send(ControlRequest::MovePartitions { moves, reply }).ok()?;
    moved.recv_async().await.ok()
}
