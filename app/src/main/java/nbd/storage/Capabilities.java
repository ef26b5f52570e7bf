package nbd.storage;

import java.util.Collections;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import nbd.protocol.TransmissionFlag;

/**
 * The set of a handle's capabilities, constant for its life. Those that make no sense without
 * another one are left out where that one is missing.
 */
public record Capabilities(Set<Capability> set) {
  public Capabilities {
    EnumSet<Capability> kept = EnumSet.noneOf(Capability.class);
    kept.addAll(set);
    if (!kept.contains(Capability.WRITE)) {
      kept.removeAll(EnumSet.of(Capability.TRIM, Capability.ZERO));
    }
    if (!kept.contains(Capability.ZERO)) {
      kept.remove(Capability.FAST_ZERO);
    }
    set = Collections.unmodifiableSet(kept);
  }

  /** Returns the set of these capabilities. */
  public static Capabilities of(Capability... capabilities) {
    return new Capabilities(Set.of(capabilities));
  }

  /** Returns the capabilities of an export with these transmission flags, but no EXTENTS. */
  public static Capabilities of(Set<TransmissionFlag> flags) {
    EnumSet<Capability> set = EnumSet.allOf(Capability.class);
    set.removeIf(each -> each.flag().filter(flags::contains).isEmpty());
    if (!flags.contains(TransmissionFlag.READ_ONLY)) {
      set.add(Capability.WRITE);
    }
    return new Capabilities(set);
  }

  /** Returns the transmission flags that tell a client of these capabilities. */
  public Set<TransmissionFlag> flags() {
    EnumSet<TransmissionFlag> flags = EnumSet.of(TransmissionFlag.HAS_FLAGS);
    set.forEach(each -> each.flag().ifPresent(flags::add));
    if (!has(Capability.WRITE)) {
      flags.add(TransmissionFlag.READ_ONLY);
    }
    return flags;
  }

  /** Says whether the capability is in the set. */
  public boolean has(Capability capability) {
    return set.contains(capability);
  }

  /** Returns this set and these capabilities. */
  public Capabilities with(Capability... more) {
    EnumSet<Capability> all = EnumSet.noneOf(Capability.class);
    all.addAll(set);
    Collections.addAll(all, more);
    return new Capabilities(all);
  }

  /** Returns this set without these capabilities. */
  public Capabilities without(Capability... fewer) {
    EnumSet<Capability> rest = EnumSet.noneOf(Capability.class);
    rest.addAll(set);
    List.of(fewer).forEach(rest::remove);
    return new Capabilities(rest);
  }

  /** Returns this set without the capabilities that change the export. */
  public Capabilities readOnly() {
    return without(Capability.WRITE);
  }
}
