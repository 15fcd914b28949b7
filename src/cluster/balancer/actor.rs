//! Asks shards what their partitions cost, and has control move what the balancer decides. A task on the first core.

use std::{rc::Rc, time::Duration};

use flume::Sender;
use metrics::{Counter, Gauge, Histogram};
use thalweg_record::PartitionId;
use thalweg_shards::{mailbox::ShardLane, meters::buckets, moves::ShardLoad, msg::Control, runtime::Runtime};

use super::state::{Balancer, BalancerSettings, Decision, GOAL_NAMES};
use crate::cluster::ControlRequest;

thalweg_shards::meters! {
    /// What the balancer sees and does, for one goal.
    pub struct BalancerMeters(BALANCER_METRICS, labels: ["goal"]) {
        /// How far the busiest shard was above the mean in the last window, as a part of the mean; 0 below the goal's floor.
        excess: Gauge = "thalweg_balancer_excess_ratio", "ratio";
        /// Partitions that moved to even this.
        moves: Counter = "thalweg_balancer_moves_total", "partitions";
        /// Partitions that should have moved and could not: their shard's uploads fail or lag behind, they are being cleaned, or the disk is full.
        refused: Counter = "thalweg_balancer_refused_total", "partitions";
        /// From asking for moves until all know the new owners: no pause of a producer is longer.
        seconds: Histogram = "thalweg_balancer_move_seconds", "seconds", buckets::LATENCY;
    }
}

impl BalancerMeters {
    /// The handles of one goal, registered with the recorder in force.
    pub fn new(goal: &str) -> BalancerMeters {
        BalancerMeters::register(&[("goal", goal.to_owned())])
    }
}

/// What the balancer works with.
pub struct BalancerPorts {
    /// Its core.
    pub runtime: Rc<dyn Runtime>,
    /// All shards, by id.
    pub shards: Vec<ShardLane>,
    /// The control actor.
    pub control: Sender<ControlRequest>,
    /// Length of a window.
    pub interval: Duration,
    /// When to move.
    pub settings: BalancerSettings,
}

/// Balances until the broker stops.
pub async fn balance(ports: BalancerPorts) {
    let meters: Vec<(&'static str, BalancerMeters)> =
        GOAL_NAMES.iter().map(|goal| (*goal, BalancerMeters::new(goal))).collect();
    let (runtime, mut balancer) = (&ports.runtime, Balancer::new(ports.settings));
    if measure(&ports).await.is_none() {
        return;
    }
    let mut since = runtime.mono();
    loop {
        runtime.sleep_until(runtime.mono().plus(ports.interval)).await;
        let Some(loads) = measure(&ports).await else { return };
        let now = runtime.mono();
        let decisions = balancer.window(now, &loads, now.since(since));
        since = now;
        meters.iter().zip(balancer.excess()).for_each(|((_, meters), excess)| meters.excess.set(excess));
        let Some(goal) = decisions.first().map(|decision| decision.goal) else { continue };
        let Some(moved) = relocate(&ports, &decisions).await else { return };
        for (_, meters) in meters.iter().filter(|(name, _)| *name == goal) {
            meters.seconds.record(runtime.mono().since(now).as_secs_f64());
            meters.moves.increment(moved.len() as u64);
            meters.refused.increment((decisions.len() - moved.len()) as u64);
        }
        balancer.moved(runtime.mono(), decisions.iter().filter(|decision| moved.contains(&decision.partition)));
        tell(&decisions, &moved, runtime.mono().since(now));
        // What was measured while partitions moved belongs to neither place.
        if measure(&ports).await.is_none() {
            return;
        }
        since = runtime.mono();
    }
}

/// What partitions cost since the last time, by shard; `None` when a shard is gone.
async fn measure(ports: &BalancerPorts) -> Option<Vec<ShardLoad>> {
    let mut answers = Vec::with_capacity(ports.shards.len());
    for lane in &ports.shards {
        let (reply, answer) = flume::bounded(1);
        lane.control(Control::Measure(reply));
        answers.push(answer);
    }
    let mut loads = Vec::with_capacity(answers.len());
    for answer in answers {
        loads.push(answer.recv_async().await.ok()?);
    }
    Some(loads)
}

async fn relocate(ports: &BalancerPorts, decisions: &[Decision]) -> Option<Vec<PartitionId>> {
    let moves = decisions.iter().map(|decision| (decision.partition, decision.to)).collect();
    let (reply, moved) = flume::bounded(1);
    ports.control.try_send(ControlRequest::MovePartitions { moves, reply }).ok()?;
    moved.recv_async().await.ok()
}

/// One line for each move.
fn tell(decisions: &[Decision], moved: &[PartitionId], took: Duration) {
    for decision in decisions {
        let Decision { partition, from, to, goal, excess, rate } = decision;
        let (from, to, ms) = (from.0, to.0, took.as_millis() as u64);
        if moved.contains(partition) {
            tracing::info!(%partition, from, to, goal, excess, rate, ms, "a partition moved to another shard");
        } else {
            // Counted, and tried again in windows to come: a line for each would fill the log while uploads fail.
            tracing::debug!(%partition, from, to, goal, excess, rate, "a partition could not move to another shard");
        }
    }
}

#[cfg(test)]
mod tests {
    use thalweg_record::{Mono, ShardId, TopicId};
    use thalweg_shards::{
        mailbox::shard_lanes,
        runtime::{
            Queue,
            seeded::{Node, World},
        },
    };

    use super::*;

    #[test]
    fn what_shards_say_becomes_a_request_to_control() {
        let world = World::new(1);
        let (lanes, inboxes): (Vec<_>, Vec<_>) = (0..2).map(|n| shard_lanes(ShardId(n))).unzip();
        let (control, requests) = flume::unbounded();
        let settings = BalancerSettings { threshold: 0.2, cooldown: Duration::from_secs(60) };
        let runtime = world.runtime(Node(1));
        let ports = BalancerPorts {
            runtime: runtime.clone(),
            shards: lanes,
            control,
            interval: Duration::from_secs(1),
            settings,
        };
        runtime.spawn(Queue::Janitor, "balancer", Box::pin(balance(ports)));
        let partition = |index| PartitionId { topic: TopicId([1; 16]), index };
        let partitions = (0..4).map(|n| (partition(n), 10 << 20, 10)).collect();
        let hot = ShardLoad { partitions, ..ShardLoad::default() };
        for (inbox, load) in inboxes.into_iter().zip([hot, ShardLoad::default()]) {
            let answer = async move {
                while let Ok(Control::Measure(reply)) = inbox.control.recv_async().await {
                    let _gone = reply.try_send(load.clone());
                }
            };
            runtime.spawn(Queue::Hot, "shard", Box::pin(answer));
        }
        let until = Mono(0).plus(Duration::from_secs(10));
        world.run_until(100_000, || !requests.is_empty() || world.mono() >= until);
        let Ok(ControlRequest::MovePartitions { moves, .. }) = requests.try_recv() else { panic!("no move") };
        assert_eq!(moves, [(partition(0), ShardId(1)), (partition(1), ShardId(1))]);
    }
}
