import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Checks a broker with Apache Kafka's own Java client: `Checks BOOTSTRAP CHECK RECORDS`. Exits 0 when the check holds. */
public final class Checks {
    private static final String[] CODECS = {"none", "gzip", "snappy", "lz4", "zstd"};
    private static final int PARTITIONS = 4;
    private static final Duration POLL = Duration.ofMillis(200);

    private final String bootstrap;
    private final int records;

    private Checks(String bootstrap, int records) {
        this.bootstrap = bootstrap;
        this.records = records;
    }

    public static void main(String[] arguments) throws Exception {
        Checks checks = new Checks(arguments[0], Integer.parseInt(arguments[2]));
        switch (arguments[1]) {
            case "round-trip" -> checks.roundTrip();
            case "split" -> checks.batchesTooLargeAreSplit();
            case "times" -> checks.times();
            case "resume" -> checks.commitAndResume();
            case "admin" -> checks.administration();
            case "rebalance" -> checks.rebalance();
            case "fresh-topics" -> checks.freshTopics();
            case "survive" -> checks.readOnWhileTheBrokerComesAndGoes();
            default -> throw new IllegalArgumentException(arguments[1]);
        }
        System.out.println("ok");
    }

    static void require(boolean holds, String what) {
        if (!holds) throw new AssertionError(what);
    }

    private Properties properties(String... more) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        for (int n = 0; n < more.length; n += 2) properties.put(more[n], more[n + 1]);
        return properties;
    }

    private Admin admin() {
        return Admin.create(properties());
    }

    private KafkaProducer<byte[], byte[]> producer(String... more) {
        Properties properties = properties("linger.ms", "5", "delivery.timeout.ms", "120000", "max.request.size", "1048576");
        properties.putAll(properties(more));
        return new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer());
    }

    private KafkaConsumer<byte[], byte[]> consumer(String group, String... more) {
        Properties properties = properties("auto.offset.reset", "earliest", "enable.auto.commit", "false");
        if (group != null) properties.put("group.id", group);
        properties.putAll(properties(more));
        return new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private void create(String topic, int partitions, Map<String, String> config) throws Exception {
        try (Admin admin = admin()) {
            admin.createTopics(List.of(new NewTopic(topic, Optional.of(partitions), Optional.empty()).configs(config))).all().get();
        }
    }

    /** Where a record lies. */
    private record Place(TopicPartition partition, long offset) {}

    /** Sends records first..last of a topic and says where each came to lie. */
    private Map<Place, Integer> send(KafkaProducer<byte[], byte[]> producer, String topic, int first, int last) throws Exception {
        Map<Place, Integer> placed = new ConcurrentHashMap<>();
        AtomicReference<Exception> failure = new AtomicReference<>();
        for (int n = first; n < last; n++) {
            int number = n;
            producer.send(Records.record(topic, number), (RecordMetadata at, Exception error) -> {
                if (error != null) {
                    failure.compareAndSet(null, error);
                    return;
                }
                Integer other = placed.put(new Place(new TopicPartition(at.topic(), at.partition()), at.offset()), number);
                if (other != null) failure.compareAndSet(null, new Exception(at + " given to " + other + " and " + number));
            });
        }
        producer.flush();
        if (failure.get() != null) throw failure.get();
        require(placed.size() == last - first, placed.size() + " of " + (last - first) + " acknowledged");
        return placed;
    }

    /** Offsets start at 0, have no gap, and follow the order of sending. */
    private static void checkDense(Map<Place, Integer> placed) {
        Map<TopicPartition, TreeMap<Long, Integer>> partitions = new HashMap<>();
        placed.forEach((at, number) -> partitions.computeIfAbsent(at.partition(), p -> new TreeMap<>()).put(at.offset(), number));
        partitions.forEach((partition, entries) -> {
            require(entries.firstKey() == 0 && entries.lastKey() == entries.size() - 1, partition + " has gaps");
            int last = -1;
            for (int number : entries.values()) {
                require(number > last, partition + " is out of order");
                last = number;
            }
        });
    }

    private void roundTrip() throws Exception {
        int each = records / CODECS.length;
        Map<Place, Integer> all = new HashMap<>();
        List<String> topics = new ArrayList<>();
        for (int c = 0; c < CODECS.length; c++) {
            String topic = "java-" + CODECS[c];
            topics.add(topic);
            create(topic, PARTITIONS, Map.of());
            try (KafkaProducer<byte[], byte[]> producer = producer("compression.type", CODECS[c])) {
                Map<Place, Integer> placed = send(producer, topic, c * each, (c + 1) * each);
                checkDense(placed);
                all.putAll(placed);
            }
        }
        System.out.println("sent " + all.size());
        readWithoutGroup(topics, new HashMap<>(all));
        System.out.println("read without a group");
        readInGroup(topics, new HashMap<>(all));
        System.out.println("read in a group");
    }

    private void readWithoutGroup(List<String> topics, Map<Place, Integer> expected) {
        List<TopicPartition> partitions = new ArrayList<>();
        for (String topic : topics) for (int p = 0; p < PARTITIONS; p++) partitions.add(new TopicPartition(topic, p));
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(null, "isolation.level", "read_committed")) {
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> next = new HashMap<>();
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(180);
            while (!expected.isEmpty()) {
                require(System.nanoTime() < deadline, expected.size() + " records did not come");
                for (ConsumerRecord<byte[], byte[]> read : consumer.poll(POLL)) {
                    TopicPartition partition = new TopicPartition(read.topic(), read.partition());
                    require(read.offset() == next.getOrDefault(partition, 0L), "out of order at " + read.offset());
                    next.put(partition, read.offset() + 1);
                    Integer number = expected.remove(new Place(partition, read.offset()));
                    require(number != null, "nobody sent " + read);
                    Records.check(read, number);
                }
            }
            next.forEach((partition, end) -> require(consumer.position(partition) == end, "position of " + partition));
        }
    }

    private void readInGroup(List<String> topics, Map<Place, Integer> expected) {
        List<KafkaConsumer<byte[], byte[]>> members = List.of(member("java-group"), member("java-group"));
        members.forEach(member -> member.subscribe(topics));
        Map<Place, Integer> left = new HashMap<>(expected);
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(180);
        while (!left.isEmpty()) {
            require(System.nanoTime() < deadline, left.size() + " records did not come to the group");
            for (KafkaConsumer<byte[], byte[]> member : members) {
                for (ConsumerRecord<byte[], byte[]> read : member.poll(POLL)) {
                    Place at = new Place(new TopicPartition(read.topic(), read.partition()), read.offset());
                    require(expected.containsKey(at), "nobody sent " + read);
                    Records.check(read, expected.get(at));
                    left.remove(at);
                }
                member.commitSync();
            }
        }
        members.forEach(KafkaConsumer::close);
    }

    private KafkaConsumer<byte[], byte[]> member(String group) {
        return consumer(group, "group.protocol", "classic", "session.timeout.ms", "10000", "heartbeat.interval.ms", "500");
    }

    private void batchesTooLargeAreSplit() throws Exception {
        create("java-split", 1, Map.of("max.message.bytes", "50000"));
        try (KafkaProducer<byte[], byte[]> producer = producer("batch.size", "900000", "linger.ms", "500")) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int n = 0; n < 60; n++) sent.add(producer.send(new ProducerRecord<>("java-split", null, new byte[10_000])));
            producer.flush();
            for (int n = 0; n < sent.size(); n++) require(sent.get(n).get().offset() == n, "record " + n);
            try {
                producer.send(new ProducerRecord<>("java-split", new byte[100_000])).get();
                throw new AssertionError("a record larger than the topic allows was taken");
            } catch (ExecutionException refused) {
                require(refused.getCause().getClass().getSimpleName().equals("RecordTooLargeException"), refused.toString());
            }
        }
    }

    /**
     * Reads topic "t", each of whose records is the number of its offset, and says how far it has come in which partition, while somebody else
     * produces them, ends the broker and moves partitions now and then. There is no policy for a lost offset: a reset, or a log that seems
     * truncated, is an exception. What follows a number is of no matter, but for the word that it is the partition's last.
     */
    private void readOnWhileTheBrokerComesAndGoes() {
        Map<TopicPartition, Long> next = new HashMap<>();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(null, "auto.offset.reset", "none", "metadata.max.age.ms", "500")) {
            consumer.partitionsFor("t").forEach(found -> next.put(new TopicPartition("t", found.partition()), 0L));
            consumer.assign(next.keySet());
            next.forEach(consumer::seek);
            for (int reading = next.size(); reading > 0; ) {
                ConsumerRecords<byte[], byte[]> some = consumer.poll(POLL);
                for (TopicPartition partition : some.partitions()) {
                    for (ConsumerRecord<byte[], byte[]> record : some.records(partition)) {
                        long expected = next.get(partition);
                        require(record.offset() == expected, partition + ": " + record.offset() + " came in place of " + expected);
                        String[] words = new String(record.value()).split(" ");
                        require(words[0].equals(Long.toString(expected)), partition + ": offset " + expected + " holds another record");
                        next.put(partition, expected + 1);
                        if (words.length > 1 && words[1].equals("last")) reading--;
                    }
                    System.out.println("at " + partition.partition() + " " + next.get(partition));
                }
            }
        }
    }

    private void times() throws Exception {
        String topic = "java-times";
        create(topic, 1, Map.of());
        TopicPartition partition = new TopicPartition(topic, 0);
        long[] times = new long[1_000];
        try (KafkaProducer<byte[], byte[]> producer = producer("batch.size", "1000")) {
            for (int n = 0; n < times.length; n++) {
                times[n] = Records.EPOCH_MS + 10L * (n * 7 % 1_000);
                producer.send(new ProducerRecord<>(topic, null, times[n], null, new byte[20]));
            }
        }
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(null); Admin admin = admin()) {
            for (long asked : new long[] {0, times[0] + 1, times[0] + 5_000, times[0] + 9_990}) {
                var found = consumer.offsetsForTimes(Map.of(partition, asked)).get(partition);
                int first = 0;
                while (times[first] < asked) first++;
                require(found.offset() == first && found.timestamp() == times[first], asked + " gave " + found + ", not " + first);
            }
            require(consumer.offsetsForTimes(Map.of(partition, times[0] + 9_991)).get(partition) == null, "after the end");
            require(consumer.beginningOffsets(Set.of(partition)).get(partition) == 0, "beginning");
            require(consumer.endOffsets(Set.of(partition)).get(partition) == times.length, "end");
            var newest = admin.listOffsets(Map.of(partition, OffsetSpec.maxTimestamp())).partitionResult(partition).get();
            int largest = 0;
            for (int n = 0; n < times.length; n++) if (times[n] > times[largest]) largest = n;
            require(newest.offset() == largest && newest.timestamp() == times[largest], "max timestamp: " + newest);
            require(admin.listOffsets(Map.of(partition, OffsetSpec.earliestLocal())).partitionResult(partition).get().offset() == 0, "local");
        }
    }

    private void commitAndResume() throws Exception {
        String topic = "java-resume";
        create(topic, 1, Map.of());
        TopicPartition partition = new TopicPartition(topic, 0);
        try (KafkaProducer<byte[], byte[]> producer = producer()) {
            send(producer, topic, 0, 1_000);
        }
        try (KafkaConsumer<byte[], byte[]> first = member("java-resume")) {
            first.subscribe(List.of(topic));
            while (first.assignment().isEmpty()) first.poll(POLL);
            first.commitSync(Map.of(partition, new OffsetAndMetadata(400, Optional.of(0), "four hundred")));
        }
        try (KafkaConsumer<byte[], byte[]> second = member("java-resume")) {
            OffsetAndMetadata committed = second.committed(Set.of(partition)).get(partition);
            require(committed.offset() == 400 && committed.metadata().equals("four hundred"), committed.toString());
            require(committed.leaderEpoch().equals(Optional.of(0)), "leader epoch " + committed.leaderEpoch());
            second.subscribe(List.of(topic));
            long next = 400;
            while (next < 1_000) {
                for (ConsumerRecord<byte[], byte[]> read : second.poll(POLL)) require(read.offset() == next++, "at " + next);
            }
        }
    }

    private void administration() throws Exception {
        String topic = "java-admin";
        create(topic, 3, Map.of("retention.ms", "1234567"));
        try (Admin admin = admin()) {
            TopicDescription described = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
            require(described.partitions().size() == 3 && !described.isInternal(), described.toString());
            require(described.partitions().get(0).isr().size() == 1, "isr");
            require(admin.listTopics().names().get().contains(topic), "listTopics");
            require(admin.describeTopics(org.apache.kafka.common.TopicCollection.ofTopicIds(List.of(described.topicId())))
                    .allTopicIds().get().get(described.topicId()).name().equals(topic), "by id");
            var cluster = admin.describeCluster();
            require(cluster.nodes().get().size() == 1 && cluster.clusterId().get().length() == 22, "cluster");
            ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
            var config = admin.describeConfigs(List.of(resource)).all().get().get(resource);
            require(config.get("retention.ms").value().equals("1234567") && !config.get("retention.ms").isDefault(), "config");
            require(config.get("segment.bytes") == null || config.get("segment.bytes").isDefault(), "default config");
            String node = cluster.controller().get().idString();
            ConfigResource broker = new ConfigResource(ConfigResource.Type.BROKER, node);
            require(!admin.describeConfigs(List.of(broker)).all().get().get(broker).entries().isEmpty(), "broker config");
            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all().get();
            require(admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size() == 5, "partitions");
            try {
                admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all().get();
                throw new AssertionError("created twice");
            } catch (ExecutionException refused) {
                require(refused.getCause() instanceof TopicExistsException, refused.toString());
            }
            admin.deleteTopics(List.of(topic)).all().get();
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
            while (admin.listTopics().names().get().contains(topic)) require(System.nanoTime() < deadline, "still there");
            try {
                admin.describeTopics(List.of(topic)).allTopicNames().get();
                throw new AssertionError("described after deletion");
            } catch (ExecutionException refused) {
                require(refused.getCause() instanceof UnknownTopicOrPartitionException, refused.toString());
            }
        }
    }

    private void rebalance() throws Exception {
        String topic = "java-rebalance";
        create(topic, 12, Map.of());
        String assignor = "org.apache.kafka.clients.consumer.CooperativeStickyAssignor";
        List<KafkaConsumer<byte[], byte[]>> members = new ArrayList<>();
        for (int n = 0; n < 4; n++) {
            members.add(consumer("java-rebalance", "group.protocol", "classic", "partition.assignment.strategy", assignor,
                    "session.timeout.ms", "10000", "heartbeat.interval.ms", "200"));
            members.get(n).subscribe(List.of(topic));
            settle(members, 12);
        }
        while (members.size() > 1) {
            members.remove(0).close();
            settle(members, 12);
        }
        try (Admin admin = admin()) {
            var group = admin.describeConsumerGroups(List.of("java-rebalance")).all().get().get("java-rebalance");
            require(group.members().size() == 1, group.toString());
        }
        members.remove(0).close();
        try (Admin admin = admin()) {
            admin.deleteConsumerGroups(List.of("java-rebalance")).all().get();
        }
    }

    /** Polls all members until they own all partitions together, each of them some, none twice. */
    private static void settle(Collection<KafkaConsumer<byte[], byte[]>> members, int partitions) {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
        while (true) {
            int owned = 0;
            boolean all = true;
            Set<String> different = new TreeSet<>();
            for (KafkaConsumer<byte[], byte[]> member : members) {
                member.poll(Duration.ofMillis(50));
                Set<TopicPartition> assignment = member.assignment();
                owned += assignment.size();
                all &= !assignment.isEmpty();
                assignment.forEach(partition -> different.add(partition.toString()));
            }
            if (all && owned == partitions && different.size() == partitions) return;
            require(System.nanoTime() < deadline, "the group did not settle: " + owned + " of " + partitions);
        }
    }

    /** A new topic is served at once on another connection: no retry is allowed. */
    private void freshTopics() throws Exception {
        try (Admin admin = admin();
                KafkaProducer<byte[], byte[]> producer = producer("retries", "0", "enable.idempotence", "false", "linger.ms", "0")) {
            for (int n = 0; n < 100; n++) {
                String topic = "java-fresh-" + n;
                admin.createTopics(List.of(new NewTopic(topic, 2, (short) 1))).all().get();
                RecordMetadata at = producer.send(new ProducerRecord<>(topic, n % 2, null, "x".getBytes(StandardCharsets.UTF_8))).get();
                require(at.offset() == 0, "offset " + at.offset());
            }
        }
    }
}
