package nbd.cli;

import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import nbd.client.Endpoint;
import nbd.client.NbdUri;
import nbd.client.NbdUri.TlsParameters;
import nbd.posix.AdoptedSocket;
import nbd.posix.Descriptor;
import nbd.posix.OtherProcess;
import nbd.posix.PosixException;

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
   * Takes the files of a store over, by their names.
   *
   * @throws IOException with a message for the user
   */
  Map<String, Descriptor> stored() throws IOException {
    Map<String, Descriptor> stored = new LinkedHashMap<>();
    for (int i = 0; i < names.size(); i++) {
      if (DescriptorStore.has(names.get(i))) {
        stored.put(names.get(i), Descriptor.own(descriptor(i)));
      }
    }
    return stored;
  }

  /**
   * Takes the sockets over, in their order.
   *
   * @param exportName the export in the URIs
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
    SocketAddress address;
    ServerSocketChannel channel;
    try {
      address = AdoptedSocket.localAddress(fd);
      channel = AdoptedSocket.listener(fd);
    } catch (IOException failure) {
      throw new IOException(
          "socket %d of %d of the service manager (LISTEN_FDS) cannot be used: %s"
              .formatted(index + 1, names.size(), failure.getMessage()),
          failure);
    }
    return new Listening(
        channel, uri(address, exportName), names.get(index), path(address), List.of(), false);
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

  private static NbdUri uri(SocketAddress address, String exportName) {
    if (address instanceof InetSocketAddress internet) {
      return NbdUri.tcp(internet.getAddress(), internet.getPort(), exportName);
    }
    Path path = ((UnixDomainSocketAddress) address).getPath();
    return new NbdUri(new Endpoint.Unix(path), false, exportName, TlsParameters.NONE);
  }

  private static Optional<Path> path(SocketAddress address) {
    return address instanceof UnixDomainSocketAddress unix
        ? Optional.of(unix.getPath())
        : Optional.empty();
  }
}
