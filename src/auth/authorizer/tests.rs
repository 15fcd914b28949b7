//! Decisions, with the cases in which Kafka's are not what one would guess.

use std::collections::BTreeSet;

use super::{super::acl::tests::rule, *};

const STRICT: Authorizer = Authorizer { super_users: BTreeSet::new(), allow_if_no_rule: false };
const OPEN: Authorizer = Authorizer { super_users: BTreeSet::new(), allow_if_no_rule: true };

fn rules(texts: &[&str]) -> AclRules {
    AclRules::new(texts.iter().map(|text| rule(text)).collect())
}

/// Whether alice, from 10.0.0.1, may do `operation` to the topic.
fn may(authorizer: &Authorizer, texts: &[&str], operation: Operation, topic: &str) -> bool {
    let alice = Subject { principal: "User:alice", host: "10.0.0.1" };
    authorizer.allows(&rules(texts), &alice, operation, ResourceType::Topic, topic)
}

#[test]
fn without_rules_the_setting_decides() {
    assert!(!may(&STRICT, &[], Operation::Read, "a"));
    assert!(may(&OPEN, &[], Operation::Read, "a"));
    // A rule of anybody, for anything, and of any permission makes the resource one with rules.
    for text in [
        "topic literal a User:bob * read allow",
        "topic literal a User:alice 10.9.9.9 read allow",
        "topic literal a User:alice * write allow",
        "topic prefixed a User:bob * write deny",
        "topic literal * User:bob * write allow",
    ] {
        assert!(!may(&OPEN, &[text], Operation::Read, "a"), "{text}");
    }
    assert!(may(&OPEN, &["topic literal b User:bob * read allow"], Operation::Read, "a"), "of another topic");
    assert!(may(&OPEN, &["group literal a User:bob * read allow"], Operation::Read, "a"), "of another type");
}

#[test]
fn names_prefixes_and_the_wildcard_grant() {
    for (text, topic, granted) in [
        ("topic literal logs User:alice * read allow", "logs", true),
        ("topic literal logs User:alice * read allow", "logs-1", false),
        ("topic literal logs User:alice * read allow", "log", false),
        ("topic prefixed logs User:alice * read allow", "logs", true),
        ("topic prefixed logs User:alice * read allow", "logs-1", true),
        ("topic prefixed logs User:alice * read allow", "log", false),
        ("topic literal * User:alice * read allow", "logs", true),
        ("topic prefixed * User:alice * read allow", "logs", false),
        ("topic prefixed * User:alice * read allow", "*-1", true),
        ("topic literal logs User:* * read allow", "logs", true),
        ("topic literal logs Group:alice * read allow", "logs", false),
        ("topic literal logs User:alice 10.0.0.1 read allow", "logs", true),
        ("topic literal logs User:alice 10.0.0.2 read allow", "logs", false),
        ("topic literal logs User:alice * all allow", "logs", true),
    ] {
        assert_eq!(may(&STRICT, &[text], Operation::Read, topic), granted, "{text}: {topic}");
    }
}

#[test]
fn prefixes_of_every_length_are_found() {
    let texts: Vec<String> =
        ["a", "abc", "abcdef", "b"].iter().map(|p| format!("topic prefixed {p} User:{p} * read allow")).collect();
    let rules = rules(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    let may = |user: &str, topic: &str| {
        let subject = Subject { principal: user, host: "h" };
        STRICT.allows(&rules, &subject, Operation::Read, ResourceType::Topic, topic)
    };
    assert!(may("User:a", "abcdefg") && may("User:abc", "abcdefg") && may("User:abcdef", "abcdefg"));
    assert!(!may("User:b", "abcdefg") && !may("User:abcdef", "abcde"));
    // Cut in the middle of a character, a name has no such prefix.
    assert!(!may("User:abc", "äöü") && !may("User:a", "ä"));
}

#[test]
fn a_denial_wins_wherever_it_stands() {
    let allow = "topic literal logs User:alice * read allow";
    for deny in [
        "topic literal logs User:alice * read deny",
        "topic literal logs User:* * all deny",
        "topic prefixed lo User:alice * read deny",
        "topic literal * User:alice 10.0.0.1 read deny",
    ] {
        assert!(!may(&STRICT, &[allow, deny], Operation::Read, "logs"), "{deny}");
        assert!(!may(&OPEN, &[deny], Operation::Read, "logs"), "{deny}");
    }
    assert!(may(&STRICT, &[allow, "topic literal logs User:alice 10.0.0.2 read deny"], Operation::Read, "logs"));
    assert!(may(&STRICT, &[allow, "topic literal logs User:alice * write deny"], Operation::Read, "logs"));
}

#[test]
fn to_allow_implies_describe_and_to_deny_does_not() {
    let allowed = |operation: &str, asked| {
        may(&STRICT, &[&format!("topic literal a User:alice * {operation} allow")], asked, "a")
    };
    for operation in ["read", "write", "delete", "alter", "describe", "all"] {
        assert!(allowed(operation, Operation::Describe), "{operation}");
    }
    for operation in ["create", "describe_configs", "alter_configs", "cluster_action"] {
        assert!(!allowed(operation, Operation::Describe), "{operation}");
    }
    assert!(allowed("alter_configs", Operation::DescribeConfigs) && !allowed("alter", Operation::DescribeConfigs));
    assert!(!allowed("describe", Operation::Read) && !allowed("describe_configs", Operation::AlterConfigs));
    let describe = "topic literal a User:alice * describe allow";
    for (denied, granted) in [("read", true), ("write", true), ("describe", false), ("all", false)] {
        let deny = format!("topic literal a User:alice * {denied} deny");
        assert_eq!(may(&STRICT, &[describe, &deny], Operation::Describe, "a"), granted, "{denied}");
    }
}

#[test]
fn super_users_may_do_everything() {
    let authorizer = Authorizer { super_users: BTreeSet::from(["User:alice".to_owned()]), ..STRICT };
    assert!(may(&authorizer, &["topic literal a User:* * all deny"], Operation::Write, "a"));
    let bob = Subject { principal: "User:bob", host: "h" };
    assert!(!authorizer.allows(&AclRules::default(), &bob, Operation::Write, ResourceType::Topic, "a"));
}

#[test]
fn to_write_to_some_topic_takes_one_that_is_not_denied() {
    let alice = Subject { principal: "User:alice", host: "10.0.0.1" };
    let some = |authorizer: &Authorizer, texts: &[&str]| {
        authorizer.allows_some(&rules(texts), &alice, Operation::Write, ResourceType::Topic)
    };
    let literal = "topic literal abc User:alice * write allow";
    let prefixed = "topic prefixed abc User:alice * all allow";
    assert!(!some(&STRICT, &[]) && some(&OPEN, &[]));
    assert!(some(&STRICT, &[literal]) && some(&STRICT, &[prefixed]));
    assert!(!some(&STRICT, &["topic literal abc User:alice * read allow"]));
    assert!(!some(&STRICT, &["topic literal abc User:bob * write allow"]));
    assert!(!some(&STRICT, &["group literal abc User:alice * write allow"]));
    assert!(!some(&STRICT, &[literal, "topic literal abc User:alice * write deny"]));
    assert!(!some(&STRICT, &[literal, "topic prefixed ab User:alice * write deny"]));
    assert!(!some(&STRICT, &[prefixed, "topic prefixed abc User:* * all deny"]));
    assert!(some(&STRICT, &[prefixed, "topic literal abc User:alice * write deny"]), "abcd is left");
    assert!(some(&STRICT, &[prefixed, "topic prefixed abcd User:alice * write deny"]), "abce is left");
    assert!(!some(&STRICT, &[prefixed, "topic literal * User:alice * write deny"]));
    let bobs = "topic prefixed ab User:bob * write deny";
    assert!(some(&STRICT, &[literal, bobs, "topic prefixed b User:alice * write deny"]), "neither is about abc");
    assert!(!some(&STRICT, &[literal, bobs, "topic prefixed a User:alice * write deny"]), "the shorter one is");
    let everything = "topic literal * User:alice * write allow";
    assert!(some(&STRICT, &[everything, "topic prefixed a User:alice * write deny"]));
    // Denied everywhere, nothing is left even where resources without rules are everybody's.
    assert!(!some(&OPEN, &["topic literal * User:alice * write deny"]));
}

#[test]
fn addresses_are_written_as_java_writes_them() {
    let host = |text: &str| host_of(text.parse().expect("an address"));
    assert_eq!(&*host("10.0.0.1"), "10.0.0.1");
    assert_eq!(&*host("::1"), "0:0:0:0:0:0:0:1");
    assert_eq!(&*host("2001:db8::a0:1"), "2001:db8:0:0:0:0:a0:1");
    assert_eq!(&*host("::ffff:10.0.0.1"), "10.0.0.1");
}

/// Against the straightforward way: look at every rule.
#[test]
fn the_index_finds_what_a_search_finds() {
    let names = ["a", "ab", "abc", "b", "*", "ba"];
    let mut all = Vec::new();
    for (at, name) in names.iter().enumerate() {
        for (pattern, permission) in [("literal", "allow"), ("prefixed", "allow"), ("literal", "deny")] {
            all.push(format!("topic {pattern} {name} User:u{at} * read {permission}"));
        }
    }
    let bindings: Vec<AclBinding> = all.iter().map(|text| rule(text)).collect();
    let index = AclRules::new(bindings.iter().cloned().collect());
    for topic in ["a", "ab", "abcd", "b", "bab", "c", ""] {
        for at in 0..names.len() {
            let user = format!("User:u{at}");
            let subject = Subject { principal: &user, host: "h" };
            let concerns = |rule: &&AclBinding| match rule.pattern {
                super::super::PatternType::Literal => rule.name == topic || rule.name == WILDCARD,
                super::super::PatternType::Prefixed => topic.starts_with(&rule.name),
            };
            let mine: Vec<_> = bindings.iter().filter(concerns).filter(|r| subject.is_meant_by(r)).collect();
            let denied = mine.iter().any(|rule| rule.permission == super::super::Permission::Deny);
            let granted = STRICT.allows(&index, &subject, Operation::Read, ResourceType::Topic, topic);
            assert_eq!(granted, !denied && !mine.is_empty(), "{user} on {topic:?}");
        }
    }
}
