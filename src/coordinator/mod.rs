//! Coordinators: state machines over Kafka's internal topics. Each is owned by the core that serves its partition.

pub mod group;
