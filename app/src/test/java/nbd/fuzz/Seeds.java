package nbd.fuzz;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Base64;
import java.util.Set;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;
import nbd.testing.Bytes;
import nbd.testing.RawClient;
import nbd.testing.TestCertificates;

/**
 * Writes the seeds that are made by hand: the ways in which NBD servers broke, and one of each
 * thing that a session can have. To be run again when what the tests read of their bytes has
 * changed; what was recorded of other programs (real-*) and what fuzzing has found (found-*) stays.
 */
final class Seeds {
  private static final int FUA = 1;
  private static final int DF = 4;
  private static final int REQ_ONE = 8;
  private static final int FAST_ZERO = 0x10;
  private static final int AT_ONCE = 0x80;
  private static final int DAMAGED = 0x40;

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

  private static byte[] ints(int... values) {
    byte[] bytes = new byte[values.length];
    for (int i = 0; i < values.length; i++) {
      bytes[i] = (byte) values[i];
    }
    return bytes;
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
    hello(
        "end-in-a-payload",
        3,
        go,
        RawClient.requestBytes(0, 1, 1, 0, 100),
        "not all".getBytes(UTF_8));
    hello(
        "extended-write-without-payload-flag",
        3,
        option(11),
        go,
        Bytes.of().u32(0x21e41c71).u16(0).u16(1).u64(1).u64(0).u64(512).toArray());
    hello("compact-request-after-extended-headers", 3, option(11), go, read(1));
  }

  private static byte[] read(long cookie) {
    return RawClient.requestBytes(0, 0, cookie, 0, 512);
  }

  private void options(String name, int... decisions) throws IOException {
    write("Handshake", "optionsInAnyOrderAreAnsweredInOrder", name, ints(decisions));
  }

  private void options() throws IOException {
    int flags = 4;
    int list = 2;
    int info = 5;
    options(
        "list-info-go-read",
        0,
        0,
        flags,
        list,
        info,
        2,
        4,
        0,
        1,
        2,
        3,
        Session.GO,
        0,
        0,
        0,
        0,
        0,
        0,
        13);
    options("abort", 0, 0, flags, 1);
    options("each-option-once", 0, 0, flags, 3, 4, 7, 8, 0, 0, 9, 0, 0, 10, 7, 8, 0, 1, 1, 1);
    options("export-name-unknown", 0, 0, flags, 0, 3);
    options("export-name-after-extended-headers", 0, 0, flags, 10, 0, 0);
    options(
        "names-that-are-none",
        0,
        0,
        flags,
        info,
        5,
        0,
        info,
        6,
        0,
        info,
        7,
        0,
        info,
        8,
        1,
        0,
        info,
        9,
        2,
        0);
    options(
        "all-at-once",
        0,
        0,
        flags,
        list | AT_ONCE,
        info | AT_ONCE,
        0,
        0,
        7 | AT_ONCE,
        Session.GO | AT_ONCE,
        0,
        0,
        AT_ONCE,
        0,
        0,
        0);
    options(
        "damaged-lengths",
        0,
        0,
        flags,
        info | DAMAGED,
        0,
        1,
        255,
        0,
        0,
        0,
        1,
        0,
        3,
        255,
        0,
        0,
        0,
        9);
    options(
        "selection-for-another-export", 0, 0, flags, 7, 9, 0, 1, 0, Session.GO, 2, 0, 7, 0, 0, 0);
    options(
        "failed-selection-after-a-good-one",
        0,
        0,
        flags,
        7,
        9,
        0,
        1,
        0,
        9,
        3,
        1,
        0,
        Session.GO,
        0,
        0,
        7,
        0,
        0,
        0);
    options("starttls-offered", 0, 32, flags, 4);
    options("bytes-behind-starttls", 0, 32, flags, 4, list | AT_ONCE);
    options("one-byte-at-a-time", 0, 2, flags, list, Session.GO, 0, 1, 1, 0, 0, 0, 0);
    options("read-only", 0x10, 0, flags, Session.GO, 0, 0, 1, 0, 0, 0, 7, 4, 0, 0, 0);
  }

  private void contexts() throws IOException {
    String method = "anyQueriesForContextsAreAnsweredOrRefused";
    byte[] allocation =
        Bytes.of().u32(0).u32(1).u32(15).text("base:allocation").raw((byte) 0).toArray();
    for (int format = 0; format < 2; format++) {
      for (int select = 0; select < 2; select++) {
        byte[] head = ints(0, 0, format, 10, select);
        write(
            "Handshake",
            method,
            "one-query-" + format + select,
            Bytes.of()
                .raw(ints(0, 0, format, allocation.length / 4))
                .raw(allocation)
                .raw((byte) select)
                .toArray());
        write("Handshake", method, "empty-" + format + select, head);
      }
    }
    write(
        "Handshake",
        method,
        "all-kinds",
        ints(0, 0, 0, 0x40, 0, 9, 0, 1, 2, 3, 4, 5, 2, 65, 66, 6, 7, 8, 1, 0));
    write(
        "Handshake",
        method,
        "too-many",
        ints(0, 0, 0, 0x41, 0, 2, 0, 255, 255, 255, 255, 255, 0, 0, 1, 0, 0));
    write(
        "Handshake",
        method,
        "overrun",
        ints(0, 0, 0, 0x41, 0, 1, 0, 0, 0, 255, 255, 255, 255, 255, 1));
    write("Handshake", method, "queries-of-4096", ints(0, 0, 1, 0x40, 0, 3, 8, 0, 8, 1, 8, 2, 0));
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
    write("Handshake", method, "client-hello", whole);
    write(
        "Handshake",
        method,
        "two-client-hellos",
        Bytes.of().raw(whole).u16(hello.length).raw(hello).toArray());
    byte[] half = java.util.Arrays.copyOf(hello, hello.length / 2);
    write(
        "Handshake",
        method,
        "half-a-client-hello",
        Bytes.of().raw((byte) 2).u16(half.length).raw(half).toArray());
    write(
        "Handshake",
        method,
        "plaintext",
        Bytes.of().raw((byte) 0).u16(16).raw(option(3)).toArray());
    write("Handshake", method, "alert", ints(0, 0, 7, 21, 3, 3, 0, 2, 2, 40));
    write("Handshake", method, "long-record", ints(1, 0, 5, 22, 3, 1, 255, 255));
  }

  private void requests(String name, int... decisions) throws IOException {
    write("Transmission", "everyRequestGetsItsSimpleReply", name, ints(decisions));
    int[] more = new int[decisions.length + 1];
    System.arraycopy(decisions, 0, more, 0, 2);
    System.arraycopy(decisions, 2, more, 3, decisions.length - 2);
    write("Transmission", "everyRequestGetsItsChunks", name, ints(more));
    write("Transmission", "everyRequestGetsItsExtendedChunks", name, ints(more));
  }

  /** What a request's first byte is for a command. */
  private static int of(int command) {
    return command == 2 ? 13 : command;
  }

  private void requests() throws IOException {
    for (int setup = 0; setup < 0x60; setup += 0x10) {
      for (int how = 0; how < 4; how++) {
        requests(
            "every-command-%02x-%d".formatted(setup + how, how),
            setup + how,
            how,
            of(1),
            0,
            3,
            1,
            0,
            7,
            of(0),
            0,
            3,
            1,
            0,
            of(3),
            0,
            0,
            11,
            of(4),
            FUA,
            3,
            1,
            0,
            of(5),
            0,
            3,
            1,
            0,
            of(6),
            2,
            3,
            2,
            6,
            3,
            of(7),
            0,
            0,
            4,
            of(7),
            REQ_ONE,
            0,
            4,
            of(0),
            DF,
            0,
            4,
            of(2));
      }
    }
    for (int length = 0; length < 12; length++) {
      int[] all = new int[2 + 7 * 11 * 6];
      int at = 2;
      for (int command : new int[] {0, 1, 4, 5, 6, 7}) {
        for (int offset : new int[] {0, 4, 6, 7}) {
          all[at++] = of(command);
          all[at++] = 0;
          all[at++] = offset;
          for (int i = 0; i < (offset == 7 ? 8 : offset == 0 ? 0 : 1); i++) {
            all[at++] = offset == 7 ? 255 : 1;
          }
          all[at++] = length;
          for (int i = 0; i < 2; i++) {
            all[at++] = 2;
          }
        }
      }
      requests("lengths-%d".formatted(length), java.util.Arrays.copyOf(all, at));
    }
    for (int bit = 0; bit < 6; bit++) {
      int flag = 1 << bit;
      requests(
          "flag-%d-on-everything".formatted(bit),
          0,
          0,
          of(0),
          flag,
          0,
          0,
          of(1),
          flag,
          0,
          0,
          5,
          of(3),
          flag,
          0,
          11,
          of(4),
          flag,
          0,
          0,
          of(5),
          flag,
          0,
          0,
          of(6),
          flag,
          0,
          0,
          of(7),
          flag,
          0,
          0,
          of(0),
          0,
          0,
          0);
    }
    requests("fast-zero-CVE-like-nbdkit-1.32", 0, 0, of(6), FAST_ZERO, 0, 4, of(0), 0, 0, 4);
    requests("refused-write-then-read", 0, 0, of(1), 0, 6, 9, 0, 1, of(0), 0, 0, 0);
    requests("oversize-write-then-read", 8, 0, of(1), 0, 0, 7, 4, 1, of(0), 0, 0, 0);
    requests(
        "status-of-a-fragmented-export-CVE-2025-47711",
        8,
        0,
        of(1),
        0,
        8,
        1,
        0,
        7,
        of(1),
        0,
        8,
        3,
        0,
        7,
        of(1),
        0,
        8,
        5,
        0,
        7,
        of(7),
        0,
        0,
        4);
    requests(
        "pipelined",
        0x20,
        0,
        of(1),
        0,
        0,
        4,
        1,
        of(0) | AT_ONCE,
        0,
        0,
        4,
        of(4) | AT_ONCE,
        0,
        0,
        6,
        9,
        of(1) | AT_ONCE,
        0,
        1,
        0,
        9,
        6,
        3,
        2,
        of(3) | AT_ONCE,
        0,
        0,
        11,
        of(2) | AT_ONCE);
    requests(
        "without-memory",
        0x28,
        1,
        of(1),
        0,
        0,
        7,
        1,
        3,
        of(0) | AT_ONCE,
        0,
        0,
        7,
        1,
        of(0),
        0,
        0,
        4);
    requests(
        "hasty-and-gone",
        0x20,
        16,
        of(1),
        0,
        0,
        4,
        1,
        of(0),
        0,
        0,
        4,
        of(4),
        0,
        0,
        4,
        of(3),
        0,
        0,
        11);
    requests(
        "far",
        0x40,
        0,
        of(1),
        0,
        0,
        4,
        1,
        of(1) | AT_ONCE,
        FUA,
        1,
        0,
        9,
        0,
        3,
        of(0),
        0,
        0,
        4,
        of(2));
    requests("unknown-command", 0, 0, 8, 0, 99, 0, 0, 0, of(0), 0, 0, 0);
    requests("garbage", 0, 0, 9, 40, 1, 2, 3, 4);
    requests("option-in-transmission", 0, 0, 10, 3);
    requests("status-payload", 0, 0, 11, 4, 0, 12, 12, 1, 2, 3, 0, 11, 0, 0, of(7), 0, 0, 4);
    requests("status-payload-without-context-CVE-like-qemu-10.0", 0, 0, 11, 0, 0);
    requests("empty-export", 12, 0, of(0), 0, 0, 11, of(0), 0, 0, 0, of(7), 0, 0, 11);
    requests("one-byte-at-a-time", 0, 2, of(1), 0, 0, 0, 1, of(0), 0, 0, 0, of(2));
    requests("polled", 0x20, 8, of(1), 0, 0, 4, 1, of(0), 0, 0, 4, of(2));
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
    byte[] unsupported = reply(11, 0x80000001, "no".getBytes(UTF_8));
    byte[] data = new byte[10];
    Bytes simple = greeting(8 + 3).raw(export).raw(name).raw(text).raw(sizes).raw(reply(7, 1));
    simple.u32(0x67446698).u32(0).u64(1).raw(data);
    write("Client", handshake, "simple", simple.toArray());
    Bytes chunked = greeting(8).raw(unsupported).raw(reply(8, 1)).raw(context).raw(reply(10, 1));
    chunked.raw(export).raw(reply(7, 1));
    chunked.u32(0x668e33ef).u16(1).u16(1).u64(1).u32(18).u64(0).raw(data);
    write("Client", handshake, "structured", chunked.toArray());
    Bytes wide = greeting(8).raw(reply(11, 1)).raw(context).raw(reply(10, 1));
    wide.raw(export).raw(reply(7, 1));
    wide.u32(0x6e8a278c).u16(1).u16(1).u64(1).u64(0).u64(18).u64(0).raw(data);
    write("Client", handshake, "extended", wide.toArray());
    Bytes byName = greeting(8 + 3).raw(reply(7, 0x80000001)).u64(1 << 20).u16(1);
    write("Client", handshake, "export-name", byName.toArray());
    write(
        "Client",
        handshake,
        "list",
        greeting(0).raw(listed).raw(listed).raw(reply(3, 1)).toArray());
    write("Client", handshake, "list-refused", greeting(0).raw(reply(3, 0x80000002)).toArray());
    byte[] all = reply(9, 4, Bytes.of().u32(0).text("qemu:allocation-depth").toArray());
    write(
        "Client",
        handshake,
        "contexts",
        greeting(4).raw(reply(11, 1)).raw(all).raw(reply(9, 1)).toArray());
    write(
        "Client",
        handshake,
        "oldstyle",
        Bytes.of().raw((byte) 8).text("NBDMAGIC").u64(0x420281861253L).u64(0).toArray());
    for (String method :
        new String[] {
          "simpleRepliesAreBelievedIfTheyMayBe",
          "chunksAreBelievedIfTheyMayBe",
          "extendedChunksAreBelievedIfTheyMayBe"
        }) {
      write(
          "Client",
          method,
          "honest",
          ints(0, 0, 0, 0, 0, 1, 0, 0, 5, 3, 0, 0, 1, 0, 0, 4, 0, 0, 0, 0, 0, 5, 0, 0, 1, 0, 0));
      write(
          "Client",
          method,
          "split",
          ints(1, 0, 0, 0, 0, 255, 255, 0, 5, 0, 6, 0, 7, 0, 8, 3, 0, 0, 255, 0, 0, 0, 0));
      write(
          "Client",
          method,
          "pieces-and-holes",
          ints(0, 0, 0, 0, 0, 64, 0, 2, 16, 0, 4, 0, 9, 4, 0, 0, 8, 0, 0, 1, 0, 2));
      write(
          "Client",
          method,
          "error",
          ints(0, 0, 0, 0, 0, 1, 0, 0x45, 0, 5, 104, 101, 108, 108, 111, 4, 0, 0, 0, 0));
      write(
          "Client",
          method,
          "extents",
          ints(0, 0, 7, 0, 0, 255, 255, 3, 6, 3, 16, 0, 1, 16, 0, 2, 0, 1, 0, 0));
      write(
          "Client",
          method,
          "extents-behind-the-range",
          ints(0, 0, 7, 0, 0, 0, 10, 3, 6, 3, 16, 0, 1, 16, 0, 2, 0, 1, 0, 0));
      for (int step = 5; step < 12; step++) {
        write(
            "Client",
            method,
            "step-" + step,
            ints(0, 0, 0, 0, 0, 16, 0, step, 0, 1, 0, 0, 20, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 0));
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
    String[] values = {
      "0",
      "1",
      "512K",
      "1m",
      "9223372036854775807",
      "8192P",
      "8191P",
      "10ms",
      "5s",
      "2h",
      "1e9",
      "-1",
      "0.5:EIO",
      "1:nope",
      "NaN",
      "-0",
      " 1",
      "١"
    };
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
