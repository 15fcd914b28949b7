//! The faults of one life, and how it ends.

use std::{rc::Rc, time::Duration};

use thalweg_shards::runtime::{Queue, seeded::Stream};
use thalweg_wal::device::SimulatedFaults;

use super::{run::History, scene::Scene, site::Life};
use crate::{fuse::Counts, plant::Plant, rot};

/// The wall clock jumps by no more than this, in either direction, from where it would be.
const FURTHEST_JUMP_MS: i64 = 6 * 3_600_000;

/// How a life ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// At the n-th event of a kind, counted from the beginning of the start or from when it serves.
    At(Counts, u64, Since),
    /// When its time is over.
    InTime,
    /// By a stop in order.
    Stop,
}

/// From when on events are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Since {
    Start,
    Serving,
}

impl History {
    /// Draws how the next life ends.
    pub(crate) fn draw_end(&mut self) -> End {
        let hasty = self.hasty;
        let random = &mut self.random;
        match random.below(10) {
            0 | 1 => End::At(Counts::Store, 1 + random.below(60), Since::Serving),
            2 => End::At(Counts::Device, 1 + random.below(60), Since::Start),
            // Short lives: a few groups, some of them in flight.
            3 | 4 if hasty => End::At(Counts::Device, 1 + random.below(12), Since::Serving),
            3 | 4 => End::At(Counts::Device, 1 + random.below(800), Since::Serving),
            5 => End::At(Counts::Metadata, 1 + random.below(14), Since::Start),
            6 => End::At(Counts::Metadata, 1 + random.below(40), Since::Serving),
            7 => End::Stop,
            _ => End::InTime,
        }
    }

    /// Faults of disk and bucket for the next life.
    pub(crate) fn draw_faults(&mut self) {
        let rare = |random: &mut Stream, per_million: u32| if random.one_in(4) { per_million } else { 0 };
        let faults = SimulatedFaults {
            write_errors_per_million: rare(&mut self.random, 3_000),
            read_errors_per_million: rare(&mut self.random, 5_000),
            ok_before_durable: self.plant == Plant::EarlyOk,
            ..SimulatedFaults::default()
        };
        self.site.disks.set_faults(faults);
        self.faults = faults;
        self.bucket.fails_one_in.set(if self.random.one_in(2) { 2 + self.random.below(20) } else { 0 });
        self.bucket.latency_us.set(1 + self.random.below(200_000));
        self.bucket.set_down(self.random.one_in(8));
    }

    /// From now on, while it serves, what is on the disks may rot, be read wrong, or be written elsewhere. Not before: a start that reads
    /// wrong what only the last group holds cannot know.
    pub(crate) fn begin_rot(&mut self) {
        let (rot, disks) = (&mut self.rot, &self.site.disks);
        if !rot.one_in(3) {
            return;
        }
        let rare = |rot: &mut Stream, per_million: u32| if rot.one_in(3) { per_million } else { 0 };
        disks.set_faults(SimulatedFaults {
            misdirected_per_million: rare(rot, 10_000),
            flipped_reads_per_million: rare(rot, 100_000),
            ..self.faults
        });
        (0..rot.below(4)).for_each(|_| disks.hit(rot::hit_ring));
    }

    /// Whether listings of the bucket lag behind in the next life.
    pub(crate) fn draw_lag(&mut self) {
        self.bucket.lag_ms.set(if self.rot.one_in(3) { 1 + self.rot.below(3_000) } else { 0 });
    }

    /// Between two lives. What is left of all damage is what a start must survive, or refuse.
    pub(crate) fn rot_at_rest(&mut self) {
        let (rot, disks) = (&mut self.rot, &self.site.disks);
        match rot.below(6) {
            0 => disks.hit(rot::hit_ring),
            1..=3 => disks.hit_each(rot::hit_superblock),
            _ => {}
        }
        self.site.harm = disks.settle();
        self.scene.trace(|| format!("the disks are harmed: {:?}", self.site.harm));
    }

    /// Does this and that to the broker while it lives: stalls a core, moves the wall clock, takes the bucket away.
    pub(crate) fn start_gremlin(&mut self, life: &Life) {
        let (mut random, bucket) = (Stream::new(self.random.next(), 3), self.bucket.clone());
        let (host, shards, scene) = (life.host.clone(), u64::from(life.shape.shards), self.scene.clone());
        let jumped = self.jumped_ms.clone();
        let task = async move {
            loop {
                pause(&scene, 100 + random.below(2_000)).await;
                if scene.calm.get() {
                    return;
                }
                match random.below(4) {
                    0 | 1 => {
                        let node = host.core(random.below(shards) as u16);
                        let until = scene.world.mono().plus(Duration::from_millis(1 + random.below(2_000)));
                        scene.trace(|| format!("stall {node:?} until {}", until.0));
                        scene.world.stall(node, until);
                    }
                    2 => {
                        let to = random.below(2 * FURTHEST_JUMP_MS as u64) as i64 - FURTHEST_JUMP_MS;
                        scene.world.jump_wall(to - jumped.replace(to));
                    }
                    _ => bucket.set_down(random.one_in(2)),
                }
            }
        };
        // It dies with the life it plagues.
        life.host.main().spawn(Queue::Janitor, "gremlin", Box::pin(task));
    }
}

async fn pause(scene: &Rc<Scene>, ms: u64) {
    scene.pause(Duration::from_millis(ms)).await;
}
