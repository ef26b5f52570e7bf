package nbd.upstream;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.EnumSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import nbd.client.ExportInfo;
import nbd.client.NbdClient;
import nbd.protocol.BlockSizes;
import nbd.protocol.CommandFlags;
import nbd.protocol.TransmissionFlag;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Completion;
import nbd.storage.Extent;
import nbd.storage.Fua;
import nbd.storage.Handle;

/** A connection to another NBD server, whose export is passed on as that server describes it. */
final class UpstreamHandle implements Handle {
  private final NbdClient client;
  private final Capabilities capabilities;
  private final BlockSizes blockSizes;

  private final Runnable afterClose;

  UpstreamHandle(NbdClient client, boolean readOnly, Runnable afterClose) {
    this.client = client;
    this.afterClose = afterClose;
    Capabilities all = capabilities(client.export());
    this.capabilities = readOnly ? all.readOnly() : all;
    this.blockSizes = served(client.export().blockSizes());
  }

  private static Capabilities capabilities(ExportInfo export) {
    Set<Capability> can = EnumSet.noneOf(Capability.class);
    addIf(can, !export.has(TransmissionFlag.READ_ONLY), Capability.WRITE);
    addIf(can, export.has(TransmissionFlag.SEND_FLUSH), Capability.FLUSH);
    addIf(can, export.has(TransmissionFlag.SEND_TRIM), Capability.TRIM);
    addIf(can, export.has(TransmissionFlag.SEND_WRITE_ZEROES), Capability.ZERO);
    addIf(can, export.has(TransmissionFlag.SEND_FAST_ZERO), Capability.FAST_ZERO);
    addIf(can, export.has(TransmissionFlag.SEND_CACHE), Capability.CACHE);
    addIf(can, export.has(TransmissionFlag.CAN_MULTI_CONN), Capability.MULTI_CONN);
    addIf(can, export.has(TransmissionFlag.ROTATIONAL), Capability.ROTATIONAL);
    addIf(can, export.tellsExtents(), Capability.EXTENTS);
    Capabilities capabilities = new Capabilities(can, fua(export));
    return can.contains(Capability.WRITE) ? capabilities : capabilities.readOnly();
  }

  private static void addIf(Set<Capability> can, boolean condition, Capability capability) {
    if (condition) {
      can.add(capability);
    }
  }

  private static Fua fua(ExportInfo export) {
    if (export.has(TransmissionFlag.SEND_FUA)) {
      return Fua.NATIVE;
    }
    return export.has(TransmissionFlag.SEND_FLUSH) ? Fua.EMULATE : Fua.NONE;
  }

  /** The server's own, with a limit on what this one has to hold for a request. */
  private static BlockSizes served(BlockSizes sizes) {
    int most = Math.min(sizes.maximumPayload(), BlockSizes.DEFAULT.maximumPayload());
    return new BlockSizes(sizes.minimum(), sizes.preferred(), most);
  }

  @Override
  public long size() {
    return client.export().size();
  }

  @Override
  public BlockSizes blockSizes() {
    return blockSizes;
  }

  @Override
  public String description() {
    return client.export().description();
  }

  @Override
  public Capabilities capabilities() {
    return capabilities;
  }

  @Override
  public Optional<String> broken() {
    return client.broken();
  }

  @Override
  public void read(ByteBuffer into, long offset) throws IOException {
    client.read(into, offset);
  }

  @Override
  public void write(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
    client.write(from, offset, flags);
  }

  @Override
  public boolean beginRead(ByteBuffer into, long offset, Completion end) {
    return client.beginRead(into, offset, end);
  }

  @Override
  public boolean beginWrite(ByteBuffer from, long offset, CommandFlags flags, Completion end) {
    return client.beginWrite(from, offset, flags, end);
  }

  @Override
  public void push() {
    client.push();
  }

  @Override
  public void flush() throws IOException {
    client.flush();
  }

  @Override
  public void trim(long offset, long length, CommandFlags flags) throws IOException {
    client.trim(offset, length, flags);
  }

  @Override
  public void zero(long offset, long length, CommandFlags flags) throws IOException {
    client.zero(offset, length, flags);
  }

  @Override
  public void cache(long offset, long length) throws IOException {
    client.cache(offset, length);
  }

  @Override
  public List<Extent> extents(long offset, long length, int most) throws IOException {
    return client.extents(offset, length, most);
  }

  @Override
  public void close() {
    try {
      client.close();
    } finally {
      afterClose.run();
    }
  }
}
