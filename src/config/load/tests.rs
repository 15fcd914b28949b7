//! Tests of loading: sources, precedence, and the messages for what is wrong.

use std::io::Write;

use super::*;

/// Loads a file with `text`, and `sets`.
fn load(text: &str, sets: &[&str]) -> Result<Config, String> {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("written");
    let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
    let path = file.path().display().to_string();
    Config::load(Some(file.path()), &sets).map_err(|p| p.to_string().replace(&path, "FILE"))
}

fn refused(text: &str) -> String {
    load(text, &[]).expect_err("must be refused")
}

#[test]
fn the_defaults_are_valid_and_say_so() {
    let config = Config::load(None, &[]).expect("valid");
    assert_eq!(config.listeners[0].to_string(), "127.0.0.1:9092");
    assert_eq!(config.advertised_listeners, config.listeners);
    assert_eq!(config.wal_path, Path::new("./thalweg-data/wal"));
    assert!(config.object_store_url.to_file_path().expect("a path").ends_with("thalweg-data/objects"));
    assert_eq!(config.log_retention_ms, Some(604_800_000));
    assert_eq!(config.log_retention_bytes, None);
    assert_eq!(config.log_message_timestamp_before_max_ms, None);
    assert!(config.shards >= 1);
    assert!(config.entries().all(|e| e.origin == Origin::Default));
    assert_eq!(config.entries().count(), SETTINGS.len());
}

#[test]
fn the_command_line_goes_before_the_file_before_the_default() {
    let text = "\"num.partitions\" = 3\n\n\"message.max.bytes\" = 0x2000\n";
    let config = load(text, &["num.partitions=4", "num.partitions=5"]).expect("valid");
    assert_eq!((config.num_partitions, config.message_max_bytes), (5, 8192));
    assert_eq!(config.entry("num.partitions").expect("known").origin, Origin::CommandLine);
    assert!(matches!(config.entry("message.max.bytes").expect("known").origin, Origin::File(_, 3)));
}

#[test]
fn synonyms_yield_to_the_finer_name_whatever_the_source() {
    let hours = load("\"log.retention.hours\" = 2", &[]).expect("valid");
    assert_eq!(hours.log_retention_ms, Some(7_200_000));
    assert_eq!(hours.entry("log.retention.ms").expect("known").set_by, "log.retention.hours");
    let minutes = load("\"log.retention.minutes\" = 3\n\"log.retention.hours\" = 2", &[]).expect("valid");
    assert_eq!(minutes.log_retention_ms, Some(180_000));
    let ms = load("\"log.retention.ms\" = 7", &["log.retention.hours=2"]).expect("valid");
    assert_eq!(ms.log_retention_ms, Some(7));
    assert_eq!(load("", &["log.retention.hours=-1"]).expect("valid").log_retention_ms, None);
    assert!(load("", &["log.retention.hours=9223372036854775807"]).is_err());
}

#[test]
fn lists_are_written_as_text_or_as_lists() {
    let text = r#""listeners" = ["PLAINTEXT://127.0.0.1:1", "[::1]:2"]"#;
    let (list, comma) =
        (load(text, &[]).expect("valid"), load("", &["listeners=127.0.0.1:1, [::1]:2"]).expect("valid"));
    assert_eq!(list.listeners, comma.listeners);
    assert_eq!(list.listeners.len(), 2);
}

#[test]
fn places_follow_the_data_directory_unless_set() {
    let config = load("\"data.dir\" = \"/d\"\n\"wal.path\" = \"/w\"", &[]).expect("valid");
    assert_eq!(config.wal_path, Path::new("/w"));
    assert_eq!(config.object_store_url.as_str(), "file:///d/objects");
}

#[test]
fn one_message_names_the_key_and_the_line() {
    for (text, message) in [
        ("\n\"log.retentoin.ms\" = 1", "log.retentoin.ms (FILE:2): no such setting; did you mean log.retention.ms?"),
        ("\"zzz\" = 1", "zzz (FILE:1): no such setting; `thalweg print-config` lists all"),
        ("\"num.partitions\" = \"3\"", "num.partitions (FILE:1): a text is not a whole number"),
        ("\"listeners\" = [1]", "listeners (FILE:1): a list is not a text, or a list of texts"),
        ("\"num.partitions\" = 0", "num.partitions (FILE:1): 0 is out of range: 1 to 10000"),
        ("\"compression.type\" = \"rar\"", "compression.type (FILE:1): \"rar\" is not one of: producer, uncompressed"),
        ("log.retention.ms = 1", "log.retention.ms (FILE:1): keys are quoted: write \"log.retention.ms\" = ..."),
        ("\"shards\" = = 1", "FILE:1: is not valid TOML: "),
        ("\"wal.sync\" = \"none\"", "wal.sync (FILE:1): \"none\" is not one of: dsync, fdatasync"),
        ("\"default.replication.factor\" = 3", "default.replication.factor (FILE:1): 3 is out of range: 1 to 1"),
        ("\"log.message.timestamp.type\" = \"Never\"", "log.message.timestamp.type (FILE:1): "),
        ("\"object.store.url\" = \"gs://b\"", "object.store.url (FILE:1): \"gs\" is no known object store"),
    ] {
        let shown = refused(text);
        assert!(shown.starts_with(message), "{text}: {shown}");
        assert_eq!(shown.lines().count(), 1, "{shown}");
    }
}

#[test]
fn impossible_combinations_name_the_key_to_change() {
    for (sets, message) in [
        ("message.max.bytes=5000000", "message.max.bytes (--set): 5000000 does not fit into wal.max.group.bytes"),
        ("wal.capacity.bytes=1048576 shards=2", "wal.capacity.bytes (--set): 1048576 gives each of 2 shards"),
        ("socket.request.max.bytes=65536", "message.max.bytes: 1048588 is above socket.request.max.bytes (65536)"),
        ("queued.max.request.bytes=1048576", "queued.max.request.bytes (--set): 1048576 is below"),
        ("queued.max.response.bytes=1048576", "queued.max.response.bytes (--set): 1048576 is below"),
        ("object.block.bytes=131072 object.upload.bytes=65536", "object.block.bytes (--set): 131072 is above"),
        ("group.min.session.timeout.ms=1800001", "group.min.session.timeout.ms (--set): is above"),
        ("log.level=thalweg=loud", "log.level (--set): \"thalweg=loud\" is no level"),
        ("listeners=:9092", "advertised.listeners: clients cannot connect to 0.0.0.0:9092"),
        ("listeners=a:1,a:1", "listeners (--set): a:1 is listened on twice"),
        ("http.listen=127.0.0.1:9092", "http.listen (--set): 127.0.0.1:9092 is listened on twice"),
        ("advertised.listeners=a:1,b:1", "advertised.listeners (--set): has 2 addresses for 1 listeners"),
        ("data.dir=/d object.store.url=file:///d/wal/x", "object.store.url (--set): /d/wal/x and wal.path"),
        ("data.dir=/d object.store.url=file:///d", "object.store.url (--set): /d and data.dir"),
    ] {
        let sets: Vec<&str> = sets.split(' ').collect();
        let shown = load("", &sets).expect_err("must be refused");
        assert!(shown.starts_with(message), "{sets:?}: {shown}");
    }
}

#[test]
fn every_problem_is_told_at_once() {
    let shown = load("\"num.partitions\" = 0\n\"nod.id\" = 1", &["shards", "wal.sync=x"]).expect_err("must be refused");
    assert_eq!(shown.lines().count(), 4, "{shown}");
    assert!(shown.contains("write --set KEY=VALUE") && shown.contains("did you mean node.id?"), "{shown}");
}

#[test]
fn a_missing_file_is_named() {
    let shown = Config::load(Some(Path::new("/no/such.toml")), &[]).expect_err("refused").to_string();
    assert_eq!(shown, "/no/such.toml: no such file (--config)");
}

#[test]
fn the_table_is_consistent() {
    let mut names: Vec<&str> =
        SETTINGS.iter().flat_map(|s| [s.key].into_iter().chain(s.synonyms.iter().map(|y| y.key))).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "a name stands for one setting");
    for setting in SETTINGS {
        assert!(setting.doc.ends_with(['.', ')']) || setting.doc.ends_with("..."), "{}: {}", setting.key, setting.doc);
        assert!(setting.min <= setting.max, "{}", setting.key);
        let unit = [".ms", ".bytes", ".minutes"].into_iter().find(|u| setting.key.ends_with(u)).map(|u| &u[1..]);
        assert_eq!(
            unit.unwrap_or_default(),
            setting.unit.trim(),
            "{}: the unit is the last word of the key",
            setting.key
        );
    }
}

/// The commented-out settings of conf/thalweg.toml, without their `# `.
fn documented() -> Vec<&'static str> {
    let document = include_str!("../../../conf/thalweg.toml");
    document.lines().filter_map(|l| l.strip_prefix("# ").filter(|l| l.starts_with('"'))).collect()
}

#[test]
fn the_document_names_every_setting_with_its_default() {
    let lines: BTreeMap<&str, &str> = documented()
        .into_iter()
        .map(|l| l.split_once(" = ").expect("a key and its value"))
        .map(|(key, value)| (key.trim_matches('"'), value.trim_matches('"')))
        .collect();
    let table: BTreeMap<&str, &str> = SETTINGS.iter().map(|s| (s.key, s.default)).collect();
    assert_eq!(lines, table);
}

#[test]
fn the_document_loads_as_it_stands_and_with_its_lines_taken_in() {
    let document = include_str!("../../../conf/thalweg.toml");
    assert!(load(document, &[]).expect("valid").entries().all(|e| e.origin == Origin::Default));
    let set: Vec<&str> = documented().into_iter().filter(|l| !l.contains('<')).collect();
    let (changed, default) = (load(&set.join("\n"), &[]).expect("valid"), Config::default());
    for (changed, default) in changed.entries().zip(default.entries()) {
        assert_eq!(changed.value, default.value, "{}", default.setting.key);
    }
}
