//! Who may do what: access rules (ACLs), the authorizer that decides by them, and the credentials of SCRAM users.
//!
//! Pure code: values and decisions, no I/O. The rules themselves live in the cluster metadata, every edge has them in its
//! snapshot, and `src/api/access.rs` asks.

mod acl;
mod authorizer;
mod filter;
mod rules;
pub mod scram;

#[cfg(test)]
pub(crate) use acl::tests;
pub use acl::{AclBinding, Operation, PatternType, Permission, ResourceType, WILDCARD};
pub use authorizer::{Authorizer, Principal, Subject, host_of};
pub use filter::AclFilter;
pub use rules::AclRules;

/// The name of the one resource of type cluster.
pub const CLUSTER_NAME: &str = "kafka-cluster";
