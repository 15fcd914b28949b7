import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Comparator;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;

/** The records that every program of tests/languages sends, and how it says what it read; see python/sample.py. */
final class Sample {
    private Sample() {}

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static byte[] noise(int number, int length) {
        int state = number * (int) 2654435761L;
        byte[] block = new byte[Math.min(length, 65_536)];
        for (int at = 0; at < block.length; at++) {
            state = state * 1664525 + 1013904223;
            block[at] = (byte) (number % 2 == 0 ? state >>> 24 : 97 + (state >>> 24) % 4);
        }
        byte[] all = new byte[length];
        for (int at = 0; at < length; at++) all[at] = block[at % block.length];
        return all;
    }

    static byte[] key(int number) {
        return switch (number % 5) {
            case 0 -> null;
            case 1 -> new byte[0];
            default -> bytes("key-" + number % 97);
        };
    }

    static byte[] value(int number) {
        if (number % 11 == 3) return new byte[0];
        return number % 13 == 4 && number % 5 != 0 ? null : noise(number, number * 37 % 1_500 + 1);
    }

    static List<Header> headers(int number) {
        return switch (number % 4) {
            case 1 -> List.of(header("n", bytes("" + number)));
            case 2 -> List.of(header("same", bytes("1")), header("same", bytes("2")), header("other", bytes("")), header("same", bytes("1")));
            case 3 -> List.of(header("Ünïcode", new byte[] {0, -1}), header("null", null), header("", bytes("unnamed")));
            default -> List.of();
        };
    }

    private static Header header(String name, byte[] value) {
        return new RecordHeader(name, value);
    }

    private static String digest(byte[] content) {
        if (content == null) return null;
        try {
            byte[] sum = MessageDigest.getInstance("SHA-256").digest(content);
            return content.length + ":" + HexFormat.of().formatHex(sum, 0, 8);
        } catch (java.security.NoSuchAlgorithmException impossible) {
            throw new IllegalStateException(impossible);
        }
    }

    /** A record as a program prints it. */
    static List<Object> seen(int partition, long offset, long timestamp, byte[] key, byte[] value, Header[] headers) {
        List<Object> listed = new ArrayList<>();
        for (Header header : headers) listed.add(Arrays.asList(header.key(), digest(header.value())));
        return Arrays.asList(partition, offset, timestamp, digest(key), digest(value), listed);
    }

    static List<List<Object>> inOrder(List<List<Object>> seen) {
        seen.sort(Comparator.<List<Object>, Integer>comparing(r -> (Integer) r.get(0)).thenComparing(r -> (Long) r.get(1)));
        return seen;
    }

    static long[] askedTimes(long epochMs) {
        return new long[] {0, epochMs + 1, epochMs + 11, epochMs + 510, epochMs + 995, epochMs + 1990, epochMs + 1991};
    }

    /** Maps, collections, numbers, booleans and texts as JSON. */
    static String json(Object content) {
        if (content instanceof Map<?, ?> map) {
            return map.entrySet().stream().map(e -> json(e.getKey()) + ":" + json(e.getValue())).collect(Collectors.joining(",", "{", "}"));
        }
        if (content instanceof Collection<?> list) return list.stream().map(Sample::json).collect(Collectors.joining(",", "[", "]"));
        return content instanceof String ? "\"" + content + "\"" : String.valueOf(content);
    }
}
