//! Puts that have time: all of them share one thread, piece by piece as each is due, so that however many wait, none holds up what
//! has no time, and none a thread that it does not use.
#![expect(clippy::disallowed_methods, reason = "the thread of what has time, and its clock")]

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    num::NonZeroU64,
    time::{Duration, Instant},
};

use flume::{Receiver, RecvTimeoutError};

use crate::Pace;

/// Work in pieces.
pub(super) trait InPieces: Send {
    /// Does the next piece; says how many bytes it had. `None`: it has come to its end, one way or the other.
    fn piece(&mut self) -> Option<u64>;
}

/// What comes in: work, and how fast it may go.
pub(super) type Slow = (Box<dyn InPieces>, NonZeroU64);

struct Going {
    work: Box<dyn InPieces>,
    pace: Pace,
}

/// Does what comes in until nobody is left who could send more; what is unfinished then is dropped.
pub(super) fn work(inbox: &Receiver<Slow>) {
    let began = Instant::now();
    let mut going: BTreeMap<u64, Going> = BTreeMap::new();
    let mut due: BinaryHeap<Reverse<(Duration, u64)>> = BinaryHeap::new();
    let mut next_number = 0;
    loop {
        let first = due.peek().map(|Reverse(first)| *first);
        let came = match first {
            Some((at, _)) => inbox.recv_deadline(began + at),
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match came {
            Ok((work, bytes_per_second)) => {
                going.insert(next_number, Going { work, pace: Pace::new(bytes_per_second) });
                due.push(Reverse((began.elapsed(), next_number)));
                next_number += 1;
            }
            Err(RecvTimeoutError::Timeout) => {
                due.pop();
                let Some(number) = first.map(|(_, number)| number) else { continue };
                let Some(one) = going.get_mut(&number) else { continue };
                let now = began.elapsed();
                match one.work.piece() {
                    Some(bytes) => due.push(Reverse((one.pace.take(now, bytes), number))),
                    None => drop(going.remove(&number)),
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, thread};

    use flume::Sender;

    use super::*;

    const PIECE_BYTES: u64 = 1000;

    /// Pieces that take their times, and tell when each begins.
    struct Pieces {
        take: VecDeque<Duration>,
        told: Sender<Instant>,
    }

    impl InPieces for Pieces {
        fn piece(&mut self) -> Option<u64> {
            self.told.try_send(Instant::now()).expect("somebody listens");
            thread::sleep(self.take.pop_front()?);
            Some(PIECE_BYTES)
        }
    }

    fn pieces(take_ms: &[u64]) -> (Box<dyn InPieces>, Receiver<Instant>) {
        let (told, times) = flume::unbounded();
        (Box::new(Pieces { take: take_ms.iter().map(|ms| Duration::from_millis(*ms)).collect(), told }), times)
    }

    #[test]
    fn after_a_stall_the_rest_goes_out_as_evenly_as_before() {
        let (lane, inbox) = flume::unbounded();
        let (work, times) = pieces(&[0, 0, 400, 0, 0, 0]);
        // A piece each 50 ms.
        lane.send((work, NonZeroU64::new(20 * PIECE_BYTES).expect("not 0"))).expect("taken");
        let worker = thread::spawn(move || super::work(&inbox));
        let begins: Vec<Instant> = times.iter().collect();
        assert_eq!(begins.len(), 7, "six pieces, and the end");
        for pair in begins.windows(2) {
            assert!(pair[1] - pair[0] >= Duration::from_millis(50), "{begins:?}");
        }
        assert!(begins[3] - begins[2] >= Duration::from_millis(400), "the stall");
        drop(lane);
        worker.join().expect("it ends with the last sender");
    }

    #[test]
    fn what_is_slower_does_not_hold_up_what_is_faster() {
        let (lane, inbox) = flume::unbounded();
        let worker = thread::spawn(move || super::work(&inbox));
        let slowest = NonZeroU64::MIN;
        for _ in 0..50 {
            let (work, times) = pieces(&[0; 9]);
            lane.send((work, slowest)).expect("taken");
            times.recv().expect("its first piece");
        }
        let (work, times) = pieces(&[0; 9]);
        lane.send((work, NonZeroU64::MAX)).expect("taken");
        assert_eq!(times.iter().count(), 10, "it comes to its end beside all of them");
        drop(lane);
        worker.join().expect("what is unfinished does not hold it");
    }
}
