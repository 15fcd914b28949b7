//! Consumer lag, computed when somebody asks for `/metrics`: nothing is counted for it while records flow.
//!
//! Runs in the tokio world. The coordinators say where the groups in use stand, then the owners of those partitions say
//! where these end: one message per coordinator, and one at a time of a bounded size to a shard. One gathering runs at a
//! time and serves everybody who asks within a second. A group or topic that is gone is gone from the next answer.
#![expect(clippy::disallowed_methods, reason = "lives in the tokio world")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use flume::Sender;
use thalweg_record::{PartitionId, ShardId};
use thalweg_shards::{
    mailbox::{ReplyTo, ShardLane},
    meters::{Kind, Metric},
    msg::{Isolation, OffsetQuery, OffsetsRequest, Reply, Request},
};
use tokio::{sync::Mutex, time::timeout};

use crate::coordinator::group::{GroupRequest, Position, Positions};

/// Partitions of one message to a shard.
const PARTS: usize = 256;
/// Series at most; what is beyond is counted.
const SERIES: usize = 10_000;
/// Who asks again within this time gets the same.
const FRESH: Duration = Duration::from_secs(1);
/// A shard that does not answer in this time leaves the metrics without lag.
const PATIENCE: Duration = Duration::from_secs(1);

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, unit: "records", shared_labels: labels, family_label: None, help, buckets: &[] }
}

/// What this module tells.
pub static LAG_METRICS: &[Metric] = &[
    gauge(
        "thalweg_group_lag_records",
        &["group", "topic", "partition"],
        "Records between the offset that a group in use has committed and the high watermark.",
    ),
    Metric {
        unit: "series",
        ..gauge(
            "thalweg_group_lag_left_out",
            &[],
            "Series of thalweg_group_lag_records that are left out because there are more than 10000.",
        )
    },
];

/// How to reach those who know.
struct Lanes {
    shards: Vec<ShardLane>,
    groups: Vec<Sender<GroupRequest>>,
}

/// The lag of all groups in use. Clones share one state.
#[derive(Clone, Default)]
pub struct Lags(Arc<Shared>);

#[derive(Default)]
struct Shared {
    lanes: OnceLock<Lanes>,
    newest: Mutex<Option<(Instant, Arc<str>)>>,
}

impl Lags {
    /// Tells how to reach the shards and the coordinators, by the id of the shard whose core they share; once.
    pub fn connect(&self, shards: &[ShardLane], groups: &[Sender<GroupRequest>]) {
        let _connected_before = self.0.lanes.set(Lanes { shards: shards.to_vec(), groups: groups.to_vec() });
    }

    /// The lines for `/metrics`; without values while the broker starts or stops.
    pub async fn render(&self) -> Arc<str> {
        let mut newest = self.0.newest.lock().await;
        if let Some((_, text)) = newest.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return text.clone();
        }
        let gathered = match self.0.lanes.get() {
            Some(lanes) => timeout(PATIENCE, lanes.gather()).await.ok().flatten(),
            None => None,
        };
        let text: Arc<str> = lines(gathered.as_ref()).into();
        *newest = gathered.is_some().then(|| (Instant::now(), text.clone()));
        text
    }
}

/// The positions of groups, and the ends of the partitions they are in.
struct Gathered {
    positions: Positions,
    ends: BTreeMap<PartitionId, i64>,
}

impl Lanes {
    /// `None` when somebody is gone: the broker is stopping.
    async fn gather(&self) -> Option<Gathered> {
        let mut positions = Positions::default();
        let limit = SERIES / self.groups.len().max(1);
        let mut answers = Vec::with_capacity(self.groups.len());
        for coordinator in &self.groups {
            let (reply, answer) = flume::bounded(1);
            coordinator.try_send(GroupRequest::Positions(limit, reply)).ok()?;
            answers.push(answer);
        }
        for answer in answers {
            let Positions { list, left_out } = answer.recv_async().await.ok()?;
            positions.list.extend(list);
            positions.left_out += left_out;
        }
        let ends = self.ends(&positions.list).await?;
        Some(Gathered { positions, ends })
    }

    async fn ends(&self, positions: &[Position]) -> Option<BTreeMap<PartitionId, i64>> {
        let mut by_shard: BTreeMap<ShardId, BTreeSet<PartitionId>> = BTreeMap::new();
        for position in positions {
            by_shard.entry(position.owner).or_default().insert(position.partition);
        }
        let mut ends = BTreeMap::new();
        for (shard, partitions) in by_shard {
            let lane = self.shards.get(usize::from(shard.0))?;
            let partitions: Vec<PartitionId> = partitions.into_iter().collect();
            for some in partitions.chunks(PARTS) {
                let found = ask(lane, some).await?;
                ends.extend(some.iter().zip(found).filter_map(|(partition, end)| Some((*partition, end?))));
            }
        }
        Some(ends)
    }
}

/// High watermarks; `None` for a partition that is not there any more.
async fn ask(lane: &ShardLane, partitions: &[PartitionId]) -> Option<Vec<Option<i64>>> {
    let (tell, answers) = flume::unbounded();
    let parts = partitions.iter().map(|partition| (*partition, OffsetQuery::Latest, None)).collect();
    let request = OffsetsRequest { parts, isolation: Isolation::Uncommitted, reply: ReplyTo::new(tell, 0) };
    lane.send(Request::Offsets(Box::new(request)));
    match answers.recv_async().await.ok()?.reply {
        Reply::Offsets(found) => Some(found.into_iter().map(|f| f.ok()?.offset.map(|offset| offset.0)).collect()),
        _ => None,
    }
}

/// In Prometheus' text format; what is not known has no value.
fn lines(gathered: Option<&Gathered>) -> String {
    let mut text = String::new();
    for metric in LAG_METRICS {
        let _infallible = write!(text, "# HELP {0} {1}\n# TYPE {0} gauge\n", metric.name, metric.help);
        match (gathered, metric.shared_labels.is_empty()) {
            (None, _) => {}
            (Some(gathered), true) => {
                let _infallible = writeln!(text, "{} {}", metric.name, gathered.positions.left_out);
            }
            (Some(gathered), false) => gathered.write(&mut text, metric.name),
        }
        text.push('\n');
    }
    text
}

impl Gathered {
    fn write(&self, text: &mut String, name: &str) {
        for Position { group, topic, partition, offset, .. } in &self.positions.list {
            let Some(end) = self.ends.get(partition) else { continue };
            let lag = end.saturating_sub(*offset).max(0);
            let (group, topic, index) = (escaped(group), escaped(topic), partition.index);
            let _infallible =
                writeln!(text, "{name}{{group=\"{group}\",topic=\"{topic}\",partition=\"{index}\"}} {lag}");
        }
    }
}

/// A label's value, as the format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use std::thread;

    use thalweg_record::{Offset, TopicId};
    use thalweg_shards::{
        mailbox::shard_lanes,
        msg::{FoundOffset, PartitionError},
    };

    use super::*;

    fn at(group: &str, topic: u8, index: i32, owner: u16, offset: i64) -> Position {
        let partition = PartitionId { topic: TopicId([topic; 16]), index };
        Position { group: group.into(), topic: format!("t{topic}").into(), partition, owner: ShardId(owner), offset }
    }

    fn rendered(lags: &Lags) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("tokio");
        runtime.block_on(lags.render()).to_string()
    }

    /// Plays two coordinators and two shards, each for one question.
    fn play(positions: [Positions; 2], ends: [Result<i64, PartitionError>; 2]) -> Lags {
        let lags = Lags::default();
        let (groups, inboxes): (Vec<_>, Vec<_>) = (0..2).map(|_| flume::unbounded()).unzip();
        let (shards, shard_inboxes): (Vec<_>, Vec<_>) = (0..2).map(|id| shard_lanes(ShardId(id))).unzip();
        lags.connect(&shards, &groups);
        thread::spawn(move || {
            for (inbox, positions) in inboxes.into_iter().zip(positions) {
                let Ok(GroupRequest::Positions(limit, reply)) = inbox.recv() else { panic!("asked for positions") };
                assert_eq!(limit, SERIES / 2);
                reply.send(positions).expect("awaited");
            }
            for (inbox, end) in shard_inboxes.into_iter().zip(ends) {
                let Ok(Request::Offsets(asked)) = inbox.data.recv() else { panic!("asked for ends") };
                let found = |offset| FoundOffset { offset: Some(Offset(offset)), timestamp: None, leader_epoch: None };
                let answers = asked.parts.iter().map(|_| end.clone().map(found)).collect();
                asked.reply.send(Reply::Offsets(answers));
            }
        });
        lags
    }

    #[test]
    fn lag_is_end_minus_committed_and_never_negative() {
        let first =
            Positions { list: vec![at("a", 1, 0, 0, 4), at("a", 1, 1, 1, 90), at("b\"\n", 1, 0, 0, 10)], left_out: 2 };
        let second = Positions { list: vec![at("c", 1, 1, 1, 70)], left_out: 3 };
        let text = rendered(&play([first, second], [Ok(10), Ok(80)]));
        for line in [
            r#"thalweg_group_lag_records{group="a",topic="t1",partition="0"} 6"#,
            r#"thalweg_group_lag_records{group="a",topic="t1",partition="1"} 0"#,
            r#"thalweg_group_lag_records{group="b\"\n",topic="t1",partition="0"} 0"#,
            r#"thalweg_group_lag_records{group="c",topic="t1",partition="1"} 10"#,
            "thalweg_group_lag_left_out 5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_partition_that_is_gone_has_no_lag() {
        let list = || Positions { list: vec![at("a", 1, 0, 0, 4), at("a", 1, 1, 1, 5)], left_out: 0 };
        let text = rendered(&play([list(), Positions::default()], [Err(PartitionError::Moved(3)), Ok(8)]));
        let series: Vec<&str> = text.lines().filter(|l| l.starts_with("thalweg_group_lag_records{")).collect();
        assert_eq!(series, [r#"thalweg_group_lag_records{group="a",topic="t1",partition="1"} 3"#]);
    }

    #[test]
    fn whoever_asks_soon_gets_the_same_and_without_shards_there_is_none() {
        let lags = play([Positions::default(), Positions::default()], [Ok(1), Ok(1)]);
        let first = rendered(&lags);
        assert!(first.contains("\nthalweg_group_lag_left_out 0\n"), "{first}");
        assert_eq!(rendered(&lags), first, "nobody answers a second time");
        let none = rendered(&Lags::default());
        assert!(none.contains("# TYPE thalweg_group_lag_records gauge\n") && !none.contains("left_out 0"), "{none}");
    }
}
