/** What the tests share: a client that speaks bytes, fake storage, fake channels, recorded logs. */
package nbd.testing;
