package nbd.upstream;

import java.io.IOException;
import java.util.EnumSet;
import java.util.Optional;
import java.util.Set;
import nbd.client.ExportInfo;
import nbd.client.NbdClient;
import nbd.protocol.CommandFlags;
import nbd.protocol.TransmissionFlag;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Completion;
import nbd.storage.ExportFacts;
import nbd.storage.Fua;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;

/** A connection to another NBD server, whose export is passed on as that server describes it. */
final class UpstreamHandle extends Handle {
  private final NbdClient client;
  private final Runnable afterClose;

  UpstreamHandle(NbdClient client, boolean readOnly, Runnable afterClose) {
    super(facts(client.export(), readOnly));
    this.client = client;
    this.afterClose = afterClose;
  }

  private static ExportFacts facts(ExportInfo export, boolean readOnly) {
    Capabilities all = capabilities(export);
    return new ExportFacts(
        export.size(),
        export.blockSizes(),
        readOnly ? all.readOnly() : all,
        export.description(),
        UpstreamHandle.class);
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

  @Override
  public Optional<String> broken() {
    return client.broken();
  }

  @Override
  public Outcome perform(Operation operation, Patience patience, Completion end)
      throws IOException {
    return switch (patience) {
      case AT_ONCE -> Outcome.DECLINED;
      case LATER -> beginHere(operation, end) ? Outcome.BEGUN : Outcome.DECLINED;
      case WAIT -> {
        perform(operation);
        yield Outcome.DONE;
      }
    };
  }

  private boolean beginHere(Operation operation, Completion end) {
    long offset = operation.offset();
    return switch (operation.command()) {
      case READ -> client.beginRead(operation.data(), offset, end);
      case WRITE -> client.beginWrite(operation.data(), offset, operation.flags(), end);
      default -> false;
    };
  }

  private void perform(Operation operation) throws IOException {
    long offset = operation.offset();
    long length = operation.length();
    CommandFlags flags = operation.flags();
    switch (operation.command()) {
      case READ -> client.read(operation.data(), offset);
      case WRITE -> client.write(operation.data(), offset, flags);
      case FLUSH -> client.flush();
      case TRIM -> client.trim(offset, length, flags);
      case WRITE_ZEROES -> client.zero(offset, length, flags);
      case CACHE -> client.cache(offset, length);
      case BLOCK_STATUS -> operation.answer(client.extents(offset, length, operation.most()));
      default -> throw new AssertionError(operation.command());
    }
  }

  @Override
  public void push() {
    client.push();
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
