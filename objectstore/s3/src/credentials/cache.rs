//! Credentials at hand: renewed ahead of their end, by one flight however many requests wait, and kept to their end while
//! renewing fails.
#![expect(
    clippy::disallowed_types,
    reason = "lives in the tokio world; held for a moment, never while credentials are fetched"
)]

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};

use super::{Keys, Trouble};
use crate::surroundings::Surroundings;

/// Renewing begins so long before the end: services give new credentials at least five minutes ahead.
const AHEAD_S: i64 = 300;
/// Credentials are not used within this of their end: the request has to arrive, and clocks differ.
const MARGIN_S: i64 = 20;
/// Credentials without an end (variables, files) are looked at again after this, those with one not sooner.
const LOOK_AGAIN_S: i64 = 60;
/// After a failure: the next flight, when requests can go on with what is there, ...
const REST_S: i64 = 15;
/// ... and when they cannot.
const SHORT_REST_S: i64 = 1;

type Outcome = Result<Keys, Trouble>;
type Load = Box<dyn Fn() -> BoxFuture<'static, Outcome> + Send + Sync>;

/// The credentials of one store.
pub(crate) struct Cache {
    load: Load,
    around: Surroundings,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    flight: Option<Shared<BoxFuture<'static, Outcome>>>,
    /// What the last flight met, and until when (s) there is no other.
    failed: Option<(Trouble, i64)>,
    /// Until when (s) the store's doubts are not listened to: a refusal that lasts has another reason.
    trusted_until_s: i64,
}

struct Held {
    keys: Keys,
    renew_at_s: i64,
    /// `None`: no end.
    ends_at_s: Option<i64>,
}

impl Held {
    fn new(keys: Keys, now_s: i64) -> Held {
        let ends_at_s = keys.ends_at_s;
        // A service that still gives the old ones is not asked with every request.
        let renew_at_s = ends_at_s.map_or(0, |end| end - AHEAD_S).max(now_s + LOOK_AGAIN_S);
        Held { keys, renew_at_s, ends_at_s }
    }

    fn usable(&self, now_s: i64) -> bool {
        self.ends_at_s.is_none_or(|end| now_s + MARGIN_S < end)
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cache")
    }
}

impl Cache {
    pub(crate) fn new(
        around: Surroundings,
        load: impl Fn() -> BoxFuture<'static, Outcome> + Send + Sync + 'static,
    ) -> Arc<Cache> {
        Arc::new(Cache { load: Box::new(load), around, state: Mutex::default() })
    }

    /// Credentials that are good now. Waits only when there are none.
    ///
    /// # Errors
    /// What the last flight met.
    pub(crate) async fn keys(self: &Arc<Self>) -> Outcome {
        let flight = {
            let now = self.around.now_s();
            let mut state = self.state();
            let keys = state.held.as_ref().filter(|held| held.usable(now)).map(|held| held.keys.clone());
            let due = state.held.as_ref().is_none_or(|held| now >= held.renew_at_s || !held.usable(now));
            let resting = state.failed.as_ref().filter(|(_, until)| now < *until).map(|(trouble, _)| trouble.clone());
            match (keys, resting) {
                (Some(keys), _) if !due => return Ok(keys),
                (Some(keys), Some(_)) => return Ok(keys),
                (None, Some(trouble)) => return Err(trouble),
                (Some(keys), None) => {
                    let _under_way = self.fly(&mut state);
                    return Ok(keys);
                }
                (None, None) => self.fly(&mut state),
            }
        };
        flight.await
    }

    /// The store does not take `keys` any more: looks for others with the next request.
    pub(crate) fn doubt(&self, keys: &Keys) {
        let now = self.around.now_s();
        let mut state = self.state();
        let trusted = now < state.trusted_until_s;
        if let Some(held) = state.held.as_mut().filter(|held| !trusted && held.keys.token == keys.token) {
            held.renew_at_s = 0;
            state.trusted_until_s = now + LOOK_AGAIN_S;
        }
    }

    /// Whether the last flight failed, and the next has to wait.
    #[cfg(test)]
    pub(super) fn is_resting(&self) -> bool {
        let now = self.around.now_s();
        self.state().failed.as_ref().is_some_and(|(_, until)| now < *until)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }

    /// The flight under way, or a new one: a task of its own, which goes on when whoever waits is gone.
    fn fly(self: &Arc<Self>, state: &mut State) -> Shared<BoxFuture<'static, Outcome>> {
        let cache = self.clone();
        let start = || {
            let task = tokio::spawn(async move {
                let outcome = (cache.load)().await;
                cache.land(outcome)
            });
            task.map(|done| done.unwrap_or_else(|_| Err(Trouble::passing("the engine is stopping")))).boxed().shared()
        };
        state.flight.get_or_insert_with(start).clone()
    }

    fn land(&self, outcome: Outcome) -> Outcome {
        let now = self.around.now_s();
        let mut state = self.state();
        state.flight = None;
        let outcome = outcome.and_then(|keys| {
            let held = Held::new(keys, now);
            if !held.usable(now) {
                return Err(Trouble::passing("the credentials that were given have expired already"));
            }
            Ok(held)
        });
        match outcome {
            Ok(held) => {
                let keys = held.keys.clone();
                state.failed = None;
                state.held = Some(held);
                Ok(keys)
            }
            Err(mut trouble) => {
                // What worked before is being mended; what never worked is not set up.
                trouble.passing |= state.held.is_some();
                let usable = state.held.as_ref().is_some_and(|held| held.usable(now));
                let rest = if usable { REST_S } else { SHORT_REST_S };
                if usable {
                    tracing::warn!(why = trouble.why, "credentials were not renewed; those at hand are still good");
                }
                state.failed = Some((trouble.clone(), now + rest));
                Err(trouble)
            }
        }
    }
}
