package nbd.client;

import java.util.Map;
import java.util.Optional;
import java.util.Set;
import nbd.protocol.BaseAllocation;
import nbd.protocol.BlockSizes;
import nbd.protocol.TransmissionFlag;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.ExportFacts;

/**
 * An export as its server describes it to the client that has opened it, and the agreements of the
 * two.
 *
 * @param name by which the client opened it
 * @param canonicalName the server's name for it, if the server sent one
 * @param description a text for people; may be empty
 * @param size in bytes
 * @param flags that the server set
 * @param serverBlockSizes the block sizes that the server sent, if it did
 * @param fixedNewstyle whether the server can refuse options; else it knows but one
 * @param structuredReplies whether reads are answered in chunks
 * @param extendedHeaders whether lengths have 64 bits
 * @param contexts the selected metadata contexts and their numbers (unsigned)
 */
public record ExportInfo(
    String name,
    Optional<String> canonicalName,
    String description,
    long size,
    Set<TransmissionFlag> flags,
    Optional<ServerBlockSizes> serverBlockSizes,
    boolean fixedNewstyle,
    boolean structuredReplies,
    boolean extendedHeaders,
    Map<String, Integer> contexts) {
  /** Keeps copies. */
  public ExportInfo {
    flags = Set.copyOf(flags);
    contexts = Map.copyOf(contexts);
  }

  public boolean has(TransmissionFlag flag) {
    return flags.contains(flag);
  }

  /** Says whether the server answers BLOCK_STATUS with data, holes and zeroes. */
  public boolean tellsExtents() {
    return contexts.containsKey(BaseAllocation.NAME);
  }

  /** Returns the block sizes that requests have to keep to. */
  public BlockSizes blockSizes() {
    return serverBlockSizes.map(ServerBlockSizes::forCallers).orElse(BlockSizes.DEFAULT);
  }

  /** Returns the longest payload of a request to the server, in bytes. */
  int longestPayload() {
    return serverBlockSizes
        .map(ServerBlockSizes::longestPayload)
        .orElse(BlockSizes.DEFAULT.maximumPayload());
  }

  /** Describes the export as storage. */
  ExportFacts facts() {
    Capabilities can = Capabilities.of(flags);
    return new ExportFacts(
        size,
        blockSizes(),
        tellsExtents() ? can.with(Capability.EXTENTS) : can,
        description,
        ExportInfo.class);
  }
}
