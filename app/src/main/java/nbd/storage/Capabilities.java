package nbd.storage;

import java.util.Collections;
import java.util.EnumSet;
import java.util.Set;

/**
 * What a handle can do: constant for its life.
 *
 * @param set everything but FUA
 * @param fua how it does FUA
 */
public record Capabilities(Set<Capability> set, Fua fua) {
  /** Keeps a copy. */
  public Capabilities {
    EnumSet<Capability> copy = EnumSet.noneOf(Capability.class);
    copy.addAll(set);
    set = Collections.unmodifiableSet(copy);
  }

  /** These, and no more. */
  public static Capabilities of(Fua fua, Capability... capabilities) {
    return new Capabilities(Set.of(capabilities), fua);
  }

  /** Whether the capability is there. */
  public boolean has(Capability capability) {
    return set.contains(capability);
  }

  /** The same and this one. */
  public Capabilities with(Capability capability) {
    EnumSet<Capability> more = EnumSet.of(capability);
    more.addAll(set);
    return new Capabilities(more, fua);
  }

  /** The same without this one. */
  public Capabilities without(Capability capability) {
    EnumSet<Capability> fewer = EnumSet.noneOf(Capability.class);
    fewer.addAll(set);
    fewer.remove(capability);
    return new Capabilities(fewer, fua);
  }

  /** The same with another way of FUA. */
  public Capabilities with(Fua other) {
    return new Capabilities(set, other);
  }

  /** What is left when nothing may be written. */
  public Capabilities readOnly() {
    return without(Capability.WRITE)
        .without(Capability.TRIM)
        .without(Capability.ZERO)
        .without(Capability.FAST_ZERO);
  }
}
