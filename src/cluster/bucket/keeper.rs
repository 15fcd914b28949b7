//! Writes metadata snapshots to the bucket: when something has changed, every interval, and at a clean stop.
//!
//! Lives on the metadata thread beside the two actors. What fails is tried again for ever, one thing at a time. A snapshot is
//! created under the next sequence with "if absent", so a process that was replaced by a rebuild elsewhere finds itself out.

use std::{
    cell::RefCell,
    collections::{BTreeSet, VecDeque},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_lite::future::yield_now;
use thalweg_objectstore::{Backoff, ObjectStore, StoreError};
use thalweg_record::Wall;
use thalweg_shards::meta::ObjectId;

use super::{
    deletion::{self, Refused},
    format::{Encoder, Head},
    meters::BucketMeters,
    release, stored,
};
use crate::cluster::{
    keys,
    ledger::{Fault, Ledger},
    store::{Revision, Write},
};

/// Snapshots that stay in the bucket: the newest, and the one before it in case the newest cannot be read. Each one more
/// would let deleted objects stay an interval longer, for they are deleted only when no snapshot names them.
pub(super) const KEPT: usize = 2;
/// How often the keeper looks whether something is due.
const STEP: Duration = Duration::from_secs(1);
/// A change of topics or settings is in a snapshot after this long: objects do not hold them, so a rebuild could not tell them. One of
/// rules or credentials is at the keeper's next look, for what a rebuild brings back could let somebody in.
const CHANGES_WITHIN: Duration = Duration::from_secs(5);
/// So many intervals a snapshot may wait while nothing has changed but that uploads were committed: a rebuild finds those by themselves.
const INTERVALS_OF_UPLOADS: u32 = 2;
/// How often a broker that stops tries to write its last snapshot.
const LAST_TRIES: usize = 3;
/// Waits between attempts.
const BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(60) };

/// Completes after the time given.
pub type Sleep = Box<dyn Fn(Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// What the keeper works with.
pub struct BucketPorts {
    /// The object store; whichever executor polls its futures.
    pub objects: Arc<dyn ObjectStore>,
    /// `metadata.snapshot.interval.ms`.
    pub interval: Duration,
    /// The clock.
    pub sleep: Sleep,
}

/// Why a round came to nothing.
#[derive(Debug, thiserror::Error)]
pub(in crate::cluster) enum Trouble {
    /// For good.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// For now.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A snapshot that is in the bucket.
#[derive(Clone, Debug)]
struct Kept {
    sequence: u64,
    /// The dead objects that it lists as such; none when this process does not know.
    dead: BTreeSet<ObjectId>,
}

/// What a snapshot shows: its revision, and by then the changes that operators made, those of rules and credentials, and those that
/// uploads made.
#[derive(Clone, Copy, Debug)]
struct Shown {
    revision: Revision,
    operator_changes: u64,
    access_changes: u64,
    upload_changes: u64,
}

/// Waits that grow from failure to failure.
#[derive(Debug, Default)]
pub(super) struct Retry {
    failures: u32,
    wait: Duration,
}

impl Retry {
    /// Whether it is time, now that `step` has passed.
    pub(super) fn is_due(&mut self, step: Duration) -> bool {
        self.wait = self.wait.saturating_sub(step);
        self.wait.is_zero()
    }

    pub(super) fn ended(&mut self, well: bool) {
        // The upper half of the bound: who waits for one thing alone needs no chance.
        self.wait = if well { Duration::ZERO } else { BACKOFF.wait(self.failures, u64::MAX) };
        self.failures = if well { 0 } else { self.failures + 1 };
    }
}

/// Writes snapshots until it is dropped. The error is for good: the process must not go on.
pub(in crate::cluster) async fn keep(
    ports: BucketPorts,
    ledger: Rc<RefCell<Ledger>>,
    cluster_id: Arc<str>,
    wall: &dyn Fn() -> Wall,
) -> Result<(), Fault> {
    let mut keeper = Keeper::new(ports.objects.clone(), ledger, cluster_id);
    let step = STEP.min(ports.interval);
    // The first is due at once: it tells a new epoch.
    let (mut since, mut writing) = (ports.interval, Retry::default());
    let (mut releasing, mut deleting) = (Retry::default(), Retry::default());
    loop {
        (ports.sleep)(step).await;
        since += step;
        keeper.age += step;
        keeper.looked += step;
        keeper.refused.wait(step);
        keeper.unreadable.wait(step);
        keeper.show();
        if writing.is_due(step) && keeper.due(since, ports.interval) {
            let outcome = keeper.round(wall).await;
            writing.ended(outcome.is_ok());
            match outcome {
                Ok(()) => since = Duration::ZERO,
                Err(Trouble::Fault(fault)) => return Err(fault),
                Err(Trouble::Store(error)) => {
                    keeper.meters.snapshot_errors.increment(1);
                    let again_in_ms = writing.wait.as_millis();
                    tracing::warn!(%error, again_in_ms, "the metadata snapshot could not be written");
                }
            }
        } else if keeper.looked >= ports.interval && keeper.waits_for_more() {
            keeper.look().await?;
        }
        if releasing.is_due(step) {
            let (objects, refused) = (&*keeper.objects, &mut keeper.unreadable);
            releasing.ended(release::release(objects, &keeper.ledger, refused, &keeper.meters).await?);
        }
        if deleting.is_due(step) {
            let removed = keeper.remove_old().await;
            deleting.ended(keeper.delete().await? && removed);
        }
    }
}

/// Writes a last snapshot, unless the newest one shows the same; for a broker whose actors have ended.
pub(in crate::cluster) async fn keep_last(
    objects: Arc<dyn ObjectStore>,
    ledger: Ledger,
    cluster_id: Arc<str>,
    wall: &dyn Fn() -> Wall,
) -> Result<(), Trouble> {
    let (revision, epoch) = (ledger.store().revision(), ledger.epoch());
    let mut keeper = Keeper::new(objects, Rc::new(RefCell::new(ledger)), cluster_id);
    keeper.find_earlier().await?;
    if let Some(newest) = keeper.kept.as_ref().and_then(|kept| kept.back()) {
        let head = stored::head(&*keeper.objects, newest.sequence).await;
        if head.is_ok_and(|head| (head.revision, head.node_epoch) == (revision, epoch)) {
            return Ok(());
        }
    }
    // A snapshot that was under way when the actors ended may come first.
    let mut tries = 1;
    while let Err(trouble) = keeper.round(wall).await {
        let again = matches!(trouble, Trouble::Store(StoreError::Retry(_))) && tries < LAST_TRIES;
        if !again {
            return Err(trouble);
        }
        tries += 1;
    }
    // What stays is removed by the next run.
    keeper.remove_old().await;
    Ok(())
}

/// One writer of snapshots.
pub(in crate::cluster) struct Keeper {
    objects: Arc<dyn ObjectStore>,
    ledger: Rc<RefCell<Ledger>>,
    cluster_id: Arc<str>,
    /// Snapshots in the bucket, oldest first; `None` until they were listed.
    kept: Option<VecDeque<Kept>>,
    /// What the newest of this process shows.
    newest: Option<Shown>,
    age: Duration,
    /// Since it looked whether it was replaced.
    looked: Duration,
    refused: Refused,
    /// Dead manifests that could not be read.
    unreadable: Refused,
    meters: BucketMeters,
}

impl Keeper {
    pub(in crate::cluster) fn new(
        objects: Arc<dyn ObjectStore>,
        ledger: Rc<RefCell<Ledger>>,
        cluster_id: Arc<str>,
    ) -> Keeper {
        let (age, looked, meters) = (Duration::ZERO, Duration::ZERO, BucketMeters::new());
        let (refused, unreadable) = (Refused::default(), Refused::default());
        Keeper { objects, ledger, cluster_id, kept: None, newest: None, age, looked, refused, unreadable, meters }
    }

    fn changed(&self) -> bool {
        self.newest.is_none_or(|newest| newest.revision != self.ledger.borrow().store().revision())
    }

    /// Whether something has changed, and all of it is that uploads were reserved and committed, which their objects tell.
    fn waits_for_more(&self) -> bool {
        let ledger = self.ledger.borrow();
        let by_uploads = |newest: Shown| {
            let changes = ledger.store().revision().0.saturating_sub(newest.revision.0);
            changes > 0 && changes == ledger.upload_changes - newest.upload_changes
        };
        self.newest.is_some_and(by_uploads) && !deletion::waits(&ledger, self.listed())
    }

    fn due(&self, since: Duration, interval: Duration) -> bool {
        if self.waits_for_more() {
            return since >= interval * INTERVALS_OF_UPLOADS;
        }
        let ledger = self.ledger.borrow();
        let changed = self.newest.is_none_or(|newest| newest.operator_changes != ledger.operator_changes());
        let access = self.newest.is_some_and(|newest| newest.access_changes != ledger.access_changes);
        let soon = access || changed && since >= CHANGES_WITHIN.min(interval);
        let waits = deletion::waits(&ledger, self.listed());
        (since >= interval || soon) && (self.changed() || waits)
    }

    /// The dead objects that every snapshot in the bucket lists as such: what the oldest does, for the dead stay dead.
    fn listed(&self) -> &BTreeSet<ObjectId> {
        static NONE: BTreeSet<ObjectId> = BTreeSet::new();
        self.kept.as_ref().and_then(VecDeque::front).map_or(&NONE, |oldest| &oldest.dead)
    }

    /// Deletes objects behind the snapshots; answers whether nothing failed.
    async fn delete(&mut self) -> Result<bool, Fault> {
        // Until the first snapshot is written, another process may own this cluster.
        if self.newest.is_none() || !deletion::is_due(&self.ledger.borrow(), self.listed(), &self.refused) {
            return Ok(true);
        }
        // One that took over while this process stood still needs what only our snapshots list.
        match self.give_way(self.next_sequence()).await {
            Ok(()) => {}
            Err(Trouble::Fault(fault)) => return Err(fault),
            Err(Trouble::Store(error)) => {
                tracing::warn!(%error, "nothing is deleted while the metadata snapshots cannot be looked at");
                return Ok(false);
            }
        }
        let listed = self.listed().clone();
        deletion::delete(&*self.objects, &self.ledger, &listed, &mut self.refused, &self.meters).await
    }

    /// The number that the next snapshot gets.
    fn next_sequence(&self) -> u64 {
        self.kept.as_ref().and_then(VecDeque::back).map_or(1, |newest| newest.sequence + 1)
    }

    /// Looks whether it was replaced, in place of a snapshot that waits.
    async fn look(&mut self) -> Result<(), Fault> {
        self.looked = Duration::ZERO;
        match self.give_way(self.next_sequence()).await {
            Err(Trouble::Fault(fault)) => Err(fault),
            Err(Trouble::Store(error)) => {
                tracing::warn!(%error, "whether this node was replaced cannot be seen; the next snapshot looks again");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn show(&self) {
        self.meters.garbage.set(self.ledger.borrow().catalog.garbage.len() as f64);
        let age = if self.changed() { self.age } else { Duration::ZERO };
        self.meters.snapshot_age_seconds.set(age.as_secs_f64());
    }

    /// Writes one snapshot.
    pub(in crate::cluster) async fn round(&mut self, wall: &dyn Fn() -> Wall) -> Result<(), Trouble> {
        self.find_earlier().await?;
        self.write(wall).await
    }

    /// Learns once which snapshots there are.
    async fn find_earlier(&mut self) -> Result<(), Trouble> {
        if self.kept.is_some() {
            return Ok(());
        }
        let found = stored::list(&*self.objects).await?;
        if let Some(newest) = found.last() {
            self.refuse_successor(*newest).await?;
        }
        self.kept = Some(found.into_iter().map(|sequence| Kept { sequence, dead: BTreeSet::new() }).collect());
        Ok(())
    }

    /// Whoever writes snapshots under a later epoch has taken this cluster over.
    async fn refuse_successor(&self, sequence: u64) -> Result<(), Trouble> {
        let own = self.ledger.borrow().epoch();
        match stored::head(&*self.objects, sequence).await {
            Ok(head) if head.node_epoch > own => Err(Fault::Replaced { own, found: head.node_epoch }.into()),
            Err(stored::ReadError::Store(error)) => Err(error.into()),
            // One that cannot be read proves nothing; the next one has another sequence.
            Ok(_) | Err(stored::ReadError::Fault(_)) => Ok(()),
        }
    }

    /// Looks whether somebody has written `sequence` or a later one.
    async fn give_way(&mut self, sequence: u64) -> Result<(), Trouble> {
        let Some(top) = stored::list(&*self.objects).await?.pop().filter(|top| *top >= sequence) else { return Ok(()) };
        self.refuse_successor(top).await?;
        self.keep(Kept { sequence: top, dead: BTreeSet::new() });
        Err(StoreError::Retry(format!("snapshot {top} was there already")).into())
    }

    async fn write(&mut self, wall: &dyn Fn() -> Wall) -> Result<(), Trouble> {
        assert!(self.kept.is_some(), "found before");
        let sequence = self.next_sequence();
        let (operator_changes, access_changes, upload_changes, dead) = {
            let ledger = self.ledger.borrow();
            // A copy of this store that does not know of the snapshot is out of date.
            let number = sequence.to_be_bytes().to_vec();
            if ledger.store().get(keys::SNAPSHOT).map_err(Fault::from)?.is_none_or(|found| found.value != number) {
                ledger.write(Vec::new(), &[Write::Put(keys::SNAPSHOT.to_vec(), number)])?;
            }
            // What a crash could take back must not be in the bucket.
            ledger.store().sync().map_err(Fault::from)?;
            let changes = (ledger.operator_changes(), ledger.access_changes, ledger.upload_changes);
            (changes.0, changes.1, changes.2, deletion::dead(&ledger))
        };
        let (revision, parts) = self.copy(sequence, wall()).await?;
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        match stored::write(&*self.objects, sequence, parts).await {
            Ok(()) => {}
            Err(StoreError::Exists(_)) => {
                // An earlier try of ours whose answer was lost, or a stranger's.
                self.refuse_successor(sequence).await?;
                self.keep(Kept { sequence, dead: BTreeSet::new() });
                return Err(StoreError::Retry(format!("snapshot {sequence} was there already")).into());
            }
            Err(error) => return Err(error.into()),
        }
        self.keep(Kept { sequence, dead });
        // The name may have been free because a successor has removed what it had written under it.
        self.give_way(sequence + 1).await?;
        self.newest = Some(Shown { revision, operator_changes, access_changes, upload_changes });
        (self.age, self.looked) = (Duration::ZERO, Duration::ZERO);
        self.meters.snapshots.increment(1);
        self.meters.snapshot_sequence.set(sequence as f64);
        self.meters.snapshot_bytes.set(bytes as f64);
        tracing::debug!(sequence, %revision, bytes, "metadata snapshot written");
        Ok(())
    }

    fn keep(&mut self, snapshot: Kept) {
        self.kept.as_mut().expect("found before").push_back(snapshot);
    }

    /// Copies the store page by page; others have their turn in between.
    async fn copy(&self, sequence: u64, now: Wall) -> Result<(Revision, Vec<Bytes>), Trouble> {
        let head = {
            let mut ledger = self.ledger.borrow_mut();
            let revision = ledger.begin_copy();
            Head {
                cluster_id: self.cluster_id.to_string(),
                node: ledger.node().0,
                node_epoch: ledger.epoch(),
                sequence,
                revision,
                written_at_ms: now.0,
            }
        };
        let mut encoder = Encoder::new(&head);
        loop {
            let page = self.ledger.borrow_mut().copied_page()?;
            let Some(page) = page else { break };
            encoder.push(&page);
            yield_now().await;
        }
        Ok((head.revision, encoder.finish()))
    }

    /// Removes snapshots that are too old; answers whether nothing failed.
    async fn remove_old(&mut self) -> bool {
        while let Some(oldest) = self.kept.as_ref().filter(|kept| kept.len() > KEPT).and_then(VecDeque::front) {
            let (sequence, key) = (oldest.sequence, stored::key(oldest.sequence));
            if let Err(error) = self.objects.delete(&key).await {
                tracing::warn!(sequence, %error, "an old metadata snapshot could not be removed; it is tried again");
                self.meters.snapshot_errors.increment(1);
                return false;
            }
            self.kept.as_mut().expect("just seen").pop_front();
        }
        true
    }
}
