package nbd.interop;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import nbd.testing.Eventually;

/**
 * Storage for nbdkit's sh plugin that does what makes multi-conn unsafe: each connection keeps what
 * it writes to itself until it is flushed, and what it has read until then, too. Handles are
 * numbered as they are opened, from 1. A test can hold up or fail a method of one handle.
 */
final class CachingPlugin {
  /** The size of a block, and of every request. */
  static final int BLOCK = 512;

  static final int BLOCKS = 64;

  /** A read has its data before it is held up: what a late answer brings is old. */
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

  /** Makes the storage, all zeroes, in a directory. */
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

  /** What nbdkit needs to serve it. */
  String[] arguments() {
    return new String[] {"--filter=log", "sh", script.toString(), "logfile=" + logFile};
  }

  /** What reaches it, and when. */
  NbdkitLog log() {
    return new NbdkitLog(logFile);
  }

  /** Holds up a method of a handle until it is let go. */
  void hold(String method, int handle) throws IOException {
    Files.createFile(storage.resolve("hold." + method + "." + handle));
  }

  /** Waits until it is held up there. */
  void awaitHeld(String method, int handle) throws InterruptedException {
    Path reached = storage.resolve("reached." + method + "." + handle);
    Eventually.isTrue(method + " of handle " + handle + " is held", () -> Files.exists(reached));
  }

  /** Lets it go on. */
  void release(String method, int handle) throws IOException {
    Files.delete(storage.resolve("hold." + method + "." + handle));
    Files.deleteIfExists(storage.resolve("reached." + method + "." + handle));
  }

  /** Makes a method of a handle fail with an error such as ENOSPC. */
  void fail(String method, int handle, String error) throws IOException {
    Files.writeString(storage.resolve("fail." + method + "." + handle), error, UTF_8);
  }

  /** Lets it succeed again. */
  void mend(String method, int handle) throws IOException {
    Files.delete(storage.resolve("fail." + method + "." + handle));
  }

  /** The first byte of a block, as it would survive a crash. */
  byte durable(int block) throws IOException {
    return Files.readAllBytes(storage.resolve("disk"))[block * BLOCK];
  }
}
