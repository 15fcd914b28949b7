//! The production runtime: one pinned glommio executor per shard.
//!
//! The only module of this crate that sees glommio. Pitfalls it keeps from everybody else: `spawn_local` polls the child
//! inside the caller (tasks go through `spawn_local_into`), an executor may park with work left (watchdog), I/O is only
//! polled when the run queues are empty (`breathe` is a short timer).
#![expect(clippy::disallowed_methods, reason = "runtime module: reads the clocks and owns the executors' threads")]

use std::{rc::Rc, thread, time::Duration};

use glommio::{Latency, LocalExecutorBuilder, Placement, Shares, TaskQueueHandle, timer::Timer};
use thalweg_record::{Mono, ShardId, Wall};

use super::{Heartbeat, LocalBoxFuture, Queue, Runtime};

/// Long enough that I/O is polled and other queues run; a timer of 0 or 1 ns would complete at once and starve them.
const BREATH: Duration = Duration::from_micros(2);

/// Shares of the task queues, in the order of [`Queue`].
const SHARES: [(Queue, &str, usize); 4] = [
    (Queue::Hot, "hot", 1000),
    (Queue::Upload, "upload", 250),
    (Queue::Cold, "cold", 100),
    (Queue::Janitor, "janitor", 50),
];

/// [`Runtime`] on the glommio executor of the calling thread.
pub struct GlommioRuntime {
    queues: [TaskQueueHandle; 4],
}

impl GlommioRuntime {
    fn new() -> GlommioRuntime {
        let queues = SHARES.map(|(_, name, shares)| {
            glommio::executor().create_task_queue(Shares::Static(shares), Latency::NotImportant, name)
        });
        GlommioRuntime { queues }
    }
}

fn clock(id: libc::clockid_t) -> (u64, u32) {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec; both clocks exist on every Linux that has io_uring.
    let failed = unsafe { libc::clock_gettime(id, &mut now) };
    assert_eq!(failed, 0, "clock_gettime({id}) failed");
    (now.tv_sec as u64, now.tv_nsec as u32)
}

/// CLOCK_BOOTTIME now, for edge threads that have no [`Runtime`].
pub fn mono_now() -> Mono {
    let (s, ns) = clock(libc::CLOCK_BOOTTIME);
    Mono(s * 1_000_000_000 + u64::from(ns))
}

/// CLOCK_REALTIME now, for edge threads that have no [`Runtime`].
pub fn wall_now() -> Wall {
    let (s, ns) = clock(libc::CLOCK_REALTIME);
    Wall(s as i64 * 1000 + i64::from(ns / 1_000_000))
}

/// 64 bits from the kernel's generator.
pub fn random_bits() -> u64 {
    let mut bits = [0u8; 8];
    // SAFETY: the pointer and length describe `bits`; up to 256 bytes are never interrupted.
    let got = unsafe { libc::getrandom(bits.as_mut_ptr().cast(), bits.len(), 0) };
    assert_eq!(got, 8, "getrandom failed");
    u64::from_le_bytes(bits)
}

impl Runtime for GlommioRuntime {
    fn mono(&self) -> Mono {
        mono_now()
    }

    fn wall(&self) -> Wall {
        wall_now()
    }

    fn random(&self) -> u64 {
        random_bits()
    }

    fn spawn(&self, q: Queue, name: &'static str, f: LocalBoxFuture<'static, ()>) {
        match glommio::spawn_local_into(f, self.queues[q as usize]) {
            Ok(task) => drop(task.detach()),
            Err(error) => self.fatal(&format!("cannot spawn {name}: {error}")),
        }
    }

    fn sleep_until(&self, at: Mono) -> LocalBoxFuture<'static, ()> {
        let wait = at.since(self.mono()).max(BREATH);
        Box::pin(async move {
            Timer::new(wait).await;
        })
    }

    fn breathe(&self) -> LocalBoxFuture<'static, ()> {
        Box::pin(async {
            Timer::new(BREATH).await;
        })
    }

    fn give_way(&self) -> LocalBoxFuture<'static, ()> {
        Box::pin(async { glommio::executor().yield_if_needed().await })
    }

    fn fatal(&self, why: &str) -> ! {
        tracing::error!(why, "broken invariant: the process ends before anything more is acknowledged");
        std::process::abort()
    }
}

/// A running executor; its thread ends when the future given to [`start`] does.
pub struct Executor(glommio::ExecutorJoinHandle<()>);

impl Executor {
    /// Waits for the executor's end. Blocks: call it from a plain thread.
    ///
    /// # Errors
    /// The text of what ended it, when it was not the end of its future.
    pub fn join(self) -> Result<(), String> {
        self.0.join().map_err(|e| e.to_string())
    }
}

/// Starts the executor of one shard, pinned to a core when there are enough cores, and runs `body` on it to its end.
///
/// # Errors
/// When io_uring, locked memory or a thread is refused; the text is the operating system's.
pub fn start<F>(
    shard: ShardId,
    heart: Heartbeat,
    body: impl FnOnce(Rc<dyn Runtime>) -> F + Send + 'static,
) -> Result<Executor, String>
where
    F: Future<Output = ()> + 'static,
{
    let cores = thread::available_parallelism().map_or(1, |n| n.get());
    let core = usize::from(shard.0);
    // A container may own cores that do not begin at 0: then leave the placement to the kernel.
    let placement = match allowed_cores().get(core) {
        Some(cpu) if core < cores => Placement::Fixed(*cpu),
        _ => Placement::Unbound,
    };
    // Not with a shorter preempt_timer: one that fires before the first queue has run lets glommio park with tasks left, and
    // before the heartbeat's first turn nobody would wake it.
    let started = LocalExecutorBuilder::new(placement).name(&format!("shard-{shard}")).spawn(move || async move {
        let runtime: Rc<dyn Runtime> = Rc::new(GlommioRuntime::new());
        runtime.spawn(Queue::Hot, "heartbeat", Box::pin(heart.task()));
        body(runtime).await;
    });
    started.map(Executor).map_err(|e| e.to_string())
}

/// The cores that this process may run on.
fn allowed_cores() -> Vec<usize> {
    // SAFETY: a zeroed cpu_set_t is an empty set, and the call writes no more than its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, std::mem::size_of::<libc::cpu_set_t>(), &mut set) != 0 {
            return Vec::new();
        }
        set
    };
    // SAFETY: the index stays below the set's size.
    (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect()
}
