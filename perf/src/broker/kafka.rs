//! How Apache Kafka is started: KRaft, one node that is broker and controller, with the JVM options of its own scripts.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::install_cache;
use crate::figures::Rival;

/// The release that is compared with, which `tests/install` brings.
pub(super) const VERSION: &str = "4.3.1";
/// KAFKA_HEAP_OPTS and KAFKA_JVM_PERFORMANCE_OPTS of kafka-server-start.sh and kafka-run-class.sh.
const JVM: [&str; 8] = [
    "-Xmx1G",
    "-Xms1G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
];
/// Any id does: 16 bytes in base64.
const CLUSTER_ID: &str = "thalweg-perf-compare-A";
const LOG4J: &str = "Configuration:\n  Appenders:\n    Console:\n      name: out\n      PatternLayout:\n        pattern: '%d %p %m (%c)%n'\n  \
    Loggers:\n    Root:\n      level: WARN\n      AppenderRef:\n        - ref: out\n";

/// Kafka's jars, and a formatted data directory that each start gets a copy of.
#[derive(Debug)]
pub(super) struct Formatted {
    jars: PathBuf,
    log4j: PathBuf,
    data: PathBuf,
}

/// What differs from the defaults, beside addresses and directories.
pub(super) fn settings(rival: Rival) -> Vec<String> {
    let flush = (rival == Rival::KafkaFlush).then(|| "log.flush.interval.messages=1".to_owned());
    ["offsets.topic.replication.factor=1", "transaction.state.log.replication.factor=1"]
        .map(str::to_owned)
        .into_iter()
        .chain(["transaction.state.log.min.isr=1".to_owned()])
        .chain(flush)
        .collect()
}

impl Formatted {
    pub(super) fn prepare(directory: &Path) -> Result<Formatted, String> {
        super::install(&["kafka"])?;
        let directory = directory.join("kafka-formatted");
        let data = directory.join("data");
        let kafka = Formatted {
            jars: install_cache().join(format!("kafka-{VERSION}")),
            log4j: directory.join("log4j2.yaml"),
            data: data.clone(),
        };
        let properties = directory.join("server.properties");
        fs::create_dir_all(&directory)
            .and_then(|()| fs::write(&kafka.log4j, LOG4J))
            .and_then(|()| fs::write(&properties, own_settings(&data, [1, 2]).join("\n")))
            .map_err(|e| format!("cannot write to {}: {e}", directory.display()))?;
        let mut format = kafka.java(&["-XX:TieredStopAtLevel=1"], "kafka.tools.StorageTool");
        format.args(["format", "--cluster-id", CLUSTER_ID, "--config"]).arg(properties);
        let output = format.output().map_err(|e| format!("cannot start java: {e}"))?;
        if output.status.success() {
            return Ok(kafka);
        }
        Err(format!("Kafka's storage cannot be formatted: {}", String::from_utf8_lossy(&output.stderr)))
    }

    fn java(&self, options: &[&str], class: &str) -> Command {
        let mut command = Command::new("java");
        command.args(options).arg("-cp").arg(self.jars.join("*"));
        command.arg(format!("-Dlog4j2.configurationFile={}", self.log4j.display())).arg(class);
        command
    }

    pub(super) fn command(
        &self,
        directory: &Path,
        ports: [u16; 2],
        rival: Rival,
        more: &[String],
    ) -> Result<Command, String> {
        let failed = |e: std::io::Error| format!("cannot write to {}: {e}", directory.display());
        let data = directory.join("data");
        fs::create_dir_all(&data).map_err(failed)?;
        for entry in fs::read_dir(&self.data).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            fs::copy(entry.path(), data.join(entry.file_name())).map_err(failed)?;
        }
        let lines: Vec<String> =
            own_settings(&data, ports).into_iter().chain(settings(rival)).chain(more.iter().cloned()).collect();
        let properties = directory.join("server.properties");
        fs::write(&properties, lines.join("\n")).map_err(failed)?;
        let mut command = self.java(&JVM, "kafka.Kafka");
        command.arg(properties);
        Ok(command)
    }
}

fn own_settings(data: &Path, [kafka, controller]: [u16; 2]) -> Vec<String> {
    vec![
        "process.roles=broker,controller".to_owned(),
        "node.id=1".to_owned(),
        format!("controller.quorum.voters=1@127.0.0.1:{controller}"),
        format!("listeners=PLAINTEXT://127.0.0.1:{kafka},CONTROLLER://127.0.0.1:{controller}"),
        format!("advertised.listeners=PLAINTEXT://127.0.0.1:{kafka}"),
        "controller.listener.names=CONTROLLER".to_owned(),
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT".to_owned(),
        format!("log.dirs={}", data.display()),
    ]
}
