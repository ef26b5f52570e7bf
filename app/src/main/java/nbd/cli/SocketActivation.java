package nbd.cli;

import java.io.IOException;
import java.nio.channels.ServerSocketChannel;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import nbd.posix.AdoptedSocket;
import nbd.posix.Descriptor;
import nbd.posix.OtherProcess;
import nbd.posix.PosixException;
import nbd.server.ListeningSocket;

/**
 * Listening sockets that the service manager, or a client such as libnbd, opened and left to this
 * process, and the files of a {@link DescriptorStore}. Source: the manual page sd_listen_fds(3).
 */
final class SocketActivation {
  /** The first descriptor that is passed. */
  private static final int FIRST = 3;

  /** The names of the descriptors. */
  private final List<String> names;

  /** The process that has the descriptors. */
  private final OwnProcess holder;

  private SocketActivation(List<String> names, OwnProcess holder) {
    this.names = names;
    this.holder = holder;
  }

  /**
   * Reads the environment variables.
   *
   * @return empty if nothing was passed to this process, or to the launcher that started it
   * @throws UsageException if the variables are wrong
   */
  static Optional<SocketActivation> of(Map<String, String> environment) {
    Optional<OwnProcess> holder = OwnProcess.of(environment.getOrDefault("LISTEN_PID", ""));
    if (holder.isEmpty()) {
      return Optional.empty();
    }
    String fds = environment.getOrDefault("LISTEN_FDS", "0");
    UsageException.refuseIf(
        !fds.matches("\\d{1,5}"), "LISTEN_FDS: \"" + fds + "\" is not a number of sockets");
    int count = Integer.parseInt(fds);
    if (count == 0) {
      return Optional.empty();
    }
    String given = environment.get("LISTEN_FDNAMES");
    List<String> names =
        given == null ? Collections.nCopies(count, "") : List.of(given.split(":", -1));
    UsageException.refuseIf(
        given != null && names.size() != count,
        "LISTEN_FDNAMES: %d names for %d sockets".formatted(names.size(), count));
    return Optional.of(new SocketActivation(names, holder.get()));
  }

  /** Says whether there are listening sockets. */
  boolean hasSockets() {
    return !names.stream().allMatch(DescriptorStore::has);
  }

  /**
   * Takes the files of a store over.
   *
   * @throws IOException with a message for the user
   */
  List<DescriptorStore.Passed> stored() throws IOException {
    List<DescriptorStore.Passed> stored = new ArrayList<>();
    for (int i = 0; i < names.size(); i++) {
      if (DescriptorStore.has(names.get(i))) {
        stored.add(new DescriptorStore.Passed(names.get(i), Descriptor.own(descriptor(i))));
      }
    }
    return stored;
  }

  /**
   * Takes the sockets over, in their order.
   *
   * @param exportName the export in the URIs of sockets that are not restricted to another
   * @throws IOException with a message for the user
   */
  List<Listening> listen(String exportName) throws IOException {
    List<Listening> made = new ArrayList<>();
    boolean done = false;
    try {
      for (int i = 0; i < names.size(); i++) {
        if (!DescriptorStore.has(names.get(i))) {
          made.add(taken(i, exportName));
        }
      }
      done = true;
      return made;
    } finally {
      if (!done) {
        for (Listening one : made) {
          one.close();
        }
      }
    }
  }

  private Listening taken(int index, String exportName) throws IOException {
    int fd = descriptor(index);
    try {
      ServerSocketChannel channel = AdoptedSocket.listener(fd);
      ListeningSocket listener = new ListeningSocket(channel, Optional.of(names.get(index)));
      return Listening.ofServiceManager(listener, exportName);
    } catch (IOException failure) {
      throw new IOException(
          "socket %d of %d of the service manager (LISTEN_FDS) cannot be used: %s"
              .formatted(index + 1, names.size(), failure.getMessage()),
          failure);
    }
  }

  private int descriptor(int index) throws IOException {
    int fd = FIRST + index;
    return holder.isLauncher() ? fromLauncher(fd) : fd;
  }

  private int fromLauncher(int fd) throws IOException {
    try (OtherProcess launcher = OtherProcess.open(holder.pid())) {
      return launcher.duplicate(fd);
    } catch (PosixException failure) {
      throw new IOException(
          "the sockets of the service manager (LISTEN_FDS) were left to another Java, from which"
              + " this one may not take them (%s); start it with Java 25 or newer, in a locale of"
                  .formatted(failure.errnoName())
              + " UTF-8",
          failure);
    }
  }
}
