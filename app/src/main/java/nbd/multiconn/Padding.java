package nbd.multiconn;

/**
 * Keeps the fields of a subclass off the cache lines of the object before it; the virtual machine
 * lays a superclass's fields out first. 128 bytes, since processors fetch lines in pairs.
 */
@SuppressWarnings("unused")
abstract class Padding {
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
