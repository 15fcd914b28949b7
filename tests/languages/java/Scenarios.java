import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Apache Kafka's own client: `Scenarios SCENARIO BOOTSTRAP PREFIX EPOCH_MS CODECS`; prints what it saw as one line of JSON. */
public final class Scenarios {
    private final String bootstrap;
    private final String prefix;
    private final long epochMs;
    private final List<String> codecs;

    private Scenarios(String[] arguments) {
        bootstrap = arguments[1];
        prefix = arguments[2];
        epochMs = Long.parseLong(arguments[3]);
        codecs = List.of(arguments[4].split(","));
    }

    public static void main(String[] arguments) throws Exception {
        Scenarios scenarios = new Scenarios(arguments);
        Map<String, Object> saw =
                switch (arguments[0]) {
                    case "admin" -> scenarios.admin();
                    case "codecs" -> scenarios.codecs();
                    case "idempotence" -> scenarios.idempotence();
                    case "rebalance" -> scenarios.rebalance();
                    case "seek-by-time" -> scenarios.seekByTime();
                    case "commit-resume" -> scenarios.commitResume();
                    case "large-messages" -> scenarios.largeMessages();
                    case "headers" -> scenarios.headers();
                    case "tombstones" -> scenarios.tombstones();
                    default -> throw new IllegalArgumentException(arguments[0]);
                };
        System.out.println(Sample.json(saw));
    }

    private static void require(boolean holds, String what) {
        if (!holds) throw new AssertionError(what);
    }

    private Properties properties(Object... more) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        for (int n = 0; n < more.length; n += 2) properties.put(more[n], more[n + 1].toString());
        return properties;
    }

    private KafkaProducer<byte[], byte[]> producer(Object... more) {
        Properties properties = properties("max.request.size", 8_000_000, "linger.ms", 5, "enable.idempotence", false);
        properties.putAll(properties(more));
        return new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer());
    }

    private KafkaConsumer<byte[], byte[]> consumer(String group, Object... more) {
        Properties properties = properties("auto.offset.reset", "earliest", "enable.auto.commit", false);
        if (group != null) properties.putAll(properties("group.id", group, "session.timeout.ms", 10_000, "heartbeat.interval.ms", 200));
        properties.putAll(properties(more));
        return new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static int code(Throwable error) {
        Errors known = Errors.forException(error instanceof ExecutionException ? error.getCause() : error);
        require(known != Errors.UNKNOWN_SERVER_ERROR, String.valueOf(error));
        return known.code();
    }

    /** The error code that a call ends with; 0: none. */
    private static int refused(Callable<KafkaFuture<?>> call) throws Exception {
        try {
            call.call().get();
            return 0;
        } catch (ExecutionException error) {
            return code(error);
        }
    }

    /** Sends in order; for each record its offset, or the error code. */
    private static List<Long> send(KafkaProducer<byte[], byte[]> producer, List<ProducerRecord<byte[], byte[]>> records) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (var record : records) sent.add(producer.send(record));
        producer.flush();
        List<Long> answers = new ArrayList<>();
        for (var future : sent) {
            try {
                answers.add(future.get().offset());
            } catch (ExecutionException error) {
                answers.add((long) code(error));
            }
        }
        return answers;
    }

    private List<ProducerRecord<byte[], byte[]>> samples(String topic, int count, int partitions) {
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int n = 0; n < count; n++) {
            records.add(new ProducerRecord<>(
                    topic, n % partitions, epochMs + 10L * n, Sample.key(n), Sample.value(n), Sample.headers(n)));
        }
        return records;
    }

    private static List<ProducerRecord<byte[], byte[]>> numbered(String topic, String letter, int first, int count, int partitions) {
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int n = first; n < first + count; n++) {
            records.add(new ProducerRecord<>(topic, n % partitions, null, null, Sample.bytes(letter + n)));
        }
        return records;
    }

    private static List<ConsumerRecord<byte[], byte[]>> receive(KafkaConsumer<byte[], byte[]> consumer, int count) {
        List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
        long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
        while (records.size() < count) {
            require(System.nanoTime() < deadline, records.size() + " of " + count + " came");
            consumer.poll(Duration.ofMillis(500)).forEach(records::add);
        }
        return records;
    }

    private List<List<Object>> readAll(String topic, int partitions, Object... more) {
        List<TopicPartition> all = new ArrayList<>();
        for (int p = 0; p < partitions; p++) all.add(new TopicPartition(topic, p));
        try (var consumer = consumer(null, more)) {
            consumer.assign(all);
            consumer.seekToBeginning(all);
            int total = (int) consumer.endOffsets(all).values().stream().mapToLong(end -> end).sum();
            List<List<Object>> seen = new ArrayList<>();
            for (var r : receive(consumer, total)) {
                seen.add(Sample.seen(r.partition(), r.offset(), r.timestamp(), r.key(), r.value(), r.headers().toArray()));
            }
            return Sample.inOrder(seen);
        }
    }

    /** What `look` gives as soon as it is `wanted`, or after 10 s. */
    private static Object until(Object wanted, Callable<Object> look) throws Exception {
        long deadline = System.nanoTime() + Duration.ofSeconds(10).toNanos();
        while (true) {
            Object found = look.call();
            if (found.equals(wanted) || System.nanoTime() > deadline) return found;
            Thread.sleep(50);
        }
    }

    private Map<String, Object> admin() throws Exception {
        String topic = prefix + "-admin";
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        Map<String, Object> saw = new LinkedHashMap<>();
        try (Admin client = Admin.create(properties())) {
            Callable<Object> partitions = () -> client.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size();
            Callable<Object> retention = () -> client.describeConfigs(List.of(resource)).all().get().get(resource).get("retention.ms").value();
            Callable<Object> listed = () -> client.listTopics().names().get().contains(topic);
            saw.put("created", refused(() -> create(client, topic, "1234567")));
            saw.put("again", refused(() -> create(client, topic, "1")));
            saw.put("bad name", refused(() -> create(client, "no spaces", "1")));
            saw.put("bad config", refused(() -> create(client, topic + "-bad", "soon")));
            saw.put("partitions", until(3, () -> refused(() -> client.describeTopics(List.of(topic)).allTopicNames()) == 0 ? partitions.call() : 0));
            saw.put("retention", retention.call());
            client.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all().get();
            saw.put("grown", until(5, partitions));
            saw.put("shrunk", refused(() -> client.createPartitions(Map.of(topic, NewPartitions.increaseTo(2))).all()));
            alter(client, resource, "7654321").get();
            saw.put("altered", until("7654321", retention));
            saw.put("badly altered", refused(() -> alter(client, resource, "soon")));
            saw.put("listed", until(true, listed));
            saw.put("brokers", client.describeCluster().nodes().get().size());
            saw.put("cluster id", client.describeCluster().clusterId().get().length());
            client.deleteTopics(List.of(topic)).all().get();
            saw.put("listed after deletion", until(false, listed));
            saw.put("deleted again", refused(() -> client.deleteTopics(List.of(topic)).all()));
        }
        return saw;
    }

    private static KafkaFuture<?> create(Admin client, String topic, String retention) {
        NewTopic wanted = new NewTopic(topic, Optional.of(3), Optional.empty()).configs(Map.of("retention.ms", retention));
        return client.createTopics(List.of(wanted)).all();
    }

    private static KafkaFuture<?> alter(Admin client, ConfigResource resource, String retention) {
        AlterConfigOp operation = new AlterConfigOp(new ConfigEntry("retention.ms", retention), AlterConfigOp.OpType.SET);
        return client.incrementalAlterConfigs(Map.of(resource, List.of(operation))).all();
    }

    private Map<String, Object> codecs() throws Exception {
        Map<String, Object> read = new LinkedHashMap<>();
        for (String codec : codecs) {
            String topic = prefix + "-codecs-" + codec;
            try (var producer = producer("compression.type", codec)) {
                send(producer, samples(topic, 300, 3));
            }
            read.put(codec, readAll(topic, 3));
        }
        return Map.of("read", read);
    }

    private Map<String, Object> idempotence() throws Exception {
        List<List<Long>> placed = List.of(new ArrayList<>(), new ArrayList<>(), new ArrayList<>());
        try (var producer = producer("enable.idempotence", true, "batch.size", 200, "linger.ms", 0)) {
            List<Long> answers = send(producer, numbered(prefix + "-idempotence", "v", 0, 3_000, 3));
            for (int n = 0; n < answers.size(); n++) placed.get(n % 3).add(answers.get(n));
        }
        return Map.of("placed", placed);
    }

    private static List<Integer> settle(List<KafkaConsumer<byte[], byte[]>> members, Set<String> values) {
        long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
        while (true) {
            Set<TopicPartition> owned = new HashSet<>();
            List<Integer> sizes = new ArrayList<>();
            for (var member : members) {
                for (var record : member.poll(Duration.ofMillis(50))) values.add(new String(record.value()));
                owned.addAll(member.assignment());
                sizes.add(member.assignment().size());
            }
            Collections.sort(sizes);
            if (owned.size() == 6 && sizes.stream().mapToInt(n -> n).sum() == 6 && sizes.get(0) > 0) return sizes;
            require(System.nanoTime() < deadline, "not settled: " + sizes);
        }
    }

    private Map<String, Object> rebalance() throws Exception {
        String topic = prefix + "-rebalance";
        List<KafkaConsumer<byte[], byte[]>> members = new ArrayList<>();
        List<List<Integer>> steps = new ArrayList<>();
        Set<String> values = new HashSet<>();
        try (var sender = producer()) {
            for (int n = 0; n < 5; n++) {
                if (n < 3) {
                    // One assignor, so that all of them revoke everything and none keeps what it had.
                    members.add(consumer(topic, "partition.assignment.strategy", "org.apache.kafka.clients.consumer.RangeAssignor"));
                    members.get(n).subscribe(List.of(topic));
                } else {
                    members.remove(0).close();
                }
                steps.add(settle(members, values));
                send(sender, numbered(topic, "r", 120 * n, 120, 6));
                long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
                while (values.size() < 120 * (n + 1)) {
                    require(System.nanoTime() < deadline, values.size() + " came");
                    settle(members, values);
                }
            }
        }
        members.remove(0).close();
        return Map.of("steps", steps, "seen", values.size());
    }

    private Map<String, Object> seekByTime() throws Exception {
        String topic = prefix + "-seek-by-time";
        TopicPartition partition = new TopicPartition(topic, 0);
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int n = 0; n < 600; n++) records.add(new ProducerRecord<>(topic, 0, epochMs + 10L * (n / 3), null, Sample.bytes("t" + n)));
        try (var producer = producer()) {
            send(producer, records);
        }
        try (var consumer = consumer(null)) {
            List<Long> offsets = new ArrayList<>();
            for (long asked : Sample.askedTimes(epochMs)) {
                OffsetAndTimestamp found = consumer.offsetsForTimes(Map.of(partition, asked)).get(partition);
                offsets.add(found == null ? null : found.offset());
            }
            consumer.assign(List.of(partition));
            consumer.seek(partition, offsets.get(4));
            String first = new String(receive(consumer, 1).get(0).value());
            List<Long> ends = Arrays.asList(
                    consumer.beginningOffsets(Set.of(partition)).get(partition), consumer.endOffsets(Set.of(partition)).get(partition));
            return Map.of("offsets", offsets, "first", first, "ends", ends);
        }
    }

    private Map<String, Object> commitResume() throws Exception {
        String topic = prefix + "-commit-resume";
        TopicPartition partition = new TopicPartition(topic, 0);
        try (var producer = producer()) {
            send(producer, numbered(topic, "c", 0, 300, 1));
        }
        try (var one = consumer(topic, "max.poll.records", 100)) {
            one.subscribe(List.of(topic));
            receive(one, 100);
            one.commitSync(Map.of(partition, new OffsetAndMetadata(100, "one hundred")));
        }
        Map<String, Object> saw = new HashMap<>();
        try (var two = consumer(topic)) {
            OffsetAndMetadata committed = two.committed(Set.of(partition)).get(partition);
            saw.put("committed", committed.offset());
            saw.put("metadata", committed.metadata());
            two.subscribe(List.of(topic));
            var records = receive(two, 200);
            saw.put("resumed at", records.get(0).offset());
            saw.put("read", records.size());
            two.commitSync();
            saw.put("committed at the end", two.committed(Set.of(partition)).get(partition).offset());
        }
        return saw;
    }

    private Map<String, Object> largeMessages() throws Exception {
        String topic = prefix + "-large-messages";
        for (String codec : List.of("none", "gzip")) {
            try (var producer = producer("compression.type", codec)) {
                for (int n = 0; n < 2; n++) {
                    send(producer, List.of(new ProducerRecord<>(topic, 0, epochMs + n, Sample.bytes("large"), Sample.noise(n, 3_000_000))));
                }
            }
        }
        List<List<Object>> records = readAll(topic, 1, "max.partition.fetch.bytes", 100_000);
        try (var producer = producer()) {
            long answer = send(producer, List.of(new ProducerRecord<>(topic + "-small", 0, null, Sample.noise(2, 200_000)))).get(0);
            return Map.of("records", records, "refused", answer);
        }
    }

    private Map<String, Object> headers() throws Exception {
        String topic = prefix + "-headers";
        try (var producer = producer()) {
            send(producer, samples(topic, 100, 1));
        }
        Map<String, Object> reference = new LinkedHashMap<>();
        for (String codec : codecs) reference.put(codec, readAll("reference-" + codec, 1));
        return Map.of("own", readAll(topic, 1), "reference", reference);
    }

    private Map<String, Object> tombstones() throws Exception {
        String topic = prefix + "-tombstones";
        byte[][] values = {null, {}, {'x'}};
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int n = 0; n < 30; n++) records.add(new ProducerRecord<>(topic, 0, epochMs + n, Sample.bytes("k" + n), values[n % 3]));
        try (var producer = producer()) {
            send(producer, records);
            long answer = send(producer, List.of(new ProducerRecord<>(topic, 0, null, Sample.bytes("x")))).get(0);
            return Map.of("records", readAll(topic, 1), "refused", answer);
        }
    }
}
