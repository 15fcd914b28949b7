//! The work itself: puts manifests and has them take the place of what they list; or the other way round.
//!
//! A task of the queue `Janitor` on the shard's core that never touches the shard's state. Killed at any step it leaves the entries or the
//! manifest in force; what it had put in between is an orphan of its reservation.

use std::rc::Rc;

use bytes::Bytes;
use thalweg_objectstore::{PutCondition, format::Manifest, manifest_key};
use thalweg_record::{PartitionId, failpoint};

use crate::{
    cold::fetch::fetch_manifest,
    event::Event,
    meta::{CommittedObject, Fold, FoldOutcome, ManifestRef, MetaRequest},
    meters::ShardMeters,
    rewrite::{RewriteFailure, Rewriter, retry, stopping},
};

/// What is to be done for one partition.
pub(super) enum Work {
    /// These entries, the oldest, are listed in a manifest.
    Fold(PartitionId, Vec<Rc<CommittedObject>>),
    /// The newest manifest gives its place back to what it lists.
    Unfold(PartitionId, Rc<ManifestRef>),
}

impl Work {
    pub(super) fn partition(&self) -> PartitionId {
        match self {
            Work::Fold(partition, _) | Work::Unfold(partition, _) => *partition,
        }
    }
}

/// All that the work needs.
pub(super) struct Job {
    pub rewriter: Rewriter,
    pub meters: Rc<ShardMeters>,
    pub work: Vec<Work>,
}

/// Does all of it, or ends where the store or the metadata fails; what has changed meanwhile, and a manifest that cannot be read, are passed
/// over.
pub(super) async fn run(job: Job) {
    let mut result = Ok(());
    for work in &job.work {
        let outcome = match work {
            Work::Fold(partition, parts) => fold(&job, *partition, parts).await,
            Work::Unfold(partition, manifest) => unfold(&job, *partition, manifest).await,
        };
        let ends = matches!(outcome, Err(RewriteFailure::Retry(_) | RewriteFailure::Fatal(_)));
        result = worse(result, outcome);
        if ends {
            break;
        }
    }
    let _gone = job.rewriter.events.try_send(Event::FoldingEnded(result));
}

/// What is to be told of two: rather of one that was not only dropped.
fn worse(one: Result<(), RewriteFailure>, other: Result<(), RewriteFailure>) -> Result<(), RewriteFailure> {
    match (one, other) {
        (Ok(()) | Err(RewriteFailure::Dropped), Err(failure)) => Err(failure),
        (one, _) => one,
    }
}

async fn fold(job: &Job, partition: PartitionId, parts: &[Rc<CommittedObject>]) -> Result<(), RewriteFailure> {
    let rewriter = &job.rewriter;
    let id = rewriter.reserve().await?;
    failpoint::pass("fold-reserved");
    let entries = parts.iter().map(|part| (&**part).into()).collect();
    let content = Manifest { id: id.0, partition, entries }.encode();
    let bytes = content.len() as u64;
    let key = manifest_key(id.0, rewriter.identity.node, rewriter.identity.node_epoch);
    let put = rewriter.store.put(key.clone(), vec![Bytes::from(content)], PutCondition::IfAbsent).await;
    #[cfg(feature = "planted-bugs")]
    let put = if thalweg_wal::planted(thalweg_wal::Bug::ManifestNotPut) { Ok(()) } else { put };
    put.map_err(|error| retry(error.to_string()))?;
    failpoint::pass("fold-put");
    let parts = parts.iter().map(|part| (part.object, part.base, part.last)).collect();
    let (shard, fold) = (rewriter.shard, Box::new(Fold { manifest: id, key, bytes, partition, parts }));
    match rewriter.ask(|reply| MetaRequest::Fold { shard, fold, reply }).await? {
        FoldOutcome::Folded(manifest) => {
            failpoint::pass("fold-committed");
            job.meters.manifests.increment(1);
            rewriter.events.try_send(Event::Folded(partition, manifest)).map_err(stopping)
        }
        // Retention, compaction or a deletion was faster; the shard looks again after a pause.
        FoldOutcome::Changed => Err(RewriteFailure::Dropped),
        FoldOutcome::Unreserved => Err(retry("the manifest's reservation was taken away".into())),
        FoldOutcome::Fenced => Err(RewriteFailure::Fatal("another broker has fenced this one's epoch".into())),
    }
}

async fn unfold(job: &Job, partition: PartitionId, manifest: &ManifestRef) -> Result<(), RewriteFailure> {
    let rewriter = &job.rewriter;
    let entries = fetch_manifest(&rewriter.fetcher(), partition, manifest).await;
    let (id, unreadable) = (manifest.id, |why: String| RewriteFailure::Unreadable(vec![manifest.id], why));
    let entries = entries.map_err(|error| unreadable(error.to_string()))?;
    let listed = entries.clone();
    let unfolded =
        rewriter.ask(|reply| MetaRequest::Unfold { partition, manifest: id, entries: listed, reply }).await?;
    if !unfolded {
        // Retention or a deletion was faster; the shard looks again after a pause.
        return Err(RewriteFailure::Dropped);
    }
    job.meters.manifests_unfolded.increment(1);
    rewriter.events.try_send(Event::Unfolded(partition, id, entries)).map_err(stopping)
}
