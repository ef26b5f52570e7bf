package nbd.cli;

import nbd.client.ExportInfo;
import nbd.client.NbdUri;
import nbd.protocol.TransmissionFlag;

/** What {@code info --can} and {@code --is} answer by yes or no; the names are nbdinfo's. */
enum ExportQuestion {
  CACHE,
  CONNECT,
  DF,
  FAST_ZERO,
  FLUSH,
  FUA,
  MULTI_CONN,
  READ,
  READ_ONLY,
  ROTATIONAL,
  STRUCTURED_REPLY,
  TLS,
  TRIM,
  WRITE,
  ZERO;

  /** Whether the answer is yes for an export that was opened by this URI. */
  boolean isTrue(NbdUri uri, ExportInfo export) {
    return switch (this) {
      case CONNECT, READ -> true;
      case TLS -> uri.tls();
      case STRUCTURED_REPLY -> export.structuredReplies();
      case WRITE -> !export.has(TransmissionFlag.READ_ONLY);
      case READ_ONLY -> export.has(TransmissionFlag.READ_ONLY);
      case ROTATIONAL -> export.has(TransmissionFlag.ROTATIONAL);
      case CACHE -> export.has(TransmissionFlag.SEND_CACHE);
      case DF -> export.has(TransmissionFlag.SEND_DF);
      case FAST_ZERO -> export.has(TransmissionFlag.SEND_FAST_ZERO);
      case FLUSH -> export.has(TransmissionFlag.SEND_FLUSH);
      case FUA -> export.has(TransmissionFlag.SEND_FUA);
      case MULTI_CONN -> export.has(TransmissionFlag.CAN_MULTI_CONN);
      case TRIM -> export.has(TransmissionFlag.SEND_TRIM);
      case ZERO -> export.has(TransmissionFlag.SEND_WRITE_ZEROES);
    };
  }

  /** Whether it is asked by {@code --is}; else by {@code --can}. */
  boolean isProperty() {
    return this == READ_ONLY || this == ROTATIONAL || this == TLS;
  }
}
