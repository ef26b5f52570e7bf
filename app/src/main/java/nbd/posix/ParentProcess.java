package nbd.posix;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.invoke.MethodHandle;
import org.tinylog.Logger;

/**
 * The process that started this one, whose end is to end this one too, even by SIGKILL. Linux only;
 * elsewhere nothing happens. Source: the manual page prctl(2).
 */
public final class ParentProcess {
  private static final int PR_SET_PDEATHSIG = 1;
  private static final long SIGTERM = 15;

  private ParentProcess() {}

  /**
   * Makes the kernel send SIGTERM to this process when its parent ends.
   *
   * @param parent the parent's process ID; if the parent has ended already, this process ends, too
   */
  @SuppressWarnings("restricted") // calling the system is what this package is for
  public static void endWith(long parent) {
    Linker linker = Linker.nativeLinker();
    linker
        .defaultLookup()
        .find("prctl")
        .ifPresent(
            prctl ->
                call(
                    linker.downcallHandle(
                        prctl,
                        FunctionDescriptor.of(
                            JAVA_INT, JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG),
                        Linker.Option.firstVariadicArg(1))));
    if (ProcessHandle.current().parent().map(ProcessHandle::pid).orElse(parent) != parent) {
      Runtime.getRuntime().halt(128 + (int) SIGTERM);
    }
  }

  private static void call(MethodHandle prctl) {
    try {
      if ((int) prctl.invokeExact(PR_SET_PDEATHSIG, SIGTERM, 0L, 0L, 0L) != 0) {
        Logger.debug("the launcher's end will not be noticed");
      }
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
  }
}
