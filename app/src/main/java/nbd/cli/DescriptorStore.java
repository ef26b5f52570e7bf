package nbd.cli;

import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.nio.BufferUnderflowException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import nbd.posix.Descriptor;
import nbd.posix.FilePassing;
import nbd.takeover.Handover;
import nbd.takeover.Predecessor;
import nbd.takeover.StoredServer;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * The service manager's store of open files, in which a server that ends leaves its clients for the
 * service's next start. Each file has a name of its own; the last one is a file in memory with the
 * messages, so without it the others mean nothing. Used by one thread. Sources: FDSTORE in
 * sd_notify(3), FileDescriptorStoreMax in systemd.service(5).
 */
final class DescriptorStore implements FilePassing {
  /** Begins the names of all files here. */
  private static final String PREFIX = "nbd-multiconn/";

  private static final String MESSAGES = PREFIX + "messages " + StoredServer.VERSION;

  private static final Duration PATIENCE = Duration.ofSeconds(10);

  private final ServiceManager manager;

  /** Each message has its length and the number of its files before it, four bytes each. */
  private final ByteArrayOutputStream sent = new ByteArrayOutputStream();

  private final ByteBuffer toReceive;
  private final Map<String, Descriptor> filesToReceive;
  private int files;

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

  /** Returns how many files a server can leave beside the messages; less than 1 for none. */
  static int room(ServiceManager manager) {
    return manager.storeSize() - 1;
  }

  /**
   * Leaves a server that has stopped serving in the service manager's store.
   *
   * @param all stays the caller's
   * @throws IOException if that does not work; nothing is left then
   */
  static void leave(Handover all, ServiceManager manager) throws IOException {
    DescriptorStore store = new DescriptorStore(manager, new byte[0], Map.of());
    boolean done = false;
    try {
      StoredServer.leave(all, store, PATIENCE);
      try (Descriptor messages = Descriptor.ofMemory("messages", store.sent.toByteArray())) {
        manager.store(MESSAGES, messages);
      }
      manager.awaitTaken(PATIENCE);
      done = true;
    } finally {
      if (!done) {
        drop(manager, store.names());
      }
    }
  }

  /**
   * Finds what the server before has left.
   *
   * @param passed the files of the store, by their names; owned from now on
   */
  static Optional<Predecessor> find(ServiceManager manager, Map<String, Descriptor> passed) {
    if (passed.isEmpty()) {
      return Optional.empty();
    }
    List<String> names = List.copyOf(passed.keySet());
    @Nullable Descriptor messages = passed.get(MESSAGES);
    try {
      if (messages == null) {
        throw new IOException("it was another version, or has not come to its end");
      }
      DescriptorStore store = new DescriptorStore(manager, messages.content(), passed);
      return Optional.of(new StoredServer(store, () -> drop(manager, names)));
    } catch (IOException | RuntimeException unusable) {
      Logger.error(
          "the clients of the server before are cut, since what it left cannot be used: {}",
          Failure.words(unusable));
      passed.values().forEach(Descriptor::close);
      drop(manager, names);
      return Optional.empty();
    }
  }

  private List<String> names() {
    List<String> names = new ArrayList<>(List.of(MESSAGES));
    for (int i = 0; i < files; i++) {
      names.add(PREFIX + i);
    }
    return names;
  }

  private static void drop(ServiceManager manager, List<String> names) {
    names.forEach(manager::dropStored);
  }

  @Override
  public void send(ByteBuffer message, List<Descriptor> with, Duration patience)
      throws IOException {
    DataOutputStream to = new DataOutputStream(sent);
    byte[] bytes = new byte[message.remaining()];
    message.duplicate().get(bytes);
    to.writeInt(bytes.length);
    to.writeInt(with.size());
    to.write(bytes);
    for (Descriptor file : with) {
      manager.store(PREFIX + files++, file);
    }
  }

  /** Returns the next message whose files are there: one that the system has closed is gone. */
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
          Descriptor file = filesToReceive.get(PREFIX + files++);
          if (file != null) {
            with.add(file.handedOn());
          }
        }
        Message message = new Message(data, with);
        if (with.size() == count) {
          return message;
        }
        message.closeFiles();
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
