//! `check-config` and `print-config`.

use std::io::{self, Write};

use crate::config::{Config, Entry, Kind, SETTINGS};

/// Says that the settings are valid, and what is worth a second look.
///
/// # Errors
/// That of `out`.
pub fn check_config(config: &Config, out: &mut impl Write) -> io::Result<()> {
    let set = config.entries().filter(|e| e.origin != crate::config::Origin::Default).count();
    writeln!(out, "ok: {} settings, {set} of them set", SETTINGS.len())?;
    for endpoint in config.listeners.iter().filter(|e| !e.is_loopback()) {
        writeln!(
            out,
            "warning: listeners: {endpoint} can be reached from other machines, and asks nobody for a password"
        )?;
    }
    Ok(())
}

/// Prints every setting's effective value, with where it came from behind it, as a configuration file that sets just
/// these values.
///
/// # Errors
/// That of `out`.
pub fn print_config(config: &Config, out: &mut impl Write) -> io::Result<()> {
    for entry in SETTINGS.iter().filter_map(|s| config.entry(s.key)) {
        let by = if entry.set_by == entry.setting.key { String::new() } else { format!(" by {}", entry.set_by) };
        writeln!(out, "\"{}\" = {}  # {}{by}", entry.setting.key, toml_value(entry), entry.origin)?;
    }
    Ok(())
}

/// The value as it is written in a configuration file.
fn toml_value(entry: &Entry) -> String {
    match entry.setting.kind {
        Kind::Boolean => entry.value.to_ascii_lowercase(),
        Kind::Int | Kind::Long | Kind::Double => entry.value.trim_start_matches('+').to_owned(),
        Kind::Text | Kind::List => toml::Value::String(entry.value.clone()).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;

    fn printed(config: &Config) -> String {
        let mut out = Vec::new();
        print_config(config, &mut out).expect("written to memory");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn what_is_printed_can_be_read_back_and_means_the_same() {
        let odd = [("broker.rack", "a \"b\" \\ 'c'"), ("listeners", "127.0.0.1:1,[::1]:2"), ("shards", "3")];
        let config = Config::with(&odd).expect("valid");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), printed(&config)).expect("written");
        let again = Config::load(Some(file.path()), &[]).expect("valid");
        for (before, after) in config.entries().zip(again.entries()) {
            assert_eq!(before.value, after.value, "{}", before.setting.key);
            assert!(matches!(after.origin, Origin::File(..)));
        }
    }

    #[test]
    fn every_value_says_where_it_came_from() {
        let shown = printed(&Config::with(&[("log.retention.hours", "1")]).expect("valid"));
        assert!(shown.contains("\"log.retention.ms\" = 3600000  # --set by log.retention.hours\n"), "{shown}");
        assert!(shown.contains("\"num.partitions\" = 1  # default\n"), "{shown}");
        assert_eq!(shown.lines().count(), SETTINGS.len());
    }

    #[test]
    fn an_open_listener_is_pointed_out() {
        let sets = [("listeners", ":9092"), ("advertised.listeners", "b:9092")];
        let mut out = Vec::new();
        check_config(&Config::with(&sets).expect("valid"), &mut out).expect("written to memory");
        let shown = String::from_utf8(out).expect("text");
        assert!(
            shown.starts_with("ok: ") && shown.contains("2 of them set\nwarning: listeners: 0.0.0.0:9092"),
            "{shown}"
        );
    }
}
