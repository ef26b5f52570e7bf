package nbd.client;

import java.io.IOException;
import java.net.InetAddress;
import java.net.UnknownHostException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;

/**
 * A resolver of host names that keeps to the time limit of an attempt to connect: the system itself
 * may wait much longer for a name server, and cannot be interrupted. For each name, one thread at a
 * time blocks in the system, and all attempts wait for its answer.
 */
final class HostNames {
  /** Resolves a name as the system does, or a test. */
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
   * Finds the addresses of a host.
   *
   * @throws IOException if there is no such host, or the attempt was ended
   */
  InetAddress[] addresses(String host, ConnectDeadline deadline) throws IOException {
    CompletableFuture<InetAddress[]> answer = ask(host).copy();
    deadline.guard(
        () -> answer.completeExceptionally(new IOException("looking up the host took too long")));
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
    return asked.computeIfAbsent(
        host,
        _ ->
            CompletableFuture.supplyAsync(
                () -> resolve(host),
                task -> Thread.ofPlatform().daemon().name("looks up " + host).start(task)));
  }

  private InetAddress[] resolve(String host) {
    try {
      return resolver.resolve(host);
    } catch (UnknownHostException unknown) {
      throw new CompletionException(unknown);
    } finally {
      asked.remove(host);
    }
  }
}
