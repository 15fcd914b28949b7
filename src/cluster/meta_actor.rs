//! Serves what shards ask of the metadata. Runs on the metadata thread (or as a task of the simulation).
//!
//! Works in turns: all requests at hand are applied, then one sync serves every answer that promises durability.

use std::{cell::RefCell, rc::Rc};

use flume::Sender;
use thalweg_shards::meta::{CommitOutcome, MetaRequest};

use super::{
    actors::Inbox,
    ledger::{Fault, Ledger},
    open::WallClock,
};

/// Answers that wait for the end of the turn.
type Answers = Vec<Box<dyn FnOnce()>>;

/// Serves requests until the process stops; what is queued by then is served.
pub(super) async fn serve(
    inbox: Inbox<MetaRequest>,
    ledger: Rc<RefCell<Ledger>>,
    wall: &WallClock,
) -> Result<(), Fault> {
    while let Some(requests) = inbox.next().await {
        let mut turn = Turn { answers: Vec::new(), durable: false };
        for request in requests {
            turn.apply(&mut ledger.borrow_mut(), request, wall)?;
        }
        let store = ledger.borrow().store();
        if turn.durable {
            store.sync()?;
        }
        turn.answers.into_iter().for_each(|answer| answer());
    }
    Ok(())
}

struct Turn {
    answers: Answers,
    durable: bool,
}

impl Turn {
    fn answer<T: 'static>(&mut self, reply: Sender<T>, value: T) {
        self.answers.push(Box::new(move || {
            let _gone = reply.try_send(value);
        }));
    }

    fn apply(&mut self, ledger: &mut Ledger, request: MetaRequest, wall: &WallClock) -> Result<(), Fault> {
        self.durable |= !matches!(
            request,
            MetaRequest::Commit { .. } | MetaRequest::GarbageGone { .. } | MetaRequest::MostlyDead { .. }
        );
        match request {
            MetaRequest::ReserveObjects { shard, count, reply } => {
                let first = ledger.reserve_objects(shard, count)?;
                self.answer(reply, first);
            }
            MetaRequest::Commit { shard, commits, reply } => {
                let mut outcomes = Vec::new();
                for commit in &commits {
                    let outcome = ledger.commit(shard, commit, wall())?;
                    let done = outcome == CommitOutcome::Committed;
                    outcomes.push(outcome);
                    if !done {
                        break;
                    }
                }
                self.answer(reply, outcomes);
            }
            MetaRequest::Compact { shard, compaction, reply } => {
                let outcome = ledger.compact(shard, &compaction)?;
                self.answer(reply, outcome);
            }
            MetaRequest::MoveDirtyPoint { partition, from, to, reply } => {
                let moved = ledger.move_dirty_point(partition, from, to)?;
                self.answer(reply, moved);
            }
            MetaRequest::Fold { shard, fold, reply } => {
                let outcome = ledger.fold(shard, &fold)?;
                self.answer(reply, outcome);
            }
            MetaRequest::Unfold { partition, manifest, entries, reply } => {
                let unfolded = ledger.unfold(partition, manifest, &entries)?;
                self.answer(reply, unfolded);
            }
            MetaRequest::MostlyDead { reply } => self.answer(reply, ledger.mostly_dead()),
            MetaRequest::Sync { reply } => self.answer(reply, ()),
            MetaRequest::RaiseLogStart { starts, reply } => {
                ledger.raise_log_start(&starts)?;
                self.answer(reply, ());
            }
            MetaRequest::TakeStaleReservations { shard, limit, reply } => {
                let taken = ledger.take_stale(shard, limit)?;
                self.answer(reply, taken);
            }
            MetaRequest::GarbageGone { objects } => ledger.garbage_gone(&objects)?,
        }
        Ok(())
    }
}
