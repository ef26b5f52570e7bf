package nbd.tls;

import java.nio.ByteBuffer;
import java.security.GeneralSecurityException;
import java.security.InvalidKeyException;
import java.security.KeyFactory;
import java.security.NoSuchAlgorithmException;
import java.security.PrivateKey;
import java.security.PublicKey;
import java.security.Signature;
import java.security.SignatureException;
import java.security.spec.InvalidKeySpecException;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.List;
import nbd.tls.Der.Value;
import nbd.tls.PemFile.Block;

/**
 * A reader of private keys in the formats that openssl and certtool write. The JDK reads PKCS#8
 * only; the older formats of RSA (PKCS#1, RFC 8017) and elliptic curves (SEC1, RFC 5915) are put
 * into it.
 */
final class PrivateKeys {
  private static final String PKCS8 = "PRIVATE KEY";
  private static final String PKCS1 = "RSA PRIVATE KEY";
  private static final String SEC1 = "EC PRIVATE KEY";

  private static final List<String> ALGORITHMS = List.of("RSA", "EC", "EdDSA", "RSASSA-PSS");

  private static final byte[] ZERO = Der.value(Der.INTEGER, new byte[1]);

  /** 1.2.840.113549.1.1.1, without parameters. */
  private static final byte[] RSA =
      Der.value(
          Der.SEQUENCE,
          Der.value(
              Der.OBJECT_IDENTIFIER,
              new byte[] {0x2a, (byte) 0x86, 0x48, (byte) 0x86, (byte) 0xf7, 0x0d, 1, 1, 1}),
          Der.value(Der.NULL));

  /** 1.2.840.10045.2.1; the curve's identifier follows. */
  private static final byte[] EC =
      Der.value(
          Der.OBJECT_IDENTIFIER, new byte[] {0x2a, (byte) 0x86, 0x48, (byte) 0xce, 0x3d, 2, 1});

  /** The tag of the curve in SEC1. */
  private static final int CURVE_TAG = 0xa0;

  private PrivateKeys() {}

  /**
   * Reads the first private key of a file.
   *
   * @throws CertificateFileException if there is none, or it cannot be used
   */
  static PrivateKey in(PemFile file) throws CertificateFileException {
    for (Block block : file.blocks()) {
      if (block.label().endsWith(PKCS8)) {
        return key(file, block);
      }
    }
    throw new CertificateFileException(file.path(), "there is no private key in it");
  }

  private static PrivateKey key(PemFile file, Block block) throws CertificateFileException {
    if (block.encrypted()) {
      throw new CertificateFileException(
          file.path(),
          "the private key is encrypted, which is not supported; decrypt it with"
              + " openssl pkey -in FILE -out FILE");
    }
    try {
      return switch (block.label()) {
        case PKCS8 -> decode(file, block.der());
        case PKCS1 -> decode(file, fromPkcs1(block.der()));
        case SEC1 -> decode(file, fromSec1(block.der()));
        default ->
            throw new CertificateFileException(
                file.path(),
                "a private key of the kind \"" + block.label() + "\" is not supported");
      };
    } catch (IllegalArgumentException damaged) {
      throw new CertificateFileException(
          file.path(), "the private key is damaged: " + damaged.getMessage(), damaged);
    }
  }

  private static byte[] fromPkcs1(byte[] der) {
    return Der.value(Der.SEQUENCE, ZERO, RSA, Der.value(Der.OCTET_STRING, der));
  }

  private static byte[] fromSec1(byte[] der) {
    byte[] algorithm = Der.value(Der.SEQUENCE, EC, curve(der));
    return Der.value(Der.SEQUENCE, ZERO, algorithm, Der.value(Der.OCTET_STRING, der));
  }

  private static byte[] curve(byte[] sec1) {
    ByteBuffer content = Der.next(ByteBuffer.wrap(sec1)).content();
    while (content.hasRemaining()) {
      Value part = Der.next(content);
      if (part.tag() == CURVE_TAG) {
        byte[] curve = new byte[part.content().remaining()];
        part.content().get(curve);
        return curve;
      }
    }
    throw new IllegalArgumentException("it does not say which curve it is on");
  }

  private static PrivateKey decode(PemFile file, byte[] pkcs8) throws CertificateFileException {
    PKCS8EncodedKeySpec spec = new PKCS8EncodedKeySpec(pkcs8);
    GeneralSecurityException why = new InvalidKeySpecException("no algorithm");
    for (String algorithm : ALGORITHMS) {
      try {
        return KeyFactory.getInstance(algorithm).generatePrivate(spec);
      } catch (InvalidKeySpecException | NoSuchAlgorithmException other) {
        why = other;
      }
    }
    throw new CertificateFileException(
        file.path(), "the private key is damaged, or of a kind that Java does not know", why);
  }

  /** Checks that the public key verifies a signature of the private key. */
  static boolean areAPair(PrivateKey secret, PublicKey known) throws GeneralSecurityException {
    String algorithm =
        switch (secret.getAlgorithm()) {
          case "RSA" -> "SHA256withRSA";
          case "EC" -> "SHA256withECDSA";
          case "EdDSA" -> "EdDSA";
          default -> "";
        };
    if (algorithm.isEmpty()) {
      // RSASSA-PSS needs parameters that are not known here: the handshake finds out.
      return true;
    }
    byte[] text = {1, 2, 3};
    try {
      Signature signing = Signature.getInstance(algorithm);
      signing.initSign(secret);
      signing.update(text);
      byte[] signature = signing.sign();
      Signature verifying = Signature.getInstance(algorithm);
      verifying.initVerify(known);
      verifying.update(text);
      return verifying.verify(signature);
    } catch (InvalidKeyException | SignatureException otherKind) {
      return false;
    }
  }
}
