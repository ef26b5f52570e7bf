package nbd.rbd;

import static java.lang.foreign.ValueLayout.ADDRESS;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.MethodType;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import org.tinylog.Logger;

/**
 * The calls that librbd has begun and not ended. A thread of librbd that ends one only puts it into
 * a queue; a thread of this class takes it from there, and runs what follows.
 *
 * <p>Any thread may call. Invariant: a call stays in the map until librbd reports its end. So it
 * ends once, and its buffer is not collected before.
 */
@SuppressWarnings("restricted") // being called by the library is what this class is for
final class Completions {
  private static final int EIO = 5;

  private final LibRbd lib;
  private final AtomicLong numbers = new AtomicLong();
  private final Map<Long, Ended> begun = new ConcurrentHashMap<>();
  private final Queue<Runnable> queue = new ConcurrentLinkedQueue<>();
  private final MemorySegment onEnd;
  private final MemorySegment onUpdate;
  private final Thread thread;
  private volatile boolean closed;

  /** The work that follows the end of a call. It never waits. */
  @FunctionalInterface
  interface Ended {
    /**
     * Is called once.
     *
     * @param result as the library returns it: a negative number is a negative errno
     */
    void with(long result);
  }

  /** A call of the library that begins something. */
  @FunctionalInterface
  interface Begin {
    /** Returns what the library returns; throws nothing that a caller expects. */
    int run(long completion) throws Throwable;
  }

  Completions(LibRbd lib) {
    this.lib = lib;
    this.onEnd =
        upcall("ended", LibRbd.ENDED, MethodType.methodType(void.class, long.class, long.class));
    this.onUpdate =
        upcall("updated", LibRbd.UPDATED, MethodType.methodType(void.class, long.class));
    this.thread = Thread.ofPlatform().daemon().name("rbd completions").start(this::run);
  }

  private MemorySegment upcall(String method, FunctionDescriptor type, MethodType signature) {
    try {
      MethodHandle target =
          MethodHandles.lookup().findVirtual(Completions.class, method, signature).bindTo(this);
      // A thread of the library may be on its way out of it when everything else is closed.
      return lib.linker.upcallStub(target, type, Arena.global());
    } catch (ReflectiveOperationException impossible) {
      throw new LinkageError(method, impossible);
    }
  }

  /**
   * Begins a call.
   *
   * @param then follows its end, also if the library refuses it
   */
  void begin(Begin call, Ended then) {
    long number = numbers.incrementAndGet();
    begun.put(number, then);
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment made = arena.allocate(ADDRESS);
      int result = (int) lib.completionMake.invokeExact(number, onEnd, made);
      if (result == 0) {
        long completion = made.get(ValueLayout.JAVA_LONG, 0);
        result = call.run(completion);
        if (result < 0) {
          lib.completionFree.invokeExact(completion);
        }
      }
      if (result < 0) {
        finish(number, result);
      }
    } catch (Throwable mistake) {
      Logger.error("a request to Ceph: {}", mistake);
      finish(number, -EIO);
    }
  }

  private void finish(long number, long result) {
    Ended ended = begun.remove(number);
    if (ended != null) {
      ended.with(result);
    }
  }

  /** Is called by a thread of the library. */
  @SuppressWarnings("unused") // by its name
  private void ended(long completion, long number) {
    add(() -> end(completion, number));
  }

  /** Is called by a thread of the library. */
  @SuppressWarnings("unused") // by its name
  private void updated(long number) {
    add(
        () -> {
          Ended watcher = begun.get(number);
          if (watcher != null) {
            watcher.with(0);
          }
        });
  }

  private void add(Runnable next) {
    queue.add(next);
    LockSupport.unpark(thread);
  }

  private void end(long completion, long number) {
    long result;
    try {
      result = (long) lib.completionResult.invokeExact(completion);
      lib.completionFree.invokeExact(completion);
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
    finish(number, result);
  }

  private void run() {
    while (!closed) {
      Runnable next = queue.poll();
      if (next == null) {
        LockSupport.park(this);
      } else {
        try {
          next.run();
        } catch (RuntimeException | Error mistake) {
          Logger.error("the end of a request to Ceph: {}", mistake);
          Logger.debug(mistake);
        }
      }
    }
  }

  /** The callback for an image that may have changed. */
  MemorySegment onUpdate() {
    return onUpdate;
  }

  /** Adds a watcher, which {@link #onUpdate} calls with its number. */
  long watch(Runnable watcher) {
    long number = numbers.incrementAndGet();
    begun.put(number, result -> watcher.run());
    return number;
  }

  void unwatch(long number) {
    begun.remove(number);
  }

  /** Ends the thread. Called when every call has ended. */
  void close() {
    closed = true;
    LockSupport.unpark(thread);
  }
}
