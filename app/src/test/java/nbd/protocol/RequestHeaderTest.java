package nbd.protocol;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.nio.ByteBuffer;
import nbd.testing.Bytes;
import org.junit.jupiter.api.Test;

/** The numbers of requests on the wire. */
final class RequestHeaderTest {
  @Test
  void everyFieldIsUnsigned() throws ProtocolException {
    byte[] wire =
        Bytes.of().u32(0x25609513).u16(0xfffe).u16(0xfffd).u64(-3).u64(-4).u32(-5).toArray();
    ByteBuffer in = ByteBuffer.allocate(40).position(7).put(wire).flip().position(7);
    RequestHeader request = new RequestHeader();
    request.readFrom(in);
    assertThat(in.remaining()).isZero();
    assertThat(request.flags()).isEqualTo(0xfffe);
    assertThat(request.type()).isEqualTo(0xfffd);
    assertThat(request.cookie()).isEqualTo(-3);
    assertThat(request.offset()).isEqualTo(-4);
    assertThat(request.length()).isEqualTo(0xfffffffbL);
  }

  @Test
  void aWrittenHeaderIsReadBack() throws ProtocolException {
    ByteBuffer wire = ByteBuffer.allocate(RequestHeader.BYTES);
    RequestHeader.write(
        wire, false, 3, Command.WRITE_ZEROES, 0x0102030405060708L, 1L << 40, 0xfffff000L);
    assertThat(wire.array())
        .isEqualTo(
            Bytes.of()
                .u32(0x25609513)
                .u16(3)
                .u16(6)
                .u64(0x0102030405060708L)
                .u64(1L << 40)
                .u32(0xfffff000L)
                .toArray());
    RequestHeader request = new RequestHeader();
    request.readFrom(wire.flip());
    assertThat(request.length()).isEqualTo(0xfffff000L);
  }

  @Test
  void anotherMagicIsNoRequest() {
    RequestHeader request = new RequestHeader();
    assertThatThrownBy(() -> request.readFrom(ByteBuffer.allocate(28)))
        .isInstanceOf(ProtocolException.class)
        .hasMessageContaining("0x00000000");
  }

  @Test
  void commandsAreFoundByTheirNumbers() {
    for (Command command : Command.values()) {
      assertThat(Command.of(command.code())).contains(command);
    }
    for (int code : new int[] {9, 255, 0x7fff, 0xffff}) {
      assertThat(Command.of(code)).isEmpty();
    }
  }

  @Test
  void optionsAreFoundByTheirNumbers() {
    for (Option option : Option.values()) {
      assertThat(Option.of(option.code())).contains(option);
    }
    for (int code : new int[] {0, 12, Integer.MAX_VALUE, Integer.MIN_VALUE, -1}) {
      assertThat(Option.of(code)).isEmpty();
    }
  }

  @Test
  void flagsAreASet() {
    CommandFlags both = CommandFlags.of(CommandFlag.FUA).with(CommandFlag.NO_HOLE);
    assertThat(both.bits()).isEqualTo(3);
    assertThat(both.has(CommandFlag.FUA)).isTrue();
    assertThat(both.has(CommandFlag.DF)).isFalse();
    assertThat(both.without(CommandFlag.FUA)).isEqualTo(CommandFlags.of(CommandFlag.NO_HOLE));
    assertThat(both.within(both)).isTrue();
    assertThat(both.within(CommandFlags.of(CommandFlag.FUA))).isFalse();
    assertThat(CommandFlags.NONE.within(both)).isTrue();
  }

  @Test
  void flagsThatTheProtocolLacksAreKept() {
    for (int bits : new int[] {0x40, 0x8000, 0xffff}) {
      assertThat(CommandFlags.of(bits).bits()).isEqualTo(bits);
      assertThat(CommandFlags.of(bits).within(CommandFlags.of(0x3f))).isFalse();
    }
    assertThat(CommandFlags.of(5)).isSameAs(CommandFlags.of(5));
  }

  @Test
  void aReplyIsSixteenBytes() {
    ByteBuffer out = ByteBuffer.allocate(ReplyFormat.SIMPLE.successBytes());
    ReplyFormat.SIMPLE.error(out, -2, 0, new ErrorReply(NbdError.ESHUTDOWN, "stops"));
    assertThat(out.array()).isEqualTo(Bytes.of().u32(0x67446698).u32(108).u64(-2).toArray());
  }
}
