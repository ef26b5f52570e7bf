package nbd.posix;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.invoke.MethodHandle;

/**
 * The C library's heap, from which the JVM takes buffers and its compiler's memory. Source: the
 * manual page malloc_trim(3), of glibc; with other libraries nothing happens.
 */
public final class NativeHeap {
  private NativeHeap() {}

  /** Gives memory that has been freed back to the system. */
  @SuppressWarnings("restricted") // calling the system is what this package is for
  public static void trim() {
    Linker linker = Linker.nativeLinker();
    linker
        .defaultLookup()
        .find("malloc_trim")
        .ifPresent(
            function ->
                call(linker.downcallHandle(function, FunctionDescriptor.of(JAVA_INT, JAVA_LONG))));
  }

  private static void call(MethodHandle mallocTrim) {
    try {
      int _ = (int) mallocTrim.invokeExact(0L);
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
  }
}
