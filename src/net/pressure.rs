//! Closes connections that stand in the way of others: they hold room that somebody waits for, and do not move.
//!
//! Lives on one executor, beside its admission. As long as nobody waits, slow clients are none of its business: those have
//! the patience of [`super::EdgeLimits::stall`].

use std::{
    cell::{Cell, RefCell},
    cmp::Reverse,
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use thalweg_record::Mono;

use super::flow::Flow;

/// How long one waits for room before the others are looked at.
pub const LOOK_AFTER: Duration = Duration::from_millis(250);
/// Patience with a client that neither sends nor takes, and the rate that it must keep up after that.
const GRACE: Duration = Duration::from_secs(1);
const BYTES_PER_SECOND: usize = 256 << 10;
/// A request that runs alone (a long poll, a join) may hold room this long.
const HELD: Duration = Duration::from_secs(5);
/// Below this it may hold it for ever: there are not enough connections to fill a lane with so little.
const HELD_BYTES: usize = 4 << 10;
/// So many of those that hold it longest go at once: one alone may not be enough.
const AT_ONCE: usize = 8;

/// The connections of one executor.
#[derive(Debug, Default)]
pub struct Pressure {
    flows: RefCell<BTreeMap<u64, Rc<Flow>>>,
    next: Cell<u64>,
    looked: Cell<Option<Mono>>,
}

/// A connection's place among the others; given up when dropped.
#[derive(Debug)]
pub struct Watched<'a>(&'a Pressure, u64);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.0.flows.borrow_mut().remove(&self.1);
    }
}

impl Pressure {
    /// Takes a connection in.
    pub fn watch(&self, flow: Rc<Flow>) -> Watched<'_> {
        let id = self.next.replace(self.next.get() + 1);
        self.flows.borrow_mut().insert(id, flow);
        Watched(self, id)
    }

    /// Somebody has waited for [`LOOK_AFTER`]: condemns those who are too slow. When there are none and it is `requests` that
    /// room is wanted for, the few whose long requests hold the most.
    pub fn relieve(&self, now: Mono, requests: bool) {
        if self.looked.get().is_some_and(|looked| now.since(looked) < LOOK_AFTER) {
            return;
        }
        self.looked.set(Some(now));
        let flows = self.flows.borrow();
        let slow = |flow: &&Rc<Flow>| flow.is_slower(now, GRACE, BYTES_PER_SECOND);
        let holds = |flow: &&Rc<Flow>| flow.bytes() >= HELD_BYTES && flow.runs_alone_for(now) >= HELD;
        let mut condemned: Vec<&Rc<Flow>> = flows.values().filter(slow).collect();
        if condemned.is_empty() && requests {
            condemned.extend(flows.values().filter(holds));
            condemned.sort_by_key(|flow| Reverse(flow.bytes()));
            condemned.truncate(AT_ONCE);
        }
        condemned.into_iter().for_each(|flow| flow.condemn());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono(0).plus(Duration::from_millis(ms))
    }

    #[test]
    fn who_neither_sends_nor_takes_is_condemned_and_who_moves_is_not() {
        let pressure = Pressure::default();
        let flows: Vec<Rc<Flow>> = (0..3).map(|_| Flow::new(1 << 20, at(0))).collect();
        let _watched: Vec<Watched> = flows.iter().map(|flow| pressure.watch(Rc::clone(flow))).collect();
        flows[0].receiving(Some(at(0)));
        flows[1].receiving(Some(at(0)));
        flows[1].received(10 << 20);
        pressure.relieve(at(900), true);
        assert!(flows.iter().all(|flow| !flow.is_condemned()), "within the grace");
        pressure.relieve(at(2000), true);
        let condemned: Vec<bool> = flows.iter().map(|flow| flow.is_condemned()).collect();
        assert_eq!(condemned, [true, false, false]);
    }

    #[test]
    fn a_long_request_that_holds_much_is_condemned_when_nobody_is_slow() {
        let pressure = Pressure::default();
        let flows: Vec<Rc<Flow>> = (0..AT_ONCE + 2).map(|_| Flow::new(1 << 20, at(0))).collect();
        let _watched: Vec<Watched> = flows.iter().map(|flow| pressure.watch(Rc::clone(flow))).collect();
        let sizes = [100, 5000].into_iter().chain(std::iter::repeat(9000));
        let mut tickets: Vec<_> = flows.iter().zip(sizes).map(|(flow, n)| flow.enter(n, true)).collect();
        tickets.iter_mut().for_each(|ticket| ticket.start(at(0)));
        pressure.relieve(at(4000), true);
        assert!(flows.iter().all(|flow| !flow.is_condemned()), "they may take their time");
        pressure.relieve(at(6000), false);
        assert!(flows.iter().all(|flow| !flow.is_condemned()), "they hold requests, not answers");
        pressure.relieve(at(7000), true);
        let condemned: Vec<bool> = flows.iter().map(|flow| flow.is_condemned()).collect();
        assert!(!condemned[0] && !condemned[1] && condemned[2..].iter().all(|c| *c), "the largest: {condemned:?}");
    }

    #[test]
    fn a_connection_that_is_gone_is_forgotten() {
        let pressure = Pressure::default();
        drop(pressure.watch(Flow::new(1, at(0))));
        assert!(pressure.flows.borrow().is_empty());
    }
}
