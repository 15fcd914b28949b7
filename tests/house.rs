//! The rules of the house that neither the compiler nor clippy knows: which way imports run, how large a file and a function may
//! get, who may see the runtime, that every API file is served and that nothing is dead. RUNTIME and ARCHITECTURE say why.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "reads the sources")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file without its tests.
const LONGEST_FILE: usize = 600;
/// Lines of a function without its tests.
const LONGEST_FUNCTION: usize = 100;
/// `lib.rs` and `mod.rs` hold docs, modules and re-exports.
const LONGEST_INDEX: usize = 120;

/// Which crates of ours a crate may depend on. Not named here is not allowed.
const IMPORTS: &[(&str, &[&str])] = &[
    ("shards/record", &[]),
    ("wal", &["thalweg-record"]),
    ("objectstore", &["thalweg-record"]),
    ("objectstore/s3", &["thalweg-objectstore"]),
    ("objectstore/s3/rusoto", &["thalweg-objectstore", "thalweg-objectstore-s3"]),
    ("objectstore/s3/arrow", &["thalweg-objectstore", "thalweg-objectstore-s3", "thalweg-objectstore-s3-rusoto"]),
    ("shards", &["thalweg-record", "thalweg-wal", "thalweg-objectstore"]),
    (
        ".",
        &[
            "thalweg-record",
            "thalweg-shards",
            "thalweg-wal",
            "thalweg-objectstore",
            "thalweg-objectstore-s3",
            "thalweg-objectstore-s3-arrow",
            "thalweg-objectstore-s3-rusoto",
        ],
    ),
    ("tests/rig", &["thalweg-record"]),
    (
        "tests/sim",
        &["thalweg", "thalweg-rig", "thalweg-record", "thalweg-shards", "thalweg-wal", "thalweg-objectstore"],
    ),
    ("tests/faulty", &["thalweg", "thalweg-record", "thalweg-shards", "thalweg-wal"]),
    ("perf", &["thalweg-record", "thalweg-shards", "thalweg-wal"]),
];

/// Crates of others that only some places may see.
const SEEN_ONLY_BY: &[(&str, &[&str])] = &[
    ("glommio::", &["shards/src/runtime/", "wal/src/device/", "wal/examples/", "src/net/listen.rs"]),
    ("kafka_protocol::", &["src/", "tests/", "perf/"]),
    ("rusoto_", &["objectstore/s3/rusoto/"]),
    ("object_store::", &["objectstore/s3/arrow/"]),
    ("sled::", &["src/cluster/"]),
    ("axum::", &["src/telemetry/"]),
    ("clap::", &["src/cli/", "src/main.rs", "src/config/", "perf/", "tests/"]),
];

/// Where an exception to the determinism gate (clippy.toml) may stand.
const EDGES: &[&str] = &[
    "shards/src/runtime/",
    "wal/src/device/",
    "wal/examples/",
    "objectstore/src/local/",
    "objectstore/s3/",
    "src/main.rs",
    "src/broker",
    "src/config/",
    "src/cli/",
    "src/net/listen",
    "src/cluster/",
    "src/telemetry/",
    "perf/",
    "tests/",
];

/// Where a lock may stand beside the edges: it is held for a moment, and never over an await.
const LOCKS: &[&str] = &["objectstore/src/memory.rs", "shards/src/work_room.rs", "src/net/chunk.rs"];

/// The one other reason for an exception: a hash map's content that is sorted before anybody sees it.
const SORTED: &str = "sorted before anything leaves";

/// Syntax that the toolchain of `rust-version` does not know; a newer compiler takes it without a word.
const TOO_NEW: &[&str] = &["&& let "];

/// Words that say nothing about what a module is for.
const EMPTY_WORDS: &[&str] = &["util", "utils", "helper", "helpers", "manager", "common", "misc", "stuff"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A source file: its path from the root, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The lines before the tests of the file.
    fn production(&self) -> Vec<&str> {
        if self.path.ends_with("/tests.rs") || self.path.contains("/tests/") || self.path.starts_with("tests/") {
            return Vec::new();
        }
        self.text.lines().take_while(|line| !line.starts_with("mod tests {")).collect()
    }

    /// The lines of code: neither comments nor docs.
    fn code(&self) -> impl Iterator<Item = &str> {
        self.text.lines().filter(|line| !line.trim_start().starts_with("//"))
    }
}

/// Every Rust file of the repository, in the order of their paths.
fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for dir in ["src", "shards", "wal", "objectstore", "perf", "tests"] {
        collect(&root().join(dir), &mut paths);
    }
    paths.sort();
    assert!(paths.len() > 20, "the sources were not found");
    let relative = |path: &Path| path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
    paths
        .iter()
        .map(|path| Source { path: relative(path), text: fs::read_to_string(path).expect("readable") })
        .collect()
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory of the repository") {
        let path = entry.expect("readable").path();
        // The programs in tests/languages are clients in their own right, as their users would write them.
        if path.is_dir() && !path.ends_with("target") && !path.ends_with("tests/languages") {
            collect(&path, into);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            into.push(path);
        }
    }
}

/// Fails with every finding, not only with the first.
fn none(findings: Vec<String>) {
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn imports_run_one_way() {
    let members: toml::Table = fs::read_to_string(root().join("Cargo.toml")).expect("readable").parse().expect("TOML");
    let members = members["workspace"]["members"].as_array().expect("members").clone();
    let mut findings = Vec::new();
    for dir in members.iter().map(|m| m.as_str().expect("a path")).chain(["."]) {
        let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == dir) else {
            findings.push(format!("{dir}: a crate without a place in IMPORTS"));
            continue;
        };
        let text = fs::read_to_string(root().join(dir).join("Cargo.toml")).expect("readable");
        let manifest: toml::Table = text.parse().expect("TOML");
        for section in ["dependencies", "build-dependencies"] {
            let Some(dependencies) = manifest.get(section).and_then(|d| d.as_table()) else { continue };
            for name in dependencies.keys().filter(|name| name.starts_with("thalweg")) {
                if !allowed.contains(&name.as_str()) {
                    findings.push(format!("{dir} must not depend on {name}"));
                }
            }
        }
    }
    none(findings);
}

#[test]
fn cargo_run_starts_the_broker() {
    let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml")).expect("readable").parse().expect("TOML");
    let chosen = manifest["package"].get("default-run").and_then(|name| name.as_str());
    assert_eq!(chosen, Some("thalweg"), "several default members have binaries: `cargo run` must know which");
}

#[test]
fn a_release_has_no_failpoints() {
    let members: toml::Table = fs::read_to_string(root().join("Cargo.toml")).expect("readable").parse().expect("TOML");
    let members = members["workspace"]["members"].as_array().expect("members").clone();
    let mut findings = Vec::new();
    for dir in members.iter().map(|m| m.as_str().expect("a path")).chain(["."]) {
        let text = fs::read_to_string(root().join(dir).join("Cargo.toml")).expect("readable");
        // Who turns it on by itself: a default, or a dependency's feature. Asked for by name it may be, for tests.
        for line in text.lines().filter(|line| line.contains("failpoints") && !line.starts_with('#')) {
            let told = ["failpoints = []", "failpoints = [\"thalweg-record/failpoints\"]"];
            if !told.contains(&line) {
                findings.push(format!("{dir}/Cargo.toml: {line}"));
            }
        }
    }
    let record = fs::read_to_string(root().join("shards/record/src/lib.rs")).expect("readable");
    let guard = "#[cfg(all(feature = \"failpoints\", not(debug_assertions)))]\ncompile_error!";
    if !record.contains(guard) {
        findings.push("shards/record/src/lib.rs: a release build with failpoints compiles".to_owned());
    }
    none(findings);
}

#[test]
fn foreign_crates_stay_where_they_belong() {
    let mut findings = Vec::new();
    for source in sources().iter().filter(|s| s.path != "tests/house.rs") {
        for (word, places) in SEEN_ONLY_BY {
            let seen = source.code().any(|line| line.contains(word));
            if seen && !places.iter().any(|place| source.path.starts_with(place)) {
                findings.push(format!("{} must not see {word}", source.path));
            }
        }
    }
    none(findings);
}

#[test]
fn exceptions_to_the_determinism_gate_stand_at_the_edges() {
    let mut findings = Vec::new();
    for source in sources() {
        let excepted = source.production().iter().any(|line| {
            let code = !line.trim_start().starts_with("//");
            code && line.contains("clippy::disallowed") && !line.contains("cfg_attr(test") && !line.contains(SORTED)
        });
        if excepted && !EDGES.iter().chain(LOCKS).any(|place| source.path.starts_with(place)) {
            findings.push(format!("{} makes an exception to clippy.toml", source.path));
        }
    }
    none(findings);
}

#[test]
fn files_are_small() {
    let mut findings = Vec::new();
    for source in sources() {
        let lines = source.production().len();
        let index = source.path.ends_with("/mod.rs") || source.path.ends_with("/lib.rs");
        let bound = if index { LONGEST_INDEX } else { LONGEST_FILE };
        if lines > bound {
            findings.push(format!("{}: {lines} lines, at most {bound}", source.path));
        }
    }
    none(findings);
}

#[test]
fn functions_fit_on_a_screen() {
    let mut findings = Vec::new();
    for source in sources() {
        // rustfmt gives a function's last brace the indentation of its first line.
        let mut open: Vec<(usize, usize, String)> = Vec::new();
        for (number, line) in source.production().iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            if line.trim_start() == "}" && open.last().is_some_and(|(depth, ..)| *depth == indent) {
                let (_, first, name) = open.pop().expect("just seen");
                let lines = number - first + 1;
                if lines > LONGEST_FUNCTION {
                    findings.push(format!("{}:{}: {name} has {lines} lines", source.path, first + 1));
                }
            }
            if let Some(name) = function_name(line).filter(|_| !line.trim_end().ends_with(['}', ';'])) {
                open.push((indent, number, name));
            }
        }
    }
    none(findings);
}

/// The name, when the line begins a function.
fn function_name(line: &str) -> Option<String> {
    let line = line.trim_start();
    let rest = after_visibility(line);
    let rest = rest.strip_prefix("const ").unwrap_or(rest);
    let rest = rest.strip_prefix("async ").unwrap_or(rest);
    let rest = rest.strip_prefix("unsafe ").unwrap_or(rest).strip_prefix("fn ")?;
    Some(rest.split(['(', '<']).next().expect("one part at least").to_owned())
}

/// The line without `pub`, `pub(crate)` or `pub(super)`.
fn after_visibility(line: &str) -> &str {
    ["pub ", "pub(crate) ", "pub(super) "].iter().find_map(|word| line.strip_prefix(word)).unwrap_or(line)
}

/// `k00_produce` of `src/api/k00_produce.rs` or `src/api/k00_produce/mod.rs`.
fn api_modules() -> BTreeSet<String> {
    let named_by_key =
        |name: &str| name.len() > 4 && name.starts_with('k') && name[1..3].bytes().all(|b| b.is_ascii_digit());
    fs::read_dir(root().join("src/api"))
        .expect("src/api")
        .map(|entry| entry.expect("readable").path().file_stem().expect("a name").to_string_lossy().into_owned())
        .filter(|name| named_by_key(name))
        .collect()
}

#[test]
fn every_api_file_is_served_and_every_served_key_has_its_file() {
    let table = fs::read_to_string(root().join("src/api/table.rs")).expect("the table");
    let list = table.split("TABLE").nth(1).and_then(|rest| rest.split("];").next()).expect("the list of keys");
    let listed: BTreeSet<String> =
        list.split([' ', ',', '\n', '[']).filter_map(|word| word.strip_suffix("::API")).map(str::to_owned).collect();
    assert_eq!(listed, api_modules(), "left: in the table; right: files");
}

#[test]
fn no_file_is_dead() {
    let sources: BTreeMap<String, Source> = sources().into_iter().map(|s| (s.path.clone(), s)).collect();
    let is_root = |path: &str| {
        let dir = Path::new(path).parent().and_then(Path::file_name).map(|name| name.to_string_lossy());
        let target = dir.as_deref().is_some_and(|dir| ["tests", "examples", "benches"].contains(&dir));
        let inside = path.contains("/src/") || path.starts_with("src/");
        path.ends_with("src/lib.rs") || path.ends_with("src/main.rs") || (target && !inside)
    };
    let mut reached: BTreeSet<String> = sources.keys().filter(|path| is_root(path)).cloned().collect();
    let mut open: Vec<String> = reached.iter().cloned().collect();
    while let Some(path) = open.pop() {
        for child in children(&sources[&path]) {
            if sources.contains_key(&child) && reached.insert(child.clone()) {
                open.push(child);
            }
        }
    }
    none(
        sources
            .keys()
            .filter(|path| !reached.contains(*path))
            .map(|path| format!("{path}: no `mod` line leads here"))
            .collect(),
    );
}

/// The files that the `mod` lines of a source may mean.
fn children(source: &Source) -> Vec<String> {
    let path = Path::new(&source.path);
    let dir = path.parent().expect("has one");
    let stem = path.file_stem().expect("has one").to_string_lossy();
    let own = if ["mod", "lib", "main"].contains(&&*stem) || dir == Path::new("tests") {
        dir.to_owned()
    } else {
        dir.join(&*stem)
    };
    let mut found = Vec::new();
    for line in source.code().map(str::trim) {
        if let Some(name) = after_visibility(line).strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
            found.push(own.join(format!("{name}.rs")));
            found.push(own.join(name).join("mod.rs"));
        }
        if let Some(name) = line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
            found.push(dir.join(name));
        }
    }
    found.into_iter().map(|path| path.to_string_lossy().into_owned()).collect()
}

#[test]
fn every_module_says_what_it_is_for() {
    let silent = |s: &&Source| !s.path.ends_with("/tests.rs") && !s.text.starts_with("//!");
    none(sources().iter().filter(silent).map(|s| format!("{} does not open with `//!`", s.path)).collect());
}

#[test]
fn names_say_something() {
    let mut findings = Vec::new();
    for source in sources() {
        for part in source.path.trim_end_matches(".rs").split(['/', '_']) {
            if EMPTY_WORDS.contains(&part) {
                findings.push(format!("{}: '{part}' says nothing", source.path));
            }
        }
    }
    none(findings);
}

#[test]
fn the_oldest_toolchain_understands_it() {
    let mut findings = Vec::new();
    for source in sources().iter().filter(|s| s.path != "tests/house.rs") {
        let lines: Vec<&str> = source.text.lines().map(str::trim).collect();
        for (number, line) in lines.iter().enumerate() {
            let binds = ["if let ", "while let ", "} else if let "].iter().any(|word| line.starts_with(word));
            let goes_on = lines.get(number + 1).is_some_and(|next| next.starts_with("&& "));
            if TOO_NEW.iter().any(|word| line.contains(word)) || (binds && goes_on) {
                findings.push(format!("{}:{}: a chain of `let`, which needs Rust 1.88", source.path, number + 1));
            }
        }
    }
    none(findings);
}

#[test]
fn nothing_is_left_for_later() {
    let mut findings = Vec::new();
    for source in sources().iter().filter(|s| s.path != "tests/house.rs") {
        for (number, line) in source.text.lines().enumerate() {
            if ["TODO", "FIXME", "XXX", "allow(dead_code", "fn main() {}"].iter().any(|word| line.contains(word)) {
                findings.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    none(findings);
}
