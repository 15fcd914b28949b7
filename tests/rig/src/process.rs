//! What a process uses, as the kernel counts it.

use std::fs;

/// A running process of the same user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Process(pub u32);

impl Process {
    /// The most memory that was ever resident, in bytes.
    pub fn peak_resident_bytes(self) -> u64 {
        self.status("VmHWM:")
    }

    /// Memory that is resident now, in bytes.
    pub fn resident_bytes(self) -> u64 {
        self.status("VmRSS:")
    }

    /// Starts the measure of the peak again at what is resident now.
    pub fn forget_peak(self) {
        fs::write(format!("/proc/{}/clear_refs", self.0), "5").expect("the peak of a child may be reset");
    }

    /// Open descriptors.
    pub fn descriptors(self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.0)).expect("the process runs").count()
    }

    /// How much longer than alone the threads whose names begin so have taken: the time they ran and the time they were kept
    /// waiting for a CPU, by the time they ran. 1 on a machine with nothing else to do.
    pub fn starved(self, threads: &str) -> f64 {
        let (mut ran, mut waited) = (0.0, 0.0);
        for task in fs::read_dir(format!("/proc/{}/task", self.0)).expect("the process runs").flatten() {
            // A thread may end while we look.
            let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
            if read("comm").starts_with(threads) {
                let times: Vec<f64> = read("schedstat").split(' ').filter_map(|n| n.parse().ok()).collect();
                ran += times.first().unwrap_or(&0.0);
                waited += times.get(1).unwrap_or(&0.0);
            }
        }
        if ran > 0.0 { 1.0 + waited / ran } else { 1.0 }
    }

    /// CPU time used so far by all threads, user and system, in clock ticks (10 ms).
    pub fn cpu_ticks(self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).expect("the process runs");
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        [11, 12].iter().map(|at| fields[*at].parse::<u64>().expect("a number")).sum()
    }

    fn status(self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the kernel counts it");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }
}
