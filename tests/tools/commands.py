"""The command lines of Kafka's tools that run against both brokers, in this order, each on what the earlier ones left."""

from dataclasses import dataclass, field

TOOLS = {
    "kafka-acls": "org.apache.kafka.tools.AclCommand",
    "kafka-broker-api-versions": "org.apache.kafka.tools.BrokerApiVersionsCommand",
    "kafka-client-metrics": "org.apache.kafka.tools.ClientMetricsCommand",
    "kafka-cluster": "org.apache.kafka.tools.ClusterTool",
    "kafka-configs": "kafka.admin.ConfigCommand",
    "kafka-console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "kafka-console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "kafka-consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "kafka-consumer-perf-test": "org.apache.kafka.tools.ConsumerPerformance",
    "kafka-delegation-tokens": "org.apache.kafka.tools.DelegationTokenCommand",
    "kafka-delete-records": "org.apache.kafka.tools.DeleteRecordsCommand",
    "kafka-e2e-latency": "org.apache.kafka.tools.EndToEndLatency",
    "kafka-features": "org.apache.kafka.tools.FeatureCommand",
    "kafka-get-offsets": "org.apache.kafka.tools.GetOffsetShell",
    "kafka-groups": "org.apache.kafka.tools.GroupsCommand",
    "kafka-leader-election": "org.apache.kafka.tools.LeaderElectionCommand",
    "kafka-log-dirs": "org.apache.kafka.tools.LogDirsCommand",
    "kafka-metadata-quorum": "org.apache.kafka.tools.MetadataQuorumCommand",
    "kafka-producer-perf-test": "org.apache.kafka.tools.ProducerPerformance",
    "kafka-reassign-partitions": "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
    "kafka-streams-application-reset": "org.apache.kafka.tools.streams.StreamsResetter",
    "kafka-topics": "org.apache.kafka.tools.TopicCommand",
    "kafka-transactions": "org.apache.kafka.tools.TransactionsCommand",
    "kafka-verifiable-consumer": "org.apache.kafka.tools.VerifiableConsumer",
    "kafka-verifiable-producer": "org.apache.kafka.tools.VerifiableProducer",
}


@dataclass
class Step:
    """One command line. `{bootstrap}`, `{dir}` (a directory with `files`) and `{epoch}` are filled in."""

    line: str
    stdin: str = ""
    # Started, and left running until the step whose `stops` names this line.
    background: bool = False
    stops: str = ""
    # The command is run again until its output holds this text; Kafka's brokers learn of a change a moment later.
    until: str = ""
    # The order of the lines means nothing.
    unordered: bool = False
    # Files that the command reads: name to content.
    files: dict = field(default_factory=dict)
    # The tool ends its JVM by itself, so it gets one of its own.
    alone: bool = False
    # Lines of the output that measure: only the words count, not the numbers.
    measures: bool = False

    @property
    def name(self):
        return self.line.replace(" --bootstrap-server {bootstrap}", "").replace("{dir}/", "")


def on(tool, rest="", **more):
    """A tool that takes --bootstrap-server."""
    return Step(f"{tool} --bootstrap-server {{bootstrap}} {rest}".strip(), **more)


def topics(rest, **more):
    return on("kafka-topics", rest, **more)


def configs(rest, **more):
    return on("kafka-configs", rest, **more)


def groups(rest, **more):
    return on("kafka-consumer-groups", rest, **more)


def produce(topic, stdin, rest=""):
    return on("kafka-console-producer", f"--topic {topic} {rest}".strip(), stdin=stdin)


def consume(topic, rest):
    return on("kafka-console-consumer", f"--topic {topic} --timeout-ms 30000 {rest}", unordered=True)


EVERYTHING = " ".join(
    f"--formatter-property print.{what}=true" for what in ("key", "headers", "partition", "offset", "timestamp", "epoch", "delivery")
)
RECORDS = "".join(f"key{n % 7}\tvalue {n}\n" for n in range(100))
LIVE = "kafka-console-consumer --bootstrap-server {bootstrap} --topic words --group live --command-property client.id=c1"


def resets(rest, dry=True):
    return groups(f"--reset-offsets --group reader --topic words {rest} {'--dry-run' if dry else '--execute'}", unordered=True)


STEPS = [
    # Topics.
    topics("--create --topic words --partitions 3 --config retention.ms=3600000"),
    topics("--list", until="words"),
    topics("--create --topic words --partitions 3"),
    topics("--create --topic words --partitions 3 --if-not-exists"),
    topics("--create --topic plain --partitions 1"),
    topics("--create --topic defaults"),
    topics("--create --topic no/slash"),
    topics("--create --topic bad --config retention.ms=soon"),
    topics("--create --topic bad --config no.such.key=1"),
    topics("--create --topic bad --partitions 0"),
    topics("--create --topic placed --replica-assignment 1,1"),
    topics("--create --topic elsewhere --replica-assignment 9"),
    topics("--create --topic threefold --partitions 1 --replication-factor 3"),
    topics("--delete --topic threefold --if-exists"),
    topics("--describe --topic words", until="words"),
    topics("--describe --topic placed", until="placed"),
    topics("--describe --topic nothing"),
    topics("--describe --topic nothing --if-exists"),
    topics("--describe --topics-with-overrides", unordered=True),
    topics("--describe --under-replicated-partitions"),
    topics("--describe --unavailable-partitions"),
    topics("--describe --under-min-isr-partitions"),
    topics("--describe --at-min-isr-partitions --topic words"),
    topics("--alter --topic words --partitions 5"),
    topics("--alter --topic words --partitions 2"),
    topics("--alter --topic nothing --partitions 2"),
    topics("--alter --topic placed --partitions 4 --replica-assignment 1,1,1,1"),
    topics("--describe --topic words", until="PartitionCount: 5"),
    topics("--describe --topic placed", until="PartitionCount: 4"),
    topics("--delete --topic placed"),
    topics("--delete --topic nothing"),
    topics("--delete --topic nothing --if-exists"),
    topics("--list --exclude-internal"),
    # Settings.
    configs("--describe --entity-type topics --entity-name words"),
    configs("--describe --entity-type topics --entity-name words --all"),
    configs("--describe --entity-type topics --entity-name nothing"),
    configs("--alter --entity-type topics --entity-name words --add-config max.message.bytes=200000,cleanup.policy=[compact,delete]"),
    configs("--describe --entity-type topics --entity-name words", until="max.message.bytes=200000"),
    configs("--alter --entity-type topics --entity-name words --add-config retention.ms=soon"),
    configs("--alter --entity-type topics --entity-name words --add-config no.such.key=1"),
    configs("--alter --entity-type topics --entity-name nothing --add-config retention.ms=1"),
    configs("--alter --entity-type topics --entity-name words --delete-config max.message.bytes,cleanup.policy"),
    configs("--alter --entity-type topics --entity-name words --delete-config no.such.key"),
    configs("--describe --entity-type topics --entity-name words"),
    configs("--describe --entity-type topics"),
    configs("--describe --entity-type brokers --entity-name 1"),
    configs("--describe --entity-type brokers --entity-default"),
    configs("--describe --entity-type brokers --entity-name 9"),
    configs("--alter --entity-type brokers --entity-name 1 --add-config log.retention.ms=7200000"),
    configs("--describe --entity-type groups --entity-name reader"),
    configs("--describe --entity-type client-metrics"),
    configs("--describe --entity-type users"),
    # Records.
    produce("words", RECORDS, "--reader-property parse.key=true"),
    produce("plain", "a\nb\nNULL\n", "--reader-property null.marker=NULL"),
    produce(
        "plain",
        "h1:v1,h2:v2,h1:v3\tk\tv\nh:\t\tempty\n",
        "--reader-property parse.key=true --reader-property parse.headers=true",
    ),
    produce("plain", "gzip\n", "--compression-codec gzip"),
    produce("plain", "zstd\n", "--compression-codec zstd --request-required-acks 1 --sync"),
    produce("no/slash", "x\n"),
    consume("words", f"--from-beginning --max-messages 100 {EVERYTHING}"),
    consume("plain", f"--from-beginning --max-messages 7 {EVERYTHING}"),
    consume("words", "--partition 1 --offset 2 --max-messages 3"),
    consume("words", "--from-beginning --max-messages 100 --isolation-level read_committed"),
    consume("words", "--group reader --from-beginning --max-messages 100"),
    # Offsets.
    on("kafka-get-offsets", "--topic words"),
    on("kafka-get-offsets", "--topic words --time earliest"),
    on("kafka-get-offsets", "--topic words --time -2 --partitions 0,2"),
    on("kafka-get-offsets", "--topic plain --time max-timestamp --exclude-internal-topics"),
    on("kafka-get-offsets", "--topic words --time earliest-local"),
    on("kafka-get-offsets", "--topic words --time latest-tiered"),
    on("kafka-get-offsets", "--topic words --time 0"),
    on("kafka-get-offsets", "--topic words --time 99999999999999"),
    on("kafka-get-offsets", "--topic-partitions wo.*:0-2,plain:0"),
    on("kafka-get-offsets", "--topic nothing"),
    # Groups.
    groups("--list", unordered=True),
    groups("--list --state", unordered=True),
    groups("--list --type", unordered=True),
    groups("--list --state empty,stable", unordered=True),
    groups("--describe --group reader", unordered=True),
    groups("--describe --group reader --offsets --verbose", unordered=True),
    groups("--describe --group reader --members"),
    groups("--describe --group reader --state"),
    groups("--describe --group nobody"),
    groups("--describe --group nobody --state"),
    groups("--describe --all-groups", unordered=True),
    resets("--to-earliest"),
    resets("--to-latest"),
    resets("--to-current"),
    resets("--to-offset 3"),
    resets("--shift-by -4"),
    resets("--shift-by 1000"),
    resets("--by-duration P1D"),
    resets("--to-datetime 2020-01-01T00:00:00.000"),
    resets("--to-offset 5", dry=False),
    resets("--to-earliest", dry=False),
    groups("--describe --group reader", unordered=True),
    groups("--reset-offsets --group reader --topic words:0,1 --to-offset 4 --export --dry-run", unordered=True),
    groups(
        "--reset-offsets --group reader --from-file {dir}/offsets.csv --execute",
        files={"offsets.csv": "words,0,1\nwords,1,2\n"},
        unordered=True,
    ),
    groups("--reset-offsets --group fresh --topic words --to-latest --execute", unordered=True),
    groups("--delete-offsets --group reader --topic words:0,1"),
    groups("--delete-offsets --group reader --topic nothing"),
    groups("--describe --group reader", unordered=True),
    Step(LIVE, background=True),
    groups("--describe --group live", until="words", unordered=True),
    groups("--describe --group live --members"),
    groups("--describe --group live --members --verbose"),
    groups("--describe --group live --state"),
    groups("--list --state stable"),
    groups("--reset-offsets --group live --topic words --to-earliest --execute"),
    groups("--delete-offsets --group live --topic words"),
    groups("--delete --group live"),
    Step("", stops=LIVE),
    groups("--describe --group live --state", until="Empty"),
    groups("--delete --group live"),
    groups("--delete --group nobody"),
    groups("--delete --group fresh --group reader"),
    groups("--list", unordered=True),
    on("kafka-groups", "--list", unordered=True),
    on("kafka-groups", "--list --group-type classic", unordered=True),
    on("kafka-groups", "--list --consumer"),
    on("kafka-groups", "--list --share"),
    # Records deleted.
    on(
        "kafka-delete-records",
        "--offset-json-file {dir}/delete.json",
        files={
            "delete.json": '{"version": 1, "partitions": ['
            '{"topic": "words", "partition": 0, "offset": 5}, {"topic": "words", "partition": 1, "offset": -1}]}'
        },
        unordered=True,
    ),
    on(
        "kafka-delete-records",
        "--offset-json-file {dir}/far.json",
        files={"far.json": '{"version": 1, "partitions": [{"topic": "words", "partition": 0, "offset": 5000}]}'},
    ),
    on(
        "kafka-delete-records",
        "--offset-json-file {dir}/unknown.json",
        files={"unknown.json": '{"version": 1, "partitions": [{"topic": "nothing", "partition": 0, "offset": 1}]}'},
    ),
    on("kafka-get-offsets", "--topic words --time earliest"),
    # Load.
    on(
        "kafka-producer-perf-test",
        "--topic plain --num-records 2000 --record-size 1000 --throughput -1",
        measures=True,
    ),
    on("kafka-consumer-perf-test", "--topic plain --num-records 2000 --timeout 30000", measures=True),
    on("kafka-e2e-latency", "--topic plain --num-records 100 --producer-acks all --record-size 100", measures=True),
    on("kafka-verifiable-producer", "--topic plain --max-messages 20 --acks -1", measures=True),
    on("kafka-verifiable-consumer", "--topic plain --group-id verifiable --max-messages 20 --reset-policy earliest", measures=True),
    # The cluster.
    Step("kafka-cluster cluster-id --bootstrap-server {bootstrap}"),
    Step("kafka-cluster list-endpoints --bootstrap-server {bootstrap}"),
    Step("kafka-cluster unregister --id 9 --bootstrap-server {bootstrap}"),
    on("kafka-broker-api-versions"),
    on("kafka-features", "describe"),
    on("kafka-log-dirs", "--describe --topic-list words"),
    on("kafka-leader-election", "--election-type preferred --all-topic-partitions"),
    on("kafka-leader-election", "--election-type preferred --topic words --partition 0"),
    on(
        "kafka-reassign-partitions",
        "--generate --broker-list 1 --topics-to-move-json-file {dir}/move.json",
        files={"move.json": '{"version": 1, "topics": [{"topic": "plain"}]}'},
    ),
    on(
        "kafka-reassign-partitions",
        "--execute --reassignment-json-file {dir}/reassign.json",
        files={"reassign.json": '{"version": 1, "partitions": [{"topic": "plain", "partition": 0, "replicas": [1]}]}'},
    ),
    on(
        "kafka-reassign-partitions",
        "--verify --reassignment-json-file {dir}/verify.json",
        files={"verify.json": '{"version": 1, "partitions": [{"topic": "plain", "partition": 0, "replicas": [1]}]}'},
    ),
    on("kafka-reassign-partitions", "--list"),
    on("kafka-metadata-quorum", "describe --status"),
    on("kafka-transactions", "list"),
    on("kafka-acls", "--list"),
    on("kafka-client-metrics", "--list"),
    on("kafka-delegation-tokens", "--describe --command-config {dir}/empty.properties", files={"empty.properties": ""}),
    on("kafka-streams-application-reset", "--application-id streams --input-topics words", alone=True),
    # The last topics.
    topics("--delete --topic words"),
    topics("--list --exclude-internal"),
]
