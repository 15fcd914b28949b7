import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.TimestampType;

/**
 * Records whose every field follows from a number, so that what was read can be compared with what was meant. Sizes run
 * from nothing to 900,000 bytes, about 1.2 KB on average.
 */
final class Records {
    static final int LARGEST_VALUE = 900_000;
    /** An hour ago: neither too old to be kept nor too new to be taken. */
    static final long EPOCH_MS = System.currentTimeMillis() - 3_600_000;

    private static final byte[] POOL = pool();
    private static final String[] NAMES = {"trace", "source", "a", "a", "Ünïcode", ""};
    private static final byte[][] VALUES = {{}, {'1'}, null, {0, -1}, new byte[300]};

    private Records() {}

    private static byte[] pool() {
        // Half words, which compress, half random bytes, which do not.
        Random chance = new Random(1);
        byte[] pool = new byte[2 << 20];
        chance.nextBytes(pool);
        byte[][] words = new byte[500][];
        for (int n = 0; n < words.length; n++) {
            words[n] = new byte[3 + n % 9];
            for (int i = 0; i + 1 < words[n].length; i++) words[n][i] = (byte) ('a' + chance.nextInt(26));
            words[n][words[n].length - 1] = ' ';
        }
        for (int at = 0; at < pool.length / 2; ) {
            byte[] word = words[chance.nextInt(words.length)];
            System.arraycopy(word, 0, pool, at, word.length);
            at += word.length;
        }
        return pool;
    }

    static ProducerRecord<byte[], byte[]> record(String topic, int number) {
        Random chance = new Random(number * 0x9E3779B97F4A7C15L);
        int length = length(chance, number);
        int at = chance.nextInt(POOL.length - length);
        byte[] value = chance.nextDouble() < 0.05 ? null : Arrays.copyOfRange(POOL, at, at + length);
        double sort = chance.nextDouble();
        byte[] key = sort < 0.2 ? null : sort < 0.25 ? new byte[0] : ("key-" + number % 1000).getBytes(StandardCharsets.UTF_8);
        return new ProducerRecord<>(topic, null, EPOCH_MS + number / 3, key, value, headers(chance));
    }

    private static int length(Random chance, int number) {
        if (number % 5_000 == 7) return LARGEST_VALUE;
        if (number % 100 == 3) return 0;
        double kind = chance.nextDouble();
        if (kind < 0.70) return chance.nextInt(200);
        if (kind < 0.98) return 200 + chance.nextInt(2_800);
        if (kind < 0.9994) return 3_000 + chance.nextInt(17_000);
        return 20_000 + chance.nextInt(LARGEST_VALUE - 20_000);
    }

    private static List<Header> headers(Random chance) {
        List<Header> headers = new ArrayList<>();
        if (chance.nextDouble() < 0.6) return headers;
        int count = 1 + chance.nextInt(4);
        for (int n = 0; n < count; n++) {
            headers.add(new RecordHeader(NAMES[chance.nextInt(NAMES.length)], VALUES[chance.nextInt(VALUES.length)]));
        }
        return headers;
    }

    /** Fails unless every field of `read` is as record `number` was sent. */
    static void check(ConsumerRecord<byte[], byte[]> read, int number) {
        ProducerRecord<byte[], byte[]> sent = record(read.topic(), number);
        String where = "record " + number + " at " + read.topic() + "-" + read.partition() + "/" + read.offset();
        Checks.require(Arrays.equals(read.key(), sent.key()), where + ": key");
        Checks.require(Arrays.equals(read.value(), sent.value()), where + ": value");
        Checks.require(Arrays.equals(read.headers().toArray(), sent.headers().toArray()), where + ": headers");
        Checks.require(read.timestamp() == sent.timestamp(), where + ": timestamp");
        Checks.require(read.timestampType() == TimestampType.CREATE_TIME, where + ": timestamp type");
    }
}
