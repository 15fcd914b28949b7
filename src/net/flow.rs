//! What one connection has in flight, and when its parts may go on.
//!
//! Shared by the reader, the dispatcher and the writer of one connection, which are polled by one task.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

use thalweg_record::Mono;

use super::chunk::CHUNK_LEN;

/// Frames read behind a request that runs alone; the connection goes on being read only to notice its end.
const AHEAD: usize = 16;

/// The counts of one connection.
#[derive(Debug, Default)]
pub struct Flow {
    limit_bytes: usize,
    bytes: Cell<usize>,
    requests: Cell<usize>,
    alone: Cell<usize>,
    unfinished: Cell<usize>,
    queued: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
    /// When the last byte was read or written.
    pub active: Cell<Mono>,
    /// When the frame that is being read must be whole.
    pub frame_due: Cell<Option<Mono>>,
    /// Until when the connection is not read, for an answer asked the client to pause.
    pub muted_until: Cell<Mono>,
    /// Since when an answer waits to be taken by the client.
    pub writing: Cell<Option<Mono>>,
}

impl Flow {
    /// Nothing in flight at `now`, at most `limit_bytes` of requests later.
    pub fn new(limit_bytes: u32, now: Mono) -> Rc<Flow> {
        Rc::new(Flow { limit_bytes: limit_bytes as usize, active: Cell::new(now), ..Flow::default() })
    }

    /// Waits until a frame of `bytes` may be read: not while `paused`, which a finished step ends. One that exceeds the
    /// limit is read when nothing else is in flight.
    pub async fn room(&self, bytes: usize, paused: impl Fn() -> bool) {
        self.wait(|| {
            if paused() {
                return false;
            }
            let fits = self.requests.get() == 0 || self.bytes.get() + bytes <= self.limit_bytes;
            fits && (self.alone.get() == 0 || (bytes <= CHUNK_LEN && self.requests.get() <= AHEAD))
        })
        .await;
    }

    /// Waits until every request that was started has finished.
    pub async fn quiet(&self) {
        self.wait(|| self.unfinished.get() == 0).await;
    }

    /// Waits until no Produce that was read still waits to be handed to the shards; not while another request is ahead,
    /// which would have to be cancelled.
    pub async fn handed_over(&self) {
        self.wait(|| self.queued.get() == 0 || self.alone.get() > 0).await;
    }

    /// Waits until nothing is in flight.
    pub async fn empty(&self) {
        self.wait(|| self.requests.get() == 0).await;
    }

    async fn wait(&self, done: impl Fn() -> bool) {
        poll_fn(|cx| {
            if done() {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    fn changed(&self) {
        self.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }

    /// A request of `bytes` was read; `alone` says that it is not a Produce.
    pub fn enter(self: &Rc<Self>, bytes: usize, alone: bool) -> Ticket {
        self.bytes.set(self.bytes.get() + bytes);
        self.requests.set(self.requests.get() + 1);
        self.alone.set(self.alone.get() + usize::from(alone));
        self.queued.set(self.queued.get() + 1);
        Ticket { flow: Rc::clone(self), bytes, alone, queued: true, started: false }
    }
}

/// A request's place in its connection's counts, until its answer is written.
#[derive(Debug)]
pub struct Ticket {
    flow: Rc<Flow>,
    bytes: usize,
    alone: bool,
    queued: bool,
    started: bool,
}

impl Ticket {
    /// Length of its frame.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its turn has come.
    pub fn start(&mut self) {
        assert!(!self.started, "a request starts once");
        self.started = true;
        self.flow.unfinished.set(self.flow.unfinished.get() + 1);
    }

    /// It is in the hands of the shards.
    pub fn hand_over(&mut self) {
        if std::mem::take(&mut self.queued) {
            self.flow.queued.set(self.flow.queued.get() - 1);
            self.flow.changed();
        }
    }

    /// Its outcome is known.
    pub fn finish(&mut self) {
        if std::mem::take(&mut self.started) {
            self.flow.unfinished.set(self.flow.unfinished.get() - 1);
            self.flow.changed();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.hand_over();
        self.finish();
        let flow = &self.flow;
        flow.bytes.set(flow.bytes.get() - self.bytes);
        flow.requests.set(flow.requests.get() - 1);
        flow.alone.set(flow.alone.get() - usize::from(self.alone));
        flow.changed();
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn reading_pauses_at_the_limit_and_behind_what_runs_alone() {
        block_on(async {
            let flow = Flow::new(1 << 20, Mono(0));
            assert!(
                poll_once(flow.room(9 << 20, || false)).await.is_some(),
                "a giant passes when nothing is in flight"
            );
            let produce = flow.enter(900 << 10, false);
            assert!(poll_once(flow.room(100 << 10, || false)).await.is_some());
            assert!(poll_once(flow.room(200 << 10, || false)).await.is_none());
            drop(produce);
            let fetch = flow.enter(100, true);
            assert!(poll_once(flow.room(200 << 10, || false)).await.is_none(), "a large frame waits for the fetch");
            let ahead: Vec<Ticket> = (0..AHEAD).map(|_| flow.enter(10, false)).collect();
            assert!(poll_once(flow.room(10, || false)).await.is_none());
            drop(fetch);
            assert!(poll_once(flow.room(10, || false)).await.is_some());
            drop(ahead);
        });
    }

    #[test]
    fn quiet_is_when_all_started_have_finished() {
        block_on(async {
            let flow = Flow::new(100, Mono(0));
            let mut first = flow.enter(1, false);
            assert!(poll_once(flow.quiet()).await.is_some(), "not started yet");
            first.start();
            assert!(poll_once(flow.quiet()).await.is_none());
            first.finish();
            assert!(poll_once(flow.quiet()).await.is_some(), "finished, though not written");
        });
    }
}
