//! Where values come from: the default, the file, `--set`; later ones go before earlier ones.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf, absolute},
    sync::Arc,
    thread::available_parallelism,
};

use super::{
    problem::{Problem, Problems},
    rules,
    setting::{Kind, Setting},
    table::{Config, SETTINGS},
    typed::Typed,
};

mod file;

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of the configuration file, from 1; 0 is the file as a whole.
    File(Arc<Path>, usize),
    /// `--set` on the command line.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path, 0) => write!(f, "{}", path.display()),
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::CommandLine => f.write_str("--set"),
        }
    }
}

/// A setting's effective value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The row of the table.
    pub setting: &'static Setting,
    /// The value as text; lists are joined by commas.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
    /// The name it was set by: the key, or a synonym.
    pub set_by: &'static str,
}

/// A value that somebody gave, under the name they used (a key or a synonym).
#[derive(Clone, Debug)]
struct Given {
    text: String,
    origin: Origin,
}

/// Every setting's value as text, ready to be read by type.
pub(super) struct Values(BTreeMap<&'static str, Entry>);

impl Config {
    /// Reads the settings: the defaults, then `file`, then `sets` (`KEY=VALUE`, later ones win).
    ///
    /// # Errors
    /// Everything that is wrong with them, one problem per key.
    #[expect(clippy::disallowed_methods, reason = "the file is read before any shard runs")]
    pub fn load(file: Option<&Path>, sets: &[String]) -> Result<Config, Problems> {
        let mut problems = Vec::new();
        let mut given = BTreeMap::new();
        if let Some(path) = file {
            let path: Arc<Path> = path.into();
            match fs::read_to_string(&path) {
                Ok(text) => file::read(&path, &text, &mut given, &mut problems),
                Err(e) => problems.push(Problem {
                    key: String::new(),
                    origin: Origin::File(path, 0),
                    text: match e.kind() {
                        io::ErrorKind::NotFound => "no such file (--config)".into(),
                        _ => format!("cannot be read: {e}"),
                    },
                }),
            }
        }
        sets.iter().for_each(|set| take_set(set, &mut given, &mut problems));
        Config::assemble(&given, problems)
    }

    /// The defaults with some settings changed, for tests and tools.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn with(pairs: &[(&str, &str)]) -> Result<Config, Problems> {
        let sets: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Config::load(None, &sets)
    }

    fn assemble(given: &BTreeMap<&'static str, Given>, mut problems: Vec<Problem>) -> Result<Config, Problems> {
        let values = Values::of(given, &mut problems);
        let read = Config::read(&values, &mut problems);
        if let (Some(config), true) = (&read, problems.is_empty()) {
            rules::check(config, &mut problems);
        }
        match read {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(Problems(problems)),
        }
    }

    /// Every setting's effective value, by key.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// One setting's effective value.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Bytes of the log that one shard gets, in whole blocks.
    pub fn wal_slice_bytes(&self) -> u64 {
        self.wal_capacity_bytes / u64::from(self.shards) / 4096 * 4096
    }
}

impl Default for Config {
    /// What is in force when nobody set anything.
    fn default() -> Config {
        Config::load(None, &[]).expect("the defaults are valid, a test says so")
    }
}

/// The row that a name belongs to, and the name itself as the table spells it.
fn look_up(name: &str) -> Option<(&'static Setting, &'static str)> {
    SETTINGS.iter().find_map(|s| {
        if s.key == name {
            return Some((s, s.key));
        }
        s.synonyms.iter().find(|synonym| synonym.key == name).map(|synonym| (s, synonym.key))
    })
}

/// The problem of a name that is in no row, with the nearest one that is.
fn unknown(name: &str, origin: Origin) -> Problem {
    let names = SETTINGS.iter().flat_map(|s| [s.key].into_iter().chain(s.synonyms.iter().map(|y| y.key)));
    let near = names
        .map(|known| (strsim::osa_distance(name, known), known))
        .min()
        .filter(|(distance, known)| *distance <= 2 + known.len() / 5);
    let text = match near {
        Some((_, known)) => format!("no such setting; did you mean {known}?"),
        None => "no such setting; `thalweg print-config` lists all".to_owned(),
    };
    Problem { key: name.to_owned(), origin, text }
}

fn take_set(set: &str, given: &mut BTreeMap<&'static str, Given>, problems: &mut Vec<Problem>) {
    let origin = Origin::CommandLine;
    let Some((name, text)) = set.split_once('=') else {
        let text = "write --set KEY=VALUE".to_owned();
        return problems.push(Problem { key: set.to_owned(), origin, text });
    };
    match look_up(name.trim()) {
        Some((_, name)) => drop(given.insert(name, Given { text: text.trim().to_owned(), origin })),
        None => problems.push(unknown(name.trim(), origin)),
    }
}

impl Values {
    fn of(given: &BTreeMap<&'static str, Given>, problems: &mut Vec<Problem>) -> Values {
        let mut values = Values(BTreeMap::new());
        for setting in SETTINGS {
            let entry = match from_given(setting, given, problems) {
                Some(entry) => entry,
                None => Entry {
                    setting,
                    value: if setting.computed { String::new() } else { setting.default.to_owned() },
                    origin: Origin::Default,
                    set_by: setting.key,
                },
            };
            values.0.insert(setting.key, entry);
        }
        values.compute();
        values
    }

    /// Fills in the defaults that depend on other settings or on the machine.
    fn compute(&mut self) {
        let data_dir = PathBuf::from(&self.0["data.dir"].value);
        let listeners = self.0["listeners"].value.clone();
        self.fill("wal.path", || data_dir.join("wal").display().to_string());
        self.fill("advertised.listeners", || listeners);
        self.fill("object.store.url", || {
            let objects = absolute(data_dir.join("objects")).unwrap_or_default();
            url::Url::from_file_path(objects).map(String::from).unwrap_or_default()
        });
        if self.0["shards"].value == "0" {
            let cores = available_parallelism().map_or(1, |n| n.get().min(1024));
            self.set("shards", cores.to_string());
        }
    }

    fn fill(&mut self, key: &'static str, value: impl FnOnce() -> String) {
        if self.0[key].origin == Origin::Default {
            self.set(key, value());
        }
    }

    fn set(&mut self, key: &'static str, value: String) {
        self.0.get_mut(key).expect("every key of the table has an entry").value = value;
    }

    /// Reads one value; a problem is added when it does not fit.
    pub(super) fn typed<T: Typed>(&self, key: &'static str, problems: &mut Vec<Problem>) -> Option<T> {
        let entry = &self.0[key];
        let read = in_range(entry).and_then(|()| T::parse(&entry.value));
        read.map_err(|text| {
            problems.push(Problem { key: entry.set_by.to_owned(), origin: entry.origin.clone(), text });
        })
        .ok()
    }

    pub(super) fn entries(&self) -> BTreeMap<&'static str, Entry> {
        self.0.clone()
    }
}

/// The value given under the setting's key or, failing that, its synonyms, brought to the setting's unit.
fn from_given(
    setting: &'static Setting,
    given: &BTreeMap<&'static str, Given>,
    problems: &mut Vec<Problem>,
) -> Option<Entry> {
    if let Some(Given { text, origin }) = given.get(setting.key) {
        return Some(Entry { setting, value: text.clone(), origin: origin.clone(), set_by: setting.key });
    }
    let (synonym, value) = setting.synonyms.iter().find_map(|s| Some((s, given.get(s.key)?)))?;
    let scaled = match value.text.parse::<i64>() {
        Ok(-1) => Some(-1),
        Ok(n) => n.checked_mul(synonym.factor),
        Err(_) => None,
    };
    let Some(scaled) = scaled else {
        let text = format!("{:?} is not a whole number of that unit, or too large", value.text);
        problems.push(Problem { key: synonym.key.to_owned(), origin: value.origin.clone(), text });
        return None;
    };
    Some(Entry { setting, value: scaled.to_string(), origin: value.origin.clone(), set_by: synonym.key })
}

fn in_range(entry: &Entry) -> Result<(), String> {
    let setting = entry.setting;
    if !matches!(setting.kind, Kind::Int | Kind::Long) {
        return Ok(());
    }
    let unit = if setting.unit.is_empty() { String::new() } else { format!(" of {}", setting.unit) };
    let n: i64 = entry.value.parse().map_err(|_| format!("{:?} is not a whole number{unit}", entry.value))?;
    if (setting.min..=setting.max).contains(&n) {
        return Ok(());
    }
    Err(format!("{n} is out of range: {} to {}{}", setting.min, setting.max, unit.replace(" of ", " ")))
}

#[cfg(test)]
mod tests;
