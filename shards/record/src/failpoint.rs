//! Places where tests make the process die, panic or hang, each with a name. Usable on every core.
//!
//! They exist with the feature `failpoints` alone, with which a release build does not compile (`lib.rs`): there a call is nothing. What
//! happens at one is told from outside (tests/faulty); by itself nothing does. The crate `fail` would do the same, but it turns on
//! features of crates that half the tree depends on, and so doubles the build of the tests.

#[cfg(feature = "failpoints")]
static REACHED: std::sync::OnceLock<Box<dyn Fn(&'static str) + Send + Sync>> = std::sync::OnceLock::new();

/// Passes the failpoint `name`. Names are unique in the source: each is one step of the broker.
#[cfg(feature = "failpoints")]
pub fn pass(name: &'static str) {
    if let Some(reached) = REACHED.get() {
        reached(name);
    }
}

/// Nothing: this build has no failpoints.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn pass(_name: &'static str) {}

/// Has `reached` called, on any thread, at each pass of a failpoint.
///
/// # Panics
/// When it was called before.
#[cfg(feature = "failpoints")]
pub fn on_pass(reached: impl Fn(&'static str) + Send + Sync + 'static) {
    assert!(REACHED.set(Box::new(reached)).is_ok(), "failpoints are armed once");
}
