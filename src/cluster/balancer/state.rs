//! Which partitions should move, decided from one window after another. Pure: loads and a `now` in, moves out.

use std::{collections::BTreeMap, time::Duration};

use thalweg_record::{Mono, PartitionId, ShardId};
use thalweg_shards::moves::ShardLoad;

use super::{bytes::BYTES, cpu::CPU, goal::Goal, requests::REQUESTS};

/// In the order of what they are worth.
const GOALS: [&Goal; 3] = [&BYTES, &REQUESTS, &CPU];
/// Their names, in that order.
pub(super) const GOAL_NAMES: [&str; GOALS.len()] = [BYTES.name, REQUESTS.name, CPU.name];
/// Windows in a row that must be uneven.
const PATIENCE: u32 = 2;
/// At most this many partitions move at once: producers pause for a moment, and their old shards upload what they hold.
const MOST_MOVES: usize = 8;
/// Once something moves, this part of the threshold is aimed at.
const AIM: f64 = 0.25;
/// Of the time for which what moved stays, the part for which its old shard gives nothing more away: it has to upload what it lends first.
const PAUSE: f64 = 1.0 / 6.0;

/// When to move.
#[derive(Clone, Copy, Debug)]
pub struct BalancerSettings {
    /// How far above the mean the busiest shard may be, as a part of the mean.
    pub threshold: f64,
    /// How long a partition stays where it went.
    pub cooldown: Duration,
}

/// A partition that should move, and why.
#[derive(Clone, PartialEq, Debug)]
pub struct Decision {
    /// Which.
    pub partition: PartitionId,
    /// From where.
    pub from: ShardId,
    /// Where to.
    pub to: ShardId,
    /// What is uneven.
    pub goal: &'static str,
    /// How far the busiest shard was above the mean, as a part of the mean.
    pub excess: f64,
    /// What the partition has of it, each second.
    pub rate: f64,
}

/// What is known from one window to the next.
#[derive(Debug)]
pub struct Balancer {
    settings: BalancerSettings,
    /// For each goal: windows in a row that were uneven.
    uneven: [u32; GOALS.len()],
    /// For each goal: how far the busiest shard was above the mean in the last window, as a part of it.
    excess: [f64; GOALS.len()],
    /// Partitions that moved, and until when they stay.
    resting: BTreeMap<PartitionId, Mono>,
    /// Shards that gave something away, and until when they give no more.
    pausing: BTreeMap<ShardId, Mono>,
}

/// What shards have of a goal.
struct Rates {
    /// Per shard, its partitions'.
    partitions: Vec<Vec<f64>>,
    shards: Vec<f64>,
}

impl Rates {
    fn of(goal: &Goal, loads: &[ShardLoad], window: Duration) -> Rates {
        let parts = loads.iter().map(|load| (goal.of)(load, window));
        let rates = parts.map(|parts| (parts.partitions.iter().sum::<f64>() + parts.staying, parts.partitions));
        let (shards, partitions) = rates.unzip();
        Rates { partitions, shards }
    }

    fn mean(&self) -> f64 {
        self.shards.iter().sum::<f64>() / self.shards.len() as f64
    }

    /// The shard that has most, and the one that has least; the first of several.
    fn ends(&self) -> (usize, usize) {
        let (mut most, mut least) = (0, 0);
        for (shard, rate) in self.shards.iter().enumerate() {
            if *rate > self.shards[most] {
                most = shard;
            }
            if *rate < self.shards[least] {
                least = shard;
            }
        }
        (most, least)
    }

    /// How far the first shard is above the mean, as a part of it; nothing below the floor.
    fn excess(&self, floor: f64) -> f64 {
        let most = self.shards[self.ends().0];
        if most < floor { 0.0 } else { most / self.mean() - 1.0 }
    }
}

impl Balancer {
    /// Knows nothing yet.
    pub fn new(settings: BalancerSettings) -> Balancer {
        Balancer {
            settings,
            uneven: [0; GOALS.len()],
            excess: [0.0; GOALS.len()],
            resting: BTreeMap::new(),
            pausing: BTreeMap::new(),
        }
    }

    /// These have moved as they should; what else should have may be tried again at once.
    pub fn moved<'a>(&mut self, now: Mono, decisions: impl Iterator<Item = &'a Decision>) {
        for decision in decisions {
            self.resting.insert(decision.partition, now.plus(self.settings.cooldown));
            self.pausing.insert(decision.from, now.plus(self.settings.cooldown.mul_f64(PAUSE)));
        }
    }

    /// By goal, how far the busiest shard was above the mean in the last window.
    pub(super) fn excess(&self) -> [f64; GOALS.len()] {
        self.excess
    }

    /// What should move after a window in which the shards had these loads, by shard.
    pub fn window(&mut self, now: Mono, loads: &[ShardLoad], window: Duration) -> Vec<Decision> {
        self.resting.retain(|_, until| *until > now);
        self.pausing.retain(|_, until| *until > now);
        if loads.len() < 2 || window.is_zero() {
            return Vec::new();
        }
        let mut all: Vec<Rates> = GOALS.iter().map(|goal| Rates::of(goal, loads, window)).collect();
        let mut due = None;
        for (at, (goal, rates)) in GOALS.iter().zip(&all).enumerate() {
            self.excess[at] = rates.excess(goal.floor);
            let uneven = self.excess[at] > self.settings.threshold;
            self.uneven[at] = if uneven { self.uneven[at] + 1 } else { 0 };
            if self.uneven[at] >= PATIENCE && due.is_none() {
                due = Some(at);
            }
        }
        let Some(at) = due else { return Vec::new() };
        let excess = self.excess[at];
        let mut decisions = Vec::new();
        while decisions.len() < MOST_MOVES && all[at].excess(GOALS[at].floor) > self.settings.threshold * AIM {
            let (from, to) = all[at].ends();
            if self.pausing.contains_key(&ShardId(from as u16)) {
                break;
            }
            let Some(place) = self.choose(at, &all, loads, (from, to)) else { break };
            let partition = loads[from].partitions[place].0;
            let rate = all[at].partitions[from][place];
            for rates in &mut all {
                let moved = std::mem::take(&mut rates.partitions[from][place]);
                rates.shards[from] -= moved;
                rates.shards[to] += moved;
            }
            let (from, to) = (ShardId(from as u16), ShardId(to as u16));
            decisions.push(Decision { partition, from, to, goal: GOALS[at].name, excess, rate });
        }
        if !decisions.is_empty() {
            // What they bring is seen in windows to come.
            self.uneven = [0; GOALS.len()];
        }
        decisions
    }

    /// The partition that brings two shards closest to each other, if one brings them closer, and makes nothing else uneven.
    fn choose(&self, at: usize, all: &[Rates], loads: &[ShardLoad], (from, to): (usize, usize)) -> Option<usize> {
        let rates = &all[at];
        let gap = rates.shards[from] - rates.shards[to];
        let fits = |place: usize| {
            GOALS.iter().zip(all).enumerate().all(|(other, (goal, rates))| {
                let after = rates.shards[to] + rates.partitions[from][place];
                let most = rates.mean() * (1.0 + self.settings.threshold);
                other == at || after < goal.floor || after <= most.max(rates.shards[from])
            })
        };
        let mut best: Option<(f64, usize)> = None;
        for (place, (partition, ..)) in loads[from].partitions.iter().enumerate() {
            let rate = rates.partitions[from][place];
            // It leaves this gap, of whichever sign. A hair closer is not worth a move.
            let left = (gap - 2.0 * rate).abs();
            let closer = rate > 0.0 && left < 0.95 * gap;
            if closer
                && !self.resting.contains_key(partition)
                && best.is_none_or(|(least, _)| left < least)
                && fits(place)
            {
                best = Some((left, place));
            }
        }
        best.map(|(_, place)| place)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use thalweg_record::TopicId;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const SETTINGS: BalancerSettings = BalancerSettings { threshold: 0.2, cooldown: Duration::from_secs(60) };

    fn at(seconds: u64) -> Mono {
        Mono(0).plus(Duration::from_secs(seconds))
    }

    fn id(index: i32) -> PartitionId {
        PartitionId { topic: TopicId([1; 16]), index }
    }

    /// A shard with partitions that cost so many MiB and requests each second.
    fn load(busy: f64, partitions: &[(i32, u64, u64)]) -> ShardLoad {
        let partitions = partitions.iter().map(|(index, mib, requests)| (id(*index), mib << 20, *requests)).collect();
        ShardLoad { busy_ns: (busy * 1e9) as u64, partitions, staying: (0, 0) }
    }

    /// What should move when the same comes again and again, by the window that says so.
    fn settle(balancer: &mut Balancer, loads: &[ShardLoad], windows: u64) -> Vec<(u64, Vec<(i32, u16)>)> {
        let decided = |n| {
            let decisions = balancer.window(at(n), loads, SECOND);
            balancer.moved(at(n), decisions.iter());
            let moves: Vec<_> = decisions.iter().map(|d| (d.partition.index, d.to.0)).collect();
            (!moves.is_empty()).then_some((n, moves))
        };
        (1..=windows).filter_map(decided).collect()
    }

    #[test]
    fn sixteen_hot_partitions_on_one_of_two_shards_are_halved_at_once() {
        let hot: Vec<_> = (0..16).map(|n| (n, 10, 100)).collect();
        let decided = settle(&mut Balancer::new(SETTINGS), &[load(0.9, &hot), load(0.0, &[])], 2);
        assert_eq!(decided.len(), 1);
        assert_eq!(decided[0].0, 2, "not in the first window");
        assert_eq!(decided[0].1.iter().filter(|(_, to)| *to == 1).count(), 8);
    }

    #[test]
    fn what_rests_or_is_little_or_even_stays() {
        let mut balancer = Balancer::new(SETTINGS);
        assert!(settle(&mut balancer, &[load(0.0, &[(0, 0, 900)]), load(0.0, &[])], 9).is_empty(), "below the floors");
        assert!(
            settle(&mut balancer, &[load(0.0, &[(0, 11, 0)]), load(0.0, &[(1, 9, 0)])], 9).is_empty(),
            "even enough"
        );
        let uneven = [load(0.0, &[(0, 10, 0), (1, 10, 0)]), load(0.0, &[])];
        assert_eq!(settle(&mut balancer, &uneven, 2).len(), 1);
        // Whoever drives the load moves it back and forth: what moved rests.
        let back = [load(0.0, &[(1, 10, 0)]), load(0.0, &[(0, 30, 0)])];
        assert!(settle(&mut balancer, &back, 50).is_empty());
        let one = [load(0.0, &[(7, 50, 0)]), load(0.0, &[])];
        assert!(settle(&mut Balancer::new(SETTINGS), &one, 9).is_empty(), "elsewhere it were as much too much");
    }

    #[test]
    fn a_shard_that_gave_something_away_pauses_and_what_was_refused_does_not_rest() {
        let mut balancer = Balancer::new(SETTINGS);
        let uneven = [load(0.0, &[(0, 10, 0), (1, 10, 0), (2, 10, 0), (3, 10, 0)]), load(0.0, &[])];
        balancer.window(at(1), &uneven, SECOND);
        let refused = balancer.window(at(2), &uneven, SECOND);
        assert_eq!(refused.len(), 2);
        balancer.window(at(3), &uneven, SECOND);
        assert_eq!(balancer.window(at(4), &uneven, SECOND), refused, "it is tried again");
        balancer.moved(at(4), refused.iter());
        let others = [load(0.0, &[(4, 10, 0), (5, 10, 0)]), load(0.0, &[])];
        assert!((5..14).all(|n| balancer.window(at(n), &others, SECOND).is_empty()), "it has to upload what it lends");
        assert_eq!(balancer.window(at(14), &others, SECOND).len(), 1);
    }

    #[test]
    fn what_stays_counts_and_does_not_move() {
        let mut balancer = Balancer::new(SETTINGS);
        let lent = ShardLoad { staying: (30 << 20, 10), ..load(0.0, &[]) };
        assert!(settle(&mut balancer, &[load(0.0, &[(0, 15, 0), (1, 15, 0)]), lent.clone()], 5).is_empty(), "even");
        assert!(settle(&mut balancer, &[lent, load(0.0, &[])], 5).is_empty(), "nothing that may move");
    }

    #[test]
    fn one_window_is_no_reason() {
        let mut balancer = Balancer::new(SETTINGS);
        let (uneven, even) = ([load(0.0, &[(0, 10, 0), (1, 10, 0)]), load(0.0, &[])], [load(0.0, &[]), load(0.0, &[])]);
        for n in 0..10 {
            let loads = if n % 2 == 0 { &uneven } else { &even };
            assert!(balancer.window(at(n), loads, SECOND).is_empty());
        }
    }

    #[test]
    fn requests_and_cores_are_goals_too() {
        let small: Vec<_> = (0..4).map(|n| (n, 0, 5_000)).collect();
        let mut balancer = Balancer::new(SETTINGS);
        let loads = [load(0.1, &small), load(0.1, &[])];
        balancer.window(at(1), &loads, SECOND);
        let decisions = balancer.window(at(2), &loads, SECOND);
        assert!(decisions.iter().all(|d| d.goal == "requests") && decisions.len() == 2);
        let mut balancer = Balancer::new(SETTINGS);
        let loads = [load(0.8, &[(0, 0, 300), (1, 0, 300)]), load(0.1, &[(2, 0, 300)])];
        balancer.window(at(1), &loads, SECOND);
        let decisions = balancer.window(at(2), &loads, SECOND);
        assert_eq!(decisions.iter().map(|d| d.goal).collect::<Vec<_>>(), ["cpu"]);
    }

    #[test]
    fn a_lone_shard_keeps_all() {
        assert!(settle(&mut Balancer::new(SETTINGS), &[load(1.0, &[(0, 500, 5_000), (1, 1, 1)])], 5).is_empty());
    }

    proptest! {
        #[test]
        fn moves_bring_shards_closer_and_end(rates in prop::collection::vec((0usize..4, 1u64..100), 1..40)) {
            let mut balancer = Balancer::new(BalancerSettings { cooldown: Duration::ZERO, ..SETTINGS });
            let mut owner: Vec<usize> = rates.iter().map(|(shard, _)| *shard).collect();
            let mut moves = 0;
            for n in 0..100 {
                let loads: Vec<ShardLoad> = (0..4).map(|shard| {
                    let mine = (0..rates.len()).filter(|p| owner[*p] == shard);
                    load(0.0, &mine.map(|p| (p as i32, rates[p].1, 0)).collect::<Vec<_>>())
                }).collect();
                let most = |owner: &[usize]| (0..4).map(|shard| {
                    (0..rates.len()).filter(|p| owner[*p] == shard).map(|p| rates[p].1).sum::<u64>()
                }).max();
                let before = most(&owner);
                let decisions = balancer.window(at(n), &loads, SECOND);
                balancer.moved(at(n), decisions.iter());
                for decision in decisions {
                    let p = decision.partition.index as usize;
                    prop_assert_eq!(owner[p], usize::from(decision.from.0));
                    owner[p] = usize::from(decision.to.0);
                    moves += 1;
                }
                prop_assert!(most(&owner) <= before);
            }
            prop_assert!(moves <= 4 * rates.len(), "it goes on for ever: {}", moves);
        }
    }
}
