//! What one connection has in flight, how fast it moves, and when its parts may go on.
//!
//! Shared by the reader, the dispatcher and the writer of one connection, which are polled by one task, and by the pressure
//! of its executor.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

use thalweg_record::Mono;

/// Frames read behind a request that runs alone, and their bytes: the connection goes on being read only to notice its
/// end, and what is read ahead holds no permit yet.
const AHEAD: usize = 16;
const AHEAD_BYTES: usize = 16 << 10;
/// Requests of one connection that may be in flight, however small.
const MOST_REQUESTS: usize = 1000;

/// How something moves: since when, when it last moved, how far it came.
#[derive(Clone, Copy, Debug)]
struct Progress {
    since: Mono,
    last: Mono,
    bytes: usize,
}

impl Progress {
    fn begun(now: Mono) -> Progress {
        Progress { since: now, last: now, bytes: 0 }
    }

    /// When it falls behind `bytes_per_second`, which are asked of it after a time of grace.
    fn behind_at(self, grace: Duration, bytes_per_second: usize) -> Mono {
        self.since.plus(grace).plus(Duration::from_micros(self.bytes as u64 * 1_000_000 / bytes_per_second as u64))
    }
}

/// The counts of one connection.
#[derive(Debug, Default)]
pub struct Flow {
    limit_bytes: usize,
    bytes: Cell<usize>,
    requests: Cell<usize>,
    alone: Cell<usize>,
    /// Requests that were started, and whose answers are not written yet.
    unwritten: Cell<usize>,
    queued: Cell<usize>,
    /// Bytes of requests that were not started yet.
    unstarted_bytes: Cell<usize>,
    alone_since: Cell<Option<Mono>>,
    condemned: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
    /// When the last byte was read or written.
    pub active: Cell<Mono>,
    /// Until when the connection is not read, for an answer asked the client to pause.
    pub muted_until: Cell<Mono>,
    receiving: Cell<Option<Progress>>,
    sending: Cell<Option<Progress>>,
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
            let (requests, unstarted) = (self.requests.get(), self.unstarted_bytes.get());
            let fits = requests < MOST_REQUESTS && self.bytes.get() + bytes <= self.limit_bytes;
            let next = self.alone.get() == 0 && unstarted == 0;
            requests == 0 || (fits && (next || (requests <= AHEAD && unstarted + bytes <= AHEAD_BYTES)))
        })
        .await;
    }

    /// Waits until the answer to every request that was started is written.
    pub async fn quiet(&self) {
        self.wait(|| self.unwritten.get() == 0).await;
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

    /// Waits until somebody finds that this connection stands in the way.
    pub async fn condemned(&self) {
        self.wait(|| self.condemned.get()).await;
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
        self.unstarted_bytes.set(self.unstarted_bytes.get() + bytes);
        self.requests.set(self.requests.get() + 1);
        self.alone.set(self.alone.get() + usize::from(alone));
        self.queued.set(self.queued.get() + 1);
        Ticket { flow: Rc::clone(self), bytes, alone, queued: true, started: false }
    }

    /// Bytes of requests in flight.
    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// For how long a request that runs alone has been at work.
    pub fn runs_alone_for(&self, now: Mono) -> Duration {
        self.alone_since.get().map_or(Duration::ZERO, |since| now.since(since))
    }

    /// A frame is being received since then; or none is, or we do not read.
    pub fn receiving(&self, since: Option<Mono>) {
        self.receiving.set(since.map(Progress::begun));
    }

    /// Bytes of the stream were read.
    pub fn received(&self, bytes: usize) {
        self.receiving.set(self.receiving.get().map(|p| Progress { bytes: p.bytes + bytes, ..p }));
    }

    /// A piece of an answer is being written since then; or none is.
    pub fn sending(&self, since: Option<Mono>) {
        self.sending.set(since.map(Progress::begun));
    }

    /// The client took bytes of it.
    pub fn sent(&self, now: Mono, bytes: usize) {
        self.sending.set(self.sending.get().map(|p| Progress { bytes: p.bytes + bytes, last: now, ..p }));
    }

    /// Whether what is sent or taken is slower than this, after a time of grace.
    pub fn is_slower(&self, now: Mono, grace: Duration, bytes_per_second: usize) -> bool {
        let behind = |progress: Progress| now >= progress.behind_at(grace, bytes_per_second);
        self.receiving.get().is_some_and(behind) || self.sending.get().is_some_and(behind)
    }

    /// When the frame being received will be slower than this, after a time of grace, unless more of it comes.
    pub fn frame_due(&self, grace: Duration, bytes_per_second: usize) -> Option<Mono> {
        self.receiving.get().map(|progress| progress.behind_at(grace, bytes_per_second))
    }

    /// Since when a waiting answer was not touched.
    pub fn untouched_since(&self) -> Option<Mono> {
        self.sending.get().map(|progress| progress.last)
    }

    /// This connection stands in the way of others; it is to end.
    pub fn condemn(&self) {
        self.condemned.set(true);
        self.changed();
    }

    /// Whether it is to end.
    pub fn is_condemned(&self) -> bool {
        self.condemned.get()
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
    pub fn start(&mut self, now: Mono) {
        assert!(!self.started, "a request starts once");
        self.started = true;
        let flow = &self.flow;
        flow.unwritten.set(flow.unwritten.get() + 1);
        flow.unstarted_bytes.set(flow.unstarted_bytes.get() - self.bytes);
        if self.alone {
            flow.alone_since.set(Some(now));
        }
        flow.changed();
    }

    /// It is in the hands of the shards.
    pub fn hand_over(&mut self) {
        if std::mem::take(&mut self.queued) {
            self.flow.queued.set(self.flow.queued.get() - 1);
            self.flow.changed();
        }
    }

    /// The handler of a request that runs alone is done; its answer may wait to be written.
    pub fn handled(&self) {
        self.flow.alone_since.set(None);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.hand_over();
        let flow = &self.flow;
        match self.started {
            true => flow.unwritten.set(flow.unwritten.get() - 1),
            false => flow.unstarted_bytes.set(flow.unstarted_bytes.get() - self.bytes),
        }
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
            let mut produce = flow.enter(900 << 10, false);
            produce.start(Mono(0));
            assert!(poll_once(flow.room(100 << 10, || false)).await.is_some());
            assert!(poll_once(flow.room(200 << 10, || false)).await.is_none());
            drop(produce);
            let mut fetch = flow.enter(100, true);
            fetch.start(Mono(0));
            assert!(poll_once(flow.room(20 << 10, || false)).await.is_none(), "a large frame waits for the fetch");
            let ahead: Vec<Ticket> = (0..AHEAD).map(|_| flow.enter(10, false)).collect();
            assert!(poll_once(flow.room(10, || false)).await.is_none());
            drop(ahead);
            let _ahead = flow.enter(15 << 10, false);
            assert!(poll_once(flow.room(2 << 10, || false)).await.is_none(), "too much would wait without a permit");
            assert!(poll_once(flow.room(10, || false)).await.is_some());
        });
    }

    #[test]
    fn many_small_requests_are_too_many_in_the_end() {
        block_on(async {
            let flow = Flow::new(1 << 20, Mono(0));
            let mut all: Vec<Ticket> = (0..MOST_REQUESTS).map(|_| flow.enter(10, false)).collect();
            all.iter_mut().for_each(|ticket| ticket.start(Mono(0)));
            assert!(poll_once(flow.room(10, || false)).await.is_none());
            all.pop();
            assert!(poll_once(flow.room(10, || false)).await.is_some());
        });
    }

    #[test]
    fn quiet_is_when_the_answers_to_all_that_started_are_written() {
        block_on(async {
            let flow = Flow::new(100, Mono(0));
            let mut first = flow.enter(1, false);
            assert!(poll_once(flow.quiet()).await.is_some(), "not started yet");
            first.start(Mono(0));
            assert!(poll_once(flow.quiet()).await.is_none());
            drop(first);
            assert!(poll_once(flow.quiet()).await.is_some());
        });
    }

    #[test]
    fn slow_is_measured_by_what_moved() {
        let flow = Flow::new(100, Mono(0));
        let at = |seconds| Mono(0).plus(Duration::from_secs(seconds));
        let slow = |seconds| flow.frame_due(Duration::from_secs(10), 100).is_some_and(|due| at(seconds) >= due);
        assert!(!slow(100), "nothing is being received");
        flow.receiving(Some(at(0)));
        assert!(!slow(9) && slow(10));
        flow.received(1000);
        assert!(!slow(19) && slow(20), "a thousand bytes are worth ten seconds more");
        flow.receiving(None);
        assert!(!slow(100));
    }
}
