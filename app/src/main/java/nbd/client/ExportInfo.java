package nbd.client;

import java.util.Map;
import java.util.Optional;
import java.util.Set;
import nbd.protocol.BaseAllocation;
import nbd.protocol.BlockSizes;
import nbd.protocol.TransmissionFlag;

/**
 * What a server says of the export that a client has opened, and what the two have agreed upon.
 *
 * @param name as it was asked for
 * @param canonicalName what the server calls it, if it told
 * @param description a text for people; may be empty
 * @param size in bytes
 * @param flags what it can do
 * @param blockSizes what requests have to keep to
 * @param toldBlockSizes what the server said of that, if anything
 * @param fixedNewstyle whether the server can refuse options; else it knows but one
 * @param structuredReplies whether reads are answered in chunks
 * @param extendedHeaders whether lengths have 64 bits
 * @param contexts the metadata contexts that the server tells of, and their numbers (unsigned)
 */
public record ExportInfo(
    String name,
    Optional<String> canonicalName,
    String description,
    long size,
    Set<TransmissionFlag> flags,
    BlockSizes blockSizes,
    Optional<ToldBlockSizes> toldBlockSizes,
    boolean fixedNewstyle,
    boolean structuredReplies,
    boolean extendedHeaders,
    Map<String, Integer> contexts) {
  /** Keeps copies. */
  public ExportInfo {
    flags = Set.copyOf(flags);
    contexts = Map.copyOf(contexts);
  }

  /** Whether a flag is set. */
  public boolean has(TransmissionFlag flag) {
    return flags.contains(flag);
  }

  /** Whether the server tells where data, holes and zeroes are. */
  public boolean tellsExtents() {
    return contexts.containsKey(BaseAllocation.NAME);
  }

  /** The longest payload of one request, in bytes. */
  int longestPayload() {
    return toldBlockSizes
        .map(ToldBlockSizes::longestPayload)
        .orElse(BlockSizes.DEFAULT.maximumPayload());
  }
}
