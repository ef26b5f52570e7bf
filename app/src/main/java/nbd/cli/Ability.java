package nbd.cli;

import nbd.client.ExportInfo;
import nbd.protocol.TransmissionFlag;
import org.jspecify.annotations.Nullable;

/** The questions of {@code info --can}; their names are nbdinfo's. */
enum Ability {
  CACHE(TransmissionFlag.SEND_CACHE),
  CONNECT(null),
  DF(TransmissionFlag.SEND_DF),
  FAST_ZERO(TransmissionFlag.SEND_FAST_ZERO),
  FLUSH(TransmissionFlag.SEND_FLUSH),
  FUA(TransmissionFlag.SEND_FUA),
  MULTI_CONN(TransmissionFlag.CAN_MULTI_CONN),
  READ(null),
  STRUCTURED_REPLY(null),
  TRIM(TransmissionFlag.SEND_TRIM),
  WRITE(null),
  ZERO(TransmissionFlag.SEND_WRITE_ZEROES);

  private final @Nullable TransmissionFlag flag;

  Ability(@Nullable TransmissionFlag flag) {
    this.flag = flag;
  }

  /** True if a flag of the export is the answer. */
  boolean isFlag() {
    return flag != null;
  }

  /** Answers for an export that was opened. */
  boolean isOf(ExportInfo export) {
    return switch (this) {
      case STRUCTURED_REPLY -> export.structuredReplies();
      case WRITE -> !export.has(TransmissionFlag.READ_ONLY);
      default -> flag == null || export.has(flag);
    };
  }
}
