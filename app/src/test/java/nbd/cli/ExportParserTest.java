package nbd.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Stream;
import nbd.server.ExportState;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Definitions of exports, in braces and in a file. */
final class ExportParserTest {
  @TempDir private Path directory;

  private static ExportParser parser(String... serve) {
    String[] line = Stream.concat(Stream.of("serve"), Stream.of(serve)).toArray(String[]::new);
    return new ExportParser(Main.commandLine("serve").parseArgs(line).subcommand());
  }

  private static ExportDefinition parse(String argument, String... serve) {
    return parser(serve).parse("--export", argument);
  }

  private static ExportState open(ExportDefinition definition) throws IOException {
    ExportOptions options = definition.options();
    FilterStack stack = options.open(definition.backend(), Optional.empty(), 0);
    try {
      return options.export(definition.backend(), stack, List.of(definition.name()), 0).state();
    } finally {
      stack.backend().close();
    }
  }

  private Map<String, ExportDefinition> read(String text, String... serve) throws IOException {
    return ConfigFile.read(Files.writeString(file(), text), parser(serve));
  }

  private Path file() {
    return directory.resolve("exports.conf");
  }

  @Test
  void aNameEndsAtTheFirstEqualsSign() {
    assertThat(parse("a=memory:1M").name()).isEqualTo("a");
    assertThat(parse("=memory:1M").name()).isEmpty();
    assertThat(parse("a=b=c").backend()).isEqualTo("b=c");
    assertThat(parse("é ☃={memory:1M}").name()).isEqualTo("é ☃");
    assertThat(parse("a={'a b.img' --read-only}").backend()).isEqualTo("a b.img");
  }

  @Test
  void optionsAreItsOwnOrTheServers() throws IOException {
    assertThat(open(parse("a=memory:1M")).readOnly()).isFalse();
    assertThat(open(parse("a={memory:1M -r}")).readOnly()).isTrue();
    assertThat(open(parse("a=memory:1M", "--read-only")).readOnly()).isTrue();
    assertThat(open(parse("a={memory:1M --read-only=false}", "-r")).readOnly()).isFalse();
    assertThat(open(parse("a={--multi-conn-mode=disable memory:1M}")).mode()).isEqualTo("disable");
    String[] unsafe = {"--multi-conn-mode", "unsafe", "null:1M"};
    assertThat(open(parse("a=memory:1M", unsafe)).mode()).isEqualTo("unsafe");
    assertThat(open(parse("a={memory:1M --multi-conn-mode=auto}", unsafe)).mode())
        .isEqualTo("auto");
    String[] cache = {"--cache=writeback", "--cache-size=64M"};
    assertThat(parse("a=memory:1M", cache).options().cacheBytes()).isEqualTo(64 << 20);
    assertThat(parse("a={memory:1M --cache-size=32M}", cache).options().cacheBytes())
        .isEqualTo(32 << 20);
    assertThat(parse("a={memory:1M --cache=none}", cache).options().cacheBytes()).isZero();
    assertThat(parse("a={memory:1M --multi-conn-exportname}", cache).words()).hasSize(2);
    // The server's options for files are of no use to RAM, and of use to others.
    assertThat(parse("a=memory:1M", "--force-share", "disk").backend()).isEqualTo("memory:1M");
  }

  @ParameterizedTest
  @CsvSource({
    "a, write NAME=BACKEND",
    "a={memory:1M, brace",
    "a={memory:1M '}, a quote (') is not closed",
    "a={}, BACKEND",
    "a={memory:1M memory:2M}, \"memory:2M\" is too much",
    "a={memory:1M --port=1}, --port: belongs to the whole server",
    "a={memory:1M -p 1}, -p: belongs to the whole server",
    "a={memory:1M --tls=off}, --tls: belongs to the whole server",
    "a={memory:1M --control=x}, --control: belongs to the whole server",
    "a={memory:1M --export=b=null:1M}, --export: belongs to the whole server",
    "a={memory:1M --cahe=none}, did you mean --cache?",
    "a={memory:1M --cache=some}, \"some\" is none of",
    "a={memory:1M --cache-size=1M}, --cache-size: only with --cache",
    "a={memory:1M --cache=none --cache=none}, only once",
    "a={memory:1M --force-share}, --force-share: only with files",
    "a={x.img --dynamic-export}, --dynamic-export: only with another NBD server",
    "a={nbd://localhost --dynamic-export}, give it as BACKEND",
    "a=dir:., give it as BACKEND",
    "a=rbd:pool, give it as BACKEND",
  })
  void whatIsWrongIsSaid(String argument, String words) {
    assertThatThrownBy(() -> parse(argument))
        .isInstanceOf(UsageException.class)
        .hasMessageStartingWith("--export a")
        .hasMessageContaining(words);
  }

  @Test
  void anExportThatKeepsToWordsIsEqual() throws IOException {
    String text =
        """
        # a comment
        ; another
        [export disk]
        backend = memory:1M
        read-only = true

        [ export "two words" ]
          multi-conn-mode=disable
          description =  a = b "c" # d
          backend=memory:2M
        [export ""]
        backend = null:1M
        [export "]=\\"\\n"]
        backend = null:1M
        """;
    Map<String, ExportDefinition> first = read(text);
    assertThat(first.keySet()).containsExactly("disk", "two words", "", "]=\"\n");
    assertThat(open(first.get("disk")).readOnly()).isTrue();
    assertThat(open(first.get("two words")).mode()).isEqualTo("disable");
    assertThat(first.get("two words").words()).contains("--description=a = b \"c\" # d");
    Map<String, ExportDefinition> again = read(text.replace("2M", "3M"));
    assertThat(again.get("disk").words()).isEqualTo(first.get("disk").words());
    assertThat(again.get("two words").words()).isNotEqualTo(first.get("two words").words());
    assertThat(read("")).isEmpty();
    assertThat(open(read(text, "-r").get("")).readOnly()).isTrue();
    assertThat(open(read("[export a]\nbackend=null:1M\nread-only=false", "-r").get("a")).readOnly())
        .isFalse();
  }

  @ParameterizedTest
  @CsvSource({
    "1, 'backend = memory:1M', a section",
    "1, '[disk]', write [export NAME]",
    "1, '[server]', write [export NAME]",
    "1, '[export a', write [export NAME]",
    "1, '[export]', one name is needed",
    "1, '[export a b]', one name is needed",
    "1, '[export \"a]', not closed",
    "1, '[export a]', has no backend",
    "3, '[export a]|backend=null:1M|[export a]', already in line 1",
    "3, '[export a]|backend=null:1M|backend=null:1M', already has a backend",
    "2, '[export a]|backend =', backend is missing",
    "3, '[export a]|backend = null:1M|nonsense', write KEY = VALUE",
    "3, '[export a]|backend = null:1M|cahe=none', did you mean --cache?",
    "3, '[export a]|backend = null:1M|port=1', --port: belongs to the whole server",
    "3, '[export a]|backend = null:1M|cache=some', \"some\" is none of",
    "3, '[export a]|backend = null:1M|read-only=maybe', maybe",
    "3, '[export a]|backend = null:1M|r=true', long name",
    "1, '[export a]|backend = null:1M|cache-size=1M', only with --cache",
    "1, '[export a]|cache=none|cache=none|backend=null:1M', only once",
    "1, '[export a]|backend = dir:.', give it as BACKEND",
  })
  void whatIsWrongInAFileIsSaidWithItsLine(int line, String text, String words) {
    assertThatThrownBy(() -> read(text.replace('|', '\n')))
        .isInstanceOf(UsageException.class)
        .hasMessageStartingWith(file() + ":" + line + ": ")
        .hasMessageContaining(words);
  }

  @Test
  void aFileThatCannotBeReadIsNamed() throws IOException {
    assertThatThrownBy(() -> ConfigFile.read(file(), parser()))
        .isInstanceOf(IOException.class)
        .hasMessageContainingAll("--config", file().toString(), "no such file");
    Files.write(file(), new byte[] {'[', (byte) 0xff});
    assertThatThrownBy(() -> ConfigFile.read(file(), parser()))
        .isInstanceOf(IOException.class)
        .hasMessageContainingAll(file().toString(), "UTF-8");
  }
}
