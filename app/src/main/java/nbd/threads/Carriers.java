package nbd.threads;

import java.lang.management.ManagementFactory;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicLongArray;
import java.util.concurrent.locks.LockSupport;
import jdk.management.VirtualThreadSchedulerMXBean;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * The permits to block a carrier by a call into the kernel, and the carriers that replace blocked
 * ones. A permit is there at once or not at all; platform threads have permits of their own, since
 * they block no carrier. A watch looks for calls that do not return: when all carriers are blocked
 * for {@link #LONG}, the scheduler gets one more, and one for each carrier that is blocked for
 * {@link #VERY_LONG}, until the calls return. There are fewer permits than the scheduler can have
 * carriers; so <b>however many calls hang, a carrier is free for other connections, and soon as
 * many as usual</b>. While none hangs, the scheduler is as the JDK made it.
 *
 * <p>One more carrier from the start would need no watch. But three on two processors cost 4 KiB
 * reads a sixth more processor time and a quarter more p99 latency (4 connections x depth 8, a busy
 * machine), since they preempt each other. So the first milliseconds are borne, and a carrier is
 * not replaced that has only lost its processor for some.
 *
 * <p>Invariant: a permit's slot holds the begin of its call, or {@link #FREE}. Its taker sets it by
 * compare-and-set, and nobody else until it is given back. While a slot is taken, the watch is
 * awake or being woken: a caller takes a slot and then reads {@code asleep}; the watch sets {@code
 * asleep} and then reads the slots.
 */
final class Carriers {
  /** The carriers of this JVM. */
  static final Carriers MACHINE = machine();

  /** No permit. */
  static final int NONE = -1;

  /** Longer than most waits of a thread for a busy processor. */
  static final Duration LONG = Duration.ofMillis(20);

  /** Longer than any wait but for storage. */
  static final Duration VERY_LONG = Duration.ofMillis(200);

  private static final int PERMITS = 64;

  /** Platform threads have so many times as many: more than there are connections' threads. */
  private static final int FOR_PLATFORM = 4;

  private static final Duration LOOK = Duration.ofMillis(10);

  /** The looks without any call after which the watch sleeps. */
  private static final int QUIET_LOOKS = 100;

  private static final long FREE = Long.MIN_VALUE;

  /** The slots lie a cache line apart, so that processors share none. */
  private static final int APART = 8;

  private final int permits;
  private final AtomicLongArray slots;
  private final Scheduler scheduler;

  /** The number of carriers that the watch has added; its own. */
  private int added;

  private volatile boolean asleep = true;
  private volatile @Nullable Thread watch;

  /**
   * Makes permits without a watch.
   *
   * @param scheduler used by the watch only
   */
  Carriers(int permits, Scheduler scheduler) {
    this.permits = permits;
    this.slots = new AtomicLongArray((1 + FOR_PLATFORM) * permits * APART);
    this.scheduler = scheduler;
    for (int slot = 0; slot < (1 + FOR_PLATFORM) * permits; slot++) {
      slots.set(slot * APART, FREE);
    }
  }

  private static Carriers machine() {
    if (ModuleLayer.boot().findModule("jdk.management").isEmpty()) {
      // No carriers can be added: one of them never gets blocked.
      int parallelism =
          Integer.getInteger(
              "jdk.virtualThreadScheduler.parallelism", Runtime.getRuntime().availableProcessors());
      return new Carriers(parallelism - 1, Scheduler.NONE);
    }
    Carriers carriers = new Carriers(PERMITS, new VirtualThreadScheduler());
    Thread watch = Thread.ofPlatform().daemon().name("carrier watch").unstarted(carriers::watch);
    carriers.watch = watch;
    watch.start();
    return carriers;
  }

  /**
   * Takes a permit for a call on this virtual thread. Never waits.
   *
   * @param now in {@link System#nanoTime}'s count
   * @return for {@link #leave}, or {@link #NONE}
   */
  int enter(long now) {
    int slot = take(0, permits, now);
    if (slot != NONE && asleep) {
      wake();
    }
    return slot;
  }

  /** Takes a permit for a call on this platform thread; otherwise as {@link #enter}. */
  int enterOnPlatform(long now) {
    return take(permits, FOR_PLATFORM * permits, now);
  }

  private int take(int begin, int count, long now) {
    long first = Thread.currentThread().threadId();
    for (int i = 0; i < count; i++) {
      int slot = begin + (int) ((first + i) % count);
      if (slots.get(slot * APART) == FREE && slots.compareAndSet(slot * APART, FREE, now)) {
        return slot;
      }
    }
    return NONE;
  }

  /** Gives a permit back; returns when it was taken. */
  long leave(int slot) {
    long began = slots.get(slot * APART);
    slots.setRelease(slot * APART, FREE);
    return began;
  }

  private void wake() {
    asleep = false;
    LockSupport.unpark(watch);
  }

  private void watch() {
    int usual = scheduler.usualCarriers();
    int quiet = 0;
    while (true) {
      quiet = look(System.nanoTime(), usual) ? 0 : quiet + 1;
      if (quiet < QUIET_LOOKS) {
        LockSupport.parkNanos(this, LOOK.toNanos());
        continue;
      }
      quiet = 0;
      asleep = true;
      while (asleep && !look(System.nanoTime(), usual)) {
        LockSupport.park(this);
      }
      asleep = false;
    }
  }

  /**
   * Adds carriers for blocked ones. Where none could be started, the next look tries it again.
   *
   * @param usual the number of carriers while none is blocked
   * @return whether any call runs
   */
  boolean look(long now, int usual) {
    int running = 0;
    int blocked = 0;
    int hanging = 0;
    for (int slot = 0; slot < permits; slot++) {
      long began = slots.get(slot * APART);
      if (began != FREE) {
        running++;
        blocked += now - began > LONG.toNanos() ? 1 : 0;
        hanging += now - began > VERY_LONG.toNanos() ? 1 : 0;
      }
    }
    int needed = Math.max(0, Math.max(hanging, blocked - usual + 1));
    if (needed != added) {
      scheduler.addCarriers(needed);
      added = needed;
    }
    if (added > 0) {
      try {
        scheduler.rouse();
      } catch (OutOfMemoryError noThread) {
        Logger.debug("no carrier could be started: {}", noThread.getMessage());
      }
    }
    return running > 0;
  }

  /** The scheduler that runs virtual threads on carriers. */
  interface Scheduler {
    /** One that cannot be changed. */
    Scheduler NONE =
        new Scheduler() {
          @Override
          public int usualCarriers() {
            return 0;
          }

          @Override
          public void addCarriers(int count) {
            throw new UnsupportedOperationException();
          }

          @Override
          public void rouse() {
            throw new UnsupportedOperationException();
          }
        };

    /** The number of carriers that it has by itself; called first, and once. */
    int usualCarriers();

    /** Allows so many carriers beyond the usual ones. */
    void addCarriers(int count);

    /** Starts a carrier, or wakes an idle one, for the virtual threads that are ready to run. */
    void rouse();
  }

  /**
   * The JDK's, loaded before it is needed: loading takes some 50 ms, and a descriptor.
   *
   * <p>It starts or wakes a carrier when a task comes into an empty queue, or fills one up. While
   * all carriers are blocked, tasks may come into each of its queues; the next ones start no
   * carrier then, although more are allowed by now. So the queue of the watch is filled up if its
   * last task has not run.
   */
  private static final class VirtualThreadScheduler implements Scheduler {
    /** The capacity of a new queue; a full one doubles it. */
    private static final int CAPACITY = 64;

    private static final int MOST_TASKS = 256 * CAPACITY;

    private @Nullable VirtualThreadSchedulerMXBean bean;
    private int usual;
    private int tasks;
    private volatile boolean hasRun = true;

    @Override
    public int usualCarriers() {
      VirtualThreadSchedulerMXBean loaded =
          ManagementFactory.getPlatformMXBean(VirtualThreadSchedulerMXBean.class);
      bean = loaded;
      usual = loaded.getParallelism();
      return usual;
    }

    @Override
    public void addCarriers(int count) {
      if (bean != null) {
        bean.setParallelism(usual + count);
      }
    }

    @Override
    public void rouse() {
      tasks = hasRun ? 1 : Math.clamp(2L * tasks, CAPACITY, MOST_TASKS);
      hasRun = false;
      for (int i = 0; i < tasks; i++) {
        Thread.startVirtualThread(() -> hasRun = true);
      }
    }
  }
}
