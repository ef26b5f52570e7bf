package nbd.cache;

import static nbd.cache.Scene.BLOCK;
import static nbd.cache.Scene.read;
import static nbd.cache.Scene.write;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import nbd.protocol.Command;
import nbd.protocol.CommandFlags;
import nbd.storage.Handle;
import nbd.storage.Operation;
import org.junit.jupiter.api.Test;

/** The choice of the blocks that stay in a cache that is too small. */
class EvictionTest {
  private static final int BLOCKS = 40;
  private static final int HOT = 16;

  private static void readHot(Handle handle, int times) throws IOException {
    for (int i = 0; i < times; i++) {
      for (int block = 0; block < HOT; block++) {
        read(handle, (long) block * 3 * BLOCK);
      }
    }
  }

  private static int hotBlocksThatStayed(Handle handle) throws IOException {
    int stayed = 0;
    for (int block = 0; block < HOT; block++) {
      if (handle.tryNow(Operation.read(ByteBuffer.allocate(512), (long) block * 3 * BLOCK))) {
        stayed++;
      }
    }
    return stayed;
  }

  /** With LRU or FIFO none of them would stay: the scan is five times as long as the cache. */
  @Test
  void whatIsUsedOftenSurvivesAScan() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, BLOCKS)) {
      Handle handle = scene.open();
      readHot(handle, 4);
      Handle scanner = scene.open();
      // In small steps: several reads in one block, one after the other, are one use of it.
      for (int at = 50 * BLOCK; at < 250 * BLOCK; at += 1024) {
        read(scanner, at);
      }
      assertThat(hotBlocksThatStayed(handle)).isEqualTo(HOT);
    }
  }

  /** Dirty blocks, which cannot be evicted, take up to three quarters of the cache. */
  @Test
  void whatIsUsedOftenSurvivesAScanThatWrites() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 72)) {
      Handle handle = scene.open();
      readHot(handle, 4);
      Handle scanner = scene.open();
      for (int block = 50; block < 250; block++) {
        scanner.write(ByteBuffer.allocate(BLOCK), (long) block * BLOCK, CommandFlags.NONE);
      }
      assertThat(hotBlocksThatStayed(handle)).isEqualTo(HOT);
    }
  }

  /** Its blocks are used at long intervals only: S3-FIFO remembers those that have just left. */
  @Test
  void whatComesBackSoonStays() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, BLOCKS)) {
      Handle handle = scene.open();
      Handle scanner = scene.open();
      readHot(handle, 1);
      for (int block = 100; block < 100 + BLOCKS; block++) {
        read(scanner, (long) block * BLOCK);
      }
      assertThat(hotBlocksThatStayed(handle)).as("they have left").isZero();
      readHot(handle, 1);
      for (int block = 150; block < 240; block++) {
        read(scanner, (long) block * BLOCK);
      }
      assertThat(hotBlocksThatStayed(handle)).isEqualTo(HOT);
    }
  }

  @Test
  void theWorkingSetChanges() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, BLOCKS)) {
      Handle handle = scene.open();
      readHot(handle, 4);
      for (int i = 0; i < 12; i++) {
        for (int block = 100; block < 130; block++) {
          read(handle, (long) block * BLOCK);
        }
      }
      scene.storage.forgetCalls();
      for (int block = 100; block < 130; block++) {
        read(handle, (long) block * BLOCK);
      }
      assertThat(scene.storage.count(Command.READ)).isZero();
    }
  }

  @Test
  void memoryIsBoundedForAllExportsTogether() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 16)) {
      for (int i = 0; i < 5; i++) {
        Handle handle = scene.filter.open("export " + i, false);
        for (int block = 0; block < 30; block++) {
          write(handle, (long) block * BLOCK, block);
          read(handle, (long) (block + 100) * BLOCK);
        }
      }
      assertThat(scene.filter.bytes()).isEqualTo(16L * BLOCK);
    }
  }
}
