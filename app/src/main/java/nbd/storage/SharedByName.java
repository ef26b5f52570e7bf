package nbd.storage;

import java.io.IOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Predicate;
import nbd.protocol.OptionException;
import org.jspecify.annotations.Nullable;

/**
 * The things that all handles of one export share, such as a connection: made by the first handle,
 * ended by the last. All handles that wait for a thing share one attempt to make it; none is made
 * while the one before it ends.
 *
 * <p>Invariant, under the lock: a place in the map is being made or ended, or has users. No call is
 * made under the lock.
 */
public final class SharedByName<T> {
  /** Makes a thing. */
  @FunctionalInterface
  public interface Making<T> {
    /** Makes it. */
    T make() throws IOException;
  }

  /** Ends a thing that no handle uses any more. */
  @FunctionalInterface
  public interface Ending<T> {
    /** Ends it. */
    void end(T thing) throws IOException;
  }

  private final Predicate<T> isUsable;
  private final Ending<T> ending;
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private final Map<String, Place<T>> places = new HashMap<>();

  private static final class Place<T> {
    @Nullable T thing;
    @Nullable IOException failure;
    int users;
  }

  /** One handle's share of a thing, given back once. */
  public final class Lease {
    private final String name;
    private final Place<T> place;
    private final T thing;

    private Lease(String name, Place<T> place, T thing) {
      this.name = name;
      this.place = place;
      this.thing = thing;
    }

    /** Returns the thing. */
    public T thing() {
      return thing;
    }

    /**
     * Gives it back; the last one ends the thing.
     *
     * @throws IOException what the ending throws
     */
    public void release() throws IOException {
      lock.lock();
      try {
        place.users--;
        if (place.users > 0) {
          return;
        }
        place.thing = null;
      } finally {
        lock.unlock();
      }
      try {
        ending.end(thing);
      } finally {
        forget(name, place);
      }
    }
  }

  /**
   * Begins without anything.
   *
   * @param isUsable says, without waiting, whether a thing is of use to a new handle; if not,
   *     another one is made beside it
   */
  public SharedByName(Predicate<T> isUsable, Ending<T> ending) {
    this.isUsable = isUsable;
    this.ending = ending;
  }

  /**
   * Takes a share of the thing of this name, and makes it if there is none.
   *
   * @throws IOException what the making throws, for all that have waited for it
   */
  public Lease acquire(String name, Making<T> making) throws IOException {
    Place<T> place;
    lock.lock();
    try {
      Lease present = awaitPresent(name);
      if (present != null) {
        return present;
      }
      place = new Place<>();
      places.put(name, place);
    } finally {
      lock.unlock();
    }
    return make(name, place, making);
  }

  /** Gives a share; null if nothing is there, being made or ended. The lock is held. */
  private @Nullable Lease awaitPresent(String name) throws IOException {
    while (true) {
      Place<T> place = places.get(name);
      if (place == null) {
        return null;
      }
      T thing = place.thing;
      if (thing == null) {
        changed.awaitUninterruptibly();
        if (place.failure != null) {
          throw OptionException.copyOf(place.failure);
        }
      } else if (isUsable.test(thing)) {
        place.users++;
        return new Lease(name, place, thing);
      } else {
        places.remove(name);
      }
    }
  }

  private Lease make(String name, Place<T> place, Making<T> making) throws IOException {
    boolean made = false;
    try {
      T thing = making.make();
      lock.lock();
      try {
        place.thing = thing;
        place.users = 1;
        changed.signalAll();
      } finally {
        lock.unlock();
      }
      made = true;
      return new Lease(name, place, thing);
    } catch (IOException failure) {
      place.failure = failure;
      throw failure;
    } finally {
      if (!made) {
        forget(name, place);
      }
    }
  }

  private void forget(String name, Place<T> place) {
    lock.lock();
    try {
      places.remove(name, place);
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  /** Returns the things that are there at the moment. */
  public List<T> all() {
    lock.lock();
    try {
      List<T> things = new ArrayList<>();
      for (Place<T> place : places.values()) {
        if (place.thing != null) {
          things.add(place.thing);
        }
      }
      return things;
    } finally {
      lock.unlock();
    }
  }
}
