//! The simulation's runtime: one thread, virtual time, and a seed that decides who runs next.
//!
//! A run is a pure function of its seed: the scheduler picks among the ready tasks with its own random stream, time jumps
//! to the next timer when nothing is ready, and a digest folds every poll and timer, so that two processes can compare.
//! Tasks belong to a node; a crash drops a node's tasks without polling them again.
#![expect(clippy::disallowed_types, reason = "runtime module: a waker must be Sync; the simulation has one thread")]

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    rc::{Rc, Weak},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

use thalweg_record::{Mono, Wall};

use super::{LocalBoxFuture, Queue, Runtime};

/// A simulated machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Node(pub u32);

/// SplitMix64 (Steele, Lea, Flood 2014): one stream per (seed, purpose).
#[derive(Clone, Debug)]
pub struct Stream(u64);

impl Stream {
    /// The stream of `purpose` under `seed`.
    pub fn new(seed: u64, purpose: u64) -> Stream {
        let mut stream = Stream(seed ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        stream.next();
        stream
    }

    /// The next 64 bits.
    #[expect(clippy::should_implement_trait, reason = "an endless stream is no iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound` (> 0).
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

struct Task {
    node: Node,
    name: &'static str,
    future: Option<LocalBoxFuture<'static, ()>>,
    waker: Waker,
}

#[derive(Default)]
struct Ready(Mutex<BTreeSet<u64>>);

struct TaskWaker {
    id: u64,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.ready.0.lock().unwrap_or_else(PoisonError::into_inner).insert(self.id);
    }
}

/// The world: tasks of all nodes, virtual time, one schedule.
pub struct World {
    seed: u64,
    now: Cell<u64>,
    wall_skew_ms: Cell<i64>,
    next_id: Cell<u64>,
    tasks: RefCell<BTreeMap<u64, Task>>,
    ready: Arc<Ready>,
    timers: RefCell<BTreeMap<(u64, u64), (Node, Waker)>>,
    /// Nodes that run nothing until then.
    stalled: RefCell<BTreeMap<Node, u64>>,
    schedule: RefCell<Stream>,
    digest: Cell<u64>,
    polls: Cell<u64>,
}

/// Why a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The condition holds.
    Done,
    /// Nothing is ready and no timer is set: a deadlock, unless the test is over.
    Idle,
    /// The poll budget is spent: a livelock.
    Budget,
}

impl World {
    /// A world whose every choice follows from `seed`.
    pub fn new(seed: u64) -> Rc<World> {
        Rc::new(World {
            seed,
            now: Cell::new(1_000_000_000),
            wall_skew_ms: Cell::new(1_700_000_000_000),
            next_id: Cell::new(0),
            tasks: RefCell::default(),
            ready: Arc::default(),
            timers: RefCell::default(),
            stalled: RefCell::default(),
            schedule: RefCell::new(Stream::new(seed, 1)),
            digest: Cell::new(seed),
            polls: Cell::new(0),
        })
    }

    /// A node's runtime.
    pub fn runtime(self: &Rc<World>, node: Node) -> Rc<dyn Runtime> {
        let random = RefCell::new(Stream::new(self.seed, 0x1_0000 + u64::from(node.0)));
        Rc::new(SeededRuntime { world: Rc::downgrade(self), node, random })
    }

    /// Virtual time now.
    pub fn mono(&self) -> Mono {
        Mono(self.now.get())
    }

    /// Moves the wall clock by `ms`, in either direction.
    pub fn jump_wall(&self, ms: i64) {
        self.wall_skew_ms.set(self.wall_skew_ms.get() + ms);
    }

    /// Folds a fact (device bytes, an answer) into the digest.
    pub fn note(&self, fact: u64) {
        self.digest.set((self.digest.get() ^ fact).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23));
    }

    /// The digest of all that happened.
    pub fn digest(&self) -> u64 {
        self.digest.get()
    }

    /// Polls so far.
    pub fn polls(&self) -> u64 {
        self.polls.get()
    }

    /// Drops all tasks and timers of `node` without polling them: destructors run, but no code after an await does.
    /// Kill the node's ports (device, store) first, so that destructors cannot reach the world.
    pub fn crash(&self, node: Node) {
        let dead: Vec<Task> = {
            let mut tasks = self.tasks.borrow_mut();
            let ids: Vec<u64> = tasks.iter().filter(|(_, t)| t.node == node).map(|(id, _)| *id).collect();
            ids.iter().filter_map(|id| tasks.remove(id)).collect()
        };
        self.timers.borrow_mut().retain(|_, (owner, _)| *owner != node);
        drop(dead);
        self.note(0xc4a5_0000 + u64::from(node.0));
    }

    /// [`World::crash`] for every node of `nodes`, at one moment.
    pub fn crash_all(&self, nodes: std::ops::Range<Node>) {
        let living: BTreeSet<Node> = self.tasks.borrow().values().map(|task| task.node).collect();
        living.into_iter().filter(|node| nodes.contains(node)).for_each(|node| self.crash(node));
    }

    /// Lets `node` run nothing before `until`; the world goes on without it.
    pub fn stall(&self, node: Node, until: Mono) {
        self.stalled.borrow_mut().insert(node, until.0);
        self.note(until.0 ^ u64::from(node.0));
    }

    /// Until when a task's node is stalled, if it is now.
    fn stalled_until(&self, id: u64) -> Option<u64> {
        if self.stalled.borrow().is_empty() {
            return None;
        }
        let node = self.tasks.borrow().get(&id)?.node;
        let mut stalled = self.stalled.borrow_mut();
        let until = *stalled.get(&node)?;
        if until <= self.now.get() {
            stalled.remove(&node);
            return None;
        }
        Some(until)
    }

    fn spawn(&self, node: Node, name: &'static str, future: LocalBoxFuture<'static, ()>) {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        let waker = Waker::from(Arc::new(TaskWaker { id, ready: self.ready.clone() }));
        waker.wake_by_ref();
        self.tasks.borrow_mut().insert(id, Task { node, name, future: Some(future), waker });
    }

    fn pick(&self) -> Option<u64> {
        let mut ready = self.ready.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.is_empty() {
            return None;
        }
        let n = self.schedule.borrow_mut().below(ready.len() as u64) as usize;
        let id = ready.iter().nth(n).copied()?;
        ready.remove(&id);
        Some(id)
    }

    fn poll_task(&self, id: u64) {
        if let Some(until) = self.stalled_until(id) {
            return self.poll_later(id, until);
        }
        let Some((mut future, waker, name)) = self.tasks.borrow_mut().get_mut(&id).and_then(|task| {
            let future = task.future.take()?;
            Some((future, task.waker.clone(), task.name))
        }) else {
            return;
        };
        self.polls.set(self.polls.get() + 1);
        self.note(id ^ name.bytes().fold(0, |sum, b| (sum << 5) ^ u64::from(b)));
        match Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(()) => drop(self.tasks.borrow_mut().remove(&id)),
            Poll::Pending => {
                if let Some(task) = self.tasks.borrow_mut().get_mut(&id) {
                    task.future = Some(future);
                }
            }
        }
    }

    fn poll_later(&self, id: u64, until: u64) {
        if let Some(task) = self.tasks.borrow().get(&id) {
            let seq = self.next_id.get();
            self.next_id.set(seq + 1);
            self.timers.borrow_mut().insert((until, seq), (task.node, task.waker.clone()));
        }
    }

    /// Jumps to the next timer; false when there is none.
    fn advance(&self) -> bool {
        let Some(((at, _), (_, waker))) = self.timers.borrow_mut().pop_first() else { return false };
        self.now.set(self.now.get().max(at));
        self.note(at);
        waker.wake();
        true
    }

    /// Runs until `done` holds, nothing can run, or `budget` polls are spent.
    pub fn run_until(&self, budget: u64, mut done: impl FnMut() -> bool) -> Ended {
        let limit = self.polls.get() + budget;
        loop {
            if done() {
                return Ended::Done;
            }
            if self.polls.get() >= limit {
                return Ended::Budget;
            }
            match self.pick() {
                Some(id) => self.poll_task(id),
                None if self.advance() => {}
                None => return Ended::Idle,
            }
        }
    }
}

struct SeededRuntime {
    world: Weak<World>,
    node: Node,
    random: RefCell<Stream>,
}

impl SeededRuntime {
    fn world(&self) -> Rc<World> {
        self.world.upgrade().expect("the world outlives its nodes")
    }
}

impl Runtime for SeededRuntime {
    fn mono(&self) -> Mono {
        self.world().mono()
    }

    fn wall(&self) -> Wall {
        let world = self.world();
        Wall(world.wall_skew_ms.get() + (world.now.get() / 1_000_000) as i64)
    }

    fn random(&self) -> u64 {
        self.random.borrow_mut().next()
    }

    fn spawn(&self, _q: Queue, name: &'static str, f: LocalBoxFuture<'static, ()>) {
        self.world().spawn(self.node, name, f);
    }

    fn sleep_until(&self, at: Mono) -> LocalBoxFuture<'static, ()> {
        let (world, node) = (self.world.clone(), self.node);
        // One timer for each waker: a task that is woken often while it sleeps would else have more and more of them.
        let mut set: Option<Waker> = None;
        Box::pin(std::future::poll_fn(move |cx| {
            let Some(world) = world.upgrade() else { return Poll::Pending };
            if set.is_some() && world.now.get() >= at.0 {
                return Poll::Ready(());
            }
            if !set.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                let seq = world.next_id.get();
                world.next_id.set(seq + 1);
                world.timers.borrow_mut().insert((at.0.max(world.now.get()), seq), (node, cx.waker().clone()));
                set = Some(cx.waker().clone());
            }
            Poll::Pending
        }))
    }

    fn breathe(&self) -> LocalBoxFuture<'static, ()> {
        let pause = self.random.borrow_mut().below(2_000);
        self.sleep_until(Mono(self.mono().0 + pause))
    }

    fn give_way(&self) -> LocalBoxFuture<'static, ()> {
        self.breathe()
    }

    fn fatal(&self, why: &str) -> ! {
        panic!("fatal on node {}: {why}", self.node.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn scenario(seed: u64) -> (u64, Vec<(u32, u64)>) {
        let world = World::new(seed);
        let log = Rc::new(RefCell::new(Vec::new()));
        for n in 0..3 {
            let rt = world.runtime(Node(n));
            let (log, inner) = (log.clone(), rt.clone());
            rt.spawn(
                Queue::Hot,
                "worker",
                Box::pin(async move {
                    for _ in 0..5 {
                        inner.sleep_until(inner.mono().plus(Duration::from_millis(1))).await;
                        log.borrow_mut().push((n, inner.random()));
                    }
                }),
            );
        }
        assert_eq!(world.run_until(10_000, || false), Ended::Idle);
        (world.digest(), log.take())
    }

    #[test]
    fn one_seed_is_one_history() {
        assert_eq!(scenario(7), scenario(7));
        assert_ne!(scenario(7).0, scenario(8).0);
        assert_eq!(scenario(7).1.len(), 15);
    }

    #[test]
    fn a_crash_drops_the_tasks_of_its_node_only() {
        let world = World::new(1);
        let hits = Rc::new(Cell::new(0));
        for n in 0..2 {
            let rt = world.runtime(Node(n));
            let (inner, hits) = (rt.clone(), hits.clone());
            rt.spawn(
                Queue::Hot,
                "late",
                Box::pin(async move {
                    inner.sleep_until(inner.mono().plus(Duration::from_secs(1))).await;
                    hits.set(hits.get() + 1);
                }),
            );
        }
        world.run_until(2, || false);
        world.crash(Node(0));
        assert_eq!(world.run_until(1_000, || false), Ended::Idle);
        assert_eq!(hits.get(), 1);
    }

    #[test]
    fn a_stalled_node_waits_and_the_others_go_on() {
        let world = World::new(1);
        let done = Rc::new(RefCell::new(BTreeMap::new()));
        world.stall(Node(0), Mono(9_000_000_000));
        for n in 0..2 {
            let (rt, done) = (world.runtime(Node(n)), done.clone());
            let clock = rt.clone();
            rt.spawn(
                Queue::Hot,
                "once",
                Box::pin(async move {
                    done.borrow_mut().insert(n, clock.mono().0);
                }),
            );
        }
        assert_eq!(world.run_until(1_000, || false), Ended::Idle);
        assert_eq!(done.take(), BTreeMap::from([(0, 9_000_000_000), (1, 1_000_000_000)]));
    }

    #[test]
    fn an_endless_task_spends_the_budget() {
        let world = World::new(1);
        let rt = world.runtime(Node(0));
        let inner = rt.clone();
        rt.spawn(
            Queue::Hot,
            "spin",
            Box::pin(async move {
                loop {
                    inner.breathe().await;
                }
            }),
        );
        assert_eq!(world.run_until(100, || false), Ended::Budget);
    }
}
