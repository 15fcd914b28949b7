//! Places where tests make the process die, panic, hang or lie, each with a name. Usable on every core.
//!
//! They exist with the feature `failpoints` alone, with which a release build does not compile (`lib.rs`): there a call is nothing. What
//! happens at one is told from outside (tests/faulty); by itself nothing does. The crate `fail` would do the same, but it turns on
//! features of crates that half the tree depends on, and so doubles the build of the tests.

#[cfg(feature = "failpoints")]
static REACHED: std::sync::OnceLock<Box<dyn Fn(&'static str) -> bool + Send + Sync>> = std::sync::OnceLock::new();

/// Passes the failpoint `name`. Names are unique in the source: each is one step of the broker.
#[cfg(feature = "failpoints")]
pub fn pass(name: &'static str) {
    let _lies_elsewhere = lies(name);
}

/// Passes a place where the broker may be made to tell clients a thing that is not so, which their histories must show; answers whether it
/// lies.
#[cfg(feature = "failpoints")]
pub fn lies(name: &'static str) -> bool {
    REACHED.get().is_some_and(|reached| reached(name))
}

/// Never: this build has no failpoints.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn lies(_name: &'static str) -> bool {
    false
}

/// Nothing: this build has no failpoints.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn pass(_name: &'static str) {}

/// Has `reached` called, on any thread, at each pass of a failpoint; what it answers is whether a lie is told there.
///
/// # Panics
/// When it was called before.
#[cfg(feature = "failpoints")]
pub fn on_pass(reached: impl Fn(&'static str) -> bool + Send + Sync + 'static) {
    assert!(REACHED.set(Box::new(reached)).is_ok(), "failpoints are armed once");
}
