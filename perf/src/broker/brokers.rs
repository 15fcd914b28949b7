//! Makes brokers: finds or builds what they need, and starts them on fresh data.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Broker, kafka, running, thalweg};
use crate::figures::Rival;

/// The root of the repository, whose test tools install Kafka.
pub(super) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("perf lies in the repository")
}

/// Where `tests/install` puts what it installs.
pub fn install_cache() -> PathBuf {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    var("THALWEG_TEST_CACHE").unwrap_or_else(|| {
        let caches = var("XDG_CACHE_HOME").unwrap_or_else(|| var("HOME").unwrap_or_default().join(".cache"));
        caches.join("thalweg")
    })
}

/// Installs parts with `tests/install`, which does nothing when they are there.
///
/// # Errors
/// When that fails; it has said why.
pub fn install(parts: &[&str]) -> Result<(), String> {
    let status = Command::new(repository().join("tests/install")).args(parts).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("tests/install {}: {other:?}", parts.join(" "))),
    }
}

/// The program of perf/librdkafka, and the Python that runs it.
pub fn librdkafka_client() -> (PathBuf, PathBuf) {
    (install_cache().join("venv/bin/python"), repository().join("perf/librdkafka"))
}

/// What one start of Thalweg is told beside what all are.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// Settings, KEY=VALUE; those of the command line come later and win.
    pub settings: Vec<String>,
    /// Variables of its environment.
    pub environment: Vec<(String, String)>,
}

/// Makes brokers.
#[derive(Debug)]
pub struct Brokers {
    directory: PathBuf,
    thalweg: thalweg::Binary,
    before: Option<thalweg::Binary>,
    kafka: Option<kafka::Formatted>,
    kafka_settings: Vec<String>,
    started: u32,
}

impl Brokers {
    /// Finds or builds what the rivals need. Their data will lie below `directory`, which should be on a real disk.
    /// `thalweg` and `kafka` are settings, KEY=VALUE, beside those that are needed; `before` is the binary of an earlier build.
    ///
    /// # Errors
    /// When something cannot be built or installed.
    pub fn prepare(
        directory: &Path,
        rivals: &[Rival],
        before: Option<&Path>,
        thalweg: Vec<String>,
        kafka: Vec<String>,
    ) -> Result<Brokers, String> {
        let own = directory.join(format!("brokers-{}", std::process::id()));
        remove_leftovers(directory);
        fs::create_dir_all(&own).map_err(|e| format!("cannot create {}: {e}", own.display()))?;
        let before = before.map(|path| thalweg::Binary::at(path, thalweg.clone())).transpose()?;
        let thalweg = thalweg::Binary::find(thalweg, rivals.contains(&Rival::Thalweg))?;
        let with_kafka = rivals.iter().any(|rival| !rival.is_thalweg());
        let formatted = if with_kafka { Some(kafka::Formatted::prepare(&own)?) } else { None };
        Ok(Brokers { directory: own, thalweg, before, kafka: formatted, kafka_settings: kafka, started: 0 })
    }

    /// Starts a broker on an empty directory, and waits until it answers.
    ///
    /// # Errors
    /// When it ends, or does not answer within three minutes; with the end of its log.
    pub fn start(&mut self, rival: Rival) -> Result<Broker, String> {
        self.start_with(rival, &Beside::default())
    }

    /// Where what belongs to this process's brokers may lie; removed at the end.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// [`Brokers::start`], with more for Thalweg.
    ///
    /// # Errors
    /// As [`Brokers::start`].
    pub fn start_with(&mut self, rival: Rival, beside: &Beside) -> Result<Broker, String> {
        self.started += 1;
        let directory = self.directory.join(format!("{}-{}", rival.name(), self.started));
        fs::create_dir_all(&directory).map_err(|e| format!("cannot create {}: {e}", directory.display()))?;
        let ports = running::free_ports()?;
        let command = match (rival, &self.kafka) {
            (Rival::Thalweg, _) => self.thalweg.command(&directory, ports, beside),
            (Rival::ThalwegBefore, _) => {
                self.before.as_ref().ok_or("there is no earlier build: --before")?.command(&directory, ports, beside)
            }
            (_, Some(kafka)) => kafka.command(&directory, ports, rival, &self.kafka_settings)?,
            (_, None) => return Err("Kafka was not prepared".to_owned()),
        };
        Broker::start(rival, command, directory, ports)
    }

    /// What the figures are of: name and version.
    pub fn versions(&self) -> Vec<String> {
        let kafka = self.kafka.as_ref().map(|_| format!("Apache Kafka {}", kafka::VERSION));
        let before = self.before.as_ref().map(|binary| format!("before: {}", binary.version()));
        std::iter::once(self.thalweg.version()).chain(before).chain(kafka).collect()
    }

    /// The settings that are not the defaults, of one rival.
    pub fn settings(&self, rival: Rival) -> Vec<String> {
        match rival {
            Rival::Thalweg | Rival::ThalwegBefore => self.thalweg.settings().to_vec(),
            _ => kafka::settings(rival).into_iter().chain(self.kafka_settings.iter().cloned()).collect(),
        }
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        // Each broker has removed its own directory; what fails here the next run removes.
        let _kept = fs::remove_dir_all(&self.directory);
    }
}

/// Removes the data of earlier processes that were killed.
fn remove_leftovers(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let dead = name.strip_prefix("brokers-").is_some_and(|pid| !Path::new("/proc").join(pid).exists());
        if !dead {
            continue;
        }
        if let Err(why) = fs::remove_dir_all(entry.path()) {
            eprintln!("{} is left over and cannot be removed: {why}", entry.path().display());
        }
    }
}
