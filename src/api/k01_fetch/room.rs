//! Room for records that are read from the ring or the object store: what is being read for the connections of one executor, and
//! what they keep for their next fetch.
//!
//! Taken before anything is read, given back when it is handed out or dropped. A connection may have as much as it leaves free
//! (dynamic thresholds, Choudhury and Hahne, 1998), so none has more than half, and n that want all they can get have a share of
//! 1/(n + 1) each; who has nothing gets one batch in any case, after a wait in line if need be. What connections keep between
//! two fetches is only a saving: it goes, the longest kept first, when somebody has no room.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::poll_fn,
    rc::{Rc, Weak},
    task::{Poll, Waker},
};

use thalweg_shards::msg::ConnId;

use super::stash::Stash;

/// Where a connection keeps its stash between two fetches; empty during one.
pub type StashCell = RefCell<Option<Box<Stash>>>;

/// One executor's room for cold records.
#[derive(Debug)]
pub struct ColdRoom {
    total: u64,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    held: u64,
    conns: BTreeMap<ConnId, u64>,
    /// Stashes of connections that run no fetch, the longest kept first.
    kept: BTreeMap<u64, (ConnId, Weak<StashCell>)>,
    /// Who waits for room, first come first.
    line: BTreeMap<u64, Option<Waker>>,
    next: u64,
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn hold(&mut self, conn: ConnId, bytes: u64) {
        let before = match bytes {
            0 => self.conns.remove(&conn),
            _ => self.conns.insert(conn, bytes),
        };
        self.held = self.held - before.unwrap_or(0) + bytes;
    }

    /// Drops stashes until `bytes` are free, or none is left.
    fn relieve(&mut self, total: u64, bytes: u64) {
        while self.held + bytes > total {
            let Some((_, (conn, stash))) = self.kept.pop_first() else { return };
            if let Some(stash) = stash.upgrade() {
                stash.replace(None);
            }
            self.hold(conn, 0);
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.line.first_entry().and_then(|mut first| first.get_mut().take()) {
            waker.wake();
        }
    }
}

/// A place in the line; given up when dropped.
struct Place<'a>(&'a ColdRoom, u64);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.borrow_mut();
        state.line.remove(&self.1);
        state.wake();
    }
}

impl ColdRoom {
    /// Room for `total` bytes; a single larger batch is read alone.
    pub fn new(total: u64) -> ColdRoom {
        ColdRoom { total, state: RefCell::default() }
    }

    /// Gives `conn`, which has `own` bytes, room for some more: up to `most`, `least` if it has none; 0 if it has to wait.
    pub fn take(&self, conn: ConnId, own: u64, least: u64, most: u64) -> u64 {
        let state = &mut *self.state.borrow_mut();
        state.hold(conn, own);
        if !state.line.is_empty() {
            return 0;
        }
        if own == 0 {
            state.relieve(self.total, least);
        }
        let free = self.total.saturating_sub(state.held);
        let share = (free.saturating_sub(own) / 2).min(most);
        let fits = least <= free || state.held == 0;
        let given = match own {
            0 if fits => share.max(least),
            0 => 0,
            _ => share,
        };
        state.hold(conn, own + given);
        given
    }

    /// Waits in line for `bytes`, which `conn` has then; it has none yet.
    pub async fn wait(&self, conn: ConnId, bytes: u64) {
        let number = {
            let state = &mut *self.state.borrow_mut();
            let number = state.number();
            state.line.insert(number, None);
            number
        };
        let _place = Place(self, number);
        poll_fn(|cx| {
            let state = &mut *self.state.borrow_mut();
            if state.line.first_key_value().is_some_and(|(first, _)| *first == number) {
                state.relieve(self.total, bytes);
                if state.held + bytes <= self.total || state.held == 0 {
                    state.hold(conn, bytes);
                    return Poll::Ready(());
                }
            }
            state.line.insert(number, Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// `conn` has so many bytes now.
    pub fn hold(&self, conn: ConnId, bytes: u64) {
        let mut state = self.state.borrow_mut();
        state.hold(conn, bytes);
        state.wake();
    }

    /// A fetch of `conn` is over; what it keeps for the next, `bytes` in all, may be dropped meanwhile.
    pub fn keep(&self, conn: ConnId, bytes: u64, stash: &Rc<StashCell>) {
        let mut state = self.state.borrow_mut();
        state.hold(conn, bytes);
        if bytes > 0 {
            let number = state.number();
            state.kept.insert(number, (conn, Rc::downgrade(stash)));
        }
        state.wake();
    }

    /// A fetch of `conn` begins: what it kept is in use.
    pub fn resume(&self, conn: ConnId) {
        self.state.borrow_mut().kept.retain(|_, (other, _)| *other != conn);
    }

    /// The connection is closed.
    pub fn gone(&self, conn: ConnId) {
        self.resume(conn);
        self.hold(conn, 0);
    }

    /// Bytes that all connections have.
    #[cfg(test)]
    pub fn held(&self) -> u64 {
        self.state.borrow().held
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn one_connection_cannot_take_all_and_all_cannot_take_more_than_there_is() {
        let room = ColdRoom::new(64 * MIB);
        let mut hog = 0;
        for _ in 0..100 {
            hog += room.take(ConnId(1), hog, MIB, 8 * MIB);
        }
        assert!((24 * MIB..=32 * MIB).contains(&hog), "{hog}: about half, in however many steps");
        let meek = room.take(ConnId(2), 0, MIB, 8 * MIB);
        assert_eq!(meek, 8 * MIB, "another finds room at once");
        let mut given: Vec<u64> = (3..500).map(|conn| room.take(ConnId(conn), 0, MIB, 8 * MIB)).collect();
        assert!(room.held() <= 64 * MIB, "{} held", room.held());
        given.retain(|bytes| *bytes > 0);
        assert!(given.len() > 5, "{} more had something", given.len());
    }

    #[test]
    fn who_waits_comes_first() {
        block_on(async {
            let room = ColdRoom::new(10 * MIB);
            assert_eq!(room.take(ConnId(1), 0, 9 * MIB, 9 * MIB), 9 * MIB);
            assert_eq!(room.take(ConnId(2), 0, 2 * MIB, 8 * MIB), 0);
            let mut second = Box::pin(room.wait(ConnId(2), 2 * MIB));
            assert!(poll_once(&mut second).await.is_none());
            assert_eq!(room.take(ConnId(3), 0, 1, 8 * MIB), 0, "not even what is free");
            let mut third = Box::pin(room.wait(ConnId(3), 20 * MIB));
            assert!(poll_once(&mut third).await.is_none());
            room.hold(ConnId(1), 0);
            assert!(poll_once(&mut third).await.is_none(), "it is not its turn");
            assert!(poll_once(&mut second).await.is_some());
            drop(second);
            assert!(poll_once(&mut third).await.is_none());
            room.gone(ConnId(2));
            assert!(poll_once(&mut third).await.is_some(), "more than there is goes alone");
            drop(third);
            room.gone(ConnId(3));
            assert_eq!((room.held(), room.take(ConnId(1), 0, 1, MIB)), (0, MIB));
        });
    }

    #[test]
    fn what_is_kept_between_fetches_goes_when_somebody_has_no_room() {
        let room = ColdRoom::new(10 * MIB);
        let stashes: Vec<Rc<StashCell>> = (0..3).map(|_| Rc::new(RefCell::new(Some(Box::default())))).collect();
        for (stash, conn) in stashes.iter().zip([1, 2, 3]) {
            room.keep(ConnId(conn), 3 * MIB, stash);
        }
        room.resume(ConnId(1));
        assert_eq!(room.take(ConnId(4), 0, 2 * MIB, 2 * MIB), 2 * MIB);
        let left: Vec<bool> = stashes.iter().map(|stash| stash.borrow().is_some()).collect();
        assert_eq!(left, [true, false, true], "the longest kept, but for one in use");
        assert_eq!(room.held(), 8 * MIB);
    }
}
