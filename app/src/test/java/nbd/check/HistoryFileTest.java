package nbd.check;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The lines of a saved history. */
class HistoryFileTest {
  private static final List<Event> HISTORY =
      List.of(
          new Event.Start(64, true),
          new Event.Begin(1, 0, Step.Kind.WRITE, 3, 2, true, 67),
          new Event.Begin(2, 1, Step.Kind.TRIM, 60, 4, false, 0),
          new Event.End(1, true, List.of()),
          new Event.Close(1, true),
          new Event.End(2, false, List.of()),
          new Event.Begin(3, 2, Step.Kind.FLUSH, 0, 0, false, 0),
          new Event.Close(0, false),
          new Event.Crash(),
          new Event.Begin(4, 0, Step.Kind.READ, 3, 2, false, 0),
          new Event.End(4, true, List.of(List.of(67L), List.of(0L, -5L))));

  private static final String LINES =
      """
      {"sectors":64,"contents":"zero"}
      {"begin":1,"connection":0,"kind":"write","sector":3,"sectors":2,"value":67,"fua":true}
      {"begin":2,"connection":1,"kind":"trim","sector":60,"sectors":4}
      {"end":1,"ok":true}
      {"close":1,"cut":true}
      {"end":2,"ok":false}
      {"begin":3,"connection":2,"kind":"flush"}
      {"close":0}
      {"crash":true}
      {"begin":4,"connection":0,"kind":"read","sector":3,"sectors":2}
      {"end":4,"ok":true,"values":[67,[0,-5]]}
      """;

  @TempDir Path directory;

  @Test
  void everyEventIsALine() {
    assertThat(HISTORY.stream().map(HistoryFile::toLine))
        .containsExactlyElementsOf(LINES.lines().toList());
  }

  @Test
  void theLinesAreReadAsTheyWereWritten() throws IOException {
    List<Event> events = new ArrayList<>();
    HistoryFile.read(file(LINES), events::add);
    assertThat(events).isEqualTo(HISTORY);
  }

  @Test
  void whereThereIsSpaceDoesNotMatter() throws IOException {
    List<Event> events = new ArrayList<>();
    HistoryFile.read(
        file(" { \"values\" : [ 1 , [ 2 ,3] ] , \"ok\": true,\"end\":9}\t"), events::add);
    assertThat(events)
        .containsExactly(new Event.End(9, true, List.of(List.of(1L), List.of(2L, 3L))));
  }

  @Test
  void aSavedHistoryIsJudgedAsItWasWhenItWasMade() throws IOException {
    EventJudge judge = new EventJudge();
    List<Violation> found = new ArrayList<>();
    HistoryFile.read(file(LINES), event -> judge.accept(event).ifPresent(found::add));
    assertThat(found).extracting(Violation::kind).containsExactly(Violation.Kind.FOREIGN_DATA);
  }

  @Test
  void theExampleOfTheManualIsAStaleRead() throws IOException {
    String manual = Files.readString(Path.of("../man/nbd-multiconn.adoc"));
    int begin = manual.indexOf("\n{\"sectors\"") + 1;
    Path file = file(manual.substring(begin, manual.indexOf("----", begin)));
    EventJudge judge = new EventJudge();
    List<Violation> found = new ArrayList<>();
    HistoryFile.read(file, event -> judge.accept(event).ifPresent(found::add));
    assertThat(found).extracting(Violation::kind).containsExactly(Violation.Kind.STALE_READ);
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '\0',
      textBlock =
          """
          {"close":1,"cut":true                  | expected '}' at column 22
          {"close":1} x                          | expected the end of the line at column 13
          {"close":1,"close":1}                  | "close" is there twice
          {"close":-1}                           | "close" is out of range
          {"close":1.5}                          | expected '}' at column 11
          {"close":"1"}                          | "close" has to be an integer
          {"close":1,"ok":true}                  | "ok" does not belong here
          {"close":x}                            | expected an integer at column 10
          {"clo\\u0073e":1}                      | expected a string without escapes at column 3
          {"crash":false}                        | "crash" has to be true
          {"end":1}                              | "ok" has to be true or false
          {"end":1,"ok":true,"values":[[[1]]]}   | expected an integer at column 31
          {"end":1,"ok":true,"values":[true]}    | "values" has to be integers, or arrays of them
          {"end":1,"ok":true,"values":[[]]}      | "values" has to be integers, or arrays of them
          {"end":1,"ok":true}                    | operation 1 is not in flight
          {"begin":1,"connection":0,"kind":"x"}  | "x" is no kind of operation
          {"begin":1,"connection":0,"kind":"write","sector":0,"sectors":3,"value":-2} | a sector of the write has the value 0
          {"sectors":9,"contents":"one"}         | "contents" has to be "zero" or "unknown"
          {"sectors":9,"contents":"zero"}        | the history begins again
          """)
  void aWrongLineIsNamed(String line, String message) throws IOException {
    Path file = file("{\"sectors\":9,\"contents\":\"zero\"}\n" + line);
    EventJudge judge = new EventJudge();
    assertThatThrownBy(() -> HistoryFile.read(file, judge::accept))
        .isInstanceOf(IOException.class)
        .hasMessage(file + ":2: " + message);
  }

  @Test
  void theFirstLineSaysHowManySectorsThereAre() throws IOException {
    Path file = file("{\"crash\":true}");
    assertThatThrownBy(() -> HistoryFile.read(file, new EventJudge()::accept))
        .hasMessage(file + ":1: the history has to begin with the number of sectors");
  }

  private Path file(String text) throws IOException {
    return Files.writeString(directory.resolve("history"), text);
  }
}
