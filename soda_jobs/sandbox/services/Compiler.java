import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.FileOutputStream;
import java.io.FileDescriptor;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.StringWriter;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import javax.tools.FileObject;
import javax.tools.ForwardingJavaFileManager;
import javax.tools.JavaCompiler;
import javax.tools.JavaFileManager;
import javax.tools.JavaFileObject;
import javax.tools.SimpleJavaFileObject;
import javax.tools.StandardLocation;
import javax.tools.ToolProvider;

/**
 * javac as a service: sources in, class files or raw diagnostics out, as soda_jobs/sandbox/service.py says. Its
 * arguments are javac's options. Whatever is not a plain answer ends the process.
 */
final class Compiler {
    private static final JavaCompiler COMPILER = ToolProvider.getSystemJavaCompiler();

    public static void main(String[] options) throws Exception {
        try (DataInputStream in = new DataInputStream(System.in);
                DataOutputStream out = new DataOutputStream(new FileOutputStream(FileDescriptor.out))) {
            System.setOut(System.err); // what javac may print itself is no part of a reply
            while (true) {
                byte[] reply = reply(in.readNBytes(in.readInt()), List.of(options));
                out.writeInt(reply.length);
                out.write(reply);
                out.flush();
            }
        } catch (Throwable odd) {
            Runtime.getRuntime().halt(1);
        }
    }

    private static byte[] reply(byte[] request, List<String> options) throws Exception {
        List<JavaFileObject> sources = new ArrayList<>();
        DataInputStream in = new DataInputStream(new java.io.ByteArrayInputStream(request));
        while (in.available() > 0) {
            String name = new String(in.readNBytes(in.readInt()), StandardCharsets.UTF_8);
            sources.add(new SourceFile(name, in.readNBytes(in.readInt())));
        }
        StringWriter said = new StringWriter();
        Map<String, ByteArrayOutputStream> made = new LinkedHashMap<>();
        boolean isCompiled;
        try (Memory memory = new Memory(made)) {
            isCompiled = COMPILER.getTask(said, memory, null, options, null, sources).call();
        }
        ByteArrayOutputStream reply = new ByteArrayOutputStream();
        DataOutputStream out = new DataOutputStream(reply);
        if (isCompiled) {
            for (Map.Entry<String, ByteArrayOutputStream> file : made.entrySet()) {
                put(out, file.getKey().getBytes(StandardCharsets.UTF_8));
                put(out, file.getValue().toByteArray());
            }
        } else {
            if (!said.toString().contains("compiler.err.")) {
                throw new IllegalStateException();
            }
            put(out, new byte[0]);
            String text = said.toString();
            put(out, text.substring(0, Math.min(text.length(), 1 << 16)).getBytes(StandardCharsets.UTF_8));
        }
        return reply.toByteArray();
    }

    private static void put(DataOutputStream out, byte[] content) throws Exception {
        out.writeInt(content.length);
        out.write(content);
    }

    /** A fresh one for each program, over nothing but the platform's own classes. */
    private static final class Memory extends ForwardingJavaFileManager<JavaFileManager> {
        private final Map<String, ByteArrayOutputStream> made;

        Memory(Map<String, ByteArrayOutputStream> made) {
            super(COMPILER.getStandardFileManager(null, Locale.ROOT, StandardCharsets.UTF_8));
            this.made = made;
        }

        @Override
        public JavaFileObject getJavaFileForOutput(
                Location location, String name, JavaFileObject.Kind kind, FileObject sibling) {
            ByteArrayOutputStream content = new ByteArrayOutputStream();
            made.put(name + kind.extension, content);
            return new SimpleJavaFileObject(URI.create("memory:///class"), kind) {
                @Override
                public OutputStream openOutputStream() {
                    return content;
                }
            };
        }

        @Override
        public boolean isSameFile(FileObject a, FileObject b) {
            return a == b;
        }

        @Override
        public boolean hasLocation(Location location) {
            return location != StandardLocation.SOURCE_PATH && super.hasLocation(location);
        }
    }

    private static final class SourceFile extends SimpleJavaFileObject {
        private final String name;
        private final byte[] content;

        SourceFile(String name, byte[] content) {
            super(URI.create("memory:///" + name.replaceAll("[^\\w.]", "_")), Kind.SOURCE);
            this.name = name;
            this.content = content;
        }

        @Override
        public String getName() {
            return name;
        }

        @Override
        public boolean isNameCompatible(String simpleName, Kind kind) {
            return name.equals(simpleName + kind.extension);
        }

        @Override
        public InputStream openInputStream() {
            return new java.io.ByteArrayInputStream(content);
        }

        @Override
        public CharSequence getCharContent(boolean ignoreEncodingErrors) throws java.io.IOException {
            return StandardCharsets.UTF_8
                    .newDecoder()
                    .onMalformedInput(java.nio.charset.CodingErrorAction.REPORT)
                    .onUnmappableCharacter(java.nio.charset.CodingErrorAction.REPORT)
                    .decode(java.nio.ByteBuffer.wrap(content));
        }
    }
}
