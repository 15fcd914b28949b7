//! The decode guard: a panic while a request is decoded costs its connection, not the process.
//!
//! Decoding is pure and shares no state, so unwinding out of it leaves nothing behind. The process-wide panic hook asks
//! [`decoding`] and aborts everywhere else.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
};

thread_local! {
    static DECODING: Cell<bool> = const { Cell::new(false) };
}

/// A request body that is not what its key and version say.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Undecodable(pub String);

/// Whether this thread is inside the decode guard: a panic now is survived, and the panic hook must not abort.
pub fn decoding() -> bool {
    DECODING.get()
}

/// Runs pure decoding under the guard.
///
/// # Errors
/// What `decode` fails with, or that it panicked.
pub fn guarded<T, E: std::fmt::Display>(decode: impl FnOnce() -> Result<T, E>) -> Result<T, Undecodable> {
    let before = DECODING.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(decode));
    DECODING.set(before);
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Undecodable(error.to_string())),
        Err(_panic) => Err(Undecodable("the decoder panicked".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_inside_is_an_error_and_the_flag_is_taken_back() {
        let outcome = guarded(|| -> Result<(), String> {
            assert!(decoding());
            panic!("bad length")
        });
        assert!(outcome.is_err());
        assert!(!decoding());
        assert_eq!(guarded(|| Ok::<_, String>(7)), Ok(7));
        assert!(!decoding());
    }
}
