package nbd.launcher;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.PrintStream;
import java.lang.management.ManagementFactory;
import java.util.List;

/** A program for the launcher's tests, which shows the arguments and signals that reach it. */
public final class LauncherProbe {
  private LauncherProbe() {}

  /** Acts as the first argument says. */
  public static void main(String[] arguments) throws Exception {
    PrintStream out = new PrintStream(System.out, true, UTF_8);
    switch (arguments[0]) {
      case "status" -> System.exit(Integer.parseInt(arguments[1]));
      case "echo" -> {
        out.print(List.of(arguments) + "\n");
        System.in.transferTo(out);
        out.flush();
        System.err.print("the end\n");
      }
      case "property" -> out.println(System.getProperty(arguments[1]));
      case "collector" ->
          out.println(ManagementFactory.getGarbageCollectorMXBeans().getFirst().getName());
      case "wait" -> {
        out.println(ProcessHandle.current().pid());
        Thread.sleep(60_000);
      }
      case "stop" -> {
        // The JVM's own status, 128 and the signal, tells which one came.
        Runtime.getRuntime().addShutdownHook(new Thread(() -> out.println("stopped")));
        out.println("ready");
        Thread.sleep(60_000);
      }
      default -> throw new IllegalArgumentException(arguments[0]);
    }
  }
}
