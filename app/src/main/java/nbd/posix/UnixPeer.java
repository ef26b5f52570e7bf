package nbd.posix;

import static java.lang.foreign.ValueLayout.JAVA_INT;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.channels.SocketChannel;
import java.util.Optional;
import java.util.OptionalInt;
import jdk.net.ExtendedSocketOptions;
import jdk.net.UnixDomainPrincipal;
import org.tinylog.Logger;

/**
 * The process at the other end of a Unix socket, by the process ID and user ID that the kernel
 * noted when it connected (SO_PEERCRED, unix(7)).
 *
 * <p>The JDK's own option tells the names of user and group only, which takes a look-up in the user
 * database for each connection. Where the socket's descriptor is not known, as in tests, the JDK's
 * answer has to do.
 */
public final class UnixPeer {
  private static final int SOL_SOCKET = 1;
  private static final int SO_PEERCRED = 17;
  private static final int UCRED_BYTES = 12;

  private UnixPeer() {}

  /**
   * Names the process: {@code pid 4711, uid 1000}, or {@code user alice}.
   *
   * @param channel of a Unix socket, open
   * @return empty where the system does not tell
   */
  public static Optional<String> of(SocketChannel channel) {
    Optional<Calls> calls = Calls.LINKED;
    OptionalInt descriptor = SocketDescriptor.of(channel);
    try {
      if (calls.isPresent() && descriptor.isPresent()) {
        return Optional.of(ask(calls.get(), descriptor.getAsInt()));
      }
      UnixDomainPrincipal principal = channel.getOption(ExtendedSocketOptions.SO_PEERCRED);
      return Optional.of("user " + principal.user().getName());
    } catch (IOException | UnsupportedOperationException untold) {
      Logger.debug("a client's process is not known: {}", untold.getMessage());
      return Optional.empty();
    }
  }

  /**
   * Returns the process ID.
   *
   * @param channel of a Unix socket, open
   * @throws IOException where the system does not tell
   */
  public static long pidOf(SocketChannel channel) throws IOException {
    Calls calls = Calls.LINKED.orElseThrow(() -> new IOException("the system does not tell"));
    return credentials(calls, SocketDescriptor.find(channel)) >> 32;
  }

  private static String ask(Calls calls, int fd) throws PosixException {
    long found = credentials(calls, fd);
    return "pid %d, uid %d".formatted(found >> 32, found & 0xffff_ffffL);
  }

  /** Returns the process ID in the upper half, and the user ID in the lower one. */
  private static long credentials(Calls calls, int fd) throws PosixException {
    return Calls.checked(
        "getsockopt",
        "a Unix socket",
        (arena, state) -> {
          MemorySegment credentials = arena.allocate(UCRED_BYTES, Integer.BYTES);
          MemorySegment length = arena.allocateFrom(JAVA_INT, UCRED_BYTES);
          int result =
              (int)
                  calls.getsockopt.invokeExact(
                      state, fd, SOL_SOCKET, SO_PEERCRED, credentials, length);
          long pid = credentials.get(JAVA_INT, 0);
          long uid = Integer.toUnsignedLong(credentials.get(JAVA_INT, 4));
          return result < 0 ? result : pid << 32 | uid;
        });
  }
}
