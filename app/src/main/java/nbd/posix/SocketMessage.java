package nbd.posix;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.util.ArrayList;
import java.util.List;

/**
 * The struct msghdr of sendmsg(2) and recvmsg(2), with open files (SCM_RIGHTS in unix(7)), as it is
 * on 64-bit systems.
 */
final class SocketMessage {
  private static final int SOL_SOCKET = 1;
  private static final int SCM_RIGHTS = 1;
  private static final int MSG_CTRUNC = 0x8;

  /** The sizes of struct msghdr, struct iovec and struct cmsghdr. */
  private static final int MESSAGE_BYTES = 56;

  private static final int VECTOR_BYTES = 16;
  private static final int CONTROL_BYTES = 16;

  /** Offsets in struct msghdr. */
  private static final int CONTROL_LENGTH = 40;

  private static final int FLAGS = 48;

  private SocketMessage() {}

  /**
   * Makes a message that is to be sent with files, to an address, or NULL on a connected socket.
   */
  static MemorySegment of(
      SegmentAllocator memory, MemorySegment address, MemorySegment data, List<Descriptor> files) {
    if (files.isEmpty()) {
      return of(memory, address, data, MemorySegment.NULL);
    }
    MemorySegment control = control(memory, files.size());
    control.set(JAVA_LONG, 0, CONTROL_BYTES + files.size() * (long) Integer.BYTES);
    control.set(JAVA_INT, 8, SOL_SOCKET);
    control.set(JAVA_INT, 12, SCM_RIGHTS);
    for (int i = 0; i < files.size(); i++) {
      control.set(JAVA_INT, CONTROL_BYTES + 4L * i, files.get(i).number());
    }
    return of(memory, address, data, control);
  }

  /** Makes a message with a place for files, or NULL. */
  static MemorySegment of(
      SegmentAllocator memory, MemorySegment address, MemorySegment data, MemorySegment control) {
    MemorySegment message = memory.allocate(MESSAGE_BYTES + VECTOR_BYTES, 8);
    MemorySegment vector = message.asSlice(MESSAGE_BYTES, VECTOR_BYTES);
    vector.set(ADDRESS, 0, data);
    vector.set(JAVA_LONG, 8, data.byteSize());
    message.set(ADDRESS, 0, address);
    message.set(JAVA_INT, 8, (int) address.byteSize());
    message.set(ADDRESS, 16, vector);
    message.set(JAVA_LONG, 24, 1);
    message.set(ADDRESS, 32, control);
    message.set(JAVA_LONG, CONTROL_LENGTH, control.byteSize());
    return message;
  }

  /** Makes a place for files. */
  static MemorySegment control(SegmentAllocator memory, int files) {
    return memory.allocate(CONTROL_BYTES + (files + 1) / 2 * 8L, 8);
  }

  /** Returns the files that came with a received message; the caller owns them. */
  static List<Descriptor> files(MemorySegment message, MemorySegment control) {
    List<Descriptor> files = new ArrayList<>();
    if (message.get(JAVA_LONG, CONTROL_LENGTH) >= CONTROL_BYTES) {
      long end = control.get(JAVA_LONG, 0);
      for (long at = CONTROL_BYTES; at + 4 <= end; at += 4) {
        files.add(new Descriptor(control.get(JAVA_INT, at)));
      }
    }
    return files;
  }

  /** Says whether files of a received message are missing. */
  static boolean isCut(MemorySegment message) {
    return (message.get(JAVA_INT, FLAGS) & MSG_CTRUNC) != 0;
  }
}
