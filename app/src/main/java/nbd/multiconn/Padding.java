package nbd.multiconn;

/**
 * Unused bytes before the fields of a subclass, which keep these fields off the cache lines of the
 * object before: the virtual machine lays out a superclass's fields first. There are 128 of them,
 * since processors fetch lines in pairs, and 4 for the gap after an object's header, where a
 * subclass's field would be put otherwise.
 */
@SuppressWarnings("unused")
abstract class Padding {
  private int afterHeader;
  private long p00;
  private long p01;
  private long p02;
  private long p03;
  private long p04;
  private long p05;
  private long p06;
  private long p07;
  private long p08;
  private long p09;
  private long p10;
  private long p11;
  private long p12;
  private long p13;
  private long p14;
  private long p15;
}
