//! What a run says when an invariant did not hold.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// The invariant that a run broke.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation(pub String);

/// Runs a history; a panic of the code under test is a violation too.
pub(crate) fn caught<T>(history: impl FnOnce() -> Result<T, Violation>) -> Result<T, Violation> {
    catch_unwind(AssertUnwindSafe(history)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(Violation(format!("panic: {}", text.unwrap_or("without a text"))))
    })
}
