package nbd.protocol;

/** The magic numbers by which each side recognizes the messages of the other one. */
public final class Magic {
  /** Opens the server's greeting: "NBDMAGIC". */
  public static final long GREETING = 0x4e42444d41474943L;

  /** Follows the greeting, and opens each option that a client sends: "IHAVEOPT". */
  public static final long OPTION = 0x49484156454f5054L;

  /** Opens each reply to an option. */
  public static final long OPTION_REPLY = 0x0003e889045565a9L;

  /** Opens each request of the transmission phase. */
  public static final int REQUEST = 0x25609513;

  /** Opens each simple reply. */
  public static final int SIMPLE_REPLY = 0x67446698;

  /** Opens each chunk of a structured reply. */
  public static final int STRUCTURED_REPLY = 0x668e33ef;

  /** Opens each request with an extended header. */
  public static final int EXTENDED_REQUEST = 0x21e41c71;

  /** Opens each chunk of a reply with an extended header. */
  public static final int EXTENDED_REPLY = 0x6e8a278c;

  private Magic() {}
}
