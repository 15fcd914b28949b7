//! The shard's side of retention and clean-up, run from its tick.

use thalweg_objectstore::{data_key, manifest_key};
use thalweg_record::{Mono, Offset, PartitionId, Wall, failpoint};

use super::plan::{self, Expired};
use crate::{event::Event, meta::MetaRequest, partition::Role, runtime::Queue, shard::Shard};

/// Index entries of batches that left the ring are dropped this often (in ticks).
const PRUNE_TICKS: u32 = 10;
/// Stale reservations taken at once.
const STALE_BATCH: u32 = 64;

/// When what is due.
pub(crate) struct Janitor {
    checked_at: Mono,
    ticks: u32,
    /// Reservations left by earlier runs were asked for.
    swept_orphans: bool,
}

impl Janitor {
    pub(crate) fn new(now: Mono) -> Janitor {
        Janitor { checked_at: now, ticks: 0, swept_orphans: false }
    }
}

impl Shard {
    /// Does what is due at this tick.
    pub(crate) fn run_janitor(&mut self) {
        self.janitor.ticks += 1;
        if self.janitor.ticks % PRUNE_TICKS == 0 {
            self.prune_indexes();
        }
        if !self.janitor.swept_orphans {
            self.janitor.swept_orphans = true;
            self.remove_orphans();
        }
        if self.now.since(self.janitor.checked_at) >= self.config.retention_check_interval {
            self.janitor.checked_at = self.now;
            self.apply_retention();
            let before = Wall(self.wall.0 - self.config.producer_expiration.as_millis() as i64);
            self.partitions.iter_mut().for_each(|p| p.producers.expire(before));
        }
    }

    fn apply_retention(&mut self) {
        #[cfg(feature = "planted-bugs")]
        self.delete_by_age();
        let wall = self.wall;
        let expired: Vec<(PartitionId, Expired)> = self
            .partitions
            .iter()
            .filter(|p| p.role == Role::Owner)
            .filter_map(|p| Some((p.id, plan::expired(&p.settings, p.objects.extents(), p.size_bytes(), wall)?)))
            .collect();
        if !expired.is_empty() {
            let starts = expired.iter().map(|(id, expired)| (*id, expired.start)).collect();
            self.record_log_starts(starts, move |_| Event::LogStarts(expired));
        }
    }

    /// The metadata has the log starts that retention wants.
    pub(crate) fn retention_recorded(&mut self, expired: &[(PartitionId, Expired)]) {
        let meters = self.ports.meters.clone();
        let (starts, bytes) = (&meters.log_starts_moved, &meters.dropped_bytes);
        for (id, Expired { by_time, start }) in expired {
            let by_time = by_time.map(|to| (to, &starts.time, &bytes.time));
            self.raise_log_start(id, by_time.into_iter().chain([(*start, &starts.size, &bytes.size)]));
        }
    }

    /// A bug to be found: age says nothing of whether an object is needed.
    #[cfg(feature = "planted-bugs")]
    fn delete_by_age(&self) {
        if !thalweg_wal::planted(thalweg_wal::Bug::DeletedByAge) {
            return;
        }
        let (old, store) = (Wall(self.wall.0 - 10_000), self.ports.store.clone());
        let objects = self.partitions.iter().flat_map(|p| p.objects.iter());
        let keys: Vec<_> = objects.filter(|o| o.max_timestamp < old).map(|o| o.key.clone()).collect();
        let task = async move {
            for key in keys {
                let _whatever = store.delete(key).await;
            }
        };
        self.ports.runtime.spawn(Queue::Janitor, "by age", Box::pin(task));
    }

    /// Has the metadata record new log starts; `then` comes back as an event when they are durable.
    pub(crate) fn record_log_starts(
        &mut self,
        starts: Vec<(PartitionId, Offset)>,
        then: impl FnOnce(Vec<(PartitionId, Offset)>) -> Event + 'static,
    ) {
        if starts.is_empty() {
            let _gone = self.events.try_send(then(starts));
            return;
        }
        for (id, _) in &starts {
            self.partitions.get_mut(id).into_iter().for_each(|partition| partition.raising += 1);
        }
        let (reply, durable) = flume::bounded(1);
        let _stopping = self.ports.meta.try_send(MetaRequest::RaiseLogStart { starts: starts.clone(), reply });
        let events = self.events.clone();
        let task = async move {
            if durable.recv_async().await.is_ok() {
                let _gone = events.try_send(then(starts));
            }
        };
        self.ports.runtime.spawn(Queue::Janitor, "log-starts", Box::pin(task));
    }

    /// Objects that an earlier run wrote, or began to write, and never committed: takes the reservation away first, then
    /// deletes. What cannot be deleted now stays listed and is tried at the next start.
    fn remove_orphans(&mut self) {
        let (meta, store) = (self.ports.meta.clone(), self.ports.store.clone());
        let (shard, node) = (self.config.id, self.config.identity.node);
        let task = async move {
            loop {
                let (reply, stale) = flume::bounded(1);
                let ask = MetaRequest::TakeStaleReservations { shard, limit: STALE_BATCH, reply };
                if meta.try_send(ask).is_err() {
                    return;
                }
                let Ok(stale) = stale.recv_async().await else { return };
                let mut objects = Vec::with_capacity(stale.len());
                if !stale.is_empty() {
                    failpoint::pass("orphans-taken");
                }
                for (id, epoch) in &stale {
                    // Nobody knows what the id was reserved for.
                    let data = store.delete(data_key(id.0, node, *epoch)).await;
                    let manifest = store.delete(manifest_key(id.0, node, *epoch)).await;
                    match data.and(manifest) {
                        Ok(()) => objects.push(*id),
                        Err(error) => tracing::warn!(object = id.0, %error, "an orphan could not be deleted"),
                    }
                }
                if !objects.is_empty() {
                    failpoint::pass("orphans-deleted");
                }
                let done = objects.len() < STALE_BATCH as usize;
                if meta.try_send(MetaRequest::GarbageGone { objects }).is_err() || done {
                    return;
                }
            }
        };
        self.ports.runtime.spawn(Queue::Janitor, "orphans", Box::pin(task));
    }
}
