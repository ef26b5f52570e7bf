package nbd.tls;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.CRL;
import java.security.cert.CertPathBuilder;
import java.security.cert.CertStore;
import java.security.cert.CertificateFactory;
import java.security.cert.CollectionCertStoreParameters;
import java.security.cert.PKIXBuilderParameters;
import java.security.cert.PKIXRevocationChecker;
import java.security.cert.TrustAnchor;
import java.security.cert.X509CertSelector;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import javax.net.ssl.CertPathTrustManagerParameters;
import javax.net.ssl.KeyManager;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManager;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509ExtendedTrustManager;
import nbd.tls.PemFile.Block;
import org.jspecify.annotations.Nullable;

/**
 * A directory of certificates, with the file names of nbdkit, qemu and libnbd. Each context has
 * what the files contain when it is made, and does not follow later changes.
 *
 * @param path of the directory
 */
record CertificateDirectory(Path path) {
  private static final String CA = "ca-cert.pem";
  private static final String REVOKED = "ca-crl.pem";

  /**
   * Makes a server's context: server-cert.pem with server-key.pem, and the authority whose clients
   * are accepted.
   *
   * @param verifyPeer whether clients need a certificate of the authority
   * @throws CertificateFileException if a file is missing or cannot be used
   */
  SSLContext forServer(boolean verifyPeer) throws CertificateFileException {
    return context(
        identity("server"), verifyPeer ? authority(path.resolve(CA)) : new TrustManager[0]);
  }

  /**
   * Makes a client's context: client-cert.pem with client-key.pem, if they are there, and the
   * authority whose servers are accepted, by default those that the JDK trusts.
   *
   * @param verifyPeer whether the server's certificate is verified
   * @throws CertificateFileException if the directory is missing, or a file in it cannot be used
   */
  SSLContext forClient(boolean verifyPeer) throws CertificateFileException {
    if (!Files.isDirectory(path)) {
      throw new CertificateFileException(path, "is not a directory");
    }
    boolean identified =
        Files.exists(path.resolve("client-cert.pem"))
            || Files.exists(path.resolve("client-key.pem"));
    Path authority = path.resolve(CA);
    return context(
        identified ? identity("client") : new KeyManager[0],
        verifyPeer && Files.exists(authority) ? authority(authority) : defaultTrust(verifyPeer));
  }

  /** Makes the context of a client without a directory. */
  static SSLContext none(boolean verifyPeer) {
    return context(new KeyManager[0], defaultTrust(verifyPeer));
  }

  /** Trusts whom the JDK trusts, which null means, or everybody. */
  private static TrustManager @Nullable [] defaultTrust(boolean verifyPeer) {
    return verifyPeer ? null : new TrustManager[] {new PeerVerifier(Optional.empty())};
  }

  private static SSLContext context(KeyManager[] identity, TrustManager @Nullable [] trust) {
    try {
      SSLContext context = SSLContext.getInstance("TLS");
      context.init(identity, trust, null);
      return context;
    } catch (GeneralSecurityException impossible) {
      throw new IllegalStateException(impossible);
    }
  }

  private KeyManager[] identity(String side) throws CertificateFileException {
    Path file = path.resolve(side + "-cert.pem");
    List<X509Certificate> chain = certificates(file);
    PemFile keyFile = PemFile.read(path.resolve(side + "-key.pem"));
    PrivateKey key = PrivateKeys.in(keyFile);
    try {
      if (!PrivateKeys.areAPair(key, chain.getFirst().getPublicKey())) {
        throw new CertificateFileException(
            keyFile.path(), "is not the key of the first certificate in " + file.getFileName());
      }
      KeyStore store = KeyStore.getInstance("PKCS12");
      store.load(null, null);
      store.setKeyEntry("own", key, new char[0], chain.toArray(X509Certificate[]::new));
      KeyManagerFactory factory =
          KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
      factory.init(store, new char[0]);
      return factory.getKeyManagers();
    } catch (CertificateFileException unusable) {
      throw unusable;
    } catch (GeneralSecurityException | IOException failure) {
      throw new CertificateFileException(file, "cannot be used: " + failure.getMessage(), failure);
    }
  }

  private TrustManager[] authority(Path file) throws CertificateFileException {
    Set<TrustAnchor> anchors = new HashSet<>();
    for (X509Certificate certificate : certificates(file)) {
      anchors.add(new TrustAnchor(certificate, null));
    }
    try {
      PKIXBuilderParameters parameters = new PKIXBuilderParameters(anchors, new X509CertSelector());
      Path revoked = path.resolve(REVOKED);
      if (Files.exists(revoked)) {
        refuseRevoked(
            parameters,
            all(
                revoked,
                PemFile.CRL,
                "list of revoked certificates",
                CertificateFactory::generateCRL));
      } else {
        parameters.setRevocationEnabled(false);
      }
      TrustManagerFactory factory = TrustManagerFactory.getInstance("PKIX");
      factory.init(new CertPathTrustManagerParameters(parameters));
      X509ExtendedTrustManager verifier = (X509ExtendedTrustManager) factory.getTrustManagers()[0];
      return new TrustManager[] {new PeerVerifier(Optional.of(verifier))};
    } catch (GeneralSecurityException failure) {
      throw new CertificateFileException(file, "cannot be used: " + failure.getMessage(), failure);
    }
  }

  /** Refuses the certificates in the lists. The JDK asks nothing over the network for that. */
  private static void refuseRevoked(PKIXBuilderParameters parameters, List<CRL> lists)
      throws GeneralSecurityException {
    PKIXRevocationChecker checker =
        (PKIXRevocationChecker) CertPathBuilder.getInstance("PKIX").getRevocationChecker();
    checker.setOptions(
        EnumSet.of(
            PKIXRevocationChecker.Option.PREFER_CRLS, PKIXRevocationChecker.Option.NO_FALLBACK));
    parameters.addCertPathChecker(checker);
    parameters.addCertStore(
        CertStore.getInstance("Collection", new CollectionCertStoreParameters(lists)));
  }

  private static List<X509Certificate> certificates(Path file) throws CertificateFileException {
    return all(
        file,
        PemFile.CERTIFICATE,
        "certificate",
        (factory, der) -> (X509Certificate) factory.generateCertificate(der));
  }

  /** Decodes one block. */
  @FunctionalInterface
  private interface Decoder<T> {
    T decode(CertificateFactory factory, InputStream der) throws GeneralSecurityException;
  }

  private static <T> List<T> all(Path file, String label, String kind, Decoder<T> decoder)
      throws CertificateFileException {
    List<T> all = new ArrayList<>();
    for (Block block : PemFile.read(file).all(label)) {
      try {
        all.add(
            decoder.decode(
                CertificateFactory.getInstance("X.509"), new ByteArrayInputStream(block.der())));
      } catch (GeneralSecurityException damaged) {
        throw new CertificateFileException(
            file, "a %s in it is damaged: %s".formatted(kind, damaged.getMessage()), damaged);
      }
    }
    if (all.isEmpty()) {
      throw new CertificateFileException(file, "there is no %s in it".formatted(kind));
    }
    return all;
  }
}
