package nbd.fuzz;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.Set;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;
import nbd.testing.Bytes;
import nbd.testing.RawClient;
import nbd.testing.TestCertificates;

/**
 * A program that writes the seeds made by hand: the ways in which NBD servers broke, and one of
 * each thing that a session can have. Run it again after changing how the tests read their bytes.
 * It leaves recordings of other programs (real-*) and findings of the fuzzer (found-*) alone.
 */
final class Seeds {
  /**
   * Sessions of options, by name: two bytes of {@link Setup}, the client's flags, and what {@link
   * Session#options} reads.
   */
  private static final String OPTIONS =
      """
      list-info-go-read: 0 0 4 list info 2 4 0 1 2 3 go 0 0 0 0 0 0 bye
      abort: 0 0 4 1
      each-option-once: 0 0 4 3 4 7 8 0 0 9 0 0 10 7 8 0 1 1 1
      export-name-unknown: 0 0 4 0 3
      export-name-after-extended-headers: 0 0 4 10 0 0
      names-that-are-none: 0 0 4 info 5 0 info 6 0 info 7 0 info 8 1 0 info 9 2 0
      all-at-once: 0 0 4 list! info! 0 0 7! go! 0 0 0! 0 0 0
      damaged-lengths: 0 0 4 info? 0 1 255 0 0 0 1 0 3 255 0 0 0 9
      selection-for-another-export: 0 0 4 7 9 0 1 0 go 2 0 7 0 0 0
      failed-selection-after-a-good-one: 0 0 4 7 9 0 1 0 9 3 1 0 go 0 0 7 0 0 0
      starttls-offered: 0 32 4 4
      bytes-behind-starttls: 0 32 4 4 list!
      one-byte-at-a-time: 0 2 4 list go 0 1 1 0 0 0 0
      read-only: 16 0 4 go 0 0 1 0 0 0 7 4 0 0 0
      """;

  /** Sessions of requests, by name: two bytes of {@link Setup}, and what its requests read. */
  private static final String REQUESTS =
      """
      fast-zero-CVE-like-nbdkit-1.32: 0 0 zero 16 0 4 read 0 0 4
      refused-write-then-read: 0 0 write 0 6 9 0 1 read 0 0 0
      oversize-write-then-read: 8 0 write 0 0 7 4 1 read 0 0 0
      status-of-a-fragmented-export-CVE-2025-47711: 8 0 write 0 8 1 0 7 write 0 8 3 0 7 \
      write 0 8 5 0 7 status 0 0 4
      pipelined: 32 0 write 0 0 4 1 read! 0 0 4 trim! 0 0 6 9 write! 0 1 0 9 6 3 2 \
      flush! 0 0 11 bye!
      without-memory: 40 1 write 0 0 7 1 3 read! 0 0 7 1 read 0 0 4
      hasty-and-gone: 32 16 write 0 0 4 1 read 0 0 4 trim 0 0 4 flush 0 0 11
      far: 64 0 write 0 0 4 1 write! 1 1 0 9 0 3 read 0 0 4 bye
      unknown-command: 0 0 8 0 99 0 0 0 read 0 0 0
      garbage: 0 0 9 40 1 2 3 4
      option-in-transmission: 0 0 10 3
      status-payload: 0 0 11 4 0 12 12 1 2 3 0 11 0 0 status 0 0 4
      bitmap: 8 64 write 0 8 1 0 7 status 0 0 4 status 8 8 4 status 0 1 9 0 6 3
      bitmap-payload: 0 64 14 4 0 1 2 14 4 0 2 2 1 14 4 0 2 1 1 14 4 0 1 3 14 4 0 0 status 0 0 4
      status-payload-without-context-CVE-like-qemu-10.0: 0 0 11 0 0
      empty-export: 12 0 read 0 0 11 read 0 0 0 status 0 0 11
      one-byte-at-a-time: 0 2 write 0 0 0 1 read 0 0 0 bye
      polled: 32 8 write 0 0 4 1 read 0 0 4 bye
      """;

  /** Decisions of {@link HostileServer} and of the calls that it answers, by name. */
  private static final String ANSWERS =
      """
      honest: 0 0 0 0 0 1 0 0 5 3 0 0 1 0 0 4 0 0 0 0 0 5 0 0 1 0 0
      split: 1 0 0 0 0 255 255 0 5 0 6 0 7 0 8 3 0 0 255 0 0 0 0
      pieces-and-holes: 0 0 0 0 0 64 0 2 16 0 4 0 9 4 0 0 8 0 0 1 0 2
      error: 0 0 0 0 0 1 0 69 0 5 104 101 108 108 111 4 0 0 0 0
      extents: 0 0 7 0 0 255 255 3 6 3 16 0 1 16 0 2 0 1 0 0
      extents-behind-the-range: 0 0 7 0 0 0 10 3 6 3 16 0 1 16 0 2 0 1 0 0
      """;

  private static final Map<String, Integer> WORDS =
      Map.ofEntries(
          Map.entry("list", 2),
          Map.entry("info", 5),
          Map.entry("go", Session.GO),
          Map.entry("read", 0),
          Map.entry("write", 1),
          Map.entry("flush", 3),
          Map.entry("trim", 4),
          Map.entry("cache", 5),
          Map.entry("zero", 6),
          Map.entry("status", 7),
          Map.entry("bye", 13));

  private final Path root;

  private Seeds(Path root) {
    this.root = root;
  }

  /** Takes the directory of the seeds: src/test/resources/nbd/fuzz. */
  public static void main(String[] arguments) throws Exception {
    Seeds seeds = new Seeds(Path.of(arguments[0]));
    seeds.anyBytes();
    seeds.options();
    seeds.contexts();
    seeds.tls();
    seeds.requests();
    seeds.client();
    seeds.texts();
    seeds.keys();
  }

  private void write(String test, String method, String name, byte... bytes) throws IOException {
    Path directory = root.resolve(test + "FuzzTestInputs").resolve(method);
    Files.createDirectories(directory);
    Files.write(directory.resolve(name), bytes);
  }

  /** Turns words into bytes: numbers, and kinds of messages, at once (!) or damaged (?). */
  private static byte[] bytes(String words) {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    for (String word : words.strip().split("\\s+")) {
      String plain = word.replaceAll("[!?]", "");
      int number = WORDS.containsKey(plain) ? WORDS.get(plain) : Integer.parseInt(plain);
      bytes.write(number | (word.endsWith("!") ? 0x80 : 0) | (word.endsWith("?") ? 0x40 : 0));
    }
    return bytes.toByteArray();
  }

  /** A way to write one seed. */
  private interface Writer {
    void write(String name, String words) throws IOException;
  }

  private static void each(String table, Writer writer) throws IOException {
    for (String line : table.strip().split("\n")) {
      int colon = line.indexOf(':');
      writer.write(line.substring(0, colon), line.substring(colon + 1));
    }
  }

  private void hello(String name, int flags, byte[]... parts) throws IOException {
    Bytes bytes = Bytes.of().u16(0).u32(flags);
    for (byte[] part : parts) {
      bytes.raw(part);
    }
    write("Handshake", "anyBytesAreAnsweredInOrder", name, bytes.toArray());
  }

  private static byte[] option(int option, byte... data) {
    return RawClient.optionBytes(option, data);
  }

  private void anyBytes() throws IOException {
    byte[] go = option(7, RawClient.infoData("", 1, 2, 3));
    byte[] disconnect = RawClient.requestBytes(0, 2, 9, 0, 0);
    hello("unknown-client-flags", 7);
    hello("without-fixed-newstyle", 0, option(3));
    hello("export-name-with-zeroes", 1, option(1), disconnect);
    hello("export-name-without-zeroes", 3, option(1, "disk".getBytes(UTF_8)), disconnect);
    hello("export-name-too-long-CVE-2022-26495", 3, RawClient.optionHeader(1, 0xffffffffL));
    hello("unknown-option-of-4-GiB-CVE-2017-15119", 3, RawClient.optionHeader(99, 0xffffffffL));
    hello("name-length-4-GiB-CVE-2022-26496", 3, option(6, Bytes.of().u32(-1).u16(0).toArray()));
    hello("name-of-4096-CVE-2017-15118", 3, option(6, RawClient.infoData("a".repeat(4096))));
    hello("name-of-4097", 3, option(6, RawClient.infoData("a".repeat(4097), 3)));
    hello("65535-information-requests", 3, option(6, RawClient.infoData("", new int[65_535])));
    hello("data-on-options-without", 3, option(3, (byte) 1), option(8, (byte) 1), option(2));
    hello("starttls-without-tls", 3, option(5), option(5, (byte) 1), go, disconnect);
    hello("option-after-go", 3, go, option(3));
    hello("peek-and-unknown-options", 3, option(4), option(1000), option(-1), go, disconnect);
    byte[] queries = Bytes.of().u32(0).u32(1).u32(15).text("base:allocation").toArray();
    byte[] behind = Bytes.of().raw(queries).raw(option(7)).toArray();
    hello("option-header-inside-queries", 3, option(8), option(10, behind), go, disconnect);
    hello(
        "write-and-read",
        3,
        go,
        RawClient.requestBytes(0, 1, 1, 4096, 16),
        "0123456789abcdef".getBytes(UTF_8),
        RawClient.requestBytes(0, 0, 2, 4096, 16),
        RawClient.requestBytes(0, 3, 3, 0, 0),
        disconnect);
    hello("cookie-used-twice", 3, go, read(1), read(1), disconnect);
    hello("garbage-after-go", 3, go, "garbage that is no request".getBytes(UTF_8));
    byte[] write = RawClient.requestBytes(0, 1, 1, 0, 100);
    hello("end-in-a-payload", 3, go, write, "not all".getBytes(UTF_8));
    byte[] bare = Bytes.of().u32(0x21e41c71).u16(0).u16(1).u64(1).u64(0).u64(512).toArray();
    hello("extended-write-without-payload-flag", 3, option(11), go, bare);
    hello("compact-request-after-extended-headers", 3, option(11), go, read(1));
  }

  private static byte[] read(long cookie) {
    return RawClient.requestBytes(0, 0, cookie, 0, 512);
  }

  private void options() throws IOException {
    String method = "optionsInAnyOrderAreAnsweredInOrder";
    each(OPTIONS, (name, words) -> write("Handshake", method, name, bytes(words)));
  }

  private void contexts() throws IOException {
    String method = "anyQueriesForContextsAreAnsweredOrRefused";
    byte[] allocation =
        Bytes.of().u32(0).u32(1).u32(15).text("base:allocation").raw((byte) 0).toArray();
    for (int format = 0; format < 2; format++) {
      for (int select = 0; select < 2; select++) {
        String head = "0 0 " + format;
        Bytes query = Bytes.of().raw(bytes(head)).raw((byte) (allocation.length / 4));
        query.raw(allocation).raw((byte) select);
        write("Handshake", method, "one-query-" + format + select, query.toArray());
        byte[] empty = bytes(head + " 10 " + select);
        write("Handshake", method, "empty-" + format + select, empty);
      }
    }
    each(
        """
        all-kinds: 0 0 0 64 0 9 0 1 2 3 4 5 2 65 66 6 7 8 1 0
        too-many: 0 0 0 65 0 2 0 255 255 255 255 255 0 0 1 0 0
        overrun: 0 0 0 65 0 1 0 0 0 255 255 255 255 255 1
        queries-of-4096: 0 0 1 64 0 3 8 0 8 1 8 2 0
        bitmap: 0 64 1 64 0 0 1 64 0 1 9 0 64 0 1 10 1 64 2 2 10 11 1 64 0 3 0 3 10 0 64 2 1 3 1
        """,
        (name, words) -> write("Handshake", method, name, bytes(words)));
  }

  private void tls() throws Exception {
    String method = "anyBytesInsteadOfTlsEndTheConnection";
    SSLEngine engine = SSLContext.getDefault().createSSLEngine();
    engine.setUseClientMode(true);
    ByteBuffer record = ByteBuffer.allocate(engine.getSession().getPacketBufferSize());
    engine.wrap(ByteBuffer.allocate(0), record);
    byte[] hello = new byte[record.flip().remaining()];
    record.get(hello);
    byte[] whole = Bytes.of().raw((byte) 0).u16(hello.length).raw(hello).toArray();
    byte[] twice = Bytes.of().raw(whole).u16(hello.length).raw(hello).toArray();
    Bytes half = Bytes.of().raw((byte) 2).u16(hello.length / 2);
    half.raw(Arrays.copyOf(hello, hello.length / 2));
    write("Handshake", method, "client-hello", whole);
    write("Handshake", method, "two-client-hellos", twice);
    write("Handshake", method, "half-a-client-hello", half.toArray());
    byte[] plain = Bytes.of().raw((byte) 0).u16(16).raw(option(3)).toArray();
    write("Handshake", method, "plaintext", plain);
    write("Handshake", method, "alert", bytes("0 0 7 21 3 3 0 2 2 40"));
    write("Handshake", method, "long-record", bytes("1 0 5 22 3 1 255 255"));
  }

  private void requests(String name, String words) throws IOException {
    byte[] bytes = bytes(words);
    write("Transmission", "everyRequestGetsItsSimpleReply", name, bytes);
    // With chunks, a third byte decides whether the client selects base:allocation.
    Bytes more = Bytes.of().raw(Arrays.copyOf(bytes, 2)).raw((byte) 0);
    byte[] chunked = more.raw(Arrays.copyOfRange(bytes, 2, bytes.length)).toArray();
    write("Transmission", "everyRequestGetsItsChunks", name, chunked);
    write("Transmission", "everyRequestGetsItsExtendedChunks", name, chunked);
  }

  private void requests() throws IOException {
    each(REQUESTS, this::requests);
    String all =
        " write 0 3 1 0 7 read 0 3 1 0 flush 0 0 11 trim 1 3 1 0 cache 0 3 1 0 zero 2 3 2 6 3"
            + " status 0 0 4 status 8 0 4 read 4 0 4 bye";
    for (int setup = 0; setup < 0x60; setup += 0x10) {
      for (int how = 0; how < 4; how++) {
        String name = "every-command-%02x-%d".formatted(setup + how, how);
        requests(name, (setup + how) + " " + how + all);
      }
    }
    for (int length = 0; length < 12; length++) {
      StringBuilder lengths = new StringBuilder("0 0");
      for (String command : List.of("read", "write", "trim", "cache", "zero", "status")) {
        for (String offset : List.of("0", "4 1", "6 1", "7" + " 255".repeat(8))) {
          lengths.append(" %s 0 %s %d 2 2".formatted(command, offset, length));
        }
      }
      requests("lengths-" + length, lengths.toString());
    }
    for (int bit = 0; bit < 6; bit++) {
      String flagged =
          "0 0 read # 0 0 write # 0 0 5 flush # 0 11 trim # 0 0 cache # 0 0 zero # 0 0 status # 0 0"
              + " read 0 0 0";
      requests("flag-%d-on-everything".formatted(bit), flagged.replace("#", "" + (1 << bit)));
    }
  }

  private static Bytes greeting(int settings) {
    return Bytes.of().raw((byte) settings).text("NBDMAGIC").text("IHAVEOPT").u16(3);
  }

  private static byte[] reply(int option, int type, byte... data) {
    Bytes reply = Bytes.of().u64(0x0003e889045565a9L).u32(option).u32(type).u32(data.length);
    return reply.raw(data).toArray();
  }

  private void client() throws IOException {
    String handshake = "anyBytesInsteadOfAServerAreAnErrorOrAnExport";
    byte[] export = reply(7, 3, Bytes.of().u16(0).u64(1 << 20).u16(0xdfd).toArray());
    byte[] sizes = reply(7, 3, Bytes.of().u16(3).u32(512).u32(4096).u32(1 << 25).toArray());
    byte[] name = reply(7, 3, Bytes.of().u16(1).text("disk").toArray());
    byte[] text = reply(7, 3, Bytes.of().u16(2).text("a disk").toArray());
    byte[] context = reply(10, 4, Bytes.of().u32(3).text("base:allocation").toArray());
    byte[] listed = reply(3, 2, Bytes.of().u32(4).text("disk").text("a disk").toArray());
    byte[] wideRefused = reply(11, 0x80000001, "no".getBytes(UTF_8));
    byte[] refused = Bytes.of().raw(wideRefused).raw(reply(8, 0x80000001)).toArray();
    byte[] data = new byte[10];
    Bytes simple = greeting(8).raw(refused).raw(export).raw(name).raw(text).raw(sizes);
    simple.raw(reply(7, 1));
    simple.u32(0x67446698).u32(0).u64(1).raw(data);
    write("Client", handshake, "simple", simple.toArray());
    Bytes chunked = greeting(8).raw(wideRefused).raw(reply(8, 1)).raw(context).raw(reply(10, 1));
    chunked.raw(export).raw(reply(7, 1));
    chunked.u32(0x668e33ef).u16(1).u16(1).u64(1).u32(18).u64(0).raw(data);
    write("Client", handshake, "structured", chunked.toArray());
    Bytes wide = greeting(8).raw(reply(11, 1)).raw(context).raw(reply(10, 1));
    wide.raw(export).raw(reply(7, 1));
    wide.u32(0x6e8a278c).u16(1).u16(1).u64(1).u64(0).u64(18).u64(0).raw(data);
    write("Client", handshake, "extended", wide.toArray());
    Bytes byName = greeting(8).raw(refused).raw(reply(7, 0x80000001)).u64(1 << 20).u16(1);
    write("Client", handshake, "export-name", byName.toArray());
    Bytes list = greeting(0).raw(listed).raw(listed).raw(reply(3, 1));
    write("Client", handshake, "list", list.toArray());
    write("Client", handshake, "list-refused", greeting(0).raw(reply(3, 0x80000002)).toArray());
    byte[] all = reply(9, 4, Bytes.of().u32(0).text("qemu:allocation-depth").toArray());
    Bytes contexts = greeting(4).raw(reply(11, 1)).raw(all).raw(reply(9, 1));
    write("Client", handshake, "contexts", contexts.toArray());
    Bytes oldstyle = Bytes.of().raw((byte) 8).text("NBDMAGIC").u64(0x420281861253L).u64(0);
    write("Client", handshake, "oldstyle", oldstyle.toArray());
    for (String form : List.of("simpleReplies", "chunks", "extendedChunks")) {
      String method = form + "AreBelievedIfTheyMayBe";
      each(ANSWERS, (seed, words) -> write("Client", method, seed, bytes(words)));
      for (int step = 5; step < 12; step++) {
        String words = "0 0 0 0 0 16 0 %d 0 1 0 0 20 1 2 3 4 5 6 7 0 0 0 0".formatted(step);
        write("Client", method, "step-" + step, bytes(words));
      }
    }
  }

  private void texts() throws IOException {
    String[] uris = {
      "nbd://localhost",
      "nbd://localhost:10809/disk",
      "nbds://[::1]:1/a%20b",
      "nbd+unix:///?socket=/tmp/s",
      "nbds+unix:///x?socket=s&tls-certificates=/pki&tls-hostname=h&tls-verify-peer=false",
      "nbd://host/#fragment",
      "nbd://u@host/",
      "nbd://a_b:0/%zz",
      "nbd:///",
      "nbd://%5B/%00",
      "NBD://[fe80::1%25eth0]/"
    };
    for (int i = 0; i < uris.length; i++) {
      write("Uri", "anyTextIsAUriOrRefused", "uri-" + i, uris[i].getBytes(UTF_8));
    }
    String numbers = "0,1,512K,1m,9223372036854775807,8192P,8191P,10ms,5s,2h,1e9,-1,0.5:EIO";
    String[] values = (numbers + ",1:nope,NaN,-0, 1,١").split(",");
    for (int i = 0; i < values.length; i++) {
      write("Arguments", "anyTextIsAValueOrRefused", "value-" + i, values[i].getBytes(UTF_8));
    }
  }

  private void keys() throws IOException {
    Set<String> kinds = Set.of("rsa-pkcs8", "rsa-pkcs1", "ec-pkcs8", "ec-sec1", "ed25519", "dsa");
    for (String kind : kinds) {
      byte[] pem = Files.readAllBytes(TestCertificates.KEYS.resolve(kind + "-key.pem"));
      String text = new String(pem, UTF_8);
      int begin = text.lastIndexOf("-----BEGIN ");
      String body = text.substring(text.indexOf('\n', begin), text.lastIndexOf("-----END "));
      byte[] der = Base64.getMimeDecoder().decode(body.strip());
      int label = text.contains("RSA PRIVATE") ? 1 : text.contains("EC PRIVATE") ? 2 : 0;
      byte[] labelled = Bytes.of().raw((byte) label).raw(der).toArray();
      write("Keys", "anyBytesAreAKeyOrRefused", kind, labelled);
      byte[] file = Bytes.of().raw((byte) 0).raw(pem).toArray();
      write("Keys", "anyFileIsReadOrRefusedByName", kind, file);
    }
    String[] files = {"server-key.pem", "server-cert.pem", "ca-cert.pem", "ca-crl.pem"};
    for (int i = 0; i < files.length; i++) {
      byte[] pem = Files.readAllBytes(TestCertificates.GOOD.resolve(files[i]));
      byte[] file = Bytes.of().raw((byte) i).raw(pem).toArray();
      write("Keys", "anyFileIsReadOrRefusedByName", files[i], file);
    }
  }
}
