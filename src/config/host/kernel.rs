//! What the kernel allows: io_uring, locked memory, descriptors.

use std::io;

use super::{Problem, of_machine, of_setting};
use crate::config::Config;

/// Locked memory that an io_uring executor asks for.
const MEMLOCK_BYTES: u64 = 512 << 10;
/// Descriptors of everything but client connections: log, metadata, objects, the way to their store.
pub(crate) const OWN_DESCRIPTORS: u64 = 256;
/// Size of the kernel's `struct io_uring_params`.
const URING_PARAMS_BYTES: usize = 120;

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>, warnings: &mut Vec<Problem>) {
    problems.extend(io_uring(probe_io_uring()));
    problems.extend(memlock(raise(libc::RLIMIT_MEMLOCK)));
    warnings.extend(descriptors(config, raise(libc::RLIMIT_NOFILE)));
}

/// Sets the soft limit to the hard one; answers the soft limit in force then.
fn raise(resource: libc::__rlimit_resource_t) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid struct that outlives the calls.
    unsafe {
        if libc::getrlimit(resource, &mut limit) != 0 {
            return u64::MAX;
        }
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        if libc::setrlimit(resource, &raised) == 0 { raised.rlim_cur } else { limit.rlim_cur }
    }
}

/// Makes the smallest ring there is, and closes it.
fn probe_io_uring() -> io::Result<()> {
    let mut params = [0_u64; URING_PARAMS_BYTES / 8];
    // SAFETY: `params` is zeroed memory of the size that the call reads and writes; the descriptor is closed once.
    unsafe {
        let ring = libc::syscall(libc::SYS_io_uring_setup, 1_u32, params.as_mut_ptr());
        if ring < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::close(ring as libc::c_int);
    }
    Ok(())
}

fn io_uring(probe: io::Result<()>) -> Option<Problem> {
    let error = probe.err()?;
    let text = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "is forbidden: in a container, allow io_uring_setup, io_uring_enter and io_uring_register in its seccomp \
             profile (docker run --security-opt seccomp=unconfined); on the machine, run \
             `sysctl kernel.io_uring_disabled=0`"
                .to_owned()
        }
        Some(libc::ENOSYS) => "is missing: Linux 5.8 or newer is needed, and no gVisor or similar sandbox".to_owned(),
        Some(libc::ENOMEM) => "has too little locked memory: run `ulimit -l unlimited`".to_owned(),
        _ => format!("does not start: {error}"),
    };
    Some(of_machine("io_uring", text))
}

fn memlock(limit_bytes: u64) -> Option<Problem> {
    let text = format!(
        "this process may lock {} KiB of memory, io_uring needs {}: run `ulimit -l unlimited`, set \
         LimitMEMLOCK=infinity in the systemd unit, or docker run --ulimit memlock=-1",
        limit_bytes >> 10,
        MEMLOCK_BYTES >> 10
    );
    (limit_bytes < MEMLOCK_BYTES).then(|| of_machine("memlock", text))
}

fn descriptors(config: &Config, limit: u64) -> Option<Problem> {
    let want = u64::from(config.max_connections) + OWN_DESCRIPTORS;
    let text = format!(
        "{} connections need {want} descriptors, this process may open {limit}: run `ulimit -n {want}`, or lower it",
        config.max_connections
    );
    (limit < want).then(|| of_setting(config, "max.connections", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_works_where_the_tests_run() {
        probe_io_uring().expect("the tests need io_uring");
    }

    #[test]
    fn each_refusal_names_what_mends_it() {
        for (code, text) in
            [(libc::EPERM, "seccomp=unconfined"), (libc::ENOSYS, "Linux 5.8"), (libc::ENOMEM, "ulimit -l unlimited")]
        {
            let problem = io_uring(Err(io::Error::from_raw_os_error(code))).expect("a problem");
            assert!(problem.to_string().contains(text), "{problem}");
        }
        assert_eq!(io_uring(Ok(())), None);
        let problem = memlock(64 << 10).expect("a problem").to_string();
        assert!(problem.starts_with("memlock: this process may lock 64 KiB") && problem.contains("LimitMEMLOCK"));
        assert_eq!(memlock(512 << 10), None);
    }

    #[test]
    fn descriptors_follow_max_connections() {
        let config = |n| Config::with(&[("max.connections", n)]).expect("valid");
        assert_eq!(descriptors(&config("100"), 1024), None);
        let warning = descriptors(&config("1000"), 1024).expect("a warning").to_string();
        assert!(warning.starts_with("max.connections (--set): 1000 connections need 1256"), "{warning}");
    }
}
