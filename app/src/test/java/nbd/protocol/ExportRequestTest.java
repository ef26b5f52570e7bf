package nbd.protocol;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.nio.ByteBuffer;
import java.util.Random;
import java.util.Set;
import nbd.protocol.ExportRequest.MalformedException;
import nbd.testing.Bytes;
import nbd.testing.RawClient;
import org.junit.jupiter.api.RepeatedTest;
import org.junit.jupiter.api.Test;

/** The data of INFO and GO, and the replies to options. */
final class ExportRequestTest {
  private static ExportRequest parse(byte... data) throws MalformedException {
    return ExportRequest.parse(ByteBuffer.wrap(data));
  }

  @Test
  void nameAndKnownQuestionsAreTaken() throws MalformedException {
    assertThat(parse(RawClient.infoData("naïve", 3, 99, 3, 0, 0xffff)))
        .isEqualTo(new ExportRequest("naïve", Set.of(InfoType.BLOCK_SIZE, InfoType.EXPORT)));
  }

  @Test
  void theLongestDataIsTaken() throws MalformedException {
    byte[] longest = RawClient.infoData("x".repeat(4096), new int[0xffff]);
    assertThat(longest).hasSize(ExportRequest.MAXIMUM_BYTES);
    assertThat(parse(longest).name()).hasSize(4096);
  }

  @Test
  void aNameOf4097BytesIsRefused() {
    assertThatThrownBy(() -> parse(RawClient.infoData("x".repeat(4097))))
        .isInstanceOf(MalformedException.class)
        .hasMessageContaining("4097");
  }

  /** Random data is understood or refused, and nothing else. */
  @RepeatedTest(50)
  void anyDataIsUnderstoodOrRefused() {
    long seed = Long.getLong("nbd.seed", new Random().nextLong());
    Random random = new Random(seed);
    for (int i = 0; i < 200; i++) {
      byte[] data = RawClient.infoData("name", 0, 1, 2, 3);
      for (int change = random.nextInt(4); change > 0; change--) {
        data[random.nextInt(data.length)] = (byte) random.nextInt(-3, 9);
      }
      byte[] cut = java.util.Arrays.copyOf(data, random.nextInt(data.length + 8));
      try {
        ExportRequest request = parse(cut);
        int length = request.name().getBytes(java.nio.charset.StandardCharsets.UTF_8).length;
        assertThat(length + 6).as("seed %d", seed).isLessThanOrEqualTo(cut.length);
      } catch (MalformedException refused) {
        assertThat(refused.reason()).as("seed %d", seed).isNotBlank();
      }
    }
  }

  @Test
  void repliesAreAsTheProtocolHasThem() {
    assertThat(OptionReply.of(OptionReplyType.ACK).toWire(7).array())
        .isEqualTo(Bytes.of().u64(0x0003e889045565a9L).u32(7).u32(1).u32(0).toArray());
    assertThat(OptionReply.error(OptionReplyType.ERR_UNSUP, "no").toWire(-1).array())
        .isEqualTo(
            Bytes.of()
                .u64(0x0003e889045565a9L)
                .u32(-1)
                .u32(0x80000001)
                .u32(2)
                .text("no")
                .toArray());
    assertThat(OptionReply.server("é", "d").data().array())
        .isEqualTo(Bytes.of().u32(2).text("éd").toArray());
    assertThat(
            OptionReply.export(-2, Set.of(TransmissionFlag.HAS_FLAGS, TransmissionFlag.SEND_CACHE))
                .data()
                .array())
        .isEqualTo(Bytes.of().u16(0).u64(-2).u16(0x401).toArray());
    assertThat(OptionReply.text(InfoType.NAME, "n").data().array())
        .isEqualTo(Bytes.of().u16(1).text("n").toArray());
    assertThat(OptionReply.blockSizes(new BlockSizes(512, 4096, 1 << 20)).data().array())
        .isEqualTo(Bytes.of().u16(3).u32(512).u32(4096).u32(1 << 20).toArray());
  }

  @Test
  void aReplyCanBeWrittenTwice() {
    OptionReply reply = OptionReply.error(OptionReplyType.ERR_INVALID, "twice");
    assertThat(reply.toWire(1)).isEqualTo(reply.toWire(1));
  }

  @Test
  void onlyErrorsAreErrors() {
    for (OptionReplyType type : OptionReplyType.values()) {
      assertThat(type.isError()).isEqualTo(type.name().startsWith("ERR_"));
    }
  }

  @Test
  void blockSizesKeepTheProtocolsBounds() {
    assertThat(BlockSizes.DEFAULT).isEqualTo(new BlockSizes(1, 4096, 32 << 20));
    assertThat(new BlockSizes(65_536, 65_536, 1 << 20).minimum()).isEqualTo(65_536);
    int[][] wrong = {
      {0, 4096, 1 << 20},
      {3, 4096, 1 << 20},
      {-1, 4096, 1 << 20},
      {1 << 17, 1 << 17, 1 << 20},
      {Integer.MIN_VALUE, 4096, 1 << 20},
      {1, 256, 1 << 20},
      {1, 4097, 1 << 20},
      {4096, 512, 1 << 20},
      {1, 512, (1 << 20) - 1},
      {512, 512, (1 << 20) + 1},
      {1, 512, -1}
    };
    for (int[] sizes : wrong) {
      assertThatThrownBy(() -> new BlockSizes(sizes[0], sizes[1], sizes[2]))
          .as("%s", java.util.Arrays.toString(sizes))
          .isInstanceOf(IllegalArgumentException.class);
    }
  }
}
