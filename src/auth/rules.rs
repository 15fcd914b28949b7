//! All rules of the cluster, arranged for decisions. Immutable: a change makes another one.

use std::collections::BTreeSet;

use super::{AclBinding, Operation, PatternType, Permission, ResourceType, Subject, WILDCARD};

/// What the rules say of one thing done to one resource.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Decision {
    /// Some rule denies it, whatever others say.
    Denied,
    /// Some rule allows it.
    Allowed,
    /// There are rules for the resource, and none speaks of this.
    Unmentioned,
    /// There is no rule for the resource, whoever asks.
    NoRule,
}

/// The rules.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AclRules {
    /// In their own order.
    rules: Vec<AclBinding>,
    /// The lengths in bytes that prefixes have, by type.
    prefix_bytes: BTreeSet<(ResourceType, usize)>,
}

impl AclRules {
    /// Arranges rules.
    pub fn new(rules: BTreeSet<AclBinding>) -> AclRules {
        let prefixes = rules.iter().filter(|rule| rule.pattern == PatternType::Prefixed);
        let prefix_bytes = prefixes.map(|rule| (rule.kind, rule.name.len())).collect();
        AclRules { rules: rules.into_iter().collect(), prefix_bytes }
    }

    /// All of them; those of one resource stand together.
    pub fn iter(&self) -> impl Iterator<Item = &AclBinding> {
        self.rules.iter()
    }

    /// The rules of one pattern.
    fn of(&self, kind: ResourceType, pattern: PatternType, name: &str) -> &[AclBinding] {
        let wanted = (kind, pattern, name);
        let key = |rule: &AclBinding| (rule.kind, rule.pattern);
        let before = |rule: &AclBinding| (key(rule).0, key(rule).1, rule.name.as_str()) < wanted;
        let first = self.rules.partition_point(before);
        let rest = &self.rules[first..];
        &rest[..rest.partition_point(|rule| (rule.kind, rule.pattern, rule.name.as_str()) == wanted)]
    }

    /// What a name begins with, of the lengths that prefixes in rules have.
    fn prefixes<'a>(&'a self, kind: ResourceType, name: &'a str) -> impl Iterator<Item = &'a str> {
        let lengths = self.prefix_bytes.range((kind, 1)..=(kind, name.len().max(1)));
        lengths.filter_map(|(_, length)| name.get(..*length))
    }

    /// The rules that concern a resource: by its name, by prefixes of it, and by the wildcard.
    fn concerning<'a>(&'a self, kind: ResourceType, name: &'a str) -> impl Iterator<Item = &'a AclBinding> {
        let prefixed = self.prefixes(kind, name).flat_map(move |prefix| self.of(kind, PatternType::Prefixed, prefix));
        let wildcard: &[AclBinding] =
            if name == WILDCARD { &[] } else { self.of(kind, PatternType::Literal, WILDCARD) };
        self.of(kind, PatternType::Literal, name).iter().chain(prefixed).chain(wildcard)
    }

    /// What the rules say of `operation`.
    pub(super) fn decide(
        &self,
        subject: &Subject<'_>,
        operation: Operation,
        kind: ResourceType,
        name: &str,
    ) -> Decision {
        let mut decision = Decision::NoRule;
        for rule in self.concerning(kind, name) {
            let speaks = subject.is_meant_by(rule) && covers(rule, operation);
            match (speaks, rule.permission) {
                (true, Permission::Deny) => return Decision::Denied,
                (true, Permission::Allow) => decision = Decision::Allowed,
                (false, _) if decision == Decision::NoRule => decision = Decision::Unmentioned,
                (false, _) => {}
            }
        }
        decision
    }

    /// Whether there may be some resource of this type for which `operation` is allowed and not denied, by the rules alone (KIP-679).
    /// As Kafka asks it: rules for all operations count, implied ones do not.
    pub(super) fn allows_some(&self, subject: &Subject<'_>, operation: Operation, kind: ResourceType) -> bool {
        let first = self.rules.partition_point(|rule| rule.kind < kind);
        let of_kind = || self.rules[first..].iter().take_while(move |rule| rule.kind == kind);
        let speaks = |rule: &&AclBinding| {
            subject.is_meant_by(rule) && (rule.operation == operation || rule.operation == Operation::All)
        };
        let is_wildcard = |rule: &AclBinding| rule.pattern == PatternType::Literal && rule.name == WILDCARD;
        let denied: BTreeSet<(PatternType, &str)> = of_kind()
            .filter(|rule| rule.permission == Permission::Deny)
            .filter(speaks)
            .map(|rule| (rule.pattern, rule.name.as_str()))
            .collect();
        if denied.contains(&(PatternType::Literal, WILDCARD)) {
            return false;
        }
        let below_denied_prefix =
            |name: &str| self.prefixes(kind, name).any(|prefix| denied.contains(&(PatternType::Prefixed, prefix)));
        of_kind().filter(|rule| rule.permission == Permission::Allow).filter(speaks).any(|rule| {
            let denied_itself = rule.pattern == PatternType::Literal && denied.contains(&(rule.pattern, &rule.name));
            is_wildcard(rule) || !(denied_itself || below_denied_prefix(&rule.name))
        })
    }
}

/// Whether a rule speaks of `operation`. Who is allowed to read, write, delete or alter may describe, and who may alter settings may
/// describe them; to be denied the one does not deny the other.
fn covers(rule: &AclBinding, operation: Operation) -> bool {
    let implied = match operation {
        Operation::Describe => {
            matches!(rule.operation, Operation::Read | Operation::Write | Operation::Delete | Operation::Alter)
        }
        Operation::DescribeConfigs => rule.operation == Operation::AlterConfigs,
        _ => false,
    };
    rule.operation == Operation::All || rule.operation == operation || (implied && rule.permission == Permission::Allow)
}
