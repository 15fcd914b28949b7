//! What the process does at a failpoint (`thalweg_record::failpoint`).
#![cfg_attr(
    feature = "failpoints",
    expect(clippy::disallowed_methods, reason = "a thread that stands still is one of the faults")
)]

use std::str::FromStr;

/// What happens at a failpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// kill -9, which on these devices is a loss of power.
    Kill,
    /// The thread panics.
    Panic,
    /// The thread stands still for ever.
    Hang,
    /// Clients are told what is not so, where the failpoint is one for that.
    Lie,
}

/// One failpoint at which something happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Armed {
    /// The failpoint's name.
    pub name: String,
    /// At which pass, from 1.
    pub pass: u64,
    /// What.
    pub act: Act,
}

impl FromStr for Armed {
    type Err = String;

    fn from_str(text: &str) -> Result<Armed, String> {
        let parts = text.split_once('=').and_then(|(name, when)| Some((name, when.split_once(':')?)));
        let (name, (pass, act)) = parts.ok_or("expected NAME=N:ACT")?;
        let act = match act {
            "kill" => Act::Kill,
            "panic" => Act::Panic,
            "hang" => Act::Hang,
            "lie" => Act::Lie,
            other => return Err(format!("{other}: expected kill, panic, hang or lie")),
        };
        Ok(Armed { name: name.to_owned(), pass: pass.parse().map_err(|e| format!("{pass}: {e}"))?, act })
    }
}

/// Has these failpoints act.
///
/// # Errors
/// A sentence, when this build has none.
#[cfg(feature = "failpoints")]
pub fn arm(failpoints: Vec<Armed>) -> Result<(), String> {
    use std::sync::atomic::{AtomicU64, Ordering};

    let armed: Vec<(Armed, AtomicU64)> = failpoints.into_iter().map(|one| (one, AtomicU64::new(0))).collect();
    thalweg_record::failpoint::on_pass(move |passed| {
        let mut lies = false;
        for (Armed { name, pass, act }, passes) in armed.iter().filter(|(one, _)| one.name == passed) {
            if passes.fetch_add(1, Ordering::Relaxed) + 1 != *pass {
                continue;
            }
            eprintln!("failpoint {name}: {act:?}");
            match act {
                Act::Kill => crate::medium::die(),
                Act::Panic => panic!("failpoint {name}"),
                Act::Hang => loop {
                    std::thread::park();
                },
                Act::Lie => lies = true,
            }
        }
        lies
    });
    Ok(())
}

/// As above; there is nothing to arm.
#[cfg(not(feature = "failpoints"))]
pub fn arm(failpoints: Vec<Armed>) -> Result<(), String> {
    match failpoints.first() {
        None => Ok(()),
        Some(Armed { name, pass, act }) => Err(format!(
            "{name}={pass}:{act:?}: this build has no failpoints: build it with `--features thalweg-faulty/failpoints`"
        )),
    }
}
