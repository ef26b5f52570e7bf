/** The parts that tests share: a client that speaks bytes, fake storage, fake channels, logs. */
package nbd.testing;
