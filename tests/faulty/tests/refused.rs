//! What `thalweg-faulty` refuses before it serves.

#![expect(clippy::disallowed_methods, reason = "starts the binary")]

use std::process::Command;

fn refused(failpoint: &str) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_thalweg-faulty")).args(["--failpoint", failpoint]).output().expect("it runs");
    assert!(!output.status.success(), "{failpoint} is taken");
    String::from_utf8(output.stderr).expect("UTF-8")
}

#[test]
fn what_is_no_failpoint() {
    assert!(refused("commit").contains("expected NAME=N:ACT"));
    assert!(refused("commit=once:kill").contains("once: invalid digit"));
    assert!(refused("commit=1:sleep").contains("sleep: expected kill, panic, hang or lie"));
}

#[cfg(not(feature = "failpoints"))]
#[test]
fn any_failpoint_where_there_are_none() {
    assert!(refused("commit=1:kill").contains("this build has no failpoints"));
}
