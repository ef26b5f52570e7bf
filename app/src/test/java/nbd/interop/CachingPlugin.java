package nbd.interop;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import nbd.testing.Eventually;

/**
 * Storage for nbdkit's sh plugin in which each connection has a cache of its own: it keeps the
 * writes until it is flushed, and the data read until then. Handles are numbered from 1, in the
 * order in which they are opened. A test can hold a method of a handle, or let it fail.
 */
final class CachingPlugin {
  /** The size of a block, and of every request. */
  static final int BLOCK = 512;

  static final int BLOCKS = 64;

  /** A read has its data before it is held, so that its answer is old. */
  private static final String SCRIPT =
      """
      #!/bin/bash
      cd "$storage" || exit 1
      method=$1 h=$2
      pass() {
        if [ -e "hold.$method.$h" ]; then
          : > "reached.$method.$h"
          while [ -e "hold.$method.$h" ]; do sleep 0.02; done
        fi
        if [ -e "fail.$method.$h" ]; then
          echo "$(cat "fail.$method.$h") as the test wants it" >&2
          exit 1
        fi
      }
      case $method in
        thread_model) echo parallel ;;
        open)
          exec 9>lock
          flock 9
          h=$(($(cat opened) + 1))
          echo $h > opened
          exec 9>&-
          mkdir "cache.$h"
          pass
          echo $h ;;
        get_size) stat -c %s disk ;;
        block_size) echo 512 512 512 ;;
        can_write | can_flush) exit 0 ;;
        can_fua) echo emulate ;;
        can_multi_conn | can_trim | can_zero) exit 3 ;;
        pread)
          b=$(($4 / 512))
          if [ -e "cache.$h/written.$b" ]; then from="cache.$h/written.$b"
          elif [ -e "cache.$h/read.$b" ]; then from="cache.$h/read.$b"
          else
            dd if=disk of="cache.$h/read.$b" bs=512 skip=$b count=1 status=none
            from="cache.$h/read.$b"
          fi
          data=$(mktemp -p . data.XXXXXX)
          cp "$from" "$data"
          pass
          cat "$data"
          rm "$data" ;;
        pwrite)
          b=$(($4 / 512))
          cat > "cache.$h/new.$b"
          pass
          mv "cache.$h/new.$b" "cache.$h/written.$b" ;;
        flush)
          dirty=$(cd "cache.$h" && ls -d written.* 2> /dev/null)
          for w in $dirty; do mv "cache.$h/$w" "cache.$h/flushing.${w#written.}"; done
          pass
          for w in $dirty; do
            b=${w#written.}
            dd "if=cache.$h/flushing.$b" of=disk bs=512 seek=$b conv=notrunc status=none
            rm "cache.$h/flushing.$b"
          done
          rm -f "cache.$h"/read.* ;;
        *) exit 2 ;;
      esac
      """;

  private final Path storage;
  private final Path script;
  private final Path logFile;

  /** Makes the storage in a directory, all zeroes. */
  CachingPlugin(Path directory) throws IOException {
    storage = Files.createDirectory(directory.resolve("storage"));
    script =
        Files.writeString(
            directory.resolve("plugin.sh"), SCRIPT.replace("$storage", storage.toString()));
    assertThat(script.toFile().setExecutable(true)).isTrue();
    Files.write(storage.resolve("disk"), new byte[BLOCKS * BLOCK]);
    Files.writeString(storage.resolve("opened"), "0\n");
    logFile = directory.resolve("log");
  }

  /** Returns nbdkit's arguments. */
  String[] arguments() {
    return new String[] {"--filter=log", "sh", script.toString(), "logfile=" + logFile};
  }

  /** Returns the log of the requests that reach it. */
  NbdkitLog log() {
    return new NbdkitLog(logFile);
  }

  /** Holds a method of a handle until it is released. */
  void hold(String method, int handle) throws IOException {
    Files.createFile(storage.resolve("hold." + method + "." + handle));
  }

  /** Waits until a method of a handle is held. */
  void awaitHeld(String method, int handle) throws InterruptedException {
    Path reached = storage.resolve("reached." + method + "." + handle);
    Eventually.isTrue(method + " of handle " + handle + " is held", () -> Files.exists(reached));
  }

  /** Releases a method of a handle. */
  void release(String method, int handle) throws IOException {
    Files.delete(storage.resolve("hold." + method + "." + handle));
    Files.deleteIfExists(storage.resolve("reached." + method + "." + handle));
  }

  /** Makes a method of a handle fail with an error such as ENOSPC. */
  void fail(String method, int handle, String error) throws IOException {
    Files.writeString(storage.resolve("fail." + method + "." + handle), error, UTF_8);
  }

  /** Makes a method of a handle succeed again. */
  void mend(String method, int handle) throws IOException {
    Files.delete(storage.resolve("fail." + method + "." + handle));
  }

  /** Reads the first byte of a block that would survive a crash. */
  byte durable(int block) throws IOException {
    return Files.readAllBytes(storage.resolve("disk"))[block * BLOCK];
  }
}
