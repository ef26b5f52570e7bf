package nbd.tls;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.CRL;
import java.security.cert.CRLException;
import java.security.cert.CertPathBuilder;
import java.security.cert.CertStore;
import java.security.cert.CertificateException;
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
 * A directory of certificates, with the file names of nbdkit, qemu and libnbd. What it makes was
 * read from the files at that moment, and does not follow them.
 *
 * @param path of the directory
 */
record CertificateDirectory(Path path) {
  private static final String CA = "ca-cert.pem";
  private static final String REVOKED = "ca-crl.pem";

  /** Who the two sides are to each other. */
  enum Side {
    /** Its files are server-cert.pem and server-key.pem. */
    SERVER("server"),
    /** Its files are client-cert.pem and client-key.pem. */
    CLIENT("client");

    private final String prefix;

    Side(String prefix) {
      this.prefix = prefix;
    }
  }

  /**
   * A server's context: its own certificate, and the authority whose clients it takes.
   *
   * @param verifyPeer whether the authority is needed
   * @throws CertificateFileException if a file is missing or cannot be used
   */
  SSLContext forServer(boolean verifyPeer) throws CertificateFileException {
    return context(
        identity(Side.SERVER), verifyPeer ? authority(path.resolve(CA)) : new TrustManager[0]);
  }

  /**
   * A client's context: its certificate if it has one, and the authority whose servers it takes, by
   * default those that the JDK trusts.
   *
   * @param verifyPeer whether the server has to prove who it is
   * @throws CertificateFileException if the directory is missing, or a file in it cannot be used
   */
  SSLContext forClient(boolean verifyPeer) throws CertificateFileException {
    if (!Files.isDirectory(path)) {
      throw new CertificateFileException(path, "is not a directory");
    }
    KeyManager[] identity =
        Files.exists(certificate(Side.CLIENT)) || Files.exists(key(Side.CLIENT))
            ? identity(Side.CLIENT)
            : new KeyManager[0];
    Path authority = path.resolve(CA);
    if (!verifyPeer) {
      return context(identity, new TrustManager[] {new TrustEverybody()});
    }
    return context(identity, Files.exists(authority) ? authority(authority) : null);
  }

  /** A client's context without a directory: whom the JDK trusts. */
  static SSLContext none(boolean verifyPeer) {
    return context(
        new KeyManager[0], verifyPeer ? null : new TrustManager[] {new TrustEverybody()});
  }

  /**
   * Makes a context.
   *
   * @param trust null for those whom the JDK trusts
   */
  private static SSLContext context(KeyManager[] identity, TrustManager @Nullable [] trust) {
    try {
      SSLContext context = SSLContext.getInstance("TLS");
      context.init(identity, trust, null);
      return context;
    } catch (GeneralSecurityException impossible) {
      throw new IllegalStateException(impossible);
    }
  }

  private Path certificate(Side side) {
    return path.resolve(side.prefix + "-cert.pem");
  }

  private Path key(Side side) {
    return path.resolve(side.prefix + "-key.pem");
  }

  private KeyManager[] identity(Side side) throws CertificateFileException {
    Path file = certificate(side);
    List<X509Certificate> chain = certificates(file);
    PemFile keyFile = PemFile.read(key(side));
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
        refuseRevoked(parameters, revocations(revoked));
      } else {
        parameters.setRevocationEnabled(false);
      }
      TrustManagerFactory factory = TrustManagerFactory.getInstance("PKIX");
      factory.init(new CertPathTrustManagerParameters(parameters));
      X509ExtendedTrustManager verifier = (X509ExtendedTrustManager) factory.getTrustManagers()[0];
      return new TrustManager[] {new UnnamedAuthorities(verifier)};
    } catch (GeneralSecurityException failure) {
      throw new CertificateFileException(file, "cannot be used: " + failure.getMessage(), failure);
    }
  }

  /** By the lists in the file only: nothing is asked over the network. */
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
    List<X509Certificate> certificates = new ArrayList<>();
    for (Block block : PemFile.read(file).all(PemFile.CERTIFICATE)) {
      try {
        certificates.add(
            (X509Certificate) factory().generateCertificate(new ByteArrayInputStream(block.der())));
      } catch (CertificateException damaged) {
        throw new CertificateFileException(
            file, "a certificate in it is damaged: " + damaged.getMessage(), damaged);
      }
    }
    if (certificates.isEmpty()) {
      throw new CertificateFileException(file, "there is no certificate in it");
    }
    return certificates;
  }

  private static List<CRL> revocations(Path file) throws CertificateFileException {
    List<CRL> lists = new ArrayList<>();
    for (Block block : PemFile.read(file).all(PemFile.CRL)) {
      try {
        lists.add(factory().generateCRL(new ByteArrayInputStream(block.der())));
      } catch (CRLException | CertificateException damaged) {
        throw new CertificateFileException(
            file, "a list of revoked certificates is damaged: " + damaged.getMessage(), damaged);
      }
    }
    if (lists.isEmpty()) {
      throw new CertificateFileException(file, "there is no list of revoked certificates in it");
    }
    return lists;
  }

  private static CertificateFactory factory() throws CertificateException {
    return CertificateFactory.getInstance("X.509");
  }
}
