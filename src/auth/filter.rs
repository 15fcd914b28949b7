//! Which rules a client means: to be described, or to be deleted.

use super::{AclBinding, Operation, PatternType, Permission, ResourceType, WILDCARD};

/// Kafka's code of "any" for types, operations and permissions.
const ANY: i8 = 1;
/// Kafka's code of the pattern type that asks for all rules that concern a resource of that name.
const MATCH: i8 = 2;

/// How the name of a filter is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Names {
    /// With the name in the rule, whatever pattern that is.
    Any,
    /// As a decision would: literal, wildcard and prefix.
    Match,
    /// With the name in rules of that pattern type.
    Only(PatternType),
}

/// A filter: what is `None` fits everything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AclFilter {
    kind: Option<ResourceType>,
    names: Names,
    name: Option<String>,
    principal: Option<String>,
    host: Option<String>,
    operation: Option<Operation>,
    permission: Option<Permission>,
}

/// A code, of which "any" is none.
fn any_or<T>(code: i8, of: impl Fn(i8) -> Option<T>) -> Option<Option<T>> {
    if code == ANY { Some(None) } else { of(code).map(Some) }
}

impl AclFilter {
    /// From Kafka's codes of type, pattern type, operation and permission, and the texts name, principal and host.
    ///
    /// # Errors
    /// What Kafka does not know, for the client (42).
    pub fn new(codes: [i8; 4], texts: [Option<String>; 3]) -> Result<AclFilter, &'static str> {
        let ([kind, pattern, operation, permission], [name, principal, host]) = (codes, texts);
        let names = match pattern {
            ANY => Some(Names::Any),
            MATCH => Some(Names::Match),
            code => PatternType::of(code).map(Names::Only),
        };
        let kind = any_or(kind, ResourceType::of);
        let (Some(kind), Some(names)) = (kind, names) else { return Err("Unknown patternFilter.") };
        let (operation, permission) = (any_or(operation, Operation::of), any_or(permission, Permission::of));
        let (Some(operation), Some(permission)) = (operation, permission) else { return Err("Unknown entryFilter.") };
        Ok(AclFilter { kind, names, name, principal, host, operation, permission })
    }

    /// Whether a rule is meant.
    pub fn matches(&self, rule: &AclBinding) -> bool {
        fn fits<T: PartialEq>(wanted: &Option<T>, found: &T) -> bool {
            wanted.as_ref().is_none_or(|wanted| wanted == found)
        }
        fits(&self.kind, &rule.kind)
            && self.matches_name(rule)
            && fits(&self.principal, &rule.principal)
            && fits(&self.host, &rule.host)
            && fits(&self.operation, &rule.operation)
            && fits(&self.permission, &rule.permission)
    }

    fn matches_name(&self, rule: &AclBinding) -> bool {
        let same = |name: &str| name == rule.name;
        match (self.names, self.name.as_deref()) {
            (Names::Only(pattern), name) => pattern == rule.pattern && name.is_none_or(same),
            (_, None) => true,
            (Names::Any, Some(name)) => same(name),
            (Names::Match, Some(name)) => match rule.pattern {
                PatternType::Literal => same(name) || rule.name == WILDCARD,
                PatternType::Prefixed => name.starts_with(&rule.name),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::acl::tests::rule, *};

    fn filter(codes: [i8; 4], name: Option<&str>) -> AclFilter {
        AclFilter::new(codes, [name.map(str::to_owned), None, None]).expect("known codes")
    }

    /// Which of the rules below a filter by pattern type and name finds.
    fn found(pattern: i8, name: Option<&str>) -> Vec<&'static str> {
        let rules = ["literal logs", "literal log", "literal *", "prefixed log", "prefixed logs-a"];
        let filter = filter([2, pattern, 1, 1], name);
        let finds = |text: &&str| filter.matches(&rule(&format!("topic {text} User:a * read allow")));
        rules.into_iter().filter(finds).collect()
    }

    #[test]
    fn names_are_compared_as_the_pattern_type_says() {
        assert_eq!(found(1, Some("log")), ["literal log", "prefixed log"], "any: the name in the rule");
        assert_eq!(found(2, Some("logs")), ["literal logs", "literal *", "prefixed log"], "match: what concerns it");
        assert_eq!(found(2, Some("*")), ["literal *"]);
        assert_eq!(found(3, Some("log")), ["literal log"]);
        assert_eq!(found(3, Some("*")), ["literal *"]);
        assert_eq!(found(4, Some("logs-a")), ["prefixed logs-a"]);
        assert_eq!((found(3, None).len(), found(4, None).len()), (3, 2));
        assert_eq!((found(1, None).len(), found(2, None).len()), (5, 5));
    }

    #[test]
    fn everything_else_fits_or_does_not() {
        let one = rule("group literal g User:a 10.0.0.1 read deny");
        assert!(filter([1, 1, 1, 1], None).matches(&one));
        assert!(filter([3, 3, 3, 2], Some("g")).matches(&one));
        for codes in [[2, 1, 1, 1], [1, 4, 1, 1], [1, 1, 4, 1], [1, 1, 2, 1], [1, 1, 1, 3]] {
            assert!(!filter(codes, None).matches(&one), "{codes:?}");
        }
        let by = |principal: Option<&str>, host: Option<&str>| {
            let texts = [None, principal.map(str::to_owned), host.map(str::to_owned)];
            AclFilter::new([1; 4], texts).expect("known codes").matches(&one)
        };
        assert!(by(Some("User:a"), Some("10.0.0.1")));
        assert!(!by(Some("User:*"), None) && !by(None, Some("*")), "compared as texts, never as wildcards");
    }

    #[test]
    fn unknown_codes_are_named() {
        let refused = |codes| AclFilter::new(codes, [None, None, None]).expect_err("unknown");
        for codes in [[0, 1, 1, 1], [8, 1, 1, 1], [1, 0, 1, 1], [1, 5, 1, 1], [-1, 1, 0, 0]] {
            assert_eq!(refused(codes), "Unknown patternFilter.");
        }
        for codes in [[1, 1, 0, 1], [1, 1, 16, 1], [1, 1, 1, 0], [1, 1, 1, 4]] {
            assert_eq!(refused(codes), "Unknown entryFilter.");
        }
    }
}
