//! The authorizer: who asks, and whether it is granted. Decisions are Kafka's StandardAuthorizer's.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use super::{AclBinding, AclRules, Operation, ResourceType, WILDCARD, rules::Decision};

/// Who a connection belongs to: `Type:name`. A value of the connection: whoever authenticates it sets another one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Principal(Arc<str>);

impl Principal {
    /// Nobody in particular: who has not authenticated.
    pub fn anonymous() -> Principal {
        Principal("User:ANONYMOUS".into())
    }

    /// As it stands in rules.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The address of a client as it stands in rules: Java's text, which shortens nothing in IPv6 addresses.
pub fn host_of(address: IpAddr) -> Box<str> {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_string().into(),
        IpAddr::V6(v6) => in_full(v6).into(),
    }
}

fn in_full(address: Ipv6Addr) -> String {
    address.segments().map(|segment| format!("{segment:x}")).join(":")
}

/// Who asks, and from where.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The principal, as it stands in rules.
    pub principal: &'a str,
    /// The address, as [`host_of`] has it.
    pub host: &'a str,
}

impl Subject<'_> {
    /// Whether a rule is about this one.
    pub(super) fn is_meant_by(&self, rule: &AclBinding) -> bool {
        let principal = rule.principal == self.principal || rule.principal == "User:*";
        principal && (rule.host == WILDCARD || rule.host == self.host)
    }
}

/// Decides by the rules and by what the settings say beside them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Authorizer {
    /// `super.users`: principals who may do everything.
    pub super_users: BTreeSet<String>,
    /// `allow.everyone.if.no.acl.found`: whether a resource without any rule is everybody's.
    pub allow_if_no_rule: bool,
}

impl Authorizer {
    /// Whether `subject` may do `operation` to the resource.
    pub fn allows(
        &self,
        rules: &AclRules,
        subject: &Subject<'_>,
        operation: Operation,
        kind: ResourceType,
        name: &str,
    ) -> bool {
        if self.super_users.contains(subject.principal) {
            return true;
        }
        match rules.decide(subject, operation, kind, name) {
            Decision::Allowed => true,
            Decision::NoRule => self.allow_if_no_rule,
            Decision::Denied | Decision::Unmentioned => false,
        }
    }

    /// Whether there is some resource of that type to which `subject` may do `operation`.
    pub fn allows_some(
        &self,
        rules: &AclRules,
        subject: &Subject<'_>,
        operation: Operation,
        kind: ResourceType,
    ) -> bool {
        // A name that no rule is likely to have: super users, and everybody where resources without rules are.
        self.allows(rules, subject, operation, kind, "hardcode") || rules.allows_some(subject, operation, kind)
    }
}

#[cfg(test)]
mod tests;
