package nbd.protocol;

/**
 * A set of {@link CommandFlag}, as the bits on the wire. All sets of defined flags exist once, so
 * that a request allocates none.
 *
 * @param bits unsigned 16 bits; undefined ones are kept, so that they can be refused
 */
public record CommandFlags(int bits) {
  private static final CommandFlags[] DEFINED = new CommandFlags[1 << CommandFlag.values().length];

  static {
    for (int bits = 0; bits < DEFINED.length; bits++) {
      DEFINED[bits] = new CommandFlags(bits);
    }
  }

  /** No flag. */
  public static final CommandFlags NONE = of(0);

  public static CommandFlags of(int bits) {
    return bits >= 0 && bits < DEFINED.length ? DEFINED[bits] : new CommandFlags(bits);
  }

  public static CommandFlags of(CommandFlag flag) {
    return of(flag.bit());
  }

  public boolean has(CommandFlag flag) {
    return (bits & flag.bit()) != 0;
  }

  public CommandFlags with(CommandFlag flag) {
    return of(bits | flag.bit());
  }

  public CommandFlags without(CommandFlag flag) {
    return of(bits & ~flag.bit());
  }

  /** Says whether every flag of this set is in the other one, too. */
  public boolean within(CommandFlags others) {
    return (bits & ~others.bits) == 0;
  }
}
