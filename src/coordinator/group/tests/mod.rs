//! Scenarios of a partition's groups.

mod actor;
mod bench;
mod churn;
mod joining;
mod keeping;
