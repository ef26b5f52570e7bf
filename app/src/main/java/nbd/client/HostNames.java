package nbd.client;

import java.io.IOException;
import java.net.InetAddress;
import java.net.UnknownHostException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;

/**
 * Finds the addresses of a host, for no longer than an attempt to connect may take: the system
 * itself may wait much longer for a name server, and cannot be interrupted. One question at a time
 * is asked for each name, by a thread that blocks in the system, whoever waits for the answer.
 */
final class HostNames {
  /** How the system is asked; a test has its own. */
  @FunctionalInterface
  interface Resolver {
    InetAddress[] resolve(String host) throws UnknownHostException;
  }

  static final HostNames SYSTEM = new HostNames(InetAddress::getAllByName);

  private final Resolver resolver;
  private final ConcurrentHashMap<String, CompletableFuture<InetAddress[]>> asked =
      new ConcurrentHashMap<>();

  HostNames(Resolver resolver) {
    this.resolver = resolver;
  }

  /**
   * Finds them.
   *
   * @throws IOException if there is no such host, or the attempt was ended
   */
  InetAddress[] addresses(String host, ConnectDeadline deadline) throws IOException {
    CompletableFuture<InetAddress[]> answer = ask(host).copy();
    deadline.guard(
        () -> answer.completeExceptionally(new IOException("looking the host up took too long")));
    try {
      return answer.get();
    } catch (ExecutionException failure) {
      Throwable cause = failure.getCause();
      if (cause instanceof UnknownHostException) {
        throw new IOException("the host \"" + host + "\" is not known", failure);
      }
      throw new IOException(String.valueOf(cause == null ? failure : cause.getMessage()), failure);
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      throw new IOException("interrupted", interrupted);
    }
  }

  private CompletableFuture<InetAddress[]> ask(String host) {
    CompletableFuture<InetAddress[]> mine = new CompletableFuture<>();
    CompletableFuture<InetAddress[]> present = asked.putIfAbsent(host, mine);
    if (present != null) {
      return present;
    }
    boolean started = false;
    try {
      Thread.ofPlatform().daemon().name("looks up " + host).start(() -> answer(host, mine));
      started = true;
    } finally {
      if (!started) {
        asked.remove(host, mine);
        mine.completeExceptionally(new IOException("there is no thread to look the host up"));
      }
    }
    return mine;
  }

  private void answer(String host, CompletableFuture<InetAddress[]> mine) {
    try {
      InetAddress[] found = resolver.resolve(host);
      asked.remove(host, mine);
      mine.complete(found);
    } catch (UnknownHostException | RuntimeException | Error failure) {
      asked.remove(host, mine);
      mine.completeExceptionally(failure);
    }
  }
}
