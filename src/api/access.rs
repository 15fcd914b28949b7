//! What a request must be allowed to do, and to what: one constant for each question that Kafka asks its authorizer, and the
//! answer for a caller.
//!
//! Who asks is a value of the connection; rules come with the snapshot. Without an authorizer everything is allowed, and a check is one
//! branch.

use std::{rc::Rc, sync::Arc};

use kafka_protocol::ResponseError;

use super::{Call, Caller, Edge};
use crate::{
    auth::{
        Authorizer, CLUSTER_NAME,
        Operation::{self, *},
        ResourceType::{self, *},
        Subject,
    },
    cluster::ClusterSnapshot,
};

/// What a client is told in words that may not do it to the cluster.
pub const UNAUTHORIZED: &str = "Cluster authorization failed.";

/// Something that is done to a resource of some type.
#[derive(Clone, Copy, Debug)]
pub struct Demand(Operation, ResourceType);

/// k0.
pub const PRODUCE: Demand = Demand(Write, Topic);
/// k1, k61.
pub const FETCH: Demand = Demand(Read, Topic);
/// k2, k3, k9, k23, k75.
pub const SEE_TOPIC: Demand = Demand(Describe, Topic);
/// k3, k19: for any topic, or for one.
pub const CREATE_ANY_TOPIC: Demand = Demand(Create, Cluster);
/// See [`CREATE_ANY_TOPIC`].
pub const CREATE_TOPIC: Demand = Demand(Create, Topic);
/// k20, beside [`DELETE_TOPIC`]: for any topic.
pub const DELETE_ANY_TOPIC: Demand = Demand(Delete, Cluster);
/// k20, k21.
pub const DELETE_TOPIC: Demand = Demand(Delete, Topic);
/// k37.
pub const EXTEND_TOPIC: Demand = Demand(Alter, Topic);
/// k8, k47: the topics in it.
pub const USE_OFFSETS: Demand = Demand(Read, Topic);
/// k8, k11 to k14.
pub const JOIN_GROUP: Demand = Demand(Read, Group);
/// k9, k10, k15, k16.
pub const SEE_GROUP: Demand = Demand(Describe, Group);
/// k42, k47.
pub const DELETE_GROUP: Demand = Demand(Delete, Group);
/// k10, k65.
pub const SEE_TRANSACTIONAL_ID: Demand = Demand(Describe, TransactionalId);
/// k22 without a transactional id; who may write to some topic may do it too (KIP-679).
pub const WRITE_IDEMPOTENTLY: Demand = Demand(IdempotentWrite, Cluster);
/// k3, k16, k29, k35, k46, k50, k55, k60.
pub const SEE_CLUSTER: Demand = Demand(Describe, Cluster);
/// k23, in place of [`SEE_TOPIC`]: for every topic.
pub const ACT_IN_CLUSTER: Demand = Demand(ClusterAction, Cluster);
/// k30, k31, k34, k43, k45, k51, k64.
pub const ALTER_CLUSTER: Demand = Demand(Alter, Cluster);
/// k19, k32.
pub const SEE_TOPIC_CONFIGS: Demand = Demand(DescribeConfigs, Topic);
/// k33, k44.
pub const ALTER_TOPIC_CONFIGS: Demand = Demand(AlterConfigs, Topic);
/// k32, k48, k74.
pub const SEE_CLUSTER_CONFIGS: Demand = Demand(DescribeConfigs, Cluster);
/// k33, k44.
pub const ALTER_CLUSTER_CONFIGS: Demand = Demand(AlterConfigs, Cluster);
/// k32.
pub const SEE_GROUP_CONFIGS: Demand = Demand(DescribeConfigs, Group);
/// k33, k44.
pub const ALTER_GROUP_CONFIGS: Demand = Demand(AlterConfigs, Group);

/// What can be done to a topic, to a group, and to the cluster: what answers tell of when they are asked for it (KIP-430).
const TOPIC_OPERATIONS: &[Operation] = &[Read, Write, Create, Delete, Alter, Describe, DescribeConfigs, AlterConfigs];
const GROUP_OPERATIONS: &[Operation] = &[Read, Delete, Describe, DescribeConfigs, AlterConfigs];
const CLUSTER_OPERATIONS: &[Operation] =
    &[Create, Alter, Describe, ClusterAction, DescribeConfigs, AlterConfigs, IdempotentWrite];

/// What a caller may do, as of one snapshot.
#[derive(Clone)]
pub struct Access(Option<Asking>);

#[derive(Clone)]
struct Asking {
    edge: Rc<Edge>,
    caller: Rc<Caller>,
    snapshot: Arc<ClusterSnapshot>,
}

impl Call {
    /// What its caller may do, by the newest snapshot.
    pub fn access(&self) -> Access {
        let asking =
            || Asking { edge: Rc::clone(&self.edge), caller: Rc::clone(&self.caller), snapshot: self.edge.snapshot() };
        Access(self.edge.authorizer.is_some().then(asking))
    }
}

impl Asking {
    fn ask<T>(&self, question: impl FnOnce(&Authorizer, &Subject<'_>) -> T) -> T {
        let principal = self.caller.principal.borrow();
        let subject = Subject { principal: principal.as_str(), host: &self.caller.host };
        question(self.edge.authorizer.as_ref().expect("it is asked only where there is one"), &subject)
    }

    fn allows(&self, Demand(operation, kind): Demand, name: &str) -> bool {
        let allowed = self.ask(|authorizer, who| authorizer.allows(&self.snapshot.acls, who, operation, kind, name));
        if !allowed {
            let (principal, host) = (self.caller.principal.borrow(), &self.caller.host);
            tracing::debug!(principal = principal.as_str(), %host, ?operation, ?kind, ?name, "not authorized");
        }
        allowed
    }
}

impl Access {
    /// Whether the caller may do it to the resource of that name.
    pub fn allows(&self, demand: Demand, name: &str) -> bool {
        self.0.as_ref().is_none_or(|asking| asking.allows(demand, name))
    }

    /// As [`Access::allows`], to the cluster.
    pub fn allows_cluster(&self, demand: Demand) -> bool {
        self.allows(demand, CLUSTER_NAME)
    }

    /// Whether the caller may do it to the resource of that name.
    ///
    /// # Errors
    /// 29, 30, 31 or 53, by the type of the resource.
    pub fn check(&self, demand: Demand, name: &str) -> Result<(), ResponseError> {
        if self.allows(demand, name) { Ok(()) } else { Err(demand.refusal()) }
    }

    /// As [`Access::check`], to the cluster.
    ///
    /// # Errors
    /// 31.
    pub fn check_cluster(&self, demand: Demand) -> Result<(), ResponseError> {
        self.check(demand, CLUSTER_NAME)
    }

    /// Whether there is some resource to which the caller may do it.
    pub fn allows_some(&self, Demand(operation, kind): Demand) -> bool {
        self.0.as_ref().is_none_or(|asking| {
            asking.ask(|authorizer, who| authorizer.allows_some(&asking.snapshot.acls, who, operation, kind))
        })
    }

    /// What the caller may do to a topic, a bit for each code of Kafka's operations.
    pub fn topic_operations(&self, name: &str) -> i32 {
        self.operations(TOPIC_OPERATIONS, Topic, name)
    }

    /// Likewise to a group.
    pub fn group_operations(&self, id: &str) -> i32 {
        self.operations(GROUP_OPERATIONS, Group, id)
    }

    /// Likewise to the cluster; nothing when the caller may not see it.
    pub fn cluster_operations(&self) -> i32 {
        match self.allows_cluster(SEE_CLUSTER) {
            true => self.operations(CLUSTER_OPERATIONS, Cluster, CLUSTER_NAME),
            false => 0,
        }
    }

    fn operations(&self, all: &[Operation], kind: ResourceType, name: &str) -> i32 {
        let allowed = all.iter().filter(|operation| self.allows(Demand(**operation, kind), name));
        allowed.fold(0, |bits, operation| bits | 1 << operation.code())
    }
}

impl Demand {
    /// What a client is told that may not do it.
    pub fn refusal(self) -> ResponseError {
        match self.1 {
            Topic => ResponseError::TopicAuthorizationFailed,
            Group => ResponseError::GroupAuthorizationFailed,
            TransactionalId => ResponseError::TransactionalIdAuthorizationFailed,
            Cluster | DelegationToken | User => ResponseError::ClusterAuthorizationFailed,
        }
    }
}

#[cfg(test)]
mod tests;
