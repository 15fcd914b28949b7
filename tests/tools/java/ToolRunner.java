import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Base64;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs the `main` of Kafka's tools one after the other, because starting a JVM for each costs more than all the rest.
 * Each line of the input is a class, its standard input and its arguments, in base64, separated by tabs. The answer is a line
 * "EXIT-CODE OUT-BYTES ERR-BYTES" and then what the tool wrote.
 */
public final class ToolRunner {
    private ToolRunner() {}

    /** A stream that writes to wherever it is told at the moment; tools keep `System.out` from before. */
    private static final class Switch extends OutputStream {
        private volatile OutputStream target = OutputStream.nullOutputStream();

        @Override
        public void write(int b) throws IOException {
            target.write(b);
        }

        @Override
        public void write(byte[] bytes, int from, int count) throws IOException {
            target.write(bytes, from, count);
        }
    }

    private static final class Exited extends Error {
        private static final long serialVersionUID = 1;
    }

    /** The first exit counts, as it does in a process of its own. */
    private static Integer exitCode;

    public static void main(String[] arguments) throws Exception {
        PrintStream answers = System.out;
        Switch out = new Switch();
        Switch err = new Switch();
        System.setOut(new PrintStream(out, true, StandardCharsets.UTF_8));
        System.setErr(new PrintStream(err, true, StandardCharsets.UTF_8));
        Exit.Procedure exit = (code, message) -> {
            if (exitCode == null) exitCode = code;
            throw new Exited();
        };
        Exit.setExitProcedure(exit);
        Exit.setHaltProcedure(exit);
        Exit.setShutdownHookAdder((name, runnable) -> {});
        BufferedReader requests = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = requests.readLine(); line != null; line = requests.readLine()) {
            byte[][] parts = Arrays.stream(line.split("\t", -1)).map(Base64.getDecoder()::decode).toArray(byte[][]::new);
            ByteArrayOutputStream said = new ByteArrayOutputStream();
            ByteArrayOutputStream complained = new ByteArrayOutputStream();
            out.target = said;
            err.target = complained;
            System.setIn(new ByteArrayInputStream(parts[1]));
            exitCode = null;
            String[] tool = Arrays.stream(parts, 2, parts.length).map(part -> new String(part, StandardCharsets.UTF_8)).toArray(String[]::new);
            int code = run(new String(parts[0], StandardCharsets.UTF_8), tool);
            out.target = OutputStream.nullOutputStream();
            err.target = OutputStream.nullOutputStream();
            answers.println(code + " " + said.size() + " " + complained.size());
            said.writeTo(answers);
            complained.writeTo(answers);
            answers.flush();
        }
    }

    private static int run(String tool, String[] arguments) throws ReflectiveOperationException {
        try {
            Class.forName(tool).getMethod("main", String[].class).invoke(null, (Object) arguments);
        } catch (InvocationTargetException failed) {
            if (!(failed.getCause() instanceof Exited)) {
                System.err.print("Exception in thread \"main\" ");
                failed.getCause().printStackTrace();
                return 1;
            }
        }
        return exitCode == null ? 0 : exitCode;
    }
}
