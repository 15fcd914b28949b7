//! Fetch sessions (KIP-227): the broker remembers what a client fetches and what it was told of each partition, so that a
//! request names changes only, and so does its answer.
//!
//! Each executor has its own: a session lives with the executor of the connection that opened it, with an equal part of
//! the slots, and its id tells which executor that is. On a connection of another executor the id is unknown (70), and
//! the client opens a new one. Pure: requests, results, the time and random bits in; what to fetch and to answer out.
//! Who is evicted for whom, and when, are Apache Kafka's rules. Beyond Kafka's, the partitions remembered have a bound.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use kafka_protocol::ResponseError;
use thalweg_record::{Mono, ShardId, TopicId};

/// A session that was not used for longer than this makes room for any other, one that is older for a larger one.
const EVICTION: Duration = Duration::from_secs(120);

/// Partitions that the sessions of the whole broker remember at most, at some 160 bytes each.
const PARTITIONS: usize = 300_000;

/// The session id that is none.
pub(super) const NO_SESSION: i32 = 0;

/// The epoch that asks for a new session.
const INITIAL: i32 = 0;

/// The epoch that asks for no session.
const FINAL: i32 = -1;

/// How a request names a topic: by id from v13 on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum TopicKey {
    /// Its id.
    Id(TopicId),
    /// Its name.
    Name(Arc<str>),
}

/// A partition as requests name it; it need not exist.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct PartKey {
    pub topic: TopicKey,
    pub index: i32,
}

/// What a client wants of a partition, as it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wish {
    pub offset: i64,
    pub max_bytes: i32,
    pub leader_epoch: i32,
}

/// What a fetch found of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Told {
    /// -1 in error.
    pub high_watermark: i64,
    /// -1 in error.
    pub log_start: i64,
    pub in_error: bool,
    pub has_records: bool,
}

/// A request's part in the protocol of sessions.
#[derive(Debug)]
pub(super) struct Asked {
    pub id: i32,
    pub epoch: i32,
    /// Whether it names topics by id.
    pub by_id: bool,
    /// In request order.
    pub parts: Vec<(PartKey, Wish)>,
    pub forgotten: Vec<PartKey>,
}

/// What is to be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Context {
    /// Everything, and no session.
    Sessionless,
    /// Everything, and a session if there is room.
    Full { by_id: bool },
    /// What has changed.
    Incremental { id: i32, epoch: i32 },
}

/// A request as it is to be served.
#[derive(Debug)]
pub(super) struct Begun {
    pub context: Context,
    /// What to fetch, in this order.
    pub parts: Vec<(PartKey, Wish)>,
}

/// What goes into the answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Finished {
    pub session: i32,
    /// Which of the parts; all when `None`.
    pub changed: Option<Vec<bool>>,
}

#[derive(Debug)]
struct Remembered {
    key: PartKey,
    wish: Wish,
    /// As it was last told; -1 when it must be told again.
    high_watermark: i64,
    log_start: i64,
}

#[derive(Debug)]
struct Session {
    by_id: bool,
    /// That of the next request.
    epoch: i32,
    created: Mono,
    used: Mono,
    /// In the order in which they were first named; whose turn it is follows from the connection's stash.
    parts: BTreeMap<u64, Remembered>,
    places: BTreeMap<PartKey, u64>,
    next_place: u64,
    /// Its size when it was last used.
    size: usize,
}

/// The sessions of one executor.
#[derive(Debug)]
pub struct Sessions {
    ids: Range<i32>,
    slots: usize,
    most_partitions: usize,
    by_id: BTreeMap<i32, Session>,
    last_used: BTreeSet<(Mono, i32)>,
    /// Sessions old enough to make room for larger ones, by size.
    evictable: BTreeSet<(usize, i32)>,
    partitions: usize,
    evictions: u64,
}

impl Session {
    fn new(by_id: bool, now: Mono) -> Session {
        Session {
            by_id,
            epoch: next_epoch(INITIAL),
            created: now,
            used: now,
            parts: BTreeMap::new(),
            places: BTreeMap::new(),
            next_place: 0,
            size: 0,
        }
    }

    /// Adds a partition at the end, or renews what is wanted of it.
    fn want(&mut self, key: PartKey, wish: Wish) -> &mut Remembered {
        let place = *self.places.entry(key.clone()).or_insert_with(|| {
            self.next_place += 1;
            self.next_place
        });
        let part =
            self.parts.entry(place).or_insert_with(|| Remembered { key, wish, high_watermark: -1, log_start: -1 });
        part.wish = wish;
        part
    }

    fn forget(&mut self, key: &PartKey) {
        if let Some(place) = self.places.remove(key) {
            self.parts.remove(&place);
        }
    }
}

impl Remembered {
    /// Notes what a fetch found; whether it must be told.
    fn tell(&mut self, told: &Told) -> bool {
        let changed = told.has_records
            || told.in_error
            || self.high_watermark != told.high_watermark
            || self.log_start != told.log_start;
        self.note(told);
        changed
    }

    fn note(&mut self, told: &Told) {
        // After an error it must be told again, whatever its watermark is then.
        self.high_watermark = if told.in_error { -1 } else { told.high_watermark };
        self.log_start = told.log_start;
    }
}

impl Sessions {
    /// The sessions of the executor of `home`, one of `shards`, with its part of `slots`.
    pub fn new(home: ShardId, shards: usize, slots: usize) -> Sessions {
        let (home, shards) = (usize::from(home.0), shards.max(1));
        let range = i32::MAX / i32::try_from(shards).unwrap_or(i32::MAX);
        let first = range.saturating_mul(i32::try_from(home).unwrap_or(i32::MAX));
        Sessions {
            ids: first.max(1)..first.saturating_add(range),
            slots: slots / shards + usize::from(home < slots % shards),
            most_partitions: PARTITIONS / shards,
            by_id: BTreeMap::new(),
            last_used: BTreeSet::new(),
            evictable: BTreeSet::new(),
            partitions: 0,
            evictions: 0,
        }
    }

    /// How many there are, and the partitions they remember.
    pub fn figures(&self) -> (usize, usize) {
        (self.by_id.len(), self.partitions)
    }

    /// Evictions since this was last asked.
    pub fn take_evictions(&mut self) -> u64 {
        std::mem::take(&mut self.evictions)
    }

    /// Takes a request in.
    ///
    /// # Errors
    /// 70, 71 or 106, to be answered without session id and partitions.
    pub(super) fn begin(&mut self, asked: Asked, now: Mono) -> Result<Begun, ResponseError> {
        let Asked { id, epoch, by_id, parts, forgotten } = asked;
        if epoch == INITIAL || epoch == FINAL {
            // A full request ends the session that it names.
            self.remove(id);
            let context = if epoch == FINAL { Context::Sessionless } else { Context::Full { by_id } };
            return Ok(Begun { context, parts });
        }
        let Some(session) = self.by_id.get_mut(&id) else { return Err(ResponseError::FetchSessionIdNotFound) };
        if session.epoch != epoch {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        if session.by_id != by_id {
            return Err(ResponseError::FetchSessionTopicIdError);
        }
        for (key, wish) in &parts {
            session.want(key.clone(), *wish);
        }
        forgotten.iter().for_each(|key| session.forget(key));
        session.epoch = next_epoch(epoch);
        if session.parts.is_empty() {
            self.remove(id);
            return Ok(Begun { context: Context::Sessionless, parts });
        }
        let parts = session.parts.values().map(|part| (part.key.clone(), part.wish)).collect();
        self.touch(id, now);
        if self.partitions > self.most_partitions {
            self.remove(id);
            return Err(ResponseError::FetchSessionIdNotFound);
        }
        Ok(Begun { context: Context::Incremental { id, epoch }, parts })
    }

    /// Notes what came of `parts`, in their order, and says what to answer. `random` chooses a new session's id.
    ///
    /// # Errors
    /// 71 with the session's id, when somebody else went on with the session meanwhile.
    pub(super) fn finish(
        &mut self,
        begun: &Begun,
        told: &[Told],
        now: Mono,
        random: u64,
    ) -> Result<Finished, (ResponseError, i32)> {
        assert_eq!(begun.parts.len(), told.len(), "every part is told of");
        let all = |session| Finished { session, changed: None };
        match begun.context {
            Context::Sessionless => Ok(all(NO_SESSION)),
            Context::Full { by_id } => Ok(all(self.open(by_id, &begun.parts, told, now, random))),
            Context::Incremental { id, epoch } => match self.by_id.get_mut(&id) {
                Some(session) if session.epoch != next_epoch(epoch) => {
                    Err((ResponseError::InvalidFetchSessionEpoch, id))
                }
                // No request came between, so the session remembers the very parts that were fetched, in their order.
                Some(session) if session.parts.len() == told.len() => {
                    let changed = session.parts.values_mut().zip(told).map(|(part, told)| part.tell(told)).collect();
                    Ok(Finished { session: id, changed: Some(changed) })
                }
                // Evicted meanwhile: the client learns of it by its next request.
                _ => Ok(all(id)),
            },
        }
    }

    /// Opens a session if there is room or room can be made; its id, or [`NO_SESSION`].
    fn open(&mut self, by_id: bool, parts: &[(PartKey, Wish)], told: &[Told], now: Mono, random: u64) -> i32 {
        let mut session = Session::new(by_id, now);
        for ((key, wish), told) in parts.iter().zip(told) {
            session.want(key.clone(), *wish).note(told);
        }
        let size = session.parts.len();
        if size > self.most_partitions || self.slots == 0 {
            return NO_SESSION;
        }
        while self.by_id.len() >= self.slots || self.partitions + size > self.most_partitions {
            if !self.evict_for(size, now) {
                return NO_SESSION;
            }
        }
        let id = self.new_id(random);
        self.by_id.insert(id, session);
        self.touch(id, now);
        id
    }

    fn new_id(&self, random: u64) -> i32 {
        let len = u64::from(self.ids.end.abs_diff(self.ids.start)).max(1);
        let offset = i32::try_from(random % len).expect("below the length of a range of i32");
        let from = self.ids.start + offset;
        let mut ids = (from..self.ids.end).chain(self.ids.start..from);
        ids.find(|id| !self.by_id.contains_key(id)).expect("there are more ids than slots")
    }

    /// Makes room for a session of `size` partitions: the one unused for longest if it is stale, else the smallest of
    /// the older ones if it is smaller than the new one.
    fn evict_for(&mut self, size: usize, now: Mono) -> bool {
        let stale = self.last_used.first().filter(|(used, _)| now.since(*used) > EVICTION);
        let smaller = self.evictable.first().filter(|(theirs, _)| *theirs < size);
        let Some(id) = stale.map(|(_, id)| *id).or(smaller.map(|(_, id)| *id)) else { return false };
        self.remove(id);
        self.evictions += 1;
        true
    }

    /// A session is used: it is renewed in the order of eviction.
    fn touch(&mut self, id: i32, now: Mono) {
        let Some(session) = self.by_id.get_mut(&id) else { return };
        self.last_used.remove(&(session.used, id));
        self.evictable.remove(&(session.size, id));
        self.partitions -= session.size;
        session.used = now;
        session.size = session.parts.len();
        self.partitions += session.size;
        self.last_used.insert((now, id));
        if now.since(session.created) > EVICTION {
            self.evictable.insert((session.size, id));
        }
    }

    fn remove(&mut self, id: i32) {
        let Some(session) = self.by_id.remove(&id) else { return };
        self.last_used.remove(&(session.used, id));
        self.evictable.remove(&(session.size, id));
        self.partitions -= session.size;
    }
}

/// Epochs go from 1 up and round to 1; only full requests carry 0.
fn next_epoch(epoch: i32) -> i32 {
    match epoch {
        ..0 => FINAL,
        i32::MAX => 1,
        epoch => epoch + 1,
    }
}

#[cfg(test)]
mod tests;
