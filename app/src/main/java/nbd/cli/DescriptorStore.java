package nbd.cli;

import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.nio.BufferUnderflowException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Stream;
import nbd.posix.Descriptor;
import nbd.posix.FilePassing;
import nbd.server.Server;
import nbd.takeover.Handover;
import nbd.takeover.Predecessor;
import nbd.takeover.StoredServer;
import org.tinylog.Logger;

/**
 * The service manager's store of open files, in which a server that ends leaves its clients for the
 * service's next start. Each file has a name of its own; the first one is a file in memory with the
 * messages. A message whose files the service manager has not kept is left out. Used by one thread.
 * Sources: FDSTORE in sd_notify(3), FileDescriptorStoreMax in systemd.service(5).
 */
final class DescriptorStore implements FilePassing {
  /** Begins the names of all files here. */
  private static final String PREFIX = "nbd-multiconn/";

  private static final String MESSAGES = PREFIX + "messages " + StoredServer.VERSION;

  /** The most files: the next start gets all their names in one environment variable. */
  private static final int MOST_FILES = 4096;

  private static final String NO_ROOM =
      "the service manager has no room for them (FileDescriptorStoreMax, FDSTORE)";

  private static final Duration PATIENCE = Duration.ofSeconds(5);

  private final ServiceManager manager;

  /** Each message has its length and the number of its files before it, four bytes each. */
  private final ByteArrayOutputStream sent = new ByteArrayOutputStream();

  /** The files of the messages by their names, in their order. */
  private final Map<String, Descriptor> sentFiles = new LinkedHashMap<>();

  private final ByteBuffer toReceive;
  private final Map<String, Descriptor> filesToReceive;
  private int received;

  /** The messages that were left out. */
  private int missing;

  private DescriptorStore(
      ServiceManager manager, byte[] messages, Map<String, Descriptor> filesToReceive) {
    this.manager = manager;
    this.toReceive = ByteBuffer.wrap(messages);
    this.filesToReceive = filesToReceive;
  }

  /** Says whether a file that the service manager has passed is one of a store. */
  static boolean has(String name) {
    return name.startsWith(PREFIX);
  }

  /**
   * Returns how many files a server can leave beside the messages; less than 1 for none. A launcher
   * would keep the files that it gets at the next start, and clients never see their end.
   */
  static int room(ServiceManager manager) {
    return OwnProcess.visible().isLauncher() ? 0 : Math.min(manager.storeSize(), MOST_FILES) - 1;
  }

  /**
   * Leaves a server that has stopped serving in the service manager's store, as far as there is
   * room.
   *
   * @param all stays the caller's, who finds here afterwards only what was left
   * @throws IOException if that does not work; nothing is left then
   */
  static void leave(Handover all, ServiceManager manager) throws IOException {
    leaveOut(all, room(manager));
    DescriptorStore store = new DescriptorStore(manager, new byte[0], Map.of());
    StoredServer.leave(all, store);
    boolean kept = false;
    try {
      store.keep(System.nanoTime() + PATIENCE.toNanos());
      kept = true;
    } finally {
      if (!kept) {
        manager.dropStored(store.names());
      }
    }
  }

  /**
   * Leaves out the sockets that the next start makes anew, and clients for which there is no room.
   *
   * @throws IOException if there is no room for the others
   */
  private static void leaveOut(Handover handover, int room) throws IOException {
    for (Handover.Listener each : List.copyOf(handover.listeners())) {
      if (!InheritedSockets.isOwnTcp(each)) {
        each.socket().close();
        handover.listeners().remove(each);
      }
    }
    List<Server.Client> clients = handover.clients();
    int most = room - handover.listeners().size() - handover.images().size();
    if (most < 0) {
      throw new IOException(NO_ROOM);
    }
    if (clients.size() > most) {
      List<Server.Client> beyond = clients.subList(most, clients.size());
      Logger.warn("{} connections end: {}", beyond.size(), NO_ROOM);
      beyond.forEach(client -> client.socket().close());
      beyond.clear();
    }
  }

  private void keep(long deadline) throws IOException {
    try (Descriptor messages = Descriptor.ofMemory("messages", sent.toByteArray())) {
      manager.store(MESSAGES, messages, until(deadline));
    }
    for (Map.Entry<String, Descriptor> file : sentFiles.entrySet()) {
      manager.store(file.getKey(), file.getValue(), until(deadline));
    }
    manager.awaitTaken(until(deadline));
  }

  private static Duration until(long deadline) {
    return Duration.ofNanos(Math.max(0, deadline - System.nanoTime()));
  }

  private List<String> names() {
    return Stream.concat(Stream.of(MESSAGES), sentFiles.keySet().stream()).toList();
  }

  /** A file that the service manager has passed. */
  record Passed(String name, Descriptor file) {}

  /**
   * Finds what the server before has left.
   *
   * @param passed the files of the store; owned from now on
   */
  static Optional<Predecessor> find(ServiceManager manager, List<Passed> passed) {
    if (passed.isEmpty()) {
      return Optional.empty();
    }
    List<String> names = passed.stream().map(Passed::name).toList();
    Map<String, Descriptor> files = new HashMap<>();
    try {
      passed.forEach(each -> files.put(each.name(), each.file()));
      Descriptor messages = files.get(MESSAGES);
      if (messages == null || files.size() < passed.size()) {
        throw new IOException(
            messages == null
                ? "another version has left it, or the service manager has not kept all"
                : "several servers have left something");
      }
      DescriptorStore store = new DescriptorStore(manager, messages.content(), files);
      StoredServer found = new StoredServer(store, () -> manager.dropStored(names));
      if (store.missing > 0) {
        Logger.warn(
            "{} connections of the server before are cut: the service manager has not kept them"
                + " (FileDescriptorStoreMax, FDSTORE)",
            store.missing);
      }
      return Optional.of(found);
    } catch (IOException | RuntimeException unusable) {
      Logger.error(
          "the clients of the server before are cut, since what it left cannot be used: {}",
          Failure.words(unusable));
      passed.forEach(each -> each.file().close());
      manager.dropStored(names);
      return Optional.empty();
    }
  }

  /** Adds a message, for {@link #leave}, which sends all. */
  @Override
  public void send(ByteBuffer message, List<Descriptor> with, Duration patience)
      throws IOException {
    DataOutputStream to = new DataOutputStream(sent);
    byte[] bytes = new byte[message.remaining()];
    message.duplicate().get(bytes);
    to.writeInt(bytes.length);
    to.writeInt(with.size());
    to.write(bytes);
    with.forEach(file -> sentFiles.put(PREFIX + sentFiles.size(), file));
  }

  /** Returns the next message whose files are there; never waits. */
  @Override
  public Message receive(Duration patience) throws IOException {
    try {
      while (toReceive.hasRemaining()) {
        int length = toReceive.getInt();
        int count = toReceive.getInt();
        ByteBuffer data = toReceive.slice(toReceive.position(), length);
        toReceive.position(toReceive.position() + length);
        List<Descriptor> with = new ArrayList<>();
        for (int i = 0; i < count; i++) {
          Descriptor file = filesToReceive.get(PREFIX + received++);
          if (file != null) {
            with.add(file.handedOn());
          }
        }
        Message message = new Message(data, with);
        if (with.size() == count) {
          return message;
        }
        message.closeFiles();
        missing++;
      }
    } catch (BufferUnderflowException | IllegalArgumentException | IndexOutOfBoundsException cut) {
      throw new IOException("the messages of the server before are damaged", cut);
    }
    throw new EOFException("there are no more messages");
  }

  @Override
  public void close() {
    filesToReceive.values().forEach(Descriptor::close);
  }
}
