package nbd.posix;

import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.MethodType;
import java.nio.channels.Channel;
import java.util.OptionalInt;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * The descriptor of a socket, which the JDK keeps in {@code sun.nio.ch}; the jar's manifest exports
 * that package (Add-Exports).
 */
final class SocketDescriptor {
  private static final @Nullable MethodHandle GETTER = getter();

  private SocketDescriptor() {}

  private static @Nullable MethodHandle getter() {
    try {
      Class<?> channel = Class.forName("sun.nio.ch.SelChImpl");
      return MethodHandles.lookup()
          .findVirtual(channel, "getFDVal", MethodType.methodType(int.class))
          .asType(MethodType.methodType(int.class, Channel.class));
    } catch (ReflectiveOperationException | RuntimeException hidden) {
      Logger.debug("the descriptors of sockets are not known: {}", hidden.getMessage());
      return null;
    }
  }

  /** Returns the descriptor, which another file may get once the socket is closed. */
  static OptionalInt of(Channel channel) {
    if (GETTER == null) {
      return OptionalInt.empty();
    }
    try {
      return OptionalInt.of((int) GETTER.invokeExact(channel));
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
  }
}
