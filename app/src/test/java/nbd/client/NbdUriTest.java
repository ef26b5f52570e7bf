package nbd.client;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.net.InetAddress;
import java.nio.file.Path;
import java.util.Optional;
import nbd.client.Endpoint.Tcp;
import nbd.client.Endpoint.Unix;
import nbd.client.NbdUri.TlsParameters;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** The reading and writing of NBD URIs. */
final class NbdUriTest {
  @ParameterizedTest
  @CsvSource({
    "nbd://localhost, localhost, 10809, ''",
    "nbd://localhost/, localhost, 10809, ''",
    "NBD://Localhost/Disk, Localhost, 10809, Disk",
    "nbd://h:1/x, h, 1, x",
    "nbd://h:/x, h, 10809, x",
    "nbd://h_1.example:65535/x/y, h_1.example, 65535, x/y",
    "nbd://h//abs, h, 10809, /abs",
    "nbd://h/%2Fabs%20%C3%A9%2B+, h, 10809, '/abs é++'",
    "nbd:///x, localhost, 10809, x",
    "nbd://127.0.0.1/, 127.0.0.1, 10809, ''",
    "nbd://[::1]/x, ::1, 10809, x",
    "nbd://[fe80::1%25eth0]:2/x, fe80::1%eth0, 2, x",
    "nbd://h?, h, 10809, ''",
  })
  void hostPortAndExportAreRead(String text, String host, int port, String export) {
    assertThat(NbdUri.isUri(text)).isTrue();
    assertThat(NbdUri.parse(text))
        .isEqualTo(new NbdUri(new Tcp(host, port), false, export, TlsParameters.NONE));
  }

  @ParameterizedTest
  @CsvSource({
    "nbd+unix:///?socket=/tmp/s, /tmp/s, ''",
    "nbd+unix:///disk?socket=/tmp/a%20b/%C3%A9%3F%26%23, /tmp/a b/é?&#, disk",
    "nbd+unix://?socket=s, s, ''",
    "nbd+unix:////abs?socket=a+b=c, a+b=c, /abs",
  })
  void socketsAreRead(String text, String socket, String export) {
    assertThat(NbdUri.parse(text))
        .isEqualTo(new NbdUri(new Unix(Path.of(socket)), false, export, TlsParameters.NONE));
  }

  @Test
  void parametersOfTlsAreKept() {
    NbdUri uri =
        NbdUri.parse(
            "nbds://h/x?tls-verify-peer=false&tls-certificates=/etc/p%20ki&tls-hostname=other");
    assertThat(uri)
        .isEqualTo(
            new NbdUri(
                new Tcp("h", 10_809),
                true,
                "x",
                new TlsParameters(
                    Optional.of(Path.of("/etc/p ki")), Optional.of("other"), Optional.of(false))));
    assertThat(uri)
        .hasToString(
            "nbds://h:10809/x?tls-certificates=/etc/p%20ki&tls-hostname=other"
                + "&tls-verify-peer=false");
    assertThat(NbdUri.parse(uri.toString())).isEqualTo(uri);
    NbdUri unix = NbdUri.parse("nbds+unix:///?tls-verify-peer=1&socket=s");
    assertThat(unix.tlsParameters().verifyPeer()).contains(true);
    assertThat(unix).hasToString("nbds+unix:///?socket=s&tls-verify-peer=true");
  }

  @ParameterizedTest
  @CsvSource({
    "/etc/passwd, none of nbd://",
    "http://h/, none of nbd://",
    "nbd:h:10809, none of nbd://",
    "nbd+vsock://1/, none of nbd://",
    "nbd://h/x#y, fragment",
    "nbd://h:0/, port 0",
    "nbd://h:65536/, port 65536",
    "nbd://h:port/, \"h:port\" is no host",
    "nbd://::1/, IPv6 address stands in brackets",
    "nbd://[host]/, no IPv6 address",
    "nbd://user@h/, user name",
    "nbd://h/%, %25",
    "nbd://h/%4, %25",
    "nbd://h/%g0, %25",
    "nbd://h/%0g, %25",
    "nbd://h/%ff, UTF-8",
    "nbd://h/a%00b, NUL",
    "nbd://h/?socket=x, socket is for",
    "nbd+unix:///x, socket is missing",
    "nbd+unix:///x?socket=, socket is missing",
    "nbd+unix:///x?socket=a%00b, not a file name",
    "nbd+unix://h/x?socket=s, no host",
    "nbd+unix:///x?socket=a&socket=b, twice",
    "nbds://h/?tls-psk-file=x, pre-shared keys",
    "nbds://h/?tls-username=x, pre-shared keys",
    "nbds://h/?tls-verify-peer=maybe, true or false",
    "nbd://h/?tls-certificates=/x, tls-certificates is for nbds://",
    "nbd://h/?size=1, \"size\" is not known",
  })
  void aWrongUriIsRefusedWithTheReason(String text, String reason) {
    assertThatThrownBy(() -> NbdUri.parse(text))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageStartingWith("\"" + text + "\": ")
        .hasMessageContaining(reason);
  }

  @Test
  void anExportsNameIsAsLongAsTheProtocolHasIt() {
    String longest = "x".repeat(4096);
    assertThat(NbdUri.parse("nbd://h/" + longest).exportName()).isEqualTo(longest);
    assertThatThrownBy(() -> NbdUri.parse("nbd://h/x" + longest))
        .hasMessageContaining("4097 bytes");
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "disk.img", "nbd", "nbd:", "nbd:/x", "nbdx://h", "memory:nbd://h"})
  void otherThingsAreNoUris(String text) {
    assertThat(NbdUri.isUri(text)).isFalse();
  }

  @Test
  void urisNameAnAddressThatClientsReach() throws IOException {
    InetAddress four = InetAddress.getByAddress(new byte[] {10, 0, 0, 1});
    assertThat(NbdUri.tcp(four, 1, "")).hasToString("nbd://10.0.0.1:1/");
    InetAddress all = InetAddress.getByName("0.0.0.0");
    assertThat(NbdUri.tcp(all, 10_809, "disk")).hasToString("nbd://127.0.0.1:10809/disk");
    InetAddress all6 = InetAddress.getByName("::");
    assertThat(NbdUri.tcp(all6, 5, "").toString()).matches("nbd://\\[[0:]+1]:5/");
    InetAddress six = InetAddress.getByName("fe80::1");
    assertThat(NbdUri.tcp(six, 5, "x").toString()).matches("nbd://\\[fe80:.*1]:5/x");
  }

  @Test
  void urisEscapeWhatIsNotPlain() {
    NbdUri uri = NbdUri.unix(Path.of("/tmp/a b/é?&#.sock"), "a/b c+%");
    assertThat(uri)
        .hasToString("nbd+unix:///a%2Fb%20c%2B%25?socket=/tmp/a%20b/%C3%A9%3F%26%23.sock");
    assertThat(NbdUri.parse(uri.toString())).isEqualTo(uri);
    assertThat(NbdUri.unix(Path.of("relative"), "").toString()).startsWith("nbd+unix:///?socket=/");
    NbdUri scoped = NbdUri.parse("nbd://[fe80::1%25eth0]:2/x");
    assertThat(scoped).hasToString("nbd://[fe80::1%25eth0]:2/x");
  }
}
