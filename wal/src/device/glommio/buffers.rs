//! DMA buffers that travel as `Bytes` and are freed at home.
//!
//! glommio's buffers belong to an allocator of their executor, counted without atomics: only their home thread may free
//! them. A `Bytes` may be dropped on any core, so its memory then goes home over a lane and is freed there.

use std::{
    any::Any,
    mem,
    rc::Rc,
    thread::{self, ThreadId},
};

use bytes::Bytes;
use glommio::io::{DmaBuffer, ReadResult};

use super::super::buf::{HeapRegion, IoBuf, Region};

/// Memory that only its home thread may free: a buffer of ours, or what glommio has read.
struct Parcel {
    _buffer: Option<Rc<DmaBuffer>>,
    _read: Option<ReadResult>,
}

// SAFETY: away from home a parcel is neither opened nor dropped. `Frozen` only moves it: into the lane, whose receiver
// stays on the home thread, or into `mem::forget`. The counters inside are touched at home alone.
unsafe impl Send for Parcel {}

/// The home thread of a device's buffers, and the lane that leads to it.
#[derive(Clone)]
pub(super) struct Home {
    thread: ThreadId,
    lane: flume::Sender<Parcel>,
    arrivals: Rc<flume::Receiver<Parcel>>,
}

impl Home {
    /// The calling thread.
    pub(super) fn new() -> Home {
        let (lane, arrivals) = flume::unbounded();
        Home { thread: thread::current().id(), lane, arrivals: Rc::new(arrivals) }
    }

    /// Frees what has come home since the last call. The lane is no longer than the bytes that were handed out.
    pub(super) fn welcome(&self) {
        while let Ok(parcel) = self.arrivals.try_recv() {
            drop(parcel);
        }
    }

    /// What was read, without a copy.
    pub(super) fn freeze_read(&self, read: ReadResult) -> Bytes {
        let (start, len) = (read.as_ptr(), read.len());
        self.freeze(start, len, Parcel { _buffer: None, _read: Some(read) })
    }

    fn freeze(&self, start: *const u8, len: usize, parcel: Parcel) -> Bytes {
        let (home, lane) = (self.thread, self.lane.clone());
        Bytes::from_owner(Frozen { start, len, parcel: Some(parcel), home, lane })
    }
}

/// The owner behind a `Bytes`.
struct Frozen {
    start: *const u8,
    len: usize,
    parcel: Option<Parcel>,
    home: ThreadId,
    lane: flume::Sender<Parcel>,
}

// SAFETY: `start` points into the memory that the parcel keeps alive. It is only read, and nobody writes to it any more.
unsafe impl Send for Frozen {}

impl AsRef<[u8]> for Frozen {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `start .. start + len` was a slice of the memory when it was frozen; the parcel keeps that alive, and
        // neither kind of memory moves.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let Some(parcel) = self.parcel.take() else { return };
        if thread::current().id() == self.home {
            drop(parcel);
        } else if let Err(refused) = self.lane.try_send(parcel) {
            // The device is gone, and with it whoever could free this. That is a stop, so the leak ends soon.
            mem::forget(refused.into_inner());
        }
    }
}

/// The memory of an `IoBuf` of this device.
pub(super) struct DmaRegion {
    buf: Rc<DmaBuffer>,
    pinned: usize,
    home: Home,
}

impl DmaRegion {
    pub(super) fn new(buf: DmaBuffer, home: &Home) -> DmaRegion {
        let pinned = buf.len();
        DmaRegion { buf: Rc::new(buf), pinned, home: home.clone() }
    }

    /// The memory of `buf`, cut to what is filled. A buffer from the heap is copied into a fresh one from `alloc`.
    pub(super) fn of(buf: IoBuf, alloc: impl FnOnce(usize) -> DmaBuffer, home: &Home) -> DmaRegion {
        let (region, len) = buf.into_region();
        let mut own = match region.into_any().downcast::<DmaRegion>() {
            Ok(own) => *own,
            Err(other) => {
                let heap = other.downcast::<HeapRegion>().expect("a buffer is of this device or of the heap");
                let mut own = DmaRegion::new(alloc(len), home);
                own.memory_mut()[..len].copy_from_slice(&heap.memory()[..len]);
                own
            }
        };
        own.exclusive().trim_to_size(len);
        own
    }

    /// A share of the memory for the kernel to read from.
    pub(super) fn share(&self) -> Rc<DmaBuffer> {
        self.buf.clone()
    }

    fn exclusive(&mut self) -> &mut DmaBuffer {
        Rc::get_mut(&mut self.buf).expect("a buffer is not changed while it is written")
    }
}

impl Region for DmaRegion {
    fn memory(&self) -> &[u8] {
        self.buf.as_bytes()
    }

    fn memory_mut(&mut self) -> &mut [u8] {
        self.exclusive().as_bytes_mut()
    }

    fn pinned_bytes(&self) -> usize {
        self.pinned
    }

    fn freeze(self: Box<Self>, len: usize) -> Bytes {
        let start = self.memory()[..len].as_ptr();
        self.home.clone().freeze(start, len, Parcel { _buffer: Some(self.buf), _read: None })
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
