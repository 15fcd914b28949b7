//! Parked fetches: which connection waits for which partitions of this shard.
//!
//! Owned by one shard. A connection has at most one watch per shard; its next poll replaces it, its first wake or its end
//! removes it, so a million polls leave no more watches than there are connections.

use std::collections::BTreeSet;

use ahash::AHashMap;
use thalweg_record::PartitionId;

use crate::{
    mailbox::ReplyTo,
    msg::{ConnId, Reply},
};

struct Watch {
    reply: ReplyTo,
    parts: Vec<PartitionId>,
}

/// The watches of a shard. Hash maps are only looked up.
#[derive(Default)]
pub struct Watches {
    by_conn: AHashMap<ConnId, Watch>,
    by_partition: AHashMap<PartitionId, BTreeSet<ConnId>>,
}

impl Watches {
    /// Registers a connection's watch on `parts`, in place of its earlier one.
    pub fn register(&mut self, conn: ConnId, parts: Vec<PartitionId>, reply: ReplyTo) {
        self.remove(conn);
        for part in &parts {
            self.by_partition.entry(*part).or_default().insert(conn);
        }
        self.by_conn.insert(conn, Watch { reply, parts });
    }

    /// Forgets a connection's watch without waking it.
    pub fn remove(&mut self, conn: ConnId) {
        if let Some(watch) = self.take(conn) {
            watch.reply.forget();
        }
    }

    fn take(&mut self, conn: ConnId) -> Option<Watch> {
        let watch = self.by_conn.remove(&conn)?;
        for part in &watch.parts {
            if let Some(conns) = self.by_partition.get_mut(part) {
                conns.remove(&conn);
                if conns.is_empty() {
                    self.by_partition.remove(part);
                }
            }
        }
        Some(watch)
    }

    /// Wakes everybody who watches `partition`; each once.
    pub fn wake(&mut self, partition: PartitionId) {
        let Some(conns) = self.by_partition.remove(&partition) else { return };
        #[cfg(feature = "planted-bugs")]
        let conns =
            conns.into_iter().take(if thalweg_wal::planted(thalweg_wal::Bug::LostWake) { 1 } else { usize::MAX });
        for conn in conns {
            if let Some(watch) = self.take(conn) {
                watch.reply.send(Reply::Wake);
            }
        }
    }

    /// How many connections watch anything.
    pub fn connections(&self) -> usize {
        self.by_conn.len()
    }

    /// How many connections watch `partition`.
    pub fn on(&self, partition: PartitionId) -> u32 {
        self.by_partition.get(&partition).map_or(0, |conns| conns.len() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::Answer;
    use thalweg_record::TopicId;

    fn part(index: i32) -> PartitionId {
        PartitionId { topic: TopicId([9; 16]), index }
    }

    #[test]
    fn a_wake_is_sent_once_and_polls_leave_nothing_behind() {
        let mut watches = Watches::default();
        let (tx, rx) = flume::unbounded::<Answer>();
        for poll in 0..1_000 {
            watches.register(ConnId(1), vec![part(0), part(1)], ReplyTo::new(tx.clone(), poll));
        }
        assert_eq!((watches.by_conn.len(), watches.on(part(0)), rx.len()), (1, 1, 0));
        watches.wake(part(1));
        watches.wake(part(0));
        let woken: Vec<u64> = rx.try_iter().map(|a| a.slot).collect();
        assert_eq!(woken, vec![999]);
        assert!(watches.by_conn.is_empty() && watches.by_partition.is_empty());
    }

    #[test]
    fn a_connection_that_goes_takes_its_watch_along() {
        let mut watches = Watches::default();
        let (tx, rx) = flume::unbounded::<Answer>();
        watches.register(ConnId(1), vec![part(0)], ReplyTo::new(tx, 0));
        watches.remove(ConnId(1));
        watches.wake(part(0));
        assert_eq!(rx.len(), 0);
        assert!(watches.by_partition.is_empty());
    }
}
