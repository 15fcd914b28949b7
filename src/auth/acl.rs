//! An access rule, Kafka's ACL: who may, or must not, do what to which resources, and from where (KIP-11, KIP-290).

use serde::{Deserialize, Serialize};

use super::CLUSTER_NAME;

/// As the name of a resource: any. As a host: any. As the name in a principal: everybody of that type.
pub const WILDCARD: &str = "*";
/// The longest text in a rule: what a string of Kafka's protocol holds.
const MAX_TEXT_BYTES: usize = i16::MAX as usize;
/// What a rule is charged beside its texts: about what it takes in memory when these are short.
const RULE_BYTES: usize = 256;

macro_rules! codes {
    ($($(#[$outer:meta])* $ty:ident { $($(#[$doc:meta])* $variant:ident = $code:literal,)* })*) => {$(
        $(#[$outer])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $ty { $($(#[$doc])* $variant,)* }

        impl $ty {
            /// Kafka's code.
            pub const fn code(self) -> i8 {
                match self { $($ty::$variant => $code,)* }
            }

            /// What the code stands for; none for Kafka's "unknown" and "any", and for what it does not have.
            pub fn of(code: i8) -> Option<$ty> {
                match code {
                    $($code => Some($ty::$variant),)*
                    _ => None,
                }
            }
        }
    )*};
}

codes! {
    /// What a rule is about.
    ResourceType {
        /// Topics, by name.
        Topic = 2,
        /// Groups, by id.
        Group = 3,
        /// The cluster.
        Cluster = 4,
        /// Transactional ids.
        TransactionalId = 5,
        /// Delegation tokens.
        DelegationToken = 6,
        /// Users, by principal.
        User = 7,
    }
    /// How the name in a rule is meant.
    PatternType {
        /// It is the resource's name, or the wildcard.
        Literal = 3,
        /// The resource's name begins with it.
        Prefixed = 4,
    }
    /// What is done to a resource.
    Operation {
        /// Everything.
        All = 2,
        /// Reading.
        Read = 3,
        /// Writing.
        Write = 4,
        /// Creating.
        Create = 5,
        /// Deleting.
        Delete = 6,
        /// Altering.
        Alter = 7,
        /// Describing.
        Describe = 8,
        /// What brokers do among themselves.
        ClusterAction = 9,
        /// Describing settings.
        DescribeConfigs = 10,
        /// Altering settings.
        AlterConfigs = 11,
        /// Writing with an idempotent producer (since KIP-679 whoever may write to some topic may do it).
        IdempotentWrite = 12,
        /// Creating delegation tokens of another user.
        CreateTokens = 13,
        /// Describing them.
        DescribeTokens = 14,
        /// Two-phase commit (KIP-939).
        TwoPhaseCommit = 15,
    }
    /// What a rule says.
    Permission {
        /// It must not be.
        Deny = 2,
        /// It may be.
        Allow = 3,
    }
}

/// One rule. The order is that of decisions: rules of one pattern stand together.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct AclBinding {
    /// What it is about, ...
    pub kind: ResourceType,
    /// ... how its name is meant, ...
    pub pattern: PatternType,
    /// ... and that name.
    pub name: String,
    /// Who: `Type:name`, such as `User:alice` or `User:*`.
    pub principal: String,
    /// From where: an address, or the wildcard.
    pub host: String,
    /// What is done.
    pub operation: Operation,
    /// Whether it may be done.
    pub permission: Permission,
}

impl AclBinding {
    /// Whether this rule may be stored.
    ///
    /// # Errors
    /// What is wrong with it, for the client (42).
    pub fn check(&self) -> Result<(), String> {
        if self.kind == ResourceType::Cluster && self.name != CLUSTER_NAME {
            return Err(format!("The only valid name for the CLUSTER resource is {CLUSTER_NAME}"));
        }
        if self.name.is_empty() {
            return Err("Invalid empty resource name".to_owned());
        }
        if self.host.is_empty() {
            return Err("Invalid empty host".to_owned());
        }
        let Some((kind, who)) = self.principal.split_once(':') else {
            return Err(format!(
                "Could not parse principal from `{}` (no colon is present separating the principal type from the principal name)",
                self.principal
            ));
        };
        if kind.is_empty() || who.is_empty() {
            return Err(format!(
                "Could not parse principal from `{}` (the principal type or the principal name is empty)",
                self.principal
            ));
        }
        match [&self.name, &self.principal, &self.host].iter().any(|text| text.len() > MAX_TEXT_BYTES) {
            true => Err(format!("A text in a rule may have {MAX_TEXT_BYTES} bytes")),
            false => Ok(()),
        }
    }

    /// What it counts for where rules have a bound, in bytes: its texts, and something for itself.
    pub fn charged_bytes(&self) -> usize {
        RULE_BYTES + self.name.len() + self.principal.len() + self.host.len()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// `topic literal a User:x * read allow`, as a rule.
    pub fn rule(text: &str) -> AclBinding {
        let words: Vec<&str> = text.split(' ').collect();
        let [kind, pattern, name, principal, host, operation, permission] = words[..] else {
            panic!("7 words: {text}")
        };
        let json = serde_json::json!({
            "kind": kind, "pattern": pattern, "name": name, "principal": principal, "host": host,
            "operation": operation, "permission": permission,
        });
        serde_json::from_value(json).expect("a rule")
    }

    #[test]
    fn codes_are_kafkas() {
        let kinds: Vec<i8> = (-1..10).filter(|code| ResourceType::of(*code).is_some()).collect();
        let patterns: Vec<i8> = (-1..10).filter(|code| PatternType::of(*code).is_some()).collect();
        let operations: Vec<i8> = (-1..20).filter(|code| Operation::of(*code).is_some()).collect();
        let permissions: Vec<i8> = (-1..10).filter(|code| Permission::of(*code).is_some()).collect();
        assert_eq!((kinds, patterns, permissions), ((2..=7).collect(), vec![3, 4], vec![2, 3]));
        assert_eq!(operations, (2..=15).collect::<Vec<_>>());
        for code in 2..=15 {
            assert_eq!(Operation::of(code).map(Operation::code), Some(code));
        }
    }

    #[test]
    fn what_no_rule_says_is_refused() {
        assert_eq!(rule("cluster literal kafka-cluster User:a * alter allow").check(), Ok(()));
        assert_eq!(rule("topic prefixed * User:* 10.0.0.1 all deny").check(), Ok(()));
        for (text, word) in [
            ("cluster literal elsewhere User:a * alter allow", "kafka-cluster"),
            ("topic literal  User:a * read allow", "empty"),
            ("topic literal a alice * read allow", "colon"),
            ("topic literal a :alice * read allow", "empty"),
            ("topic literal a User: * read allow", "empty"),
            ("topic literal a User:alice  read allow", "empty host"),
        ] {
            let why = rule(text).check().expect_err(text);
            assert!(why.contains(word), "{why}");
        }
        let long = AclBinding { host: "x".repeat(40_000), ..rule("topic literal a User:a * read allow") };
        assert!(long.check().is_err(), "it could not be told");
    }
}
