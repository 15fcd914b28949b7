//! An allocator that counts what every thread takes, but for those that say that they are no part of the broker, and but for what a core
//! takes whenever it wakes up, asked or not.
//!
//! An executor allocates at each turn of its loop (timers, sources of its ring), some thousand times a second while nobody asks for
//! anything. A slow machine lets more of them pass for each request, so they are learned from an idle broker by their sizes, and counted
//! apart.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    ops::Sub,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

/// Sizes that are told apart.
const SIZES: usize = 1024;
/// What is learned from takes its most frequent size so often.
const LEARNED_FROM: u64 = 1000;

static COUNT: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);
static BY_SIZE: [AtomicU64; SIZES] = [const { AtomicU64::new(0) }; SIZES];
static OF_A_WAKE: [AtomicBool; SIZES] = [const { AtomicBool::new(false) }; SIZES];

thread_local! {
    // Neither initialised at run time nor dropped: the allocator may ask for it at any moment of a thread's life.
    static UNCOUNTED: Cell<bool> = const { Cell::new(false) };
}

/// What the process has asked the allocator for. Something that grows counts as a new one, for it may be copied.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Taken {
    /// Allocations.
    pub count: u64,
    /// Bytes asked for.
    pub bytes: u64,
}

impl Taken {
    /// Up to now.
    pub fn now() -> Taken {
        Taken { count: COUNT.load(Relaxed), bytes: BYTES.load(Relaxed) }
    }
}

impl Sub for Taken {
    type Output = Taken;

    fn sub(self, before: Taken) -> Taken {
        Taken { count: self.count - before.count, bytes: self.bytes - before.bytes }
    }
}

/// What the calling thread allocates counts for nothing from now on: it is the client.
pub fn count_without_this_thread() {
    UNCOUNTED.set(true);
}

/// Waits until the broker, which has nothing to do, has shown what it takes at each wake of a core: the most frequent size, and those that are
/// a third as frequent. They do not count from now on; they are answered.
pub fn count_without_wakes() -> Vec<usize> {
    let now = || BY_SIZE.each_ref().map(|count| count.load(Relaxed));
    let before = now();
    loop {
        let since: Vec<u64> = now().iter().zip(before).map(|(now, before)| now - before).collect();
        let most = since.iter().copied().max().unwrap_or(0);
        if most >= LEARNED_FROM {
            let sizes: Vec<usize> = (0..SIZES).filter(|size| since[*size] >= most / 3).collect();
            sizes.iter().for_each(|size| OF_A_WAKE[*size].store(true, Relaxed));
            return sizes;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn count(bytes: usize) {
    if UNCOUNTED.get() {
        return;
    }
    if bytes < SIZES {
        BY_SIZE[bytes].fetch_add(1, Relaxed);
        if OF_A_WAKE[bytes].load(Relaxed) {
            return;
        }
    }
    COUNT.fetch_add(1, Relaxed);
    BYTES.fetch_add(bytes as u64, Relaxed);
}

struct Counting;

// SAFETY: hands every call to the system's allocator as it came; the counters neither allocate nor unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes);
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(at, layout, bytes) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
