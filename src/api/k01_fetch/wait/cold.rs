//! Room for the cold part of a fetch, which is taken before anything is read.

use futures_lite::future::or;

use super::{Allotment, Fetch, SLOW_BYTES};

impl Fetch<'_> {
    /// Takes room for what must be read from the ring or the object store. Waits for it only as long as there is nothing else to give.
    pub(super) async fn room_for_cold(&mut self) -> u64 {
        loop {
            let own = self.stash.bytes();
            let is_cold = |place: &usize| {
                let key = &self.keys[*place];
                self.stash.peek(key).is_none() && !self.stash.is_due(key) && self.slow(*place).is_some()
            };
            let cold: Vec<u64> = (0..self.parts.len()).filter(is_cold).filter_map(|place| self.slow(place)).collect();
            // Whichever is the first in the order must find room for its first batch.
            let Some(least) = cold.iter().max().copied() else { return 0 };
            let (edge, conn) = (self.edge, self.conn);
            let given = edge.cold_room.take(conn, own, least, SLOW_BYTES.saturating_sub(own));
            let others = (0..self.parts.len()).any(|place| self.hot_bytes(place).is_none_or(|bytes| bytes > 0));
            if given > 0 || own > 0 || others {
                return given;
            }
            let roomy = async {
                edge.cold_room.wait(conn, least).await;
                Err(least)
            };
            match or(roomy, async { Ok(self.park().await) }).await {
                Err(least) => return least,
                Ok(Some(places)) => self.probe(places).await,
                Ok(None) => return 0,
            }
        }
    }

    /// Bytes of the first batch of a partition whose records must be read.
    fn slow(&self, place: usize) -> Option<u64> {
        let state = self.states[place].as_ref().ok().filter(|state| state.slow && state.bytes > 0)?;
        Some(u64::from(state.first_batch_bytes))
    }

    /// What is allotted to partitions whose records must be read.
    pub(super) fn slow_bytes(&self, allotment: &Allotment) -> u64 {
        let offers = (0..self.parts.len()).map(|place| self.offer(place).slow);
        offers.zip(&allotment.bytes).filter_map(|(slow, bytes)| slow.then_some(*bytes)).sum()
    }
}
