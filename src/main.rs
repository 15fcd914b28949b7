//! The `thalweg` binary: wiring only.

fn main() {}
