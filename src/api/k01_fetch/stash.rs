//! What a connection keeps between two fetches: cold records that came too late for the answer they were read for, and
//! whose turn it is.
//!
//! Lives on the connection's executor. One connection runs one fetch at a time, so a fetch takes the stash out, and puts
//! it back at its end. It holds what the connection's last fetch wanted and nothing else: at most
//! [`super::wait::SLOW_BYTES`], or one batch, and of all connections together what [`super::room`] has room for.

use std::collections::{BTreeMap, BTreeSet};

use flume::{Receiver, Sender};
use thalweg_record::{Mono, Offset, PartitionId};
use thalweg_shards::{
    mailbox::{Answer, ReplyTo},
    msg::{FetchFrom, Isolation, PartitionError, Records, Reply, Taken},
};

/// What was asked of a partition; the next fetch that asks the same is given what came of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Key {
    partition: PartitionId,
    offset: Offset,
    committed: bool,
}

impl Key {
    pub fn new(from: &FetchFrom, isolation: Isolation) -> Key {
        Key { partition: from.partition, offset: from.offset, committed: isolation == Isolation::Committed }
    }
}

/// The lane on which the shards answer this connection's fetches, and what came late on it.
#[derive(Debug)]
pub struct Stash {
    lane: (Sender<Answer>, Receiver<Answer>),
    next_slot: u64,
    /// By slot and place: what was asked, and how many bytes at most.
    due: BTreeMap<(u64, u32), (Key, u64)>,
    /// How often a key is in `due`: a request may name one partition many times.
    due_keys: BTreeMap<Key, usize>,
    read: BTreeMap<Key, Result<Taken, PartitionError>>,
    /// The partition that got nothing last time although it had something.
    pub(super) starved: Option<PartitionId>,
    /// When the last fetch was answered with a few records, which its reader now follows.
    pub(super) few_at: Option<Mono>,
}

impl Default for Stash {
    fn default() -> Stash {
        let (due, due_keys, read) = Default::default();
        Stash { lane: flume::unbounded(), next_slot: 0, due, due_keys, read, starved: None, few_at: None }
    }
}

impl Stash {
    /// Takes in what came since the last fetch, and forgets what this one does not want.
    pub(super) fn keep(&mut self, wanted: &BTreeSet<Key>) {
        // Wakes of an earlier fetch concern nobody any more.
        drop(self.take_in_all());
        self.due.retain(|_, (key, _)| wanted.contains(key));
        self.due_keys.retain(|key, _| wanted.contains(key));
        self.read.retain(|key, _| wanted.contains(key));
    }

    /// Where a shard answers next, and the slot that its answers bear.
    pub(super) fn reply_to(&mut self) -> (u64, ReplyTo) {
        self.next_slot += 1;
        (self.next_slot, ReplyTo::new(self.lane.0.clone(), self.next_slot))
    }

    /// Part `place` of the take in `slot` will come late, with `bytes` at most (or one batch).
    pub(super) fn expect(&mut self, slot: u64, place: u32, key: Key, bytes: u64) {
        self.due.insert((slot, place), (key, bytes));
        *self.due_keys.entry(key).or_insert(0) += 1;
    }

    /// Whether `key` is being read.
    pub(super) fn is_due(&self, key: &Key) -> bool {
        self.due_keys.contains_key(key)
    }

    /// Bytes that are kept, and those that may still come.
    pub(super) fn bytes(&self) -> u64 {
        let read = self.read.values().flatten().map(|taken| taken.records.bytes()).sum::<u64>();
        read + self.due.values().map(|(_, bytes)| bytes).sum::<u64>()
    }

    /// What was read for `key`, left in place.
    pub(super) fn peek(&self, key: &Key) -> Option<&Result<Taken, PartitionError>> {
        self.read.get(key)
    }

    /// What was read for `key`.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Result<Taken, PartitionError>> {
        self.read.remove(key)
    }

    /// The next answer; `None` when it was a late part, which is in the stash now if anybody wants it.
    pub(super) async fn receive(&mut self) -> Option<Answer> {
        let answer = self.lane.1.recv_async().await.expect("this end holds a sender too");
        self.take_in(answer)
    }

    /// Takes in what came already; gives what is no late part.
    pub(super) fn take_in_all(&mut self) -> Vec<Answer> {
        let mut others = Vec::new();
        while let Ok(answer) = self.lane.1.try_recv() {
            others.extend(self.take_in(answer));
        }
        others
    }

    /// Whether nothing is kept or awaited.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty() && self.read.is_empty()
    }

    fn take_in(&mut self, answer: Answer) -> Option<Answer> {
        let Reply::Late(place, result) = answer.reply else {
            return Some(answer);
        };
        let (key, _) = self.due.remove(&(answer.slot, place))?;
        let left = self.due_keys.get_mut(&key).expect("a key that is due is counted");
        *left -= 1;
        if *left == 0 {
            self.due_keys.remove(&key);
        }
        match &result {
            // Its first batch is larger than what it was allotted: it must come first next time.
            Ok(Taken { records: Records::Ready(pieces), .. }) if pieces.is_empty() => {
                self.starved = Some(key.partition);
            }
            // It left the ring before it was read: the next fetch asks again.
            Ok(Taken { records: Records::Pending, .. }) => {}
            // Another shard has it by now: likewise.
            Err(error) if error.is_elsewhere() => {}
            _ => drop(self.read.insert(key, result)),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use thalweg_record::TopicId;

    use super::*;

    #[test]
    fn what_left_the_ring_before_it_was_read_is_asked_for_again() {
        let partition = PartitionId { topic: TopicId([7; 16]), index: 0 };
        let key = Key { partition, offset: Offset(3), committed: false };
        let mut stash = Stash::default();
        let (slot, reply) = stash.reply_to();
        stash.expect(slot, 0, key, 100);
        assert_eq!((stash.is_due(&key), stash.bytes()), (true, 100));
        let (log_start, high_watermark, last_stable) = (Offset(0), Offset(9), Offset(9));
        let taken = Taken { log_start, high_watermark, last_stable, aborted: Vec::new(), records: Records::Pending };
        reply.send_more(Reply::Late(0, Ok(taken)));
        assert!(stash.take_in_all().is_empty());
        assert!(
            !stash.is_due(&key) && stash.peek(&key).is_none() && stash.bytes() == 0,
            "or the next fetch would be given nothing for ever"
        );
    }
}
