//! A fetch from probe to records: ask every shard, park until there is enough, allot, take, wait for what is cold.
//!
//! Lives on the connection's executor, as part of its handler; dropping it (the connection is closed) cancels all. No
//! wake-up is lost: a shard registers the watch in the very turn in which it answers the probe, and a wake that comes
//! while other answers are awaited is remembered. A watch covers all of the fetch's partitions on its shard, so a shard
//! is probed again as a whole.

mod cold;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_lite::future::or;
use thalweg_record::{Mono, ShardId};
use thalweg_shards::{
    mailbox::Answer,
    msg::{
        ConnId, FetchFrom, Generation, Isolation, PartitionError, ProbeRequest, ProbeState, Records, Reply, Request,
        TakeRequest, Taken,
    },
};

use super::{
    plan::{Allotment, Offer, allot},
    stash::{Key, Stash},
};
use crate::{
    api::{Edge, gather},
    cluster::ClusterSnapshot,
    net::Permit,
};

/// Bytes that one fetch may have read from the ring or the object store at once: a bound of what a connection keeps for
/// its next fetch.
pub(super) const SLOW_BYTES: u64 = 8 << 20;
/// A reader at the end of the log is answered at most once in this time.
const GATHER: Duration = Duration::from_millis(1);
/// An answer with less, and with all there is, tells that its reader is at the end of the log.
const FEW_BYTES: u64 = 64 << 10;
/// What an answer holds of each partition beside its records.
const PART_BYTES: usize = 64;

/// On what terms the client fetches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub isolation: Isolation,
    /// Enough to answer at once.
    pub min_bytes: u64,
    /// Bound of the answer's records, but for one batch.
    pub max_bytes: u64,
    /// When to answer whatever there is.
    pub deadline: Mono,
    /// Whether it may wait for more at all.
    pub may_park: bool,
}

/// What came of a fetch.
pub(super) struct Fetched {
    /// Per part, in order; never [`Records::Pending`].
    pub parts: Vec<Result<Taken, PartitionError>>,
    /// Room for the records, to be held until they are written.
    pub permit: Permit,
    /// To be kept for the next fetch.
    pub stash: Stash,
}

/// How the wait for cold records ended.
enum Delivery {
    /// The answer is what there is.
    Done,
    /// Hot records came: what is hot is taken anew, and what is being read stays in the stash.
    Overtaken,
}

/// A fetch under way.
pub(super) struct Fetch<'a> {
    edge: &'a Edge,
    conn: ConnId,
    terms: Terms,
    parts: &'a [FetchFrom],
    keys: Vec<Key>,
    states: Vec<Result<ProbeState, PartitionError>>,
    /// Places in `parts` that a probe's slot watches.
    watching: BTreeMap<u64, Vec<usize>>,
    woken: BTreeSet<u64>,
    /// By whose owners it was probed first.
    generation: Option<Generation>,
    /// There is something hot that was not taken, for it was too little to end the wait.
    untaken: bool,
    stash: Stash,
    /// Bytes that may be read from the ring or the object store now.
    cold_bytes: u64,
}

impl<'a> Fetch<'a> {
    pub fn new(edge: &'a Edge, conn: ConnId, terms: Terms, parts: &'a [FetchFrom], mut stash: Stash) -> Fetch<'a> {
        let keys: Vec<Key> = parts.iter().map(|from| Key::new(from, terms.isolation)).collect();
        stash.keep(&keys.iter().copied().collect());
        Fetch {
            edge,
            conn,
            terms,
            parts,
            keys,
            states: vec![Err(PartitionError::Unavailable); parts.len()],
            watching: BTreeMap::new(),
            woken: BTreeSet::new(),
            generation: None,
            untaken: false,
            stash,
            cold_bytes: 0,
        }
    }

    /// Runs it to its end.
    pub async fn run(mut self) -> Fetched {
        self.gather().await;
        self.probe((0..self.parts.len()).collect()).await;
        let mut tries = 0;
        loop {
            while !self.is_enough() {
                match self.park().await {
                    Some(places) => self.probe(places).await,
                    None => break,
                }
            }
            self.cold_bytes = self.room_for_cold().await;
            let (allotment, permit) = self.admit().await;
            self.edge.cold_room.hold(self.conn, self.stash.bytes() + self.slow_bytes(&allotment));
            // Before the take, which may hear of a cold part that it was allotted too little for its first batch.
            self.stash.starved = allotment.starved.map(|place| self.parts[place].partition);
            self.untaken = false;
            let mut taken = self.take(&allotment).await;
            if tries < gather::MOVED_RETRIES && self.is_moved(&taken).await {
                tries += 1;
                continue;
            }
            if let Delivery::Overtaken = self.deliver(&allotment, &mut taken).await {
                continue;
            }
            let parts: Vec<_> = taken.into_iter().map(|part| part.map(without_pending)).collect();
            let bytes: u64 = parts.iter().flatten().map(|taken| taken.records.bytes()).sum();
            let at_the_end = (1..FEW_BYTES).contains(&bytes) && bytes >= self.readable();
            self.stash.few_at = at_the_end.then(|| self.edge.runtime.mono());
            return Fetched { parts, permit, stash: self.stash };
        }
    }

    /// Lets a moment go by since an answer with few records: their reader is at the end of the log, and each answer costs the wakes of
    /// several cores, however much it holds.
    async fn gather(&mut self) {
        let Some(few_at) = self.stash.few_at.filter(|_| self.terms.may_park) else { return };
        let until = few_at.plus(GATHER).min(self.terms.deadline);
        if until > self.edge.runtime.mono() {
            or(self.edge.runtime.sleep_until(until), self.edge.stopping()).await;
        }
    }

    /// Asks what there is, again (a bounded number of times) when a partition is not where the snapshot says.
    async fn probe(&mut self, mut places: Vec<usize>) {
        for attempt in 0.. {
            let moved = self.probe_once(places).await;
            let Some(newer) = gather::newest_move(moved.iter().filter_map(|place| self.states[*place].as_ref().err()))
            else {
                return;
            };
            if attempt == gather::MOVED_RETRIES {
                return;
            }
            gather::catch_up(self.edge, newer).await;
            let snapshot = self.edge.snapshot();
            if !moved.iter().any(|place| self.still_exists(*place, &snapshot)) {
                return;
            }
            places = moved;
        }
    }

    /// Probes once; the places of all shards that said of some partition that it has moved.
    async fn probe_once(&mut self, places: Vec<usize>) -> Vec<usize> {
        let by_shard = self.whole_shards(places);
        let _permits = gather::permits(self.edge, &by_shard).await;
        let mut awaited = BTreeMap::new();
        for (shard, places) in by_shard {
            let (slot, reply) = self.stash.reply_to();
            let parts = places.iter().map(|place| self.parts[*place]).collect();
            let Terms { isolation, may_park, .. } = self.terms;
            let probe = ProbeRequest { conn: self.conn, parts, isolation, watch: may_park, reply };
            self.edge.shard(shard).send(Request::Probe(Box::new(probe)));
            self.watching.insert(slot, places.clone());
            awaited.insert(slot, places);
        }
        let mut moved = Vec::new();
        while !awaited.is_empty() {
            let Some(Answer { slot, reply }) = self.stash.receive().await else { continue };
            let Some(places) = awaited.remove(&slot) else {
                self.note(slot, &reply);
                continue;
            };
            let states = match reply {
                Reply::Probe(states) => states,
                _ => vec![Err(PartitionError::Unavailable); places.len()],
            };
            assert_eq!(states.len(), places.len(), "a probe answers for each of its parts");
            if states.iter().any(|state| state.as_ref().is_err_and(PartitionError::is_elsewhere)) {
                self.watching.remove(&slot);
                moved.extend(&places);
            }
            places.into_iter().zip(states).for_each(|(place, state)| self.states[place] = state);
        }
        moved
    }

    /// Remembers a wake. A dropped watch counts as one: probing again tells why.
    fn note(&mut self, slot: u64, reply: &Reply) {
        if matches!(reply, Reply::Wake | Reply::Dropped) && self.watching.contains_key(&slot) {
            self.woken.insert(slot);
        }
    }

    /// Waits for a change: the places to probe again, or `None` at the deadline.
    async fn park(&mut self) -> Option<Vec<usize>> {
        while self.woken.is_empty() {
            let edge = self.edge;
            if let Some(Answer { slot, reply }) = until(edge, self.terms.deadline, self.stash.receive()).await? {
                self.note(slot, &reply);
            }
        }
        let woken = std::mem::take(&mut self.woken);
        Some(woken.iter().filter_map(|slot| self.watching.remove(slot)).flatten().collect())
    }

    /// Bytes that were there when it was last asked.
    fn readable(&self) -> u64 {
        self.states.iter().flatten().map(|state| state.bytes).sum()
    }

    fn is_enough(&self) -> bool {
        !self.terms.may_park || self.readable() >= self.terms.min_bytes || self.states.iter().any(Result::is_err)
    }

    /// Allots what there is, and waits until the executor has room for an answer of that size; takes less when room is
    /// scarce, but never less than one batch.
    async fn admit(&self) -> (Allotment, Permit) {
        let admission = &self.edge.admission;
        let around = self.parts.len() * PART_BYTES;
        let allotment = self.allot(self.terms.max_bytes);
        if let Some(permit) = admission.try_response(allotment.total() as usize + around) {
            return (allotment, permit);
        }
        let free = admission.response_bytes_free().saturating_sub(around) as u64;
        let allotment = self.allot(self.terms.max_bytes.min(free));
        let permit = admission.response(allotment.total() as usize + around).await;
        (allotment, permit)
    }

    fn allot(&self, budget: u64) -> Allotment {
        let offers: Vec<Offer> = (0..self.parts.len()).map(|place| self.offer(place)).collect();
        let starved = self.stash.starved;
        let from = starved.and_then(|starved| self.parts.iter().position(|from| from.partition == starved));
        allot(&offers, budget, self.cold_bytes, from.unwrap_or(0))
    }

    fn offer(&self, place: usize) -> Offer {
        let Ok(state) = &self.states[place] else { return Offer::default() };
        match self.stash.peek(&self.keys[place]) {
            Some(read) => {
                let bytes = read.as_ref().map_or(0, |taken| taken.records.bytes());
                Offer { bytes, first_batch: bytes, limit: bytes, slow: false, whole: true }
            }
            None if self.stash.is_due(&self.keys[place]) => Offer::default(),
            None if state.slow && self.cold_bytes == 0 => Offer::default(),
            None => Offer {
                bytes: state.bytes,
                first_batch: u64::from(state.first_batch_bytes),
                limit: u64::from(self.parts[place].max_bytes),
                slow: state.slow,
                whole: false,
            },
        }
    }

    /// Takes from all shards at once. Partitions without an allotment are asked too, for their watermarks.
    async fn take(&mut self, allotment: &Allotment) -> Vec<Result<Taken, PartitionError>> {
        let mut taken: Vec<_> = self.states.iter().map(|state| Err(error_of(state))).collect();
        let mut by_shard = self.by_shard((0..self.parts.len()).filter(|place| self.states[*place].is_ok()).collect());
        let _permits = gather::permits(self.edge, &by_shard).await;
        let mut awaited = BTreeMap::new();
        let first = allotment.first.filter(|place| self.stash.peek(&self.keys[*place]).is_none());
        while let Some((shard, mut places)) = by_shard.pop_first() {
            // The shard serves the first of its parts that has anything beyond the limit: put the one that is due there.
            let at_least_one = first.is_some_and(|first| places.contains(&first));
            places.sort_by_key(|place| Some(*place) != first);
            let (slot, reply) = self.stash.reply_to();
            let parts = places.iter().map(|place| self.allotted(*place, allotment)).collect();
            let take = TakeRequest { conn: self.conn, parts, isolation: self.terms.isolation, at_least_one, reply };
            self.edge.shard(shard).send(Request::Take(Box::new(take)));
            awaited.insert(slot, places);
        }
        while !awaited.is_empty() {
            let Some(Answer { slot, reply }) = self.stash.receive().await else { continue };
            let Some(places) = awaited.remove(&slot) else {
                self.note(slot, &reply);
                continue;
            };
            let Reply::Take(answers) = reply else { continue };
            assert_eq!(answers.len(), places.len(), "a take answers for each of its parts");
            for (at, (place, answer)) in places.into_iter().zip(answers).enumerate() {
                if matches!(&answer, Ok(Taken { records: Records::Pending, .. })) && allotment.bytes[place] > 0 {
                    self.stash.expect(slot, at as u32, self.keys[place], allotment.bytes[place]);
                }
                taken[place] = answer;
            }
        }
        taken
    }

    fn allotted(&self, place: usize, allotment: &Allotment) -> FetchFrom {
        let read_already = self.stash.peek(&self.keys[place]).is_some();
        let bytes = if read_already { 0 } else { allotment.bytes[place] };
        FetchFrom { max_bytes: u32::try_from(bytes).unwrap_or(u32::MAX), ..self.parts[place] }
    }

    /// Puts in what was read for an earlier fetch, then waits for what is being read, as long as there is not enough, nothing
    /// is in error, and the deadline is not reached. What comes later stays in the stash.
    async fn deliver(&mut self, allotment: &Allotment, taken: &mut [Result<Taken, PartitionError>]) -> Delivery {
        let mut ready: u64 = taken.iter().flatten().map(|taken| taken.records.bytes()).sum();
        let mut from_stash = false;
        for (place, part) in taken.iter_mut().enumerate() {
            let given = part.is_ok()
                && (allotment.bytes[place] > 0 || self.stash.peek(&self.keys[place]).is_some_and(Result::is_err));
            if let Some(read) = given.then(|| self.stash.remove(&self.keys[place])).flatten() {
                ready += read.as_ref().map_or(0, |taken| taken.records.bytes());
                renew(part, read);
                from_stash = true;
            }
        }
        let mut due: Vec<usize> = (0..taken.len()).filter(|place| self.stash.is_due(&self.keys[*place])).collect();
        while !due.is_empty() && ready < self.terms.min_bytes.max(1) && taken.iter().all(Result::is_ok) {
            // What was put in is not asked for once more.
            let may_be_overtaken = !from_stash && self.edge.runtime.mono() < self.terms.deadline;
            if may_be_overtaken && self.is_overtaken().await {
                return Delivery::Overtaken;
            }
            // Late parts and wakes may have come while it was probed.
            let arrived = due.iter().any(|place| {
                let key = &self.keys[*place];
                !self.stash.is_due(key) || self.stash.peek(key).is_some()
            });
            if !arrived && (!may_be_overtaken || self.woken.is_empty()) {
                let edge = self.edge;
                match until(edge, self.terms.deadline, self.stash.receive()).await {
                    None if self.untaken && !from_stash => return Delivery::Overtaken,
                    None => break,
                    Some(None) => {}
                    Some(Some(Answer { slot, reply })) => self.note(slot, &reply),
                }
            }
            // Late parts come one by one, but often together.
            for Answer { slot, reply } in self.stash.take_in_all() {
                self.note(slot, &reply);
            }
            due.retain(|place| {
                let key = &self.keys[*place];
                let Some(read) = self.stash.peek(key) else { return self.stash.is_due(key) };
                let bytes = read.as_ref().map_or(0, |taken| taken.records.bytes());
                if ready > 0 && ready + bytes > self.terms.max_bytes {
                    return false;
                }
                ready += bytes;
                from_stash = true;
                renew(&mut taken[*place], self.stash.remove(key).expect("seen a moment ago"));
                false
            });
        }
        Delivery::Done
    }

    /// Whether there is more by now, and enough, in partitions of which nothing is being read: hot records never wait for cold
    /// ones. Or one of them is newly in error.
    async fn is_overtaken(&mut self) -> bool {
        let woken = std::mem::take(&mut self.woken);
        let places: Vec<usize> = woken.iter().filter_map(|slot| self.watching.remove(slot)).flatten().collect();
        // Those that are being read are not watched again, or each append to them would end the wait.
        let places: Vec<usize> = places.into_iter().filter(|place| !self.stash.is_due(&self.keys[*place])).collect();
        if places.is_empty() {
            return false;
        }
        let before: Vec<Option<u64>> = places.iter().map(|place| self.hot_bytes(*place)).collect();
        self.probe(places.clone()).await;
        let news: Vec<(Option<u64>, Option<u64>)> =
            places.iter().zip(before).map(|(place, before)| (before, self.hot_bytes(*place))).collect();
        if news.iter().any(|(before, now)| before.is_some() && now.is_none()) {
            return true;
        }
        let not_awaited = (0..self.parts.len()).filter(|place| !self.stash.is_due(&self.keys[*place]));
        let hot: u64 = not_awaited.filter_map(|place| self.hot_bytes(place)).sum();
        let grown = news.iter().any(|(before, now)| now > before);
        self.untaken |= grown;
        grown && hot >= self.terms.min_bytes.max(1)
    }

    /// What a partition has that need not be read; `None` when it is in error.
    fn hot_bytes(&self, place: usize) -> Option<u64> {
        self.states[place].as_ref().ok().map(|state| if state.slow { 0 } else { state.bytes })
    }

    /// Whether a partition that a shard does not have is in the snapshot all the same.
    fn still_exists(&self, place: usize, snapshot: &ClusterSnapshot) -> bool {
        self.states[place].as_ref().is_err_and(PartitionError::is_elsewhere)
            && snapshot.topics_by_id.contains_key(&self.parts[place].partition.topic)
    }

    /// Whether partitions went to another shard between the two passes; they are probed anew then.
    async fn is_moved(&mut self, taken: &[Result<Taken, PartitionError>]) -> bool {
        let moved = |place: &usize| {
            self.states[*place].is_ok() && taken[*place].as_ref().is_err_and(PartitionError::is_elsewhere)
        };
        let moved: Vec<usize> = (0..self.parts.len()).filter(moved).collect();
        let Some(newer) = gather::newest_move(moved.iter().filter_map(|place| taken[*place].as_ref().err())) else {
            return false;
        };
        gather::catch_up(self.edge, newer).await;
        self.probe(moved).await;
        true
    }

    /// As [`Fetch::by_shard`], with all else that those shards own by now, if owners have changed: a watch takes the place of the one before
    /// on its shard.
    fn whole_shards(&mut self, places: Vec<usize>) -> BTreeMap<ShardId, Vec<usize>> {
        let generation = self.edge.snapshot().generation;
        let mut by_shard = self.by_shard(places);
        if generation == *self.generation.get_or_insert(generation) {
            return by_shard;
        }
        let not_awaited = (0..self.parts.len()).filter(|place| !self.stash.is_due(&self.keys[*place])).collect();
        for (shard, all) in self.by_shard(not_awaited) {
            if let Some(places) = by_shard.get_mut(&shard) {
                places.extend(all);
                places.sort_unstable();
                places.dedup();
            }
        }
        by_shard
    }

    fn by_shard(&self, places: Vec<usize>) -> BTreeMap<ShardId, Vec<usize>> {
        let snapshot = self.edge.snapshot();
        let mut by_shard: BTreeMap<ShardId, Vec<usize>> = BTreeMap::new();
        for place in places {
            by_shard.entry(snapshot.owner(self.parts[place].partition)).or_default().push(place);
        }
        by_shard
    }
}

/// What `work` resolves to, or `None` at `deadline` or when the broker stops. What is ready then still counts.
async fn until<T>(edge: &Edge, deadline: Mono, work: impl Future<Output = T>) -> Option<T> {
    let out_of_time = async {
        or(edge.runtime.sleep_until(deadline), edge.stopping()).await;
        None
    };
    or(async { Some(work.await) }, out_of_time).await
}

fn error_of(state: &Result<ProbeState, PartitionError>) -> PartitionError {
    state.as_ref().err().cloned().unwrap_or(PartitionError::Unavailable)
}

/// Puts records that were read for an earlier take into the answer of a later one, which knows better where the log starts and
/// ends by now, or that there is no such partition any more.
fn renew(now: &mut Result<Taken, PartitionError>, read: Result<Taken, PartitionError>) {
    match (now, read) {
        (Err(_refused), _) => {}
        (Ok(now), Ok(read)) => {
            let Taken { log_start, high_watermark, last_stable, .. } = *now;
            *now = Taken {
                log_start: log_start.max(read.log_start),
                high_watermark: high_watermark.max(read.high_watermark),
                last_stable: last_stable.max(read.last_stable),
                ..read
            };
        }
        (now, refused) => *now = refused,
    }
}

fn without_pending(taken: Taken) -> Taken {
    match taken.records {
        Records::Ready(_) => taken,
        Records::Pending => Taken { records: Records::Ready(Vec::new()), ..taken },
    }
}

#[cfg(test)]
mod tests {
    use thalweg_record::Offset;

    use super::*;

    fn taken(log_start: i64, end: i64, records: Records) -> Result<Taken, PartitionError> {
        let (log_start, high_watermark, last_stable) = (Offset(log_start), Offset(end), Offset(end));
        Ok(Taken { log_start, high_watermark, last_stable, aborted: Vec::new(), records })
    }

    #[test]
    fn records_read_earlier_come_with_todays_watermarks() {
        let read = || taken(0, 32, Records::Ready(vec!["records".into()]));
        let mut part = taken(7, 85, Records::Pending);
        renew(&mut part, read());
        let part = part.expect("answered");
        assert_eq!((part.log_start, part.high_watermark, part.last_stable), (Offset(7), Offset(85), Offset(85)));
        assert_eq!(part.records.bytes(), 7);
        let mut gone = Err(PartitionError::Moved(3));
        renew(&mut gone, read());
        assert!(matches!(gone, Err(PartitionError::Moved(3))), "a topic that is gone shows no record any more");
    }
}
