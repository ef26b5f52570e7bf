package nbd.storage;

import nbd.protocol.BlockSizes;

/**
 * What a handle says of itself: constant for its life.
 *
 * @param size in bytes
 * @param blockSizes the sizes that requests have to keep to
 * @param capabilities the operations that may be asked of it
 * @param description the storage's own, for people; may be empty
 * @param identity tells openings of the same storage from openings of other storage under the same
 *     export name: a file that has replaced another one, a session that was begun anew with a
 *     server. Where storage is {@link Capability#MULTI_CONN}, a flush of one handle covers the
 *     writes of those others only that were opened by the same name and have an equal identity.
 */
public record ExportFacts(
    long size,
    BlockSizes blockSizes,
    Capabilities capabilities,
    String description,
    Object identity) {
  /** Storage whose name always stands for the same, with the usual block sizes. */
  public ExportFacts(long size, Capabilities capabilities) {
    this(size, BlockSizes.DEFAULT, capabilities, "", ExportFacts.class);
  }

  /** Gives the same facts with other capabilities. */
  public ExportFacts with(Capabilities other) {
    return new ExportFacts(size, blockSizes, other, description, identity);
  }

  /**
   * Gives the facts of one of several handles that share an opening, so that a flush of one covers
   * all.
   *
   * @param opening tells it from other openings
   */
  public ExportFacts shared(Object opening, boolean readOnly) {
    Capabilities all = capabilities.with(Capability.MULTI_CONN);
    return new ExportFacts(size, blockSizes, readOnly ? all.readOnly() : all, description, opening);
  }
}
