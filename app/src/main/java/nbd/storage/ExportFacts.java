package nbd.storage;

import java.util.Optional;
import nbd.protocol.BlockSizes;

/**
 * A handle's description of its export, constant for the handle's life.
 *
 * @param size in bytes
 * @param blockSizes the sizes that requests have to keep to
 * @param capabilities the operations that may be asked of it
 * @param description the storage's text for people; may be empty
 * @param identity equal for openings of the same storage, and different for other storage that has
 *     taken its place under the same export name: another file, a new session with a server. Where
 *     storage is {@link Capability#MULTI_CONN}, a flush of one handle covers the writes of other
 *     handles that have the same export name and an equal identity.
 * @param dirtyBitmap the name of the storage's record of what changed, which {@link
 *     Operation#dirty} asks for; empty if it has none
 */
public record ExportFacts(
    long size,
    BlockSizes blockSizes,
    Capabilities capabilities,
    String description,
    Object identity,
    Optional<String> dirtyBitmap) {
  /** Describes storage that does not record what changed. */
  public ExportFacts(
      long size,
      BlockSizes blockSizes,
      Capabilities capabilities,
      String description,
      Object identity) {
    this(size, blockSizes, capabilities, description, identity, Optional.empty());
  }

  /** Describes storage that nothing ever replaces, with the usual block sizes. */
  public ExportFacts(long size, Capabilities capabilities) {
    this(size, BlockSizes.DEFAULT, capabilities, "", ExportFacts.class);
  }

  /** Says why requests for an earlier opening cannot go on with this one; empty if they can. */
  public Optional<String> differenceTo(ExportFacts before) {
    if (size != before.size) {
      return Optional.of("it came back with %d bytes instead of %d".formatted(size, before.size));
    }
    if (!dirtyBitmap.equals(before.dirtyBitmap)) {
      return Optional.of("it came back with another dirty bitmap, or without one");
    }
    return blockSizes.equals(before.blockSizes) && capabilities.equals(before.capabilities)
        ? Optional.empty()
        : Optional.of("it came back with other flags or block sizes");
  }

  /** Returns the same facts with other capabilities. */
  public ExportFacts with(Capabilities other) {
    return new ExportFacts(size, blockSizes, other, description, identity, dirtyBitmap);
  }

  /** Returns the same facts with a dirty bitmap of this name. */
  public ExportFacts withDirtyBitmap(String name) {
    return new ExportFacts(
        size, blockSizes, capabilities, description, identity, Optional.of(name));
  }

  /**
   * Returns the facts of one of several handles that share an opening, so that a flush of one
   * covers all.
   *
   * @param opening the identity
   */
  public ExportFacts shared(Object opening, boolean readOnly) {
    Capabilities all = capabilities.with(Capability.MULTI_CONN);
    return new ExportFacts(
        size, blockSizes, readOnly ? all.readOnly() : all, description, opening, dirtyBitmap);
  }
}
