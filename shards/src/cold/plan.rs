//! What to fetch, when, and for whom: the cold reader without its I/O. Pure: events and `now` in, actions out.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};

use bytes::Bytes;
use thalweg_objectstore::format::{BlockEntry, BlockIndex};
use thalweg_record::{Mono, Offset, Wall};

use super::{
    ColdError,
    cache::{Cache, Content, Unit, split_run},
    read_job::{Batches, ReadAsk, ReadJob, Step},
    readers::{Pace, ReaderKey, Readers},
    rounds::{Rounds, Want},
    time_job::{TimeAsk, TimeJob, TimeStep},
};
use crate::{meta::CommittedObject, msg::ConnId, records::FoundTime};

/// One request fetches at most this much, unless a single block is larger.
const RUN_BYTES: u64 = 2 * 1024 * 1024;

/// A request in progress.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct JobId(pub(super) u64);

/// A fetch in flight.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct FlightId(u64);

/// What the actor does next.
#[derive(Debug)]
pub(super) enum Action {
    /// Fetch the index of this object.
    FetchIndex(FlightId, Rc<CommittedObject>),
    /// Fetch these blocks, side by side in this object, with one request, and check their CRCs.
    FetchRun(FlightId, Rc<CommittedObject>, Vec<BlockEntry>),
    /// Walk the records of this block from an offset on for one at or after a time.
    Search(JobId, Bytes, Offset, Wall),
    /// A read is over.
    Read(JobId, Result<Vec<Bytes>, ColdError>),
    /// A look-up is over.
    Found(JobId, Result<Option<FoundTime>, ColdError>),
}

/// What a fetch brought.
#[derive(Clone, Debug)]
pub(super) enum Fetched {
    /// The index.
    Index(Rc<BlockIndex>),
    /// The run; the CRC of each of its blocks is right.
    Run(Bytes),
}

#[derive(Debug)]
enum Job {
    Read(ConnId, ReadJob),
    Time(ConnId, TimeJob),
}

#[derive(Debug)]
struct Flight {
    wants: Vec<Want>,
    bytes: u64,
}

/// Bounds of one core's cold reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) cache_bytes: u64,
    pub(super) in_flight_bytes: u64,
    pub(super) in_flight_requests: usize,
}

/// The planner.
#[derive(Debug)]
pub(super) struct Plan {
    bounds: Bounds,
    pub(super) cache: Cache,
    readers: Readers,
    demand: Rounds,
    ahead: Rounds,
    jobs: BTreeMap<JobId, Job>,
    waiting: BTreeMap<Unit, Vec<JobId>>,
    /// Reads whose answers are to be made.
    ready: VecDeque<JobId>,
    flights: BTreeMap<FlightId, Flight>,
    flying: BTreeSet<Unit>,
    flying_bytes: u64,
    next_flight: u64,
    actions: Vec<Action>,
}

impl Plan {
    pub(super) fn new(bounds: Bounds) -> Plan {
        let run_bytes = RUN_BYTES.min(bounds.in_flight_bytes / 2);
        Plan {
            bounds,
            cache: Cache::new(bounds.cache_bytes),
            readers: Readers::new(bounds.cache_bytes / 2),
            demand: Rounds::new(run_bytes),
            ahead: Rounds::new(run_bytes),
            jobs: BTreeMap::new(),
            waiting: BTreeMap::new(),
            ready: VecDeque::new(),
            flights: BTreeMap::new(),
            flying: BTreeSet::new(),
            flying_bytes: 0,
            next_flight: 0,
            actions: Vec::new(),
        }
    }

    /// What is to be done since the last call, in order.
    pub(super) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// A read begins; `id` is new.
    pub(super) fn read(&mut self, id: JobId, conn: ConnId, ask: ReadAsk, now: Mono) {
        let pace = self.readers.begin(conn, ask.partition, ask.offset, now);
        if pace == Pace::Seek {
            self.ahead.take_back(conn, Some(ask.partition));
        }
        let trail = ask.trail(ask.offset, u64::from(ask.max_bytes));
        self.readers.follow(conn, ask.partition, trail);
        let key = (conn, ask.partition);
        self.jobs.insert(id, Job::Read(conn, ReadJob::new(ask)));
        self.advance(id);
        self.read_ahead(key);
        self.dispatch();
    }

    /// A look-up begins; `id` is new.
    pub(super) fn find_time(&mut self, id: JobId, conn: ConnId, ask: TimeAsk) {
        self.jobs.insert(id, Job::Time(conn, TimeJob::new(ask)));
        self.advance(id);
        self.dispatch();
    }

    /// A connection is closed.
    pub(super) fn conn_gone(&mut self, conn: ConnId) {
        self.readers.gone(conn);
        self.ahead.take_back(conn, None);
    }

    /// A search ended.
    pub(super) fn searched(&mut self, id: JobId, found: Option<FoundTime>) {
        if let Some(Job::Time(_, job)) = self.jobs.get_mut(&id) {
            job.searched(found);
        }
        self.advance(id);
        self.dispatch();
    }

    /// A fetch ended.
    pub(super) fn fetched(&mut self, id: FlightId, result: Result<Fetched, ColdError>) {
        let flight = self.flights.remove(&id).expect("a fetch ends once");
        self.flying_bytes -= flight.bytes;
        for want in &flight.wants {
            self.flying.remove(&want.unit());
        }
        match result {
            Ok(fetched) => self.deliver(&flight, &fetched),
            Err(error) => self.fail(&flight, &error),
        }
        self.dispatch();
    }

    fn deliver(&mut self, flight: &Flight, fetched: &Fetched) {
        let object = flight.wants[0].object.object;
        let units = match fetched {
            Fetched::Index(index) => {
                self.cache.insert_index(object, index);
                vec![(Unit::Index(object), Content::Index(index.clone()))]
            }
            Fetched::Run(run) => {
                let blocks: Vec<BlockEntry> = flight.wants.iter().filter_map(|want| want.block).collect();
                self.cache.insert_run(object, &blocks, run);
                split_run(object, &blocks, run)
            }
        };
        let mut touched = BTreeSet::new();
        for (unit, content) in units {
            for id in self.waiting.remove(&unit).unwrap_or_default() {
                match self.jobs.get_mut(&id) {
                    Some(Job::Read(_, job)) => job.deliver(unit, &content),
                    Some(Job::Time(_, job)) => job.deliver(unit, &content),
                    None => {}
                }
                touched.insert(id);
            }
        }
        touched.into_iter().for_each(|id| self.advance(id));
        if let Fetched::Index(_) = fetched {
            self.readers.take_awaiting(object).into_iter().for_each(|key| self.read_ahead(key));
        }
    }

    fn fail(&mut self, flight: &Flight, error: &ColdError) {
        let mut touched = BTreeSet::new();
        // What is read ahead ends there until somebody waits for it.
        drop(self.readers.take_awaiting(flight.wants[0].object.object));
        for unit in flight.wants.iter().map(Want::unit) {
            for id in self.waiting.remove(&unit).unwrap_or_default() {
                match self.jobs.get_mut(&id) {
                    Some(Job::Read(_, job)) => job.unit_failed(unit, error.clone()),
                    Some(Job::Time(_, job)) => job.unit_failed(error.clone()),
                    None => {}
                }
                touched.insert(id);
            }
        }
        touched.into_iter().for_each(|id| self.advance(id));
    }

    /// Moves a job on; a job that is over leaves its answer among the actions.
    fn advance(&mut self, id: JobId) {
        match self.jobs.get_mut(&id) {
            None => {}
            Some(Job::Read(conn, job)) => {
                let conn = *conn;
                match job.advance(&mut self.cache) {
                    Step::Waits(wants) => wants.into_iter().for_each(|want| self.want(id, conn, want)),
                    Step::Ready => self.ready.push_back(id),
                }
            }
            Some(Job::Time(conn, job)) => {
                let (conn, time) = (*conn, job.time());
                match job.advance(&mut self.cache) {
                    TimeStep::Waits(want) => want.into_iter().for_each(|want| self.want(id, conn, want)),
                    TimeStep::Search(block, from) => self.actions.push(Action::Search(id, block, from, time)),
                    TimeStep::Done(result) => {
                        self.jobs.remove(&id);
                        self.actions.push(Action::Found(id, result));
                    }
                }
            }
        }
    }

    /// Makes the next part of an answer: at most one block of one read. False when there is none to be made.
    pub(super) fn cut_next(&mut self) -> bool {
        let Some(id) = self.ready.front().copied() else { return false };
        let Some(Job::Read(_, job)) = self.jobs.get_mut(&id) else {
            unreachable!("only a read is ready, and it ends here")
        };
        if let Some(result) = job.cut_next() {
            self.ready.pop_front();
            self.read_ended(id, result);
            self.dispatch();
        }
        true
    }

    fn read_ended(&mut self, id: JobId, result: Result<Batches, ColdError>) {
        let Some(Job::Read(conn, job)) = self.jobs.remove(&id) else { return };
        if let Ok(batches) = &result {
            self.readers.ended(conn, job.ask.partition, batches.next);
            self.readers.follow(conn, job.ask.partition, job.ask.trail(batches.next, 0));
            self.read_ahead((conn, job.ask.partition));
        }
        self.actions.push(Action::Read(id, result.map(|batches| batches.pieces)));
    }

    fn want(&mut self, id: JobId, conn: ConnId, want: Want) {
        let unit = want.unit();
        self.waiting.entry(unit).or_default().push(id);
        if !self.flying.contains(&unit) {
            self.demand.push(conn, want);
        }
    }

    /// Wants what lies within the reader's window.
    fn read_ahead(&mut self, key: ReaderKey) {
        let Some((window, trail, wanted_to)) = self.readers.in_sequence(key) else { return };
        let ahead = trail.ahead(window, wanted_to, &mut self.cache);
        self.readers.wanted(key, ahead.wanted_to, ahead.awaits);
        for want in ahead.wants {
            let unit = want.unit();
            if !self.flying.contains(&unit) && !self.waiting.contains_key(&unit) && !self.cache.contains(unit) {
                self.ahead.push(key.0, want);
            }
        }
    }

    /// Starts fetches while the budget lasts: what is waited for first, and readahead within half of the budget.
    fn dispatch(&mut self) {
        while self.flights.len() < self.bounds.in_flight_requests {
            let (flying, waiting, cache) = (&self.flying, &self.waiting, &self.cache);
            let (budget, in_flight) = (self.bounds.in_flight_bytes, self.flying_bytes);
            let demanded = self.demand.next(
                |unit| flying.contains(&unit) || !waiting.contains_key(&unit),
                // A block larger than the budget goes alone.
                |bytes| in_flight == 0 || in_flight + bytes <= budget,
            );
            let room_ahead = self.flights.len() < self.bounds.in_flight_requests.div_ceil(2);
            let next = demanded.or_else(|| {
                self.ahead.next(
                    |unit| flying.contains(&unit) || cache.contains(unit),
                    |bytes| room_ahead && in_flight + bytes <= budget / 2,
                )
            });
            let Some((wants, bytes)) = next else { return };
            self.start(wants, bytes);
        }
    }

    fn start(&mut self, wants: Vec<Want>, bytes: u64) {
        self.next_flight += 1;
        let id = FlightId(self.next_flight);
        self.flying.extend(wants.iter().map(Want::unit));
        self.flying_bytes += bytes;
        let object = wants[0].object.clone();
        let blocks: Vec<BlockEntry> = wants.iter().filter_map(|want| want.block).collect();
        self.actions.push(if blocks.is_empty() {
            Action::FetchIndex(id, object)
        } else {
            Action::FetchRun(id, object, blocks)
        });
        self.flights.insert(id, Flight { wants, bytes });
    }
}
