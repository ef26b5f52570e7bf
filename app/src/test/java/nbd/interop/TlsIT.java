package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import nbd.testing.Bytes;
import nbd.testing.Eventually;
import nbd.testing.RawClient;
import nbd.testing.TestCertificates;
import nbd.tls.TlsClient;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** TLS with common clients and servers. */
@Timeout(300)
final class TlsIT {
  private static final int SIZE = 24 << 20;
  private static final String GOOD = TestCertificates.GOOD.toString();

  @TempDir private Path directory;
  private Path image;
  private Path disk;
  private Path copy;
  private String socket;

  @BeforeEach
  void create() throws IOException {
    image = Files.write(directory.resolve("image"), Bytes.random(31, SIZE));
    disk = Files.write(directory.resolve("disk.img"), new byte[SIZE]);
    copy = directory.resolve("copy");
    socket = directory.resolve("socket").toString();
  }

  private ServeProcess serve(boolean tcp, String... more) throws Exception {
    List<String> arguments = new ArrayList<>(List.of("--tls-certificates=" + GOOD));
    arguments.addAll(List.of(more));
    arguments.addAll(tcp ? List.of("-p", "0") : List.of("-U", socket));
    arguments.add(disk.toString());
    return ServeProcess.ready(arguments.toArray(String[]::new));
  }

  private static String with(String uri, Path certificates) {
    String parameter = "tls-certificates=" + certificates;
    return uri + (uri.contains("?") ? "&" : "?") + parameter;
  }

  private static Tools.Result info(String uri) throws Exception {
    return Tools.run("nbdinfo", "--size", uri);
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void nbdcopyCopiesBothWays(boolean tcp) throws Exception {
    Tools.need("nbdcopy");
    try (ServeProcess serve = serve(tcp, "--tls=require", "--tls-verify-peer")) {
      assertThat(serve.uri()).startsWith("nbds");
      String uri = with(serve.uri(), TestCertificates.GOOD);
      Tools.run("nbdcopy", "--flush", "--connections=4", image.toString(), uri).ok();
      Tools.run("nbdcopy", "--connections=4", "--request-size=262144", uri, copy.toString()).ok();
      assertThat(Files.mismatch(image, copy)).isEqualTo(-1);
      assertThat(Files.mismatch(image, disk)).isEqualTo(-1);
      serve.stopQuietly();
    }
  }

  @Test
  void qemuConvertsBothWays() throws Exception {
    Tools.need("qemu-img");
    try (ServeProcess serve = serve(true, "--tls=require", "--tls-verify-peer")) {
      int port = ((InetSocketAddress) serve.address()).getPort();
      String credentials = "tls-creds-x509,id=tls,endpoint=client,dir=" + GOOD;
      String there = "driver=nbd,host=localhost,port=" + port + ",tls-creds=tls";
      Tools.run(
              "qemu-img",
              "convert",
              "-n",
              "--object",
              credentials,
              "-f",
              "raw",
              "--target-image-opts",
              image.toString(),
              there)
          .ok();
      Tools.run(
              "qemu-img",
              "convert",
              "--object",
              credentials,
              "--image-opts",
              there,
              "-O",
              "raw",
              copy.toString())
          .ok();
      assertThat(Files.mismatch(image, copy)).isEqualTo(-1);
      serve.stopQuietly();
    }
  }

  @Test
  void nbdshReadsWhatItWroteOnAnotherConnection() throws Exception {
    Tools.need("nbdsh");
    try (ServeProcess serve = serve(true, "--tls=require")) {
      Tools.run(
              "nbdsh",
              "-c",
              """
              a = nbd.NBD()
              b = nbd.NBD()
              for one in a, b:
                  one.set_uri_allow_local_file(True)
                  one.connect_uri("%s")
              assert a.get_tls_negotiated()
              data = bytes(range(256)) * 8192
              a.pwrite(data, 54321)
              a.flush()
              assert b.pread(len(data), 54321) == data
              b.trim(4096, 0)
              b.zero(100, 54321, nbd.CMD_FLAG_FUA)
              assert a.pread(100, 54321) == bytes(100)
              a.shutdown()
              b.shutdown()
              """
                  .formatted(with(serve.uri(), TestCertificates.GOOD)))
          .ok();
      serve.stopQuietly();
    }
  }

  @ParameterizedTest
  @CsvSource({"on,0,0", "require,1,0", "off,0,1"})
  void theModeDecidesWhoIsServed(String mode, int plain, int secure) throws Exception {
    Tools.need("nbdinfo");
    try (ServeProcess serve =
        mode.equals("off")
            ? ServeProcess.ready("--tls=off", "-U", socket, disk.toString())
            : serve(false, "--tls=" + mode)) {
      Tools.Result without = info("nbd+unix:///?socket=" + socket);
      assertThat(without.status()).as(without.err()).isEqualTo(plain);
      Tools.Result inside = info("nbds+unix:///?socket=" + socket + "&tls-certificates=" + GOOD);
      assertThat(inside.status()).as(inside.err()).isEqualTo(secure);
      serve.stopQuietly();
    }
  }

  @Test
  void clientsNeedTheRightCertificateWhereTheyAreVerified() throws Exception {
    Tools.need("nbdinfo");
    try (ServeProcess serve = serve(false, "--tls-verify-peer", "--tls=require")) {
      info(with(serve.uri(), TestCertificates.GOOD)).ok();
      Path[] wrong = {
        TestCertificates.OTHER, TestCertificates.REVOKED, TestCertificates.EXPIRED,
      };
      for (Path certificates : wrong) {
        String uri = with(serve.uri(), certificates) + "&tls-verify-peer=false";
        assertThat(info(uri).status()).as("%s", certificates).isEqualTo(1);
      }
      info(with(serve.uri(), TestCertificates.GOOD)).ok();
      serve.awaitLines(wrong.length);
      serve.stop();
      assertThat(serve.err()).hasLineCount(wrong.length).contains("revoked", "NotAfter");
      assertThat(serve.err().lines()).allMatch(line -> line.contains("TLS failed"));
    }
  }

  @Test
  void aClientThatDoesNotTrustTheServerSaysSoAndTheServerLogsIt() throws Exception {
    Tools.need("nbdinfo");
    try (ServeProcess serve = serve(true, "--tls=require")) {
      assertThat(info(with(serve.uri(), TestCertificates.OTHER)).status()).isEqualTo(1);
      serve.awaitLines(1);
      serve.stop();
      assertThat(serve.err()).hasLineCount(1).contains("TLS failed");
    }
  }

  @Test
  void certificatesAreReadAgainOnHangUpWhileAConnectionGoesOn() throws Exception {
    Path own = Files.createDirectory(directory.resolve("own"));
    try (var files = Files.list(TestCertificates.GOOD)) {
      for (Path file : files.toList()) {
        Files.copy(file, own.resolve(file.getFileName()));
      }
    }
    Path list = own.resolve("ca-crl.pem");
    Files.delete(list);
    TlsClient revoked = TlsClient.load(Optional.of(TestCertificates.REVOKED), true);
    try (ServeProcess serve =
        ServeProcess.ready(
            "--tls=require",
            "--tls-verify-peer",
            "--tls-certificates=" + own,
            "-U",
            socket,
            disk.toString())) {
      try (RawClient client = RawClient.connect(serve.address())) {
        enter(client, revoked);
        client.write(0, (byte) 1);

        Files.copy(TestCertificates.GOOD.resolve("ca-crl.pem"), list);
        serve.signal("HUP");
        Eventually.isTrue("it is logged", () -> serve.said("read again"));
        client.write(1, Bytes.random(1, 1 << 20)).flush();
        try (RawClient late = RawClient.connect(serve.address())) {
          assertThatThrownBy(() -> enter(late, revoked)).isInstanceOf(IOException.class);
        }

        Files.writeString(list, "nothing");
        serve.signal("HUP");
        Eventually.isTrue("it is logged", () -> serve.said("stay as they were"));
        assertThat(serve.err()).contains(list.toString());
        try (RawClient good = RawClient.connect(serve.address());
            RawClient late = RawClient.connect(serve.address())) {
          enter(good, TlsClient.load(Optional.of(TestCertificates.GOOD), true));
          good.disconnect();
          assertThatThrownBy(() -> enter(late, revoked)).isInstanceOf(IOException.class);
        }
        assertThat(client.read(0, 1)).containsExactly(1);
        client.disconnect();
      }
      serve.stop();
    }
  }

  private static void enter(RawClient client, TlsClient tls) throws IOException {
    client.hello(3).startTls(plain -> tls.client(plain, ""));
    client.option(RawClient.GO, RawClient.infoData(""));
    client.expectInfos(RawClient.GO);
  }

  @Test
  void theCommandThatRunsFindsTheCertificates() throws Exception {
    Tools.need("nbdinfo");
    Tools.Result result =
        ServeProcess.run(
            "--tls=require",
            "--tls-certificates=" + GOOD,
            "--run",
            "nbdinfo --is tls \"$uri\" && nbdinfo --size \"$uri\"",
            "null:5M");
    assertThat(result.status()).as(result.err()).isZero();
    assertThat(result.out()).isEqualTo("5242880\n");
  }

  @Test
  void certificatesThatCannotBeUsedAreStatusOneAndOneLine() throws Exception {
    assertThat(ServeProcess.refusal("--tls-certificates=" + directory, "-p", "0", "null:1M"))
        .contains("server-cert.pem: does not exist");
  }

  @Test
  void anotherServerOfOursIsServedOverTls() throws Exception {
    Files.copy(image, disk, java.nio.file.StandardCopyOption.REPLACE_EXISTING);
    try (ServeProcess upstream = serve(true, "--tls=require", "--tls-verify-peer")) {
      isServed(with(upstream.uri(), TestCertificates.GOOD));
      upstream.stopQuietly();
    }
  }

  @Test
  void nbdkitIsServedOverTls() throws Exception {
    Tools.need("nbdkit");
    Files.copy(image, disk, java.nio.file.StandardCopyOption.REPLACE_EXISTING);
    try (UpstreamProcess nbdkit =
        UpstreamProcess.nbdkit(
            directory,
            "--tls=require",
            "--tls-verify-peer",
            "--tls-certificates=" + GOOD,
            "file",
            disk.toString())) {
      isServed(with(nbdkit.uri().replaceFirst("nbd", "nbds"), TestCertificates.GOOD));
    }
  }

  /** Copies from and to another server through this one. */
  private void isServed(String upstream) throws Exception {
    Tools.need("nbdcopy");
    try (ServeProcess serve = ServeProcess.ready("-U", socket, upstream)) {
      Tools.run("nbdcopy", "--connections=4", serve.uri(), copy.toString()).ok();
      assertThat(Files.mismatch(image, copy)).isEqualTo(-1);
      Path other = Files.write(directory.resolve("other"), Bytes.random(32, SIZE));
      Tools.run("nbdcopy", "--flush", "--connections=4", other.toString(), serve.uri()).ok();
      assertThat(Files.mismatch(other, disk)).isEqualTo(-1);
      serve.stopQuietly();
    }
  }

  @Test
  void anotherServerThatIsNotWhoItShouldBeIsRefusedAndTheLogSaysWhy() throws Exception {
    try (ServeProcess upstream = serve(true, "--tls=require");
        ServeProcess serve =
            ServeProcess.ready("-U", socket, with(upstream.uri(), TestCertificates.OTHER));
        RawClient client = RawClient.connect(serve.address())) {
      client.hello(3).option(RawClient.GO, RawClient.infoData(""));
      RawClient.Reply refusal = client.reply(RawClient.GO);
      assertThat(refusal.type()).isNegative();
      assertThat(RawClient.text(refusal)).contains("the server's log says why");
      Eventually.isTrue("the log says why", () -> serve.said("TLS handshake failed"));
      assertThat(serve.err()).contains("certificat");
    }
  }

  /** Both sides accept the certificates that the manual's commands make. */
  @Test
  void theCertificatesOfTheManualWork() throws Exception {
    Tools.need("openssl", "nbdinfo");
    String manual = Files.readString(Path.of("../man/nbd-multiconn.adoc"));
    String commands =
        manual
            .substring(manual.indexOf("----\nmkdir pki") + 5)
            .replaceFirst("(?s)\n----\n.*", "\n");
    Tools.run("sh", "-ec", "cd '" + directory + "'\n" + commands).ok();
    Path pki = directory.resolve("pki");
    try (ServeProcess serve =
        ServeProcess.ready(
            "--tls=require",
            "--tls-verify-peer",
            "--tls-certificates=" + pki,
            "-p",
            "0",
            "null:1M")) {
      info(with(serve.uri(), pki)).ok();
      serve.stopQuietly();
    }
  }
}
